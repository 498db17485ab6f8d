"""Spend over time, stacked by a dimension."""

from __future__ import annotations

from datetime import datetime, timedelta

from agentbudget.finops.dimensions import TagRules
from agentbudget.finops.history import History, Period
from agentbudget.reports.spend_values import Columns, value_shown

SERIES = 7
"""Series with a colour of their own; the rest is one."""
MOST = 62
"""Columns of a chart."""
_HOUR = timedelta(hours=1)
_WIDTHS = tuple(_HOUR * hours for hours in (1, 6, 24, 24 * 7, 24 * 28, 24 * 364))


def columns(history: History, by: str, *, first: datetime | None, until: datetime, rules: TagRules) -> Columns:
    """Spend of *history* by *by*, from *first* to *until*, in as many columns as can be told apart."""
    if first is None:
        return Columns(starts=(), width=_HOUR, series=())
    width = next((each for each in _WIDTHS if (until - first) / each <= MOST), _WIDTHS[-1])
    start = first.replace(minute=0, second=0, microsecond=0)
    start = start if width == _HOUR else start.replace(hour=0)
    number = int((until - start) / width) + 1
    seconds = round(width.total_seconds())
    period = Period(since=start, until=start + width * number)
    found = history.rows(f"""
        SELECT {rules.expression(by)} AS name, (epoch(ended)::BIGINT - {int(start.timestamp())}) // {seconds} AS place,
               sum(cost)::BIGINT AS cost
        FROM calls WHERE {period.where("ended")} AND ended <= TIMESTAMPTZ '{until.isoformat()}' GROUP BY ALL
    """)  # noqa: S608 - dimensions are known, times are our own
    amounts: dict[str, list[int]] = {}
    for row in found:
        name = value_shown(by, row["name"])
        amounts.setdefault(name, [0] * number)[row["place"]] += row["cost"]
    dearest = sorted((name for name in amounts if any(amounts[name])), key=lambda name: (-sum(amounts[name]), name))
    series = [(name, tuple(amounts[name])) for name in dearest[:SERIES]]
    rest = [amounts[name] for name in dearest[SERIES:]]
    if rest:
        series.append((f"{len(rest):,} others", tuple(map(sum, zip(*rest, strict=True)))))
    return Columns(starts=tuple(start + width * place for place in range(number)), width=width, series=tuple(series))
