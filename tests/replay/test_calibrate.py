"""Calibration: limits from recorded runs, honest about what it does not know."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from math import comb
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentbudget as ab
from agentbudget.errors import ConfigurationError
from agentbudget.replay.bounds import upper_bound
from agentbudget.replay.importers.build import Attempt, closed, opened
from agentbudget.replay.runs import Run
from agentbudget.trace.events import CallDenied, Event

CENT = 10_000_000


def run(number: int, cents: list[int], *, ok: bool | None, name: str = "ticket", tag: str = "") -> Iterator[Event]:
    """A run of model calls that cost *cents* each."""
    task = f"{name}-{number}"
    yield opened(task, name, 0.0, {"graded": tag} if tag else {})
    for step, cost in enumerate(cents):
        yield from Attempt(
            id=f"{task}-{step}", task=task, kind="model", name="m", at=float(step), cost=cost * CENT
        ).events()
    yield from closed(task, float(len(cents)), cost=sum(cents) * CENT, ok=ok)


def runs(ok: int, failed: int) -> Iterator[Event]:
    """Successes of 1 to 10 cents; failures of 40."""
    for number in range(ok):
        yield from run(number, [1] * (number % 10 + 1), ok=True)
    for number in range(failed):
        yield from run(ok + number, [1] * 40, ok=False)


@given(hits=st.integers(0, 60), more=st.integers(1, 60))
def test_the_upper_bound_is_the_share_at_which_so_few_hits_are_a_one_in_twenty_chance(hits: int, more: int) -> None:
    trials = hits + more
    bound = upper_bound(hits, trials)
    chance = sum(comb(trials, k) * bound**k * (1 - bound) ** (trials - k) for k in range(hits + 1))
    assert bound > hits / trials
    assert chance == pytest.approx(0.05, rel=1e-6)


def test_no_hit_in_n_trials_is_the_rule_of_three() -> None:
    assert upper_bound(0, 300) == pytest.approx(3 / 300, rel=0.01)
    assert upper_bound(5, 5) == upper_bound(0, 0) == 1.0


def test_too_few_successes_promise_nothing() -> None:
    found = ab.calibrate(runs(29, 30))
    assert found.options == ()
    assert found.suggested == {}
    assert "29 successful runs are too few" in str(found)


def test_each_option_says_what_it_halts_and_what_it_saves() -> None:
    found = ab.calibrate(runs(100, 10))
    top = {option.level: option for option in found.options if option.meter == "max_cost"}
    assert top["max"].limit == Decimal("0.1")
    assert top["p90"].limit == Decimal("0.09")
    assert (top["max"].halted, top["max"].halted_held_out) == (0, 0)
    assert top["p90"].halted == 10
    assert top["max"].saved == 10 * Decimal("0.3")
    assert top["max"].saved_share == pytest.approx(0.75)
    assert top["max"].halted_at_most == upper_bound(0, 100)


def test_a_limit_is_suggested_only_where_its_upper_bound_allows_it() -> None:
    assert ab.calibrate(runs(100, 10)).suggested["ticket"]["max_cost"] == Decimal("0.1")
    assert ab.calibrate(runs(40, 10)).suggested == {}, "0 of 40 may still be 7 %"
    assert ab.calibrate(runs(40, 10), false_halts=0.08).suggested["ticket"]["max_model_calls"] == 10


def test_false_halts_are_counted_on_runs_the_limit_was_not_chosen_from() -> None:
    events = [*runs(99, 5), *run(500, [1] * 30, ok=True)]
    top = next(o for o in ab.calibrate(iter(events)).options if (o.meter, o.level) == ("max_cost", "max"))
    assert (top.halted, top.halted_held_out) == (0, 1), "the dearest success is always halted when it is held out"


def test_kinds_of_tasks_are_apart() -> None:
    events = [*runs(40, 0), *(event for number in range(40) for event in run(number, [50], ok=True, name="report"))]
    found = ab.calibrate(iter(events), false_halts=0.1).suggested
    assert (found["ticket"]["max_cost"], found["report"]["max_cost"]) == (Decimal("0.1"), Decimal("0.5"))


def test_success_may_come_from_a_tag_a_mapping_or_a_function() -> None:
    def graded() -> Iterator[Event]:
        for number in range(60):
            yield from run(number, [1], ok=None, tag="yes" if number < 40 else "no")

    def cheap(found: Run) -> bool:
        return int(found.id.split("-")[1]) < 40

    by_id = {f"ticket-{number}": number < 40 for number in range(60)}
    for success in ("graded", by_id, cheap):
        (kind,) = ab.calibrate(graded(), success=success).kinds
        assert (kind.successes, kind.failures, kind.unknown) == (40, 20, 0)
    (kind,) = ab.calibrate(graded()).kinds
    assert (kind.successes, kind.unknown) == (0, 60)


def test_runs_that_a_limit_ended_are_left_out() -> None:
    denied = CallDenied(at=1.0, call="x", tasks=("ticket-1",), kind="model", name="m", stop={"limit": "max_cost"})
    first = [*run(1, [1], ok=True)]
    (kind,) = ab.calibrate(iter([*first[:-2], denied, *first[-2:]])).kinds
    assert (kind.successes, kind.cut) == (0, 1)


@pytest.mark.parametrize("share", [0, 1, True, "5 %"])
def test_a_share_that_means_nothing_is_refused(share: float) -> None:
    with pytest.raises(ConfigurationError):
        ab.calibrate(iter([]), false_halts=share)


def test_recorded_coding_agents_show_the_published_picture(trajectories: Path) -> None:
    found = ab.calibrate(trajectories / "mini_swe_agent_gemini3pro_swebench_verified.jsonl.gz", success="success")
    cost = {option.level: option for option in found.options if option.meter == "max_cost"}
    assert 0.5 < cost["p95"].limit < 1.5
    assert 1 < cost["p99"].limit < 2
    assert 0.03 < cost["p95"].halted_share < 0.07
    assert 0 < cost["p99"].halted_share < 0.03
    shares = [cost[level].saved_share or 0.0 for level in ("p95", "p99", "max")]
    assert shares == sorted(shares, reverse=True), "a tighter ceiling saves more"
    assert shares[1] > 0.02, "a ceiling at the successes' p99 saves what rules against exact repeats do not"
    assert cost["max"].halted == 0
    assert cost["max"].halted_at_most > 0, "none in sample is no promise"
