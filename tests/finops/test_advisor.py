"""Each lever against what the same tokens cost by hand, and what must be there before one is recommended."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbudget.domain.usage import Usage
from agentbudget.errors import ConfigurationError
from agentbudget.finops.advisor import Advice, Lever, Machine, Options, Saving, advise
from agentbudget.finops.advisor.evidence import least_difference
from agentbudget.finops.compact import compact
from agentbudget.pricing.book import PriceBook
from agentbudget.pricing.selfhosted import SelfHosted
from agentbudget.trace.events import CallReserved, CallSettled, Event, OutcomeRecorded, Signed, TraceOpened
from tests.finops.traces import DAY, START, closed, opened, write

TODAY = date(2026, 11, 22)
BOOK = PriceBook()


def priced(model: str, usage: dict[str, int], provider: str = "openai", tier: str | None = None) -> int:
    """Nano-dollars of *usage* at list price."""
    return BOOK.rates(model, provider=provider, tier=tier, on=TODAY).cost(Usage(**usage))


def called(call: str, task: str, at: float, model: str, usage: dict[str, int], **changes: Any) -> list[Event]:
    """A model call at its list price; *changes* are of its end, but `request` and `messages` of its beginning."""
    provider = "anthropic" if model.startswith("claude") else "openai"
    asked = {"request": changes.pop("request", ""), "messages": changes.pop("messages", 3)}
    common: dict[str, Any] = {"call": call, "tasks": (task,), "kind": "model", "name": model}
    ref = BOOK.rates(model, provider=provider, on=TODAY).ref.to_dict()
    fields = {"outcome": "ok", "cost": priced(model, usage, provider), "usage": usage, "price": ref, **changes}
    return [
        CallReserved(at=at, provider=provider, **asked, **common),
        CallSettled(at=at + 1, seconds=1.0, **common, **fields),
    ]


def run(task: str, at: float, model: str, *, name: str = "job", ok: bool | None = None, **usage: int) -> list[Event]:
    """A task of one call."""
    counts = usage or {"input_tokens": 1000, "output_tokens": 100}
    told: list[Event] = [] if ok is None else [OutcomeRecorded(at=at + 3, task=task, outcome="judged", ok=ok)]
    head = opened(task, at=at, name=name)[1:]
    return [*head, *called(f"{task}-c", task, at, model, counts), *told, *closed(task, at=at + 4)]


def folder(tmp_path: Path, *parts: list[Event], key: str = "k1") -> Path:
    """A folder with one trace file of all *parts*."""
    header = TraceOpened(at=START, schema=1, version="0", key_id=key)
    write(tmp_path / "traces" / "a.jsonl", [header, *(event for part in parts for event in part)])
    return tmp_path / "traces"


def judged(model: str, ok: int, failed: int, start: float = START) -> Iterator[list[Event]]:
    """So many successes and failures of *model*, an hour apart."""
    for number in range(ok + failed):
        yield run(f"{model}-{number}", start + 3600 * number, model, ok=number < ok)


def of(advice: Advice, kind: str) -> list[Lever]:
    return [lever for lever in advice.levers if lever.kind == kind]


def told(path: Path, options: Options | None = None, **more: Any) -> Advice:
    return advise(path, options, today=TODAY, least_share=0, **more)


# -- cheaper models


def test_a_cheaper_model_with_as_many_successes_is_recommended_at_its_price(tmp_path: Path) -> None:
    where = folder(tmp_path, *judged("gpt-4o", 79, 1), *judged("gpt-4o-mini", 80, 0))
    (lever,) = of(told(where), "model")
    usage = {"input_tokens": 1000, "output_tokens": 100}
    assert lever.saving.expected == 80 * (priced("gpt-4o", usage) - priced("gpt-4o-mini", usage))
    assert lever.saving.low == lever.saving.high == lever.saving.expected, "one vocabulary, and its own tasks cost that"
    assert lever.confidence == "estimate"
    assert "gpt-4o-mini 80 of 80 (100%)" in lever.reason
    assert "gpt-4o=openai:gpt-4o-mini" in lever.verify


@pytest.mark.parametrize(("ok", "failed", "why"), [(29, 0, "29 judged runs"), (60, 20, "may be worse")])
def test_a_model_whose_success_is_not_shown_is_not_recommended(tmp_path: Path, ok: int, failed: int, why: str) -> None:
    where = folder(tmp_path, *judged("gpt-4o", 80, 0), *judged("gpt-4o-mini", ok, failed))
    advice = told(where, Options(margin=0.15))
    assert not of(advice, "model")
    assert any("not recommended: gpt-4o-mini" in note and why in note for note in advice.notes)


def test_success_may_be_a_tag(tmp_path: Path) -> None:
    runs = []
    for model in ("gpt-4o", "gpt-4o-mini"):
        for number in range(60):
            task, at = f"{model}-{number}", START + 60 * number
            usage = {"input_tokens": 1000, "output_tokens": 100}
            runs.append([*opened(task, at=at, solved="Yes")[1:], *called(f"{task}-c", task, at, model, usage)])
    where = folder(tmp_path, *runs)
    assert not of(told(where), "model")
    (lever,) = of(told(where, Options(success="solved", margin=0.1)), "model")
    assert "60 of 60" in lever.reason


def test_without_outcomes_and_without_a_ladder_no_model_is_recommended(tmp_path: Path) -> None:
    advice = told(folder(tmp_path, run("a", START, "gpt-4o"), run("b", START, "gpt-4o-mini")))
    assert not of(advice, "model")
    assert any("none is recommended" in note for note in advice.notes)


def test_what_its_own_tasks_cost_widens_the_range(tmp_path: Path) -> None:
    wordy = [run(f"m{n}", START + n, "gpt-4o-mini", ok=True, input_tokens=9000, output_tokens=900) for n in range(80)]
    (lever,) = of(told(folder(tmp_path, *judged("gpt-4o", 79, 1), *wordy)), "model")
    once = priced("gpt-4o-mini", {"input_tokens": 1000, "output_tokens": 100})
    assert lever.saving.expected - lever.saving.low == 80 * 8 * once


def test_a_model_the_user_names_is_an_upper_bound_with_the_tokenizers_range(tmp_path: Path) -> None:
    where = folder(tmp_path, run("a", START, "gpt-4o"))
    (lever,) = of(told(where, Options(ladder=("anthropic:claude-haiku-4-5", "openai:gpt-5"))), "model")
    usage = {"input_tokens": 1000, "output_tokens": 100}
    before, after = priced("gpt-4o", usage), priced("claude-haiku-4-5", usage, "anthropic")
    assert (lever.confidence, lever.saving.low, lever.saving.expected) == ("upper bound", 0, before - after)
    assert lever.saving.high > lever.saving.expected
    assert lever.title == "every task: claude-haiku-4-5 instead of gpt-4o", "the rung that saves most"


def test_the_bound_on_a_difference_of_rates_is_the_published_one() -> None:
    # Newcombe (1998), table II: 56/70 - 48/80, method 10: 0.0524 to 0.3339 at 95 % two-sided.
    assert least_difference(56, 70, 48, 80, z=1.959964) == pytest.approx(0.0524, abs=5e-5)
    assert -least_difference(48, 80, 56, 70, z=1.959964) == pytest.approx(0.3339, abs=5e-5)
    with pytest.raises(ValueError, match="from 0"):
        least_difference(3, 2, 0, 1)


# -- prompt caching


def conversation(model: str, *inputs: int, gap: float = 10.0, **counts: int) -> list[Event]:
    """A task of calls with so many input tokens each."""
    events = opened("t")[1:]
    for number, tokens in enumerate(inputs):
        usage = {"input_tokens": tokens, "output_tokens": 50, **counts}
        events += called(f"c{number}", "t", START + gap * number, model, usage)
    return events


def test_a_stable_prefix_is_read_and_what_is_new_is_written(tmp_path: Path) -> None:
    (lever,) = of(told(folder(tmp_path, conversation("claude-sonnet-4-5", 10_000, 12_000, 15_000))), "caching")
    fresh = 3_000 * (10_000 + 12_000 + 15_000)
    cached = 3_750 * (10_000 + 2_000 + 3_000) + 300 * (10_000 + 12_000)
    assert lever.saving == Saving(low=0, expected=fresh - cached, high=fresh - cached)
    assert lever.confidence == "upper bound"
    assert "22,000 input tokens" in lever.computed
    assert "15,000 written" in lever.computed


def test_writes_cost_nothing_where_the_provider_charges_none(tmp_path: Path) -> None:
    (lever,) = of(told(folder(tmp_path, conversation("gpt-4o", 10_000, 12_000))), "caching")
    assert lever.saving.expected == 10_000 * (2_500 - 1_250)


@pytest.mark.parametrize(
    ("why", "inputs", "options"),
    [
        ("nothing reads what one call would write", (10_000,), {}),
        ("the prefix is shorter than any provider caches", (900, 1_000), {}),
        ("the prefix is gone after five minutes", (10_000, 12_000), {"gap": 400.0}),
        ("a context that shrank has another beginning", (12_000, 10_000), {}),
        ("it is read from the cache already", (10_000, 12_000), {"cache_read_tokens": 10_000}),
    ],
)
def test_caching_that_saves_nothing_is_not_advised(
    tmp_path: Path, why: str, inputs: tuple[int, ...], options: dict[str, Any]
) -> None:
    assert not of(told(folder(tmp_path, conversation("claude-sonnet-4-5", *inputs, **options))), "caching"), why


# -- batches


def test_tasks_that_can_wait_are_priced_from_the_batch_tier(tmp_path: Path) -> None:
    where = folder(tmp_path, run("a", START, "gpt-5", name="nightly"), run("b", START, "gpt-5", name="chat"))
    (lever,) = of(told(where, Options(can_wait=("nightly",))), "batch")
    usage = {"input_tokens": 1000, "output_tokens": 100}
    assert lever.saving == Saving.exactly(priced("gpt-5", usage) - priced("gpt-5", usage, tier="batch"))
    assert lever.confidence == "exact"


def test_cached_tokens_may_lose_their_discount_in_a_batch(tmp_path: Path) -> None:
    usage = {"input_tokens": 9200, "output_tokens": 350, "cache_read_tokens": 8000}
    where = folder(tmp_path, [*opened("a", name="nightly")[1:], *called("c", "a", START, "gpt-5", usage)])
    (lever,) = of(told(where, Options(can_wait=("nightly",))), "batch")
    before = priced("gpt-5", usage)
    cold = priced("gpt-5", {**usage, "cache_read_tokens": 0}, tier="batch")
    assert lever.saving == Saving.between(before - priced("gpt-5", usage, tier="batch"), before - cold)
    assert lever.confidence == "estimate"


def test_what_has_no_batch_price_is_said_with_its_share(tmp_path: Path) -> None:
    where = folder(tmp_path, run("a", START, "gpt-5", name="nightly"), run("b", START, "gpt-4-32k", name="nightly"))
    advice = told(where, Options(can_wait=("nightly", "unknown")))
    assert any("of all) of 'nightly' is with models that have no batch price" in note for note in advice.notes)
    assert any("called 'unknown'" in note for note in advice.notes)


def test_nobody_is_told_to_wait(tmp_path: Path) -> None:
    advice = told(folder(tmp_path, run("a", START, "gpt-5")))
    assert not of(advice, "batch")
    assert any("--can-wait" in note for note in advice.notes)


# -- repetitions, retries, loops


def test_calls_that_were_asked_before_are_counted_behind_the_first(tmp_path: Path) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 100}
    one = priced("gpt-4o", usage)
    events = opened("t")[1:]
    for number, at in enumerate((0.0, 60.0, 2 * DAY)):
        events += called(f"c{number}", "t", START + at, "gpt-4o", usage, request="h")
    events += called("longer", "t", START + 70, "gpt-4o", {**usage, "input_tokens": 1001}, request="h")
    events += called("failed", "t", START + 80, "gpt-4o", usage, request="h", outcome="error")
    other = [*opened("o", name="other")[1:], *called("x", "o", START + 90, "gpt-4o", usage, request="h")]
    (lever,) = of(told(folder(tmp_path, events, other)), "repeats")
    assert lever.saving == Saving(low=one, expected=one, high=2 * one), "an hour, and ever"
    assert "2 calls of gpt-4o" in lever.title


def test_keys_of_hashes_are_told_where_they_cannot_be_compared(tmp_path: Path) -> None:
    folder(tmp_path, run("a", START, "gpt-4o"))
    write(tmp_path / "traces" / "b.jsonl", [TraceOpened(at=START, schema=1, version="0", key_id="k2")])
    assert any("under 2 keys" in note for note in told(tmp_path / "traces").notes)


def test_thrown_away_attempts_are_an_upper_bound_of_all_they_cost(tmp_path: Path) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 100}
    events = [*opened("t")[1:], *called("c", "t", START, "gpt-4o", usage, wasted=True, outcome="error")]
    events += called("d", "t", START + 5, "gpt-4o", usage)
    (lever,) = of(told(folder(tmp_path, events)), "retries")
    assert lever.saving == Saving.up_to(priced("gpt-4o", usage))


def looping(task: str, rounds: int, *, ok: bool | None) -> list[Event]:
    """A task that calls one tool again and again with one result, thinking in between."""
    signed = (Signed(b"c" * 8, b"t" * 8, b"r" * 8),)
    events = opened(task)[1:]
    for number in range(rounds):
        at = START + 10 * number
        events += called(f"{task}-m{number}", task, at, "gpt-4o", {"input_tokens": 900 - number, "output_tokens": 9})
        common: dict[str, Any] = {"call": f"{task}-t{number}", "tasks": (task,), "kind": "tool", "name": "look"}
        events += [
            CallReserved(at=at + 2, **common),
            CallSettled(at=at + 3, outcome="ok", signed=signed, source="none", **common),
        ]
    told = [] if ok is None else [OutcomeRecorded(at=START + 900, task=task, outcome="judged", ok=ok)]
    return [*events, *told, *closed(task, at=START + 901)]


def test_spend_behind_the_halt_of_the_loop_rules_is_a_lever_and_halted_successes_are_told(tmp_path: Path) -> None:
    where = folder(tmp_path, looping("bad", 40, ok=False), looping("good", 2, ok=True))
    (lever,) = of(told(where), "loops")
    assert 0 < lever.saving.expected < told(where).recorded
    assert "of 1 successful runs 0 would have been halted" in lever.reason
    (worse,) = of(told(folder(tmp_path, looping("bad", 40, ok=False), looping("good", 40, ok=True))), "loops")
    assert "of 1 successful runs 1 would have been halted" in worse.reason
    assert worse.saving.low < lever.saving.low, "what a halted success had spent is lost"


def test_an_archive_says_that_loops_and_ceilings_need_the_traces(tmp_path: Path) -> None:
    where = folder(tmp_path, looping("bad", 40, ok=False))
    compact(where, tmp_path / "archive", on_problem=lambda problem: pytest.fail(str(problem)))
    advice = told(tmp_path / "archive")
    assert not of(advice, "loops")
    assert any("they need the traces themselves" in note for note in advice.notes)
    assert any("under different keys" in note for note in advice.notes)


# -- ceilings, context, machines


def test_a_ceiling_saves_what_failed_runs_spent_behind_it(tmp_path: Path) -> None:
    runs = [run(f"ok{n}", START + n, "gpt-4o", ok=True) for n in range(100)]
    failed = []
    for number in range(10):
        task = f"bad{number}"
        failed += opened(task)[1:]
        for step in range(10):
            usage = {"input_tokens": 900 - step, "output_tokens": 100}
            failed += called(f"{task}-{step}", task, START + step, "gpt-4o", usage)
        failed += [OutcomeRecorded(at=START + 50, task=task, outcome="bad", ok=False), *closed(task, at=START + 51)]
    (lever,) = of(told(folder(tmp_path, *runs, failed)), "ceiling")
    assert 0 < lever.saving.low < lever.saving.expected == lever.saving.high
    assert "halts 0 of 100" in lever.reason
    assert "max_model_calls 1" in lever.title


def test_too_few_successes_promise_no_ceiling(tmp_path: Path) -> None:
    advice = told(folder(tmp_path, *judged("gpt-4o", 29, 5)))
    assert not of(advice, "ceiling")
    assert any("at least 30 successful runs are needed, there are of 'job' 29" in note for note in advice.notes)


def test_results_that_stay_in_the_context_cost_what_they_are_sent_again(tmp_path: Path) -> None:
    events = opened("t")[1:]
    common: dict[str, Any] = {"call": "tool", "tasks": ("t",), "kind": "tool", "name": "search"}
    events += [CallSettled(at=START, outcome="ok", result_size=40_000, source="none", **common)]
    for number in range(3):
        usage = {"input_tokens": 12_000 + 100 * number, "output_tokens": 10}
        events += called(f"c{number}", "t", START + 1 + number, "gpt-4o", usage)
    (lever,) = of(told(folder(tmp_path, events)), "context")
    assert lever.title == "results of search that stay in the context"
    assert lever.saving.expected == 2 * 10_000 * 2_500
    assert lever.confidence == "upper bound"


def test_hours_without_a_call_count_as_hours_without_demand(tmp_path: Path) -> None:
    events = opened("t")[1:]
    for number in range(3):
        usage = {"input_tokens": 600_000, "output_tokens": 0}
        events += called(f"c{number}", "t", START + 36_000 * number, "gpt-4o", usage)
    machine = Machine(hosted=SelfHosted("gpt-4o", gpu_hour="$3", gpus=4), tokens_per_second=400)
    (lever,) = of(told(folder(tmp_path, events), Options(machines=(machine,))), "machines")
    assert "demand 0.0 tokens a second" in lever.computed
    assert lever.title == "gpt-4o: 1 instead of 4 GPUs"


def test_machines_beyond_the_measured_demand_are_idle(tmp_path: Path) -> None:
    usage = {"input_tokens": 60_000, "output_tokens": 30_000}
    runs: list[list[Event]] = []
    for number in range(12):  # 90,000 tokens in each of 12 windows of 5 minutes: 300 a second
        at = START + 300 * number
        event = called(f"c{number}", "t", at, "gpt-4o", usage)
        runs.append([*opened("t")[1:], *event] if not number else event)
    where = folder(tmp_path, *runs)
    machine = Machine(hosted=SelfHosted("gpt-4o", gpu_hour="$3", gpus=4), tokens_per_second=400, target=0.5)
    (lever,) = of(told(where, Options(machines=(machine,))), "machines")
    assert lever.title == "gpt-4o: 2 instead of 4 GPUs"
    assert lever.month == Saving.exactly(2 * 3 * 10**9 * 730)
    busy = Machine(hosted=SelfHosted("gpt-4o", gpu_hour="$3", gpus=2), tokens_per_second=400, target=0.5)
    assert any("needs its 2 GPUs" in note for note in told(where, Options(machines=(busy,))).notes)
    with pytest.raises(ConfigurationError, match="tokens_per_second=0"):
        Machine(hosted=SelfHosted("gpt-4o", gpu_hour="$3"), tokens_per_second=0)


# -- the whole


@settings(deadline=None, max_examples=15)  # an engine is opened and prices are loaded for each
@given(
    inputs=st.lists(st.integers(1, 300_000), min_size=1, max_size=6),
    model=st.sampled_from(["gpt-4o", "claude-sonnet-4-5", "gpt-5"]),
)
def test_no_lever_saves_more_than_was_spent(
    tmp_path_factory: pytest.TempPathFactory, inputs: list[int], model: str
) -> None:
    where = folder(tmp_path_factory.mktemp("t"), conversation(model, *inputs))
    advice = told(where, Options(ladder=("openai:gpt-4o-mini",), can_wait=("job",)))
    assert all(lever.saving.high <= advice.recorded for lever in advice.levers)
    assert advice.at_most <= advice.recorded
    expected = [lever.saving.expected for lever in advice.levers]
    assert expected == sorted(expected, reverse=True)


def test_levers_are_never_added_up_to_a_saving(tmp_path: Path) -> None:
    where = folder(tmp_path, conversation("gpt-4o", 10_000, 12_000))
    text = str(told(where, Options(ladder=("openai:gpt-4o-mini",), can_wait=("job",))))
    assert "Do not add them up (together at most" in text
    assert "you save" not in text.lower()
    assert all(len(line) <= 100 for line in text.splitlines() if str(where) not in line)


def test_a_month_is_the_recorded_rate_and_not_made_of_less_than_a_day(tmp_path: Path) -> None:
    events = [*conversation("gpt-4o", 10_000, 12_000), *run("late", START + 10 * DAY, "gpt-4o")]
    (lever,) = of(told(folder(tmp_path, events)), "caching")
    assert lever.month is not None
    assert lever.month.expected == pytest.approx(lever.saving.expected * 3.04375, rel=1e-3)
    (short,) = of(told(folder(tmp_path, conversation("gpt-4o", 10_000, 12_000))), "caching")
    assert short.month is None


def test_clocks_that_cannot_be_right_are_told_and_stretch_no_month(tmp_path: Path) -> None:
    events = [*conversation("gpt-4o", 10_000, 12_000), *run("early", 5.0, "gpt-4o"), *run("late", 4e9, "gpt-4o")]
    advice = told(folder(tmp_path, events))
    assert advice.days is not None
    assert advice.days < 1
    assert any("$0.0070 (11.1% of all) has times that cannot be" in note for note in advice.notes), advice.notes


def test_what_the_record_lacks_is_said_with_its_share(tmp_path: Path) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 0}
    events = opened("t", name="")[1:]
    events += called("a", "t", START, "gpt-4o", usage)
    events += called("b", "t", START + 20 * DAY, "gpt-4o", usage, priced=False, cost=0, price=None)
    events += called("c", "t", START + 20 * DAY, "gpt-4o", usage, source="estimated")
    events += called("d", "t", START + 20 * DAY, "gpt-4o", {}, cost=2_500_000)
    notes = told(folder(tmp_path, events), Options(can_wait=("x",))).notes
    for part in (
        "1 of 4 model calls have no price, with 33.3% of all tokens",
        "19 of 21 days have no call",
        "$0.0025 (33.3% of all) rests on estimated usage",
        "$0.0025 (33.3% of all) has no token counts",
        "$0.0075 (100.0% of all) has neither a name nor a feature",
        "$0.0075 (100.0% of all) is in tasks without an outcome",
    ):
        assert any(part in note for note in notes), (part, notes)


def test_small_levers_are_counted(tmp_path: Path) -> None:
    where = folder(tmp_path, conversation("gpt-4o", 2_000, 2_100), run("big", START, "gpt-4o", input_tokens=9_000_000))
    advice = advise(where, today=TODAY)
    assert not of(advice, "caching")
    assert any("more levers save less than 0.1%" in note for note in advice.notes)


def test_traces_of_others_are_read_too(tmp_path: Path) -> None:
    rows = ['{"type":"trajectory","traj_id":"t","source":"agent","success":true,"cost":0.06}']
    for number in range(2):
        row = f'"tokens_in":{10_000 + 1000 * number},"tokens_out":10,"cached":0,"cost":0.03'
        rows.append(f'{{"type":"step","traj_id":"t","step":{number},"kind":"model","name":"gpt-4o",{row}}}')
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(rows))
    advice = advise(file, today=TODAY)
    assert advice.days is None
    assert [lever.kind for lever in advice.levers] == ["caching"]
    assert advice.levers[0].month is None


@pytest.mark.parametrize("options", [{"margin": 0.0}, {"false_halts": 2}, {"ladder": "gpt-5"}, {"least_prefix": -1}])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Options(**options)


def test_what_is_exact_has_no_range() -> None:
    words = dict.fromkeys(("title", "reason", "computed", "change", "verify", "risk"), "x")
    with pytest.raises(ConfigurationError, match="no range"):
        Lever(kind="batch", confidence="exact", saving=Saving.up_to(5), month=None, **words)
    with pytest.raises(ConfigurationError, match="in this order"):
        Saving(low=2, expected=1, high=3)


def test_a_record_without_calls_has_no_advice(tmp_path: Path) -> None:
    advice = told(folder(tmp_path, opened("t")[1:]), Options(ladder=("openai:gpt-5",), can_wait=("job",)))
    assert (advice.recorded, advice.levers, advice.at_most) == (0, (), 0)
    assert "No change found" in str(advice)


def test_caching_on_recorded_runs_is_what_the_steps_say_by_hand() -> None:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "trajectories"
    file = folder / "mini_swe_agent_gemini3pro_swebench_verified.jsonl.gz"
    if not file.exists():
        pytest.skip("the recorded trajectories are not beside this checkout")
    sent, tokens = 0, 0
    with gzip.open(file, "rt") as rows:
        for row in map(json.loads, rows):
            if row["type"] == "trajectory":
                sent = 0
            elif row["kind"] == "model" and row.get("cost") and row.get("tokens_in"):
                if 1024 <= sent <= row["tokens_in"]:
                    tokens += max(0, sent - row["cached"])
                sent = row["tokens_in"]
    advice = advise(file, today=TODAY)
    (lever,) = of(advice, "caching")
    assert lever.saving.high == pytest.approx(tokens * 1_800, rel=0.02), "$2 a million fresh, $0.20 from the cache"
    assert all(each.saving.high <= advice.recorded for each in advice.levers)
    assert {each.kind for each in advice.levers} >= {"caching", "ceiling"}
