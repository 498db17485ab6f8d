"""The loop rules on recorded trajectories: what they flag, what they save, what they cost.

Reads `<repository>/../shared/data/trajectories`, or the folder that AGENTBUDGET_DATA names. Results are compared as the
recordings keep them, with digits and ids masked: stricter than the live rules, so false halts are not understated.
Run: `python benchmarks/loops.py`.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from agentbudget.domain.loops import Loops, Thresholds
from agentbudget.policies.loops import Finding, LoopWatch, Rule, Step
from agentbudget.policies.signatures import SHORT, SIZE, Signer
from agentbudget.trace.events import Signed

DATA = Path(os.environ.get("AGENTBUDGET_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
MODERN = ("mini_swe", "terminal_bench", "tau_bench", "reflexion_hotpot")
LEGACY = ("intercode",)
STEPS = 10_000
STEP_BAR = 10


@dataclass(slots=True, kw_only=True)
class Recorded:
    """One recorded run: `success` is None where nobody graded it; costs are in nano-dollars."""

    name: str
    source: str
    success: bool | None
    cost: int
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def tool_calls(self) -> int:
        return sum(step["kind"] == "tool" for step in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """What the rules said to a run: the finding, the tool calls and nano-dollars that came after it."""

    finding: Finding
    call: int
    calls_after: int
    cost_after: int


def load(folder: Path) -> list[Recorded]:
    """The recorded runs of every `*.jsonl.gz` in *folder* that called a tool."""
    runs: dict[str, Recorded] = {}
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                name = row["traj_id"]
                if row["type"] == "trajectory":
                    cost = round((row.get("cost") or 0) * 1e9)
                    runs[name] = Recorded(name=name, source=path.name, success=row["success"], cost=cost)
                else:
                    runs[name].steps.append(row)
    return [run for run in runs.values() if run.tool_calls]


def replayed(run: Recorded, loops: Loops, *, strict: bool = True) -> Iterator[tuple[int, int, Finding]]:
    """What the rules say to *run*: number of the tool call, nano-dollars by then, finding.

    *strict* takes results that differ in digits for equal, and no result for a mere acknowledgement.
    """
    watch, spent, call = LoopWatch(loops), 0, 0
    for row in run.steps:
        spent = round(row["cum_cost"] * 1e9) if row.get("cum_cost") else spent + round((row.get("cost") or 0) * 1e9)
        if row["kind"] != "tool":
            continue
        call += 1
        if row["name"] == "format_error":
            finding = watch.reply("", unparsable=True, spent=spent)
        else:
            watch.reply("", unparsable=False, spent=spent)  # the recordings have one call a reply
            finding = watch.step("", _step(row, strict=strict), spent)
        if finding is not None:
            yield call, spent, finding


def first(run: Recorded, loops: Loops, *, halt: bool, strict: bool = True) -> Flag | None:
    """The first halt, or the first flag of any kind."""
    for call, spent, finding in replayed(run, loops, strict=strict):
        if finding.halt or not halt:
            return Flag(
                finding=finding, call=call, calls_after=run.tool_calls - call, cost_after=max(0, run.cost - spent)
            )
    return None


def _step(row: dict[str, Any], *, strict: bool) -> Step:
    call = _signature(f"{row['name']} {row['args_hash']}")
    result = (row.get("result_norm_hash") if strict else None) or row["result_hash"] or ""
    brief = not strict and 0 < row["result_len"] <= SHORT and not row["error"]
    return Step(row["name"], Signed(call, call, _signature(result), brief), bool(row["error"]))


@lru_cache(maxsize=1 << 17)
def _signature(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=SIZE).digest()


def of(runs: Sequence[Recorded], sources: Sequence[str], *, success: bool) -> list[Recorded]:
    """The graded runs of some sources."""
    return [run for run in runs if run.source.startswith(tuple(sources)) and run.success is success]


def flagged(runs: Sequence[Recorded], loops: Loops, *, halt: bool, strict: bool = True) -> list[Flag]:
    """The flags of those of *runs* that have one."""
    return [flag for run in runs if (flag := first(run, loops, halt=halt, strict=strict)) is not None]


def runaway(runs: Sequence[Recorded]) -> Recorded:
    """The one recorded run known to have gone on to its money limit in circles."""
    return next(run for run in runs if run.name.endswith("lgetter:sympy__sympy-16792"))


def interval(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not total:
        return 0.0, 1.0
    z, share = 1.96, hits / total
    middle, width = (
        share + z * z / (2 * total),
        z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)),
    )
    return max(0.0, (middle - width) / (1 + z * z / total)), min(1.0, (middle + width) / (1 + z * z / total))


def shown(hits: int, total: int) -> str:
    """A share with its interval."""
    low, high = interval(hits, total)
    return f"{hits}/{total} = {hits / total if total else 0:.2%} [{low:.2%}, {high:.2%}]"


def only(rule: Rule, limits: Thresholds) -> Loops:
    """Rules of which only *rule* can halt, and none nudges."""
    return Loops(halt=Thresholds(**{rule.value: getattr(limits, rule.value)}), nudge=None)


def table(runs: Sequence[Recorded], sources: Sequence[str], title: str) -> None:
    """Precision, recall and savings of each rule and of all, first as halts, then as nudges."""
    good, bad = of(runs, sources, success=True), of(runs, sources, success=False)
    print(f"\n## {title}: {len(good)} successful, {len(bad)} failed runs, {len(good + bad)} in all\n")
    print("| rule | false (of successful) | recall (of failed) | precision | calls saved | dollars saved |")
    print("|---|---|---|---|---|---|")
    default = Loops()
    rows: list[tuple[str, Loops, bool]] = []
    for name, limits in (("halt", default.halt), ("nudge", default.nudge)):
        assert limits is not None
        rows += [(f"{name} {rule} {getattr(limits, rule.value)}", only(rule, limits), True) for rule in Rule]
        rows.append((f"**{name}: all**", default, name == "halt"))
    calls, cost = sum(run.tool_calls for run in bad), sum(run.cost for run in bad)
    for label, loops, halt in rows:
        false, hits = flagged(good, loops, halt=halt), flagged(bad, loops, halt=halt)
        saved, money = sum(flag.calls_after for flag in hits), sum(flag.cost_after for flag in hits)
        print(
            f"| {label} | {shown(len(false), len(good))} | {shown(len(hits), len(bad))} | "
            f"{shown(len(hits), len(hits) + len(false))} | {saved} of {calls} = {saved / calls:.1%} | "
            f"${money / 1e9:.2f} of ${cost / 1e9:.2f} |"
        )


def bars(runs: Sequence[Recorded]) -> list[tuple[str, bool]]:
    """Each bar with whether it is met."""
    loops = Loops()
    modern, legacy = of(runs, MODERN, success=True), of(runs, LEGACY, success=True)
    failed, away = of(runs, LEGACY, success=False), runaway(runs)
    halted, nudged = flagged(modern, loops, halt=True), flagged(modern, loops, halt=False)
    false = flagged(legacy, loops, halt=True)
    recall = flagged(failed, loops, halt=False, strict=False)
    stop = first(away, loops, halt=True)
    return [
        (f"successful modern runs halted: {shown(len(halted), len(modern))}, bar 0", not halted),
        (
            f"successful modern runs nudged: {shown(len(nudged), len(modern))}, bar 3 %",
            len(nudged) <= 0.03 * len(modern),
        ),
        (
            f"successful InterCode halted: {shown(len(false), len(legacy))}, bar 0.35 %",
            len(false) <= 0.0035 * len(legacy),
        ),
        (f"failed InterCode flagged: {shown(len(recall), len(failed))}, bar 60 %", len(recall) >= 0.6 * len(failed)),
        (
            f"the runaway: halted at call {stop.call if stop else 'never'} of {away.tool_calls}, bar half",
            stop is not None and stop.call < away.tool_calls / 2,
        ),
    ]


def cost_per_step(steps: int = STEPS) -> tuple[float, float, float]:
    """Microseconds of CPU for the rules, the rules at the end of the run, and the two signatures, for one step."""
    signer, watch = Signer(b"0" * 16), LoopWatch(Loops())
    arguments = [{"query": f"question {n}", "limit": 10} for n in range(steps)]
    results = [f"{n} results were found; the first of them says that this is page {n}." for n in range(steps)]
    begun = time.process_time()
    signed = [(signer.call("search", a), signer.result(r)) for a, r in zip(arguments, results, strict=True)]
    signing = time.process_time() - begun
    fed = [Step("search", Signed(asked.call, asked.target, said.result, said.brief)) for asked, said in signed]
    marks = []
    for n, step in enumerate(fed):
        if n in {0, steps * 9 // 10}:
            marks.append(time.process_time())
        watch.step("", step, n)
    ended = time.process_time()
    per = 1e6 / steps
    return (ended - marks[0]) * per, (ended - marks[1]) * per * 10, signing * per


def main() -> int:
    rules, late, signing = cost_per_step()
    print(f"A step at {STEPS:,} steps: rules {rules:.2f} us (last tenth {late:.2f} us), signatures {signing:.2f} us")
    missed = int(rules + signing > STEP_BAR)
    if not (DATA / "trajectories").exists():
        print(f"No recorded trajectories at {DATA}: set AGENTBUDGET_DATA.")
        return missed
    runs = load(DATA / "trajectories")
    table(runs, MODERN, "Current agents")
    table(runs, LEGACY, "InterCode, models of 2023")
    print()
    for text, met in bars(runs):
        print(f"{'met   ' if met else 'MISSED'}  {text}")
        missed += not met
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
