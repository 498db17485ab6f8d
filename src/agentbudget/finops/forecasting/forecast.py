"""Spend at the end of a period, and the day a budget is exhausted: with an interval and its back-tested coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from agentbudget.domain.money import dollars
from agentbudget.errors import ConfigurationError
from agentbudget.finops.forecasting.intervals import MINIMUM, interval
from agentbudget.finops.forecasting.levels import level

DAY = timedelta(days=1)
CONFIDENCE = 0.8
"""Share of the truth that an interval is meant to hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedEvent:
    """From *start* to *end* (both included) spend is *factor* times what it would have been: a launch, a migration."""

    start: date
    end: date
    factor: float
    name: str = ""

    def __post_init__(self) -> None:
        if self.end < self.start:
            msg = f"planned event {self.name!r}: ends {self.end} before it starts {self.start}."
            raise ConfigurationError(msg)
        if not 0 < self.factor <= 1000:  # noqa: PLR2004 - more is a slip of the keyboard
            msg = f"planned event {self.name!r}: factor={self.factor!r} is not above 0 and at most 1000."
            raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Spend of a period, in dollars; `low` to `high` is meant to hold `CONFIDENCE` of the truth."""

    spent: Decimal
    """So far in the period."""
    expected: Decimal | None
    """At its end. None: `insufficient` says why there is no forecast; likewise `low` and `high`."""
    low: Decimal | None
    high: Decimal | None
    until: date
    """Last day of the period."""
    method: str = ""
    coverage: float | None = None
    """How often intervals made this way held on this very history, each judged by what was known then. None: too
    little history to say."""
    checked: int = 0
    """How many intervals of the past that rests on."""
    insufficient: str = ""
    exhausted: date | None = None
    """First day on which the expected spend reaches the budget; None: not before `until`."""
    exhausted_early: date | None = None
    """The same at the upper end of the interval."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    def __str__(self) -> str:
        if self.expected is None or self.low is None or self.high is None:
            return f"${self.spent:,.2f} so far; no forecast: {self.insufficient}"
        held = (
            f"such intervals held {self.coverage:.0%} of {self.checked} times here"
            if self.coverage is not None
            else "too little history to say how often such intervals hold"
        )
        ends = f"${self.expected:,.2f} by {self.until}, between ${self.low:,.2f} and ${self.high:,.2f}"
        breaks = f"; the budget is reached on {self.exhausted}" if self.exhausted else ""
        early = f" ({self.exhausted_early} at worst)" if self.exhausted_early else ""
        return f"${self.spent:,.2f} so far, about {ends} ({held}){breaks}{early}"


def forecast(
    days: Mapping[date, int],
    *,
    today: date,
    until: date,
    start: date,
    budget: int | None = None,
    events: Sequence[PlannedEvent] = (),
) -> Forecast:
    """Forecast the spend from *start* to *until* (both included) at the beginning of *today*.

    Args:
        days: nano-dollars by day; days that are missing between the first one and *today* had no spend. *today* and
            later days are not looked at.
        today: the first day that is forecast.
        until: the last day.
        start: first day of the period.
        budget: nano-dollars whose exhaustion is looked for; None: none.
        events: what is planned, and what was: days of the past are compared without their events.

    Raises:
        ConfigurationError: the period ends before it starts, or before *today*.
    """
    if not start <= until or until < today:
        msg = f"a forecast from {start} to {until} on {today}: the period is over, or ends before it starts."
        raise ConfigurationError(msg)
    spent = sum(cost for day, cost in days.items() if start <= day < today)
    history = _series(days, today, events)
    if len(history) < MINIMUM or not any(history):
        why = "no spend yet" if not any(history) else f"{len(history)} days of history, {MINIMUM} are needed"
        return Forecast(spent=dollars(spent), expected=None, low=None, high=None, until=until, insufficient=why)
    return _ahead(history, spent=spent, today=today, until=until, budget=budget, events=events)


def _ahead(
    history: Sequence[float],
    *,
    spent: int,
    today: date,
    until: date,
    budget: int | None,
    events: Sequence[PlannedEvent],
) -> Forecast:
    """The forecast from a *history* that is long enough, and what was *spent* before *today*."""
    horizon = (until - today).days + 1
    ahead = level(history, horizon)
    planned = [cost * _factor(today + DAY * number, events) for number, cost in enumerate(ahead.days)]
    band = interval(history, horizon, lambda past, span: level(past, span).total, confidence=CONFIDENCE)
    rest = sum(planned)

    def reaches(factor: float) -> date | None:
        return None if budget is None else _reaches(budget - spent, planned, factor, today)

    return Forecast(
        spent=dollars(spent),
        expected=_money(spent + rest),
        low=_money(spent + rest * band.low),
        high=_money(spent + rest * band.high),
        until=until,
        method=ahead.method,
        coverage=band.coverage,
        checked=band.checked,
        exhausted=reaches(1.0),
        exhausted_early=reaches(band.high),
    )


def _series(days: Mapping[date, int], today: date, events: Sequence[PlannedEvent]) -> list[float]:
    """Spend a day from the first one to yesterday, as it would have been without *events*."""
    past = [day for day in days if day < today]
    if not past:
        return []
    first = min(past)
    every = [first + DAY * number for number in range((today - first).days)]
    return [days.get(day, 0) / _factor(day, events) for day in every]


def _factor(day: date, events: Sequence[PlannedEvent]) -> float:
    factor = 1.0
    for event in events:
        if event.start <= day <= event.end:
            factor *= event.factor
    return factor


def _reaches(remaining: int, planned: Sequence[float], factor: float, today: date) -> date | None:
    for number, cost in enumerate(planned):
        remaining -= round(cost * factor)
        if remaining <= 0:
            return today + DAY * number
    return None


def _money(nanos: float) -> Decimal:
    return dollars(round(nanos))


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if isinstance(value, date) else value
