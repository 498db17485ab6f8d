"""What a replay under other rules may claim, and what it does claim."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import agentbudget as ab
from agentbudget.domain.budget import Limit
from agentbudget.errors import ConfigurationError
from agentbudget.governor.governor import Governor
from agentbudget.governor.hold import Hold
from agentbudget.governor.values import Call, Kind, Result
from agentbudget.replay.whatif import replay
from agentbudget.testing import FakeClock

NANO = Decimal("1e-9")
FLAT = {"gpt-4o": {"input": "2.5", "output": "10", "cache_read": "1.25"}}
USED = ab.Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=400)
COST = Decimal("0.003")
"""600 x 2.5 + 400 x 1.25 + 100 x 10 dollars a million."""
HELD = Decimal("0.005")
"""500 capped output tokens; the input bound of a call without a size is 0."""


def record(
    path: Path,
    *,
    budget: ab.Budget | None = None,
    calls: int = 10,
    prices: Any = FLAT,
    limits: Sequence[Limit] = (),
    mode: str = "enforce",
    models: Sequence[str] = ("gpt-4o",),
    tags: dict[str, str] | None = None,
) -> ab.Trace:
    """A live run of *calls* model calls one after the other, each `COST`; it ends where the budget stops it."""
    clock = FakeClock()
    governor = Governor(trace=path, prices=prices, clock=clock, limits=limits, mode=mode)
    task = governor.open_task("ticket", budget or ab.Budget(), task_id="t", tags=tags)
    for number in range(calls):
        clock.advance(1)
        call = Call(id=f"c{number}", kind=Kind.MODEL, name=models[number % len(models)], cap=500)
        hold = governor.admit((task,), call)
        if isinstance(hold, Hold):
            governor.settle(hold, Result(outcome="ok", usage=USED))
    governor.close_task(task)
    governor.close()
    return ab.Trace.load(path)


def test_a_smaller_budget_stops_the_task_where_the_live_governor_would(tmp_path: Path) -> None:
    budget = ab.Budget(max_cost="$0.02")
    live = record(tmp_path / "live.jsonl", budget=budget)
    what_if = record(tmp_path / "free.jsonl").replay(budget=budget)
    assert what_if.cost == live.report.cost == 6 * COST
    assert (what_if.recorded, what_if.saved) == (10 * COST, 4 * COST)
    assert what_if.stopped_by == live.report.stopped_by
    assert what_if.report.status == "stopped"
    assert (what_if.diverged_at.call, what_if.diverged_at.position) == ("c6", 6)
    assert what_if.label == "estimate"
    assert what_if.assumptions


def test_a_change_that_changes_no_decision_is_exact(tmp_path: Path) -> None:
    what_if = record(tmp_path / "run.jsonl", budget=ab.Budget(max_cost="$1")).replay(budget=ab.Budget(max_cost="$2"))
    assert (what_if.label, what_if.diverged_at, what_if.assumptions) == ("exact", None, ())
    assert what_if.saved == 0
    assert what_if.report.limits == {"max_cost": Decimal(1)}, "the recording's own limits are what was recorded"


def test_other_prices_give_what_the_live_governor_would_have_charged(tmp_path: Path) -> None:
    dearer = {"gpt-4o": {"input": "5", "output": "20", "cache_read": "2.5"}}
    live = record(tmp_path / "live.jsonl", prices=dearer)
    what_if = record(tmp_path / "run.jsonl").replay(prices=dearer)
    assert what_if.cost == live.report.cost == 20 * COST
    assert (what_if.label, what_if.saved) == ("exact", -10 * COST)


def test_dearer_prices_stop_a_task_where_the_live_governor_would_have(tmp_path: Path) -> None:
    dearer = {"gpt-4o": {"input": "5", "output": "20", "cache_read": "2.5"}}
    budget = ab.Budget(max_cost="$0.035")
    live = record(tmp_path / "live.jsonl", prices=dearer, budget=budget)
    what_if = record(tmp_path / "run.jsonl", budget=budget).replay(prices=dearer)
    assert what_if.cost == live.report.cost == 5 * 2 * COST
    assert what_if.diverged_at.why == "refused"


def test_another_model_costs_the_same_tokens_at_its_price_and_says_so(tmp_path: Path) -> None:
    prices = {**FLAT, "small": {"input": "0.25", "output": "1", "cache_read": "0.125"}}
    trace = record(
        tmp_path / "run.jsonl", models=("gpt-4o", "other"), prices={**prices, "other": {"input": "1", "output": "1"}}
    )
    what_if = trace.replay(model={"gpt-4o": "small"}, prices=prices)
    assert what_if.report.by_model["small"].cost == 5 * COST / 10
    assert what_if.diverged_at.why == "model"
    low, high = what_if.cost_range
    assert low < what_if.cost < high
    assert any("tokenizer" in note for note in what_if.assumptions)
    assert what_if.unpriced == {"other"}
    assert what_if.report.by_model["other"].cost == trace.report.by_model["other"].cost, "no price: as recorded"


def test_models_of_one_vocabulary_have_no_range(tmp_path: Path) -> None:
    what_if = record(tmp_path / "run.jsonl").replay(model={"gpt-4o": "openai:gpt-4o-mini"})
    assert what_if.cost_range == (what_if.cost, what_if.cost)
    assert 0 < what_if.cost < what_if.recorded


def test_a_dearer_model_saves_less_than_nothing(tmp_path: Path) -> None:
    prices = {**FLAT, "big": {"input": "25", "output": "100", "cache_read": "12.5"}}
    what_if = record(tmp_path / "run.jsonl").replay(model={"gpt-4o": "big"}, prices=prices)
    assert what_if.saved == -90 * COST


def test_a_budget_above_the_recorded_one_gives_a_lower_bound(tmp_path: Path) -> None:
    trace = record(tmp_path / "run.jsonl", budget=ab.Budget(max_cost="$0.02"))
    what_if = trace.replay(budget=ab.Budget(max_cost="$1"))
    assert (what_if.label, what_if.cost, what_if.diverged_at.why) == ("lower bound", 6 * COST, "admitted")
    assert "lower bound" in " ".join(what_if.assumptions)


def test_an_observed_trace_is_enforced_under_a_new_budget(tmp_path: Path) -> None:
    trace = record(tmp_path / "run.jsonl", mode="observe")
    assert trace.replay(budget=ab.Budget(max_cost="$0.02")).cost == 6 * COST
    assert trace.replay(budget=ab.Budget(max_cost="$0.02"), mode="observe").cost == 10 * COST


def test_shared_limits_hold_across_the_files_of_a_folder(tmp_path: Path) -> None:
    for number in range(3):
        trace = record(tmp_path / "in" / f"{number}.jsonl", tags={"team": "cx"}, calls=4)
        renamed = re.sub(r'"(c\d|t)"', rf'"{number}\1"', Path(trace.path).read_text())
        Path(trace.path).write_text(renamed)
    limit = Limit("cost", "$0.02", scope="team")
    for source in (ab.Trace.load(tmp_path / "in"), tmp_path / "in"):
        what_if = replay(source, limits=[limit])
        assert what_if.cost == 6 * COST
        assert what_if.recorded == 12 * COST
        assert what_if.stopped == 3


def test_budgets_can_be_given_by_the_name_of_the_task(tmp_path: Path) -> None:
    trace = record(tmp_path / "run.jsonl")
    assert trace.replay(budget={"ticket": ab.Budget(max_model_calls=2)}).cost == 2 * COST
    assert trace.replay(budget={"other": ab.Budget(max_model_calls=2)}).cost == 10 * COST


def test_a_trace_that_begins_in_the_middle_is_replayed_with_what_is_there(tmp_path: Path) -> None:
    path = Path(record(tmp_path / "run.jsonl").path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[3:]]))  # without the task's opening and the first reservation
    what_if = ab.Trace.load(path).replay()
    assert (what_if.cost, what_if.label) == (10 * COST, "exact")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"budgett": 1}, TypeError),
        ({"budget": "$1"}, ConfigurationError),
        ({"model": "gpt-4o"}, ConfigurationError),
        ({"mode": "dream"}, ConfigurationError),
        ({"on": "2026-01-01"}, ConfigurationError),
        ({"limits": ["$1"]}, ConfigurationError),
    ],
)
def test_a_change_that_means_nothing_is_refused(
    changes: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    trace = record(tmp_path / "run.jsonl", calls=1)
    with pytest.raises(error):
        trace.replay(**changes)


def test_a_replay_tells_itself_in_words_and_as_json(tmp_path: Path) -> None:
    what_if = record(tmp_path / "run.jsonl").replay(budget=ab.Budget(max_cost="$0.02"))
    text = str(what_if)
    assert "estimate" in text
    assert "stopped by" in text
    assert what_if.to_dict()["saved"] == "0.012000000"
    assert what_if.to_dict()["diverged_at"]["call"] == "c6"
