"""Changes of spend in recorded history: two periods compared, and unusual hours with what is behind them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from agentbudget.domain.money import Money, nanos
from agentbudget.errors import ConfigurationError
from agentbudget.finops.anomaly import DIMENSIONS, Change, Cut, Sums, explain, unusual
from agentbudget.finops.dimensions import TagRules
from agentbudget.finops.forecasting.forecast import PlannedEvent
from agentbudget.finops.history import History, Period

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BASELINE_DAYS = 7
"""Days before a stretch of unusual spend that say what was to be expected of it."""
MINIMUM: Money = "$1"
"""Least money above the usual that makes an hour an anomaly."""


def compare(
    history: History,
    now: Period,
    before: Period,
    *,
    by: Sequence[str] = DIMENSIONS,
    rules: TagRules | None = None,
    where: str = "true",
    planned: Sequence[PlannedEvent] = (),
) -> Change:
    """What *now* cost against *before*, scaled to the length of *now*; *where*: SQL that says of which calls.

    Raises:
        ConfigurationError: a period that is open, or a dimension that does not exist.
    """
    start, end = _closed(now)
    earlier = _closed(before)
    factor = (end - start) / (earlier[1] - earlier[0])
    return explain(
        _scaled(cut(history, [before], by, rules=rules, where=where), factor),
        cut(history, [now], by, rules=rules, where=where),
        start=start,
        end=end,
        planned=_plans(planned, start, end),
    )


def anomalies(
    history: History,
    *,
    until: datetime,
    days: int = 92,
    minimum: Money = MINIMUM,
    by: Sequence[str] = DIMENSIONS,
    rules: TagRules | None = None,
    planned: Sequence[PlannedEvent] = (),
) -> list[Change]:
    """Unusual hours of the *days* before *until*, the latest first, each against the same hours of the days before.

    What was planned is listed and says so. Hours are judged once 14 days came before them.

    Raises:
        ConfigurationError: *minimum* is no money, or a dimension does not exist.
    """
    least = nanos(minimum, what="minimum")
    first, hours = _hours(history, until - timedelta(days=days), until)
    spans = [(first + HOUR * begin, first + HOUR * end) for begin, end in unusual(hours, minimum=least)]
    found = []
    for start, end in reversed(spans):
        usual, factor = _usual(start, end, first)
        found.append(
            explain(
                _scaled(cut(history, usual, by, rules=rules), factor),
                cut(history, [Period(since=start, until=end)], by, rules=rules),
                start=start,
                end=end,
                planned=_plans(planned, start, end),
            )
        )
    return found


def cut(
    history: History,
    periods: Sequence[Period],
    by: Sequence[str],
    *,
    rules: TagRules | None = None,
    where: str = "true",
) -> Cut:
    """What the calls of *periods* together took, by each dimension of *by*."""
    rules = rules or TagRules()
    when = " OR ".join(f"({period.where('ended')})" for period in periods) or "false"
    expressions = [rules.expression(name) for name in by]
    names = ", ".join(f"{expression} AS key{number}" for number, expression in enumerate(expressions))
    sets = ", ".join(f"(key{number})" for number in range(len(by)))
    keys = ", ".join(f"key{number}" for number in range(len(by)))
    found = history.rows(f"""
        SELECT {keys}, grouping({keys}) AS place,
               count(*) FILTER (tokens > 0) AS calls, coalesce(sum(tokens), 0)::BIGINT AS tokens,
               coalesce(sum(cost) FILTER (tokens > 0), 0)::BIGINT AS cost,
               coalesce(sum(cost) FILTER (tokens = 0), 0)::BIGINT AS other
        FROM (SELECT {names}, cost, input_tokens + output_tokens AS tokens FROM calls
              WHERE ({when}) AND ({where}) AND outcome <> 'denied')
        GROUP BY GROUPING SETS ({sets})
    """)  # noqa: S608 - dimensions are known, times are the engine's own
    told: dict[str, dict[str | None, Sums]] = {name: {} for name in by}
    for row in found:
        number = next(place for place in range(len(by)) if not row["place"] >> (len(by) - 1 - place) & 1)
        told[by[number]][row[f"key{number}"]] = Sums(
            calls=row["calls"], tokens=row["tokens"], cost=row["cost"], other=row["other"]
        )
    return told


def _scaled(found: Cut, factor: float) -> Cut:
    return {name: {value: sums.scaled(factor) for value, sums in values.items()} for name, values in found.items()}


def _usual(start: datetime, end: datetime, first: datetime) -> tuple[list[Period], float]:
    """The same hours of the days before, as far back as *first*, and what their sum is scaled by; of a stretch of a day
    and more: the days before it, whole."""
    if end - start >= DAY:
        since = max(first, start - DAY * BASELINE_DAYS)
        return [Period(since=since, until=start)], (end - start) / (start - since)
    shifts = [DAY * back for back in range(1, BASELINE_DAYS + 1) if start - DAY * back >= first]
    periods = [Period(since=start - shift, until=end - shift) for shift in shifts]
    return periods, 1 / max(1, len(periods))


def _hours(history: History, since: datetime, until: datetime) -> tuple[datetime, list[int]]:
    """Nano-dollars by hour from the first hour with a call since *since* to *until*."""
    period = Period(since=since, until=until)
    found = history.rows(f"""
        SELECT epoch(ended)::BIGINT // 3600 AS hour, sum(cost)::BIGINT AS cost
        FROM calls WHERE {period.where("ended")} GROUP BY ALL
    """)  # noqa: S608 - times of our own
    costs = {row["hour"]: row["cost"] for row in found}
    first, last = min(costs, default=0), max(costs, default=-1)
    return datetime.fromtimestamp(first * 3600, UTC), [costs.get(hour, 0) for hour in range(first, last + 1)]


def _plans(planned: Sequence[PlannedEvent], start: datetime, end: datetime) -> str:
    covering = [event for event in planned if event.start <= end.date() and start.date() <= event.end]
    return ", ".join(event.name or f"factor {event.factor:g}" for event in covering)


def _closed(period: Period) -> tuple[datetime, datetime]:
    if period.since is None or period.until is None:
        msg = f"{period}: a comparison needs periods that begin and end."
        raise ConfigurationError(msg)
    return period.since, period.until
