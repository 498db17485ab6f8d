"""Repricing says which records were wrong; a diff says what costs more and why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import agentbudget as ab
from agentbudget.domain.usage import Usage
from agentbudget.replay.diff import diff
from agentbudget.replay.importers.build import Attempt, closed, opened
from agentbudget.replay.reprice import reprice
from agentbudget.trace.events import Event

AT = 1_767_225_600.0
LIST = {"provider": "openai", "prices": {"input": "2.5", "cache_read": "1.25", "output": "10"}}
USED = Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=400)


def task(*calls: dict[str, Any], name: str = "ticket", task_id: str = "t") -> Iterator[Event]:
    """A task of *calls* in turn."""
    yield opened(task_id, name, AT)
    for number, call in enumerate(calls):
        options = {"kind": "model", "name": "gpt-4o", "usage": USED, "cost": 3_000_000, "price": LIST, **call}
        yield from Attempt(id=f"{task_id}-{number}", task=task_id, at=AT + number, **options).events()
    yield from closed(task_id, AT + len(calls), cost=0)


def test_records_that_were_wrong_are_named_with_both_amounts() -> None:
    found = reprice(task({}, {"cost": 3_300_000}, {"cost": 1}, {"cost": 5, "source": "estimated"}))
    assert [(wrong.call, wrong.recorded, wrong.priced) for wrong in found.wrong] == [
        ("t-1", Decimal("0.0033"), Decimal("0.003")),
        ("t-2", Decimal("1e-9"), Decimal("0.003")),
    ]
    assert (found.wrong_count, found.estimated) == (2, 1)
    assert found.difference == Decimal("0.002699999")
    assert found.wrong[0].ratio == 1.1


def test_declared_and_dated_prices_are_used() -> None:
    declared = [{"input": "1", "output": "1"}, {"input": "2", "output": "2", "effective": "2026-06-01"}]
    assert reprice(task({}), prices={"gpt-4o": declared}).cost == Decimal("0.0011")
    assert reprice(task({}), prices={"gpt-4o": declared}, on=date(2026, 7, 1)).cost == Decimal("0.0022")


def test_a_model_without_a_price_keeps_its_recorded_cost_and_is_named() -> None:
    found = reprice(task({"name": "nobody-knows-this"}))
    assert found.unpriced == {"nobody-knows-this"}
    assert found.cost == found.recorded == Decimal("0.003")
    assert "nobody-knows-this" in str(found)


def test_recorded_bills_of_a_reseller_are_found_right(trajectories: Path) -> None:
    path = trajectories / "mini_swe_agent_gemini3pro_swebench_verified.jsonl.gz"
    prices = {"google/gemini-3-pro-preview": {"input": "2", "cache_read": "0.2", "output": "12"}}
    found = reprice(path, prices=prices)
    total = found.by_model["google/gemini-3-pro-preview"]
    assert total.calls > 5_000
    assert abs(total.priced - total.recorded) < 10_000 * total.calls, "the rows are rounded to $0.00001"


def test_equal_recordings_do_not_differ() -> None:
    found = diff(task({}, {}), task({}, {}))
    (kind,) = found.kinds
    assert found.difference == 0
    assert kind.parted_at is None
    assert not kind.steps
    assert not kind.causes


def test_the_causes_of_a_difference_add_up_to_it() -> None:
    longer = Usage(input_tokens=3000, output_tokens=300, cache_read_tokens=100)
    small = {"provider": "openai", "prices": {"input": "0.15", "cache_read": "0.075", "output": "0.6"}}
    cost = 2900 * 2_500 + 100 * 1_250 + 300 * 10_000
    cheap = (2900 * 150) + (100 * 75) + 300 * 600
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"usage": longer, "cost": cost}, {"input", "cache", "output"}),
        (
            {"name": "gpt-4o-mini", "usage": longer, "cost": cheap, "price": small},
            {"input", "cache", "output", "model"},
        ),
        ({"cost": 330_000, "price": small}, {"price", "other"}),
        ({"cost": 4_000_000}, {"other"}),
    ]
    for call, causes in cases:
        (kind,) = diff(task({}), task(call)).kinds
        (step,) = kind.steps
        assert set(step.causes) == causes
        assert sum(step.causes.values()) == step.difference == kind.cost[1] - kind.cost[0]


def test_less_from_the_cache_is_a_cause_of_its_own() -> None:
    cold = Usage(input_tokens=1000, output_tokens=100)
    (kind,) = diff(task({}), task({"usage": cold, "cost": 3_500_000})).kinds
    assert dict(kind.causes) == {"cache": 500_000}


def test_where_two_runs_part_and_what_only_one_of_them_did() -> None:
    search = {"kind": "tool", "name": "search", "cost": 10, "price": None}
    retry = {"cost": 7}
    (kind,) = diff(task({}, search, {}), task({}, {**search, "name": "browse"}, {}, retry)).kinds
    assert kind.parted_at == 1
    assert (kind.calls, kind.tasks) == ((3, 4), (1, 1))
    assert kind.causes["only in one"] == 7 + 10 - 10
    assert "parts after 1 steps" in str(diff(task({}, search), task({}, {**search, "name": "browse"})))


def test_tasks_are_compared_with_tasks_of_their_name() -> None:
    before = [*task({}, name="a", task_id="1"), *task({}, name="b", task_id="2")]
    after = [*task({}, name="b", task_id="3"), *task({}, {}, name="a", task_id="4")]
    kinds = {kind.name: kind for kind in diff(before, after).kinds}
    assert kinds["b"].cost == (3_000_000, 3_000_000)
    assert kinds["a"].cost == (3_000_000, 6_000_000)
    assert diff(before, after).to_dict()["cost"] == ["0.006000000", "0.009000000"]
    assert ab.Usage is Usage
