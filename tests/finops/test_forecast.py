from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.errors import ConfigurationError
from agentbudget.finops.forecasting.forecast import PlannedEvent, forecast
from agentbudget.finops.forecasting.intervals import interval
from agentbudget.finops.forecasting.levels import level
from agentbudget.finops.forecasting.runs import RunForecaster
from agentbudget.finops.forecasting.series import daily
from agentbudget.finops.history import History
from tests.finops.traces import DAY, START, called, closed, opened, write

TODAY = date(2026, 11, 15)


class _Month(TypedDict):
    start: date
    until: date


MONTH = _Month(start=date(2026, 11, 1), until=date(2026, 11, 30))


def past(days: int, cost: int = 10**9) -> dict[date, int]:
    """The same spend on each of the days before `TODAY`."""
    return {TODAY - timedelta(days=number): cost for number in range(1, days + 1)}


def test_constant_spend_goes_on_and_the_interval_is_narrow() -> None:
    told = forecast(past(70), today=TODAY, **MONTH)
    assert (told.spent, told.expected) == (Decimal(14), Decimal(30))
    assert told.low is not None
    assert told.high is not None
    assert Decimal(29) < told.low <= 30 <= told.high < Decimal(31)
    assert told.coverage == 1.0


@pytest.mark.parametrize(("days", "why"), [(past(13), "13 days of history"), ({}, "no spend yet")])
def test_too_little_history_is_said_and_nothing_is_promised(days: dict[date, int], why: str) -> None:
    told = forecast(days, today=TODAY, **MONTH)
    assert told.expected is told.low is told.high is None
    assert why in told.insufficient
    assert "no forecast" in str(told)


def test_days_without_a_call_are_days_without_spend() -> None:
    days = {day: cost for day, cost in past(40).items() if day.weekday() < 5}
    told = forecast(days, today=TODAY, **MONTH)
    weekdays = sum(date(2026, 11, day).weekday() < 5 for day in range(15, 31))
    assert told.expected == pytest.approx(told.spent + weekdays, rel=Decimal("0.03"))


def test_what_happens_today_and_later_is_not_looked_at() -> None:
    days = past(40)
    assert forecast({**days, TODAY: 10**15}, today=TODAY, **MONTH) == forecast(days, today=TODAY, **MONTH)


def test_a_planned_event_multiplies_its_days_and_is_taken_out_of_the_past() -> None:
    launch = PlannedEvent(start=date(2026, 11, 20), end=date(2026, 11, 21), factor=5.0, name="launch")
    assert forecast(past(40), today=TODAY, events=[launch], **MONTH).expected == 38
    sale = PlannedEvent(start=TODAY - timedelta(days=3), end=TODAY - timedelta(days=2), factor=10.0)
    days = past(40) | {TODAY - timedelta(days=number): 10**10 for number in (2, 3)}
    told = forecast(days, today=TODAY, events=[sale], **MONTH)
    assert told.expected == told.spent + 16


def test_a_budget_is_exhausted_on_the_day_its_remainder_is_spent_and_earlier_at_the_upper_end() -> None:
    told = forecast(past(40), today=TODAY, budget=20 * 10**9, **MONTH)
    assert told.exhausted == date(2026, 11, 20)
    assert told.exhausted_early is not None
    assert told.exhausted_early <= told.exhausted
    assert forecast(past(40), today=TODAY, budget=50 * 10**9, **MONTH).exhausted is None
    assert forecast(past(40), today=TODAY, budget=10**9, **MONTH).exhausted == TODAY
    assert "the budget is reached on 2026-11-20" in str(told)


def test_a_new_regime_leaves_older_days_out() -> None:
    days = past(40) | dict.fromkeys(past(7), 5 * 10**9)
    told = forecast(days, today=TODAY, **MONTH)
    assert told.method == "regime change"
    assert told.expected == told.spent + 16 * 5


def test_growth_goes_on_damped() -> None:
    grown = [1e9 * 1.02**day for day in range(40)]
    ahead = level(grown, 16).total
    flat, full = grown[-1] * 16, sum(1e9 * 1.02**day for day in range(40, 56))
    assert flat * 0.9 < ahead < full


def test_spend_on_few_days_is_forecast_by_its_chance_and_size() -> None:
    sparse = [0.0, 0.0, 0.0, 7e9] * 10
    assert level(sparse, 28).method == "intermittent"
    assert level(sparse, 28).total == pytest.approx(7 * 7e9, rel=0.35)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=70), st.integers(1, 40))
def test_a_forecast_is_never_negative_nor_above_what_growth_allows(history: list[int], horizon: int) -> None:
    ahead = level(history, horizon)
    assert len(ahead.days) == horizon
    assert all(0 <= cost <= 8 * max(history) for cost in ahead.days)


@given(st.lists(st.integers(0, 10**12), min_size=14, max_size=70), st.integers(1, 40))
def test_an_interval_holds_its_forecast_and_reports_a_share(history: list[int], horizon: int) -> None:
    band = interval(history, horizon, lambda past, span: level(past, span).total, confidence=0.8)
    assert 0 < band.low <= 1 <= band.high
    assert band.coverage is None or 0 <= band.coverage <= 1


def test_intervals_hold_about_what_they_promise_on_bursty_spend() -> None:
    held = 0
    for seed in range(60):
        dice = random.Random(seed)
        spend = [dice.lognormvariate(23, 0.6) * (1.3 if day % 7 < 5 else 0.5) for day in range(90)]
        ahead = level(spend[:74], 16).total
        band = interval(spend[:74], 16, lambda past, span: level(past, span).total, confidence=0.8)
        held += ahead * band.low <= sum(spend[74:]) <= ahead * band.high
    assert held >= 45


@pytest.mark.parametrize(
    "wrong", [{"factor": 0}, {"factor": -1}, {"factor": 10**6}, {"start": TODAY, "end": TODAY - timedelta(days=1)}]
)
def test_an_event_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    options = {"start": TODAY, "end": TODAY, "factor": 2.0, "name": "launch", **wrong}
    with pytest.raises(ConfigurationError, match="launch"):
        PlannedEvent(**options)  # type: ignore[arg-type]  # the wrong types are the point


def test_a_period_that_is_over_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="over"):
        forecast(past(40), today=TODAY, start=date(2026, 10, 1), until=date(2026, 10, 31))


def test_days_are_those_of_the_time_zone(tmp_path: Path) -> None:
    late = datetime(2026, 11, 3, 23, 30, tzinfo=UTC).timestamp()
    events = [*opened("t", team="cx"), *called("a", "t", at=late), *called("b", "t", at=START)]
    events += [*opened("u", parent="x", team="fin"), *called("c", "u")]
    with History.open(write(tmp_path / "t.jsonl", events)) as history:
        berlin = daily(history, where={"team": "cx"}, timezone="Europe/Berlin")
        assert berlin == {date(2026, 11, 1): 10**6, date(2026, 11, 4): 10**6}
        with pytest.raises(ConfigurationError, match="by='tea'"):
            daily(history, where={"tea": "cx"})


def test_a_running_task_ends_where_those_of_its_kind_ended(tmp_path: Path) -> None:
    events = []
    for number in range(25):
        task, at = f"t{number}", START + number * DAY
        steps = 2 + number % 5
        events += opened(task, at=at, name="triage")
        for step in range(steps):
            events += called(f"{task}-{step}", task, at=at + 2 * step, cost=100)
        events += closed(task, at=at + 99, status="stopped" if number == 24 else "completed")
    with History.open(write(tmp_path / "t.jsonl", events)) as history:
        kind = RunForecaster.of(history, "triage")
    first = kind.at(100, 1)
    assert first.tasks == 24
    assert (first.expected, first.low, first.high) == tuple(Decimal(cost) / 10**9 for cost in (400, 200, 600))
    assert kind.at(500, 5).tasks < 20
    assert kind.at(500, 5).expected is None
    assert "no forecast" in str(kind.at(500, 5))
    assert "from 24 of its kind" in str(first)


def test_running_costs_that_fall_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="falls"):
        RunForecaster([[5, 3]])
