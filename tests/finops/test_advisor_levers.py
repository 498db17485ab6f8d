"""Each lever against what the same tokens cost by hand, and what must be there before one is recommended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentbudget.errors import ConfigurationError
from agentbudget.finops.advisor import Machine, Options, Saving
from agentbudget.finops.advisor.evidence import least_difference
from agentbudget.finops.compact import compact
from agentbudget.pricing.selfhosted import SelfHosted
from agentbudget.trace.events import CallSettled, Event, OutcomeRecorded, TraceOpened
from tests.finops.advised import called, conversation, folder, judged, looping, of, priced, run, told
from tests.finops.traces import DAY, START, closed, opened, write

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
