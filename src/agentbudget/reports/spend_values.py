"""What the page of spend says, as values: the same that stands in it as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from agentbudget.domain.money import dollars
from agentbudget.finops.advisor.values import Advice
from agentbudget.finops.alarms.alert import Alert
from agentbudget.finops.anomaly import Change
from agentbudget.finops.attribution import Attribution, Share, UnitCost
from agentbudget.finops.bloat import Carried, Resent
from agentbudget.finops.capacity import Charges
from agentbudget.finops.dimensions import COLUMNS
from agentbudget.finops.forecasting.forecast import Forecast
from agentbudget.finops.schema import KNOWN_TAGS
from agentbudget.trace.files import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Spend over time, stacked. Nano-dollars."""

    starts: tuple[datetime, ...]
    """When each column begins."""
    width: timedelta
    series: tuple[tuple[str, tuple[int, ...]], ...]
    """Name and one amount a column; the dearest first, the rest together last."""

    @property
    def unit(self) -> str:
        """`day`, `6 hours`."""
        hours = round(self.width / timedelta(hours=1))
        number, word = (hours // 24, "day") if hours >= 24 else (hours, "hour")  # noqa: PLR2004 - a day
        return word if number == 1 else f"{number} {word}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The month as it was spent, and as it is expected to end. Nano-dollars."""

    start: date
    today: date
    spent: tuple[int, ...]
    """By the end of each day from `start` to the day before `today`."""
    forecast: Forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class Pot:
    """One budget as it stands. Nano-dollars."""

    scope: str
    window: str
    spent: int
    limit: int
    gone: float
    """Share of the window that is over."""
    alarm_at: int
    """Spend from which what is left lasts less, at the rate of the last day, than people need to react."""
    react_hours: float
    expected: int | None
    """At the end of the window; None: too little history, or a window shorter than a week."""
    low: int | None
    high: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosted:
    """A model on hardware paid by the hour, over the time recorded."""

    model: str
    hours: float
    tokens: int
    charges: Charges


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendMaterial:
    """Everything on the page."""

    path: str
    at: datetime
    """The moment the page is of."""
    first: datetime | None
    """The first call with a time; None: there is none."""
    by: str
    tables: tuple[Attribution, ...]
    """By `by` first, then by others that are recorded."""
    columns: Columns
    course: Course
    pots: tuple[Pot, ...]
    alarms: tuple[Alert, ...]
    judged: bool
    """Whether the alarms were judged from the history; else a watch knows them."""
    week: Change | None
    """The last seven days against the seven before; None: less than two weeks are recorded."""
    anomalies: tuple[Change, ...]
    units: tuple[tuple[str, tuple[UnitCost, ...]], ...]
    carried: tuple[Carried, ...]
    resent: tuple[Resent, ...]
    hosted: tuple[Hosted, ...]
    advice: Advice | None
    flaws: tuple[str, ...]
    """What is wrong or missing in the record, with its share of the money."""
    problems: tuple[Problem, ...]

    @property
    def total(self) -> Share:
        """Of all calls."""
        return self.tables[0].total

    def to_dict(self, *, most: int | None = None) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars. *most*: rows of a table; the rest is summed."""
        return {
            "path": self.path,
            "at": self.at.isoformat(),
            "first": self.first.isoformat() if self.first else None,
            "total": self.total.to_dict(),
            "spend": [_cut(table, most) for table in self.tables],
            "over_time": {
                "starts": [start.isoformat() for start in self.columns.starts],
                "series": {name: [money(cost) for cost in costs] for name, costs in self.columns.series},
            },
            "forecast": self.course.forecast.to_dict(),
            "budgets": [_plain(pot) for pot in self.pots],
            "alarms": [alert.to_dict() for alert in self.alarms],
            "week": self.week.to_dict() if self.week else None,
            "anomalies": [change.to_dict() for change in self.anomalies],
            "units": {per: [_plain(unit) for unit in units[:most]] for per, units in self.units},
            "carried": [_plain(each) for each in self.carried[:most]],
            "resent": [_plain(each) for each in self.resent[:most]],
            "hosted": [
                {
                    "model": each.model,
                    "hours": each.hours,
                    "tokens": each.tokens,
                    "bill": f"{each.charges.bill:f}",
                    "idle": f"{each.charges.idle:f}",
                    "charges": {who: f"{amount:f}" for who, amount in each.charges.charges.items()},
                }
                for each in self.hosted
            ],
            "advice": self.advice.to_dict() if self.advice else None,
            "flaws": list(self.flaws),
            "problems": [str(problem) for problem in self.problems],
        }


def _cut(table: Attribution, most: int | None) -> dict[str, Any]:
    rest = table.rows[most:] if most is not None else ()
    kept = replace(table, rows=table.rows[:most])
    more = sum((row.cost for row in rest), start=Decimal(0))
    return {**kept.to_dict(), "more_rows": len(rest), "more_cost": f"{more:f}"}


_NANOS = {"spent", "limit", "alarm_at", "expected", "low", "high"}


def _plain(value: Any) -> dict[str, Any]:
    """The fields of *value*, money as text."""
    found = {item.name: getattr(value, item.name) for item in fields(value)}
    return {
        name: f"{part:f}" if isinstance(part, Decimal) else money(part) if name in _NANOS and part is not None else part
        for name, part in found.items()
    }


def money(nanos: int) -> str:
    """Exact dollars as text."""
    return f"{dollars(nanos):f}"


def value_shown(dimension: str, value: str | None) -> str:
    """*value* of *dimension* for people."""
    if value is not None:
        return value
    return f"(no {dimension})" if dimension in COLUMNS and dimension not in KNOWN_TAGS else "(untagged)"


EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""No agent was recorded before."""


def span(starts: Sequence[datetime]) -> str:
    """From the first to the last day, in words."""
    if not starts:
        return ""
    first, last = f"{starts[0]:%Y-%m-%d}", f"{starts[-1]:%Y-%m-%d}"
    return first if first == last else f"{first} to {last}"
