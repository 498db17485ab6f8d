"""How safe and how tight the estimates are: on recorded usage, and on kinds of text by real tokenizers.

    python benchmarks/estimating.py [--data DIR] [--tokenizers DIR]

`--data` is the folder of recorded trajectories (default: `shared/data` beside the checkout); without it those sections
are left out. `--tokenizers` holds vocabularies: tiktoken's own files under their cache names, and `*.json` files that
the `tokenizers` package reads (`pip install tokenizers`). Several packages ship such files; `docs/estimates.md` names
those that the published figures were measured with. Every section ends with the bar that it checks.
"""

from __future__ import annotations

import argparse
import base64
import functools
import gzip
import importlib
import itertools
import json
import os
import random
import statistics
import sys
import timeit
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentbudget.estimating import Estimator, RequestSize, Vocabulary, measure
from agentbudget.estimating.density import ORDINARY
from agentbudget.estimating.vocabulary import cached_file

ROOT = Path(__file__).resolve().parents[1]
LONG = 300
"""Characters of a text long enough to say something about its kind."""

CUT_OFF = 60_000
"""A recorded output this long is a run into the vendor's cap: no reservation helps, and it is reported apart."""

PRICES = {  # dollars per million tokens, input and output, list prices of 2026
    "gpt-5-pro": (15.0, 120.0),
    "gpt-5": (1.25, 10.0),
    "gpt-5-mini": (0.25, 2.0),
    "gpt-4o": (2.5, 10.0),
    "o3": (2.0, 8.0),
    "claude-opus-4-1": (15.0, 75.0),
    "claude-opus-4-5": (5.0, 25.0),
    "claude-sonnet-4-5": (3.0, 15.0),
    "claude-haiku-4-5": (1.0, 5.0),
    "gemini-2.5-pro": (1.25, 10.0),
}


@dataclass(frozen=True)
class Step:
    """One recorded model call: reported tokens, and the bytes that tools appended before it."""

    tokens_in: int
    tokens_out: int
    appended: int
    messages: int


def recorded(path: Path) -> list[list[Step]]:
    """The model calls of each trajectory of a file in the neutral row format."""
    runs: list[list[Step]] = []
    appended = messages = 0
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["type"] == "trajectory":
                runs.append([])
                appended = messages = 0
            elif row["kind"] == "model":
                runs[-1].append(Step(row["tokens_in"], row["tokens_out"], appended, messages))
                appended = messages = 0
            else:
                appended, messages = appended + row["result_len"], messages + 1
    return runs


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def size_of(step: Step, anchor: int | None) -> RequestSize:
    return RequestSize(
        anchor_tokens=anchor, appended_bytes=step.appended, appended_messages=step.messages, density=ORDINARY
    )


def input_bounds(runs: list[list[Step]], model: str) -> tuple[int, int, list[float]]:
    """Steps with an anchor, those whose bound was too low, and the excess of each, with one estimator for all runs."""
    estimator, low, excess = Estimator(), 0, []
    for run in runs:
        for before, step in itertools.pairwise(run):
            size = size_of(step, before.tokens_in + before.tokens_out)
            bound = estimator.input_bound(model, size)
            low += bound < step.tokens_in
            excess.append(bound / step.tokens_in - 1)
            estimator.observe_input(model, size, step.tokens_in)
    return len(excess), low, excess


@dataclass
class Outputs:
    """What the learned output bound did over recorded calls."""

    calls: int = 0
    tokens: int = 0
    overruns: list[int] = field(default_factory=list)
    at_the_cap: int = 0

    def see(self, bound: int, actual: int) -> None:
        self.calls += 1
        if actual >= CUT_OFF:
            self.at_the_cap += 1
            return
        self.tokens += actual
        if actual > bound:
            self.overruns.append(actual - bound)

    def __str__(self) -> str:
        share = sum(self.overruns) / self.tokens
        p50, p95 = (percentile(self.overruns, p) for p in (0.5, 0.95))
        return (
            f"{len(self.overruns)} of {self.calls} above the bound ({1000 * len(self.overruns) / self.calls:.0f} in "
            f"1,000), by {p50:.0f} tokens (median), {p95:.0f} (p95), {max(self.overruns)} (most): {share:.0%} of all "
            f"output tokens; {self.at_the_cap} more ran into the vendor's cap"
        )


def output_bounds(runs: list[list[Step]], model: str, *, shared: bool) -> Outputs:
    """The learned bound against recorded outputs: one estimator for all runs, or a new one for each."""
    estimator, seen = Estimator(), Outputs()
    for run in runs:
        estimator = estimator if shared else Estimator()
        for step in run:
            seen.see(estimator.output_bound(model, None), step.tokens_out)
            estimator.observe_output(model, step.tokens_out)
    return seen


def admitted(runs: list[list[Step]], model: str, *, shared: bool, budget: float = 0.50) -> tuple[int, int]:
    """Calls that *budget* dollars truly pay for in each run, and how many of them the estimates let through."""
    paid = let = 0
    estimator = Estimator()
    for run in runs:
        estimator = estimator if shared else Estimator()
        more_paid, more_let = admitted_of(run, estimator, model, budget)
        paid, let = paid + more_paid, let + more_let
    return paid, let


def admitted_of(run: list[Step], estimator: Estimator, model: str, budget: float) -> tuple[int, int]:
    per_in, per_out = (price / 1e6 for price in PRICES[model])
    paid = let = 0
    true = 0.0
    anchor: int | None = None
    going = True
    for step in run:
        cost = step.tokens_in * per_in + step.tokens_out * per_out
        if true + cost > budget or step.tokens_out >= CUT_OFF:
            break
        paid += 1
        size = size_of(step, anchor)
        # The prompts were not recorded: of a first call take what the bound of English is without a vocabulary.
        bound_in = int(1.9 * step.tokens_in) if anchor is None else estimator.input_bound(model, size)
        bound_out = estimator.output_bound(model, None)
        going = going and true + bound_in * per_in + bound_out * per_out <= budget
        let += going
        if going:
            true += cost
            estimator.observe_output(model, step.tokens_out)
            if anchor is not None:
                estimator.observe_input(model, size, step.tokens_in)
        else:
            true += cost
        anchor = step.tokens_in + step.tokens_out
    return paid, let


# --- first calls: kinds of text ---------------------------------------------------------------------------------------

Count = Callable[[str], int]


def tokenizers(folder: Path) -> dict[str, Count]:
    """Every vocabulary in *folder*, by name."""
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    vocabulary, found = Vocabulary(), {}
    for encoding in ("o200k_base", "cl100k_base"):
        count = vocabulary.wait(encoding)
        if count is not None:
            found[encoding] = count
    files = sorted(folder.glob("*.json"))
    if files:
        library = importlib.import_module("tokenizers")
        for path in files:
            tokenizer = library.Tokenizer.from_file(str(path))
            tokenizer.no_truncation()
            found[path.stem] = counter(tokenizer)
    return found


def counter(tokenizer: Any) -> Count:
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def kinds(data: Path | None) -> Iterator[tuple[str, list[str]]]:
    """Texts of many kinds: own ones in slices, generated ones, the standard library, recorded conversations."""
    rng = random.Random(20)  # noqa: S311 - sample texts, not secrets
    own = json.loads((ROOT / "tests" / "estimating" / "measured.json").read_text(encoding="utf-8"))
    for name, entry in own.items():
        text = entry["text"]
        yield name, [text[at : at + rng.randrange(120, 400)] for at in range(0, max(1, len(text) - 120), 37)] + [text]
    sources = sorted(Path(os.__file__).parent.glob("*.py"))
    yield "python, standard library", [path.read_text("utf-8")[:20_000] for path in rng.sample(sources, 60)]
    yield "base64, long", [base64.b64encode(rng.randbytes(rng.randrange(300, 9000))).decode() for _ in range(60)]
    yield "hex, long", [rng.randbytes(rng.randrange(300, 6000)).hex() for _ in range(60)]
    yield "uuids, long", ["\n".join(str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(60)) for _ in range(40)]
    if data is not None:
        with gzip.open(data / "tau_bench_airline_gpt4o.jsonl.gz", "rt", encoding="utf-8") as lines:
            runs = [json.loads(line)["messages"] for line in lines]
        tools = [m["content"] for run in runs for m in run if m["role"] == "tool" and len(m["content"] or "") > LONG]
        yield "recorded tool results", rng.sample(tools, min(300, len(tools)))
        yield "recorded conversations", ["\n".join(m["content"] or "" for m in run) for run in runs[:100]]


def model_for(tokenizer: str) -> str:
    """A model name of the family that counts with *tokenizer*, so that the family's rates are what is checked."""
    known = {"o200k_base": "gpt-5", "anthropic_tokenizer": "claude-sonnet-4-5"}
    return known.get(tokenizer, "some-model")


def first_calls(data: Path | None, counts: dict[str, Count]) -> tuple[int, int]:
    """Print the excess of the cold bound per kind of text; return calls and those that were too low."""
    calls = low = 0
    names = list(counts)
    print(f"{'kind':26} {'texts':>5}   " + "  ".join(f"{name[:17]:>17}" for name in names))
    for kind, texts in kinds(data):
        cells = []
        for name in names:
            excess = [cold(model_for(name), text) / max(1, counts[name](text)) - 1 for text in texts]
            calls, low = calls + len(excess), low + sum(e < 0 for e in excess)
            cells.append(f"{statistics.median(excess):>7.0%} {percentile(excess, 0.95):>7.0%}{flag(excess)}")
        print(f"{kind:26} {len(texts):>5}   " + "  ".join(f"{cell:>17}" for cell in cells))
    return calls, low


def flag(excess: Sequence[float]) -> str:
    return "!" if min(excess) < 0 else " "


def cold(model: str, text: str) -> int:
    """The bound of a first call without a vocabulary and without anything learned, less the constants for wrapping,
    which the count does not have."""
    size = measure([text], messages=0)
    return Estimator().input_bound(model, size) - 58


def learned(data: Path | None, counts: dict[str, Count]) -> None:
    """Print what first calls teach: after 8 of one kind, the excess on the same kind, and on every other kind."""
    texts = {kind: [t for t in some if len(t) > 4 * LONG][:40] for kind, some in kinds(data)}
    texts = {kind: some for kind, some in texts.items() if len(some) > 16}  # noqa: PLR2004 - enough to learn and test
    same: list[float] = []
    low = calls = 0
    for name, count in counts.items():
        model, tokens = model_for(name), {text: count(text) for some in texts.values() for text in some}
        for kind, some in texts.items():
            estimator = Estimator()
            for text in some[:8]:
                estimator.observe_input(model, measure([text]), tokens[text])
            for other, unseen in texts.items():
                excess = [estimator.input_bound(model, measure([t])) / tokens[t] - 1 for t in unseen[8:]]
                low, calls = low + sum(e < 0 for e in excess), calls + len(excess)
                same += excess if other == kind else []
    print(f"after 8 first calls: same kind {statistics.median(same):.0%} (median), {percentile(same, 0.95):.0%} (p95);")
    print(f"  all kinds after any other: {low} of {calls} too low")


def counted(data: Path | None) -> None:
    """The bound where a vocabulary is at hand."""
    vocabulary = Vocabulary()
    count = vocabulary.wait("o200k_base")
    if count is None:
        return
    estimator = Estimator(vocabulary=vocabulary)
    excess = []
    for _, texts in kinds(data):
        for text in (t for t in texts if len(t) > 8 * LONG):
            size = measure([text])
            excess.append(estimator.input_bound("gpt-5", size, texts=[text].copy) / count(text) - 1)
    print(f"with the vocabulary, over 2.4 kB: {statistics.median(excess):.1%} (median), {max(excess):.1%} (most)")


def hot_path() -> float:
    """Microseconds of the two bounds and the two observations of one step."""
    estimator = Estimator()
    size = RequestSize(anchor_tokens=50_000, appended_bytes=2_000, appended_messages=1, density=ORDINARY)

    def step() -> None:
        estimator.input_bound("gpt-5", size)
        estimator.output_bound("gpt-5", None)
        estimator.observe_input("gpt-5", size, 50_600)
        estimator.observe_output("gpt-5", 300)

    rounds = 20_000
    return min(timeit.repeat(step, number=rounds, repeat=5)) / rounds * 1e6


def measuring() -> None:
    line = "The quick brown fox writes def f(x): return x # and 3 more words\n"
    for size in (200, 2_000, 20_000, 1_000_000):
        texts = [(line * (size // len(line) + 1))[:size]]
        appended, first = (
            min(timeit.repeat(functools.partial(measure, texts, anchor_tokens=anchor), number=300, repeat=5))
            / 300
            * 1e6
            for anchor in (50_000, None)
        )
        print(f"measure() of {size:>9,} bytes: appended {appended:.1f} us, first call {first:.1f} us")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--tokenizers", type=Path)
    options = parser.parse_args(argv)
    data: Path | None = options.data if options.data.is_dir() else None
    missed = [] if data is None else list(on_recorded(data / "trajectories"))
    counts = tokenizers(options.tokenizers) if options.tokenizers else {}
    if counts:
        print("\nFirst calls without a vocabulary: excess of the bound, median and p95 (! = some were too low)")
        calls, low = first_calls(data, counts)
        print(f"{low} of {calls} too low")
        learned(data, counts)
    if cached_file("o200k_base"):
        counted(data)
    print(f"\nHot path: {hot_path():.2f} us for both bounds and both observations")
    measuring()
    for bar in missed:
        print(f"MISSED: {bar}")
    return bool(missed)


def on_recorded(folder: Path) -> Iterator[str]:
    """Print the sections on recorded usage; yield the bars that were missed."""
    for name, model in (
        ("mini_swe_agent_gemini3pro_swebench_verified", "gemini-3-pro-preview"),
        ("claude_code_freeideas", "claude-opus-4-5"),
    ):
        runs = recorded(folder / f"{name}.jsonl.gz")
        calls, low, excess = input_bounds(runs, model)
        print(f"\n{name}")
        print(
            f"input: {low} of {calls} bounds too low ({1000 * low / calls:.2f} in 1,000), excess "
            f"{statistics.median(excess):.1%} (median), {percentile(excess, 0.95):.1%} (p95)"
        )
        if 1000 * low > calls:
            yield f"input bounds of {name}: {low} of {calls} too low, the bar is 1 in 1,000"
        for shared in (False, True):
            kind = "one estimator for all tasks" if shared else "a new estimator for each task"
            print(f"output, {kind}: {output_bounds(runs, model, shared=shared)}")
    runs = recorded(folder / "mini_swe_agent_gemini3pro_swebench_verified.jsonl.gz")
    print("\ncalls that $0.50 pays for, and the share admitted (new process for each task | one for all)")
    for model in PRICES:
        paid, alone = admitted(runs, model, shared=False)
        _, together = admitted(runs, model, shared=True)
        print(f"  {model:18} {paid:>6} {alone / paid:>6.0%} {together / paid:>6.0%}")
        if min(alone, together) < 0.8 * paid:
            yield f"{model}: {min(alone, together)} of {paid} calls admitted, the bar is 80 %"


if __name__ == "__main__":
    sys.exit(main())
