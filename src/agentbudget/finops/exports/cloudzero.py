"""Recorded spend in CloudZero's Common Bill Format (CBF): the CSV of a custom AnyCost source, and its API's payload."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from os import PathLike
from typing import Any

from agentbudget.finops.dimensions import quoted
from agentbudget.finops.exports.lines import DOLLARS, MONEY, TEXT, TIME, Level, OnProgress, lines, write_lines
from agentbudget.finops.history import History
from agentbudget.finops.schema import KNOWN_TAGS


def _id(*parts: str) -> str:
    """SQL of the id of a line, made of *parts*: no part may hold the place of another."""
    return f"md5(to_json([{', '.join(f'{part}::VARCHAR' for part in parts)}])::VARCHAR)"


_ALIKE = ("period", "sku", "tier", "agent", "task_name", "tags", "unit", "estimated")
"""What the calls of a line have in common."""
_COLUMNS = {
    "lineitem/id": (TEXT, _id(*_ALIKE)),
    "lineitem/type": (TEXT, "'Usage'"),
    "lineitem/description": (TEXT, "thing || ' ' || lower(meter)"),
    "time/usage_start": (TIME, "period"),
    "resource/id": (TEXT, "sku"),
    "resource/service": (TEXT, "provider || ' API'"),
    "resource/region": (TEXT, "'no-region'"),
    "resource/usage_family": (TEXT, "meter"),
    "action/usage_type": (TEXT, "thing"),
    "action/operation": (TEXT, "task_name"),
    "usage/amount": (MONEY, "quantity"),
    "usage/units": (TEXT, "units"),
    "cost/cost": (MONEY, DOLLARS),
    "cost/on_demand_cost": (MONEY, "list_cost"),
    **{f"resource/tag:{tag}": (TEXT, f"tags->>{quoted(tag)}") for tag in KNOWN_TAGS},
}


def export_cbf(
    history: History,
    target: str | PathLike[str],
    *,
    account: str,
    level: Level = "day",
    on_progress: OnProgress = lambda _done, _all: None,
) -> int:
    """Write the spend of *history* to *target* (`.csv`) and return the number of rows. `cost/cost` adds up to it.

    Raises:
        ConfigurationError: the ending of *target* is neither .csv nor .parquet.
    """
    columns = {**_COLUMNS, "resource/account": (TEXT, quoted(account))}
    if level == "call":
        columns["lineitem/id"] = (TEXT, _id(*_ALIKE, "call", "task"))
    return write_lines(history, target, columns, level, on_progress=on_progress)


def billing_drops(history: History, *, account: str) -> Iterator[dict[str, Any]]:
    """For each month the body of a `billing_drops` request: all its days, replacing what was sent before.

    Numbers are decimal strings, as the API wants them. A body may be at most 5 MB: send by day where it is larger.
    """
    made = ", ".join(f'{value} AS "{name}"' for name, (_, value) in _COLUMNS.items())
    for month in history.rows("SELECT DISTINCT date_trunc('month', day)::DATE AS first FROM calls ORDER BY first"):
        where = f"date_trunc('month', day)::DATE = DATE '{month['first']}'"
        rows = history.rows(f"SELECT {made} FROM ({lines(history, where, 'day')})")  # noqa: S608 - columns of our own
        data = [{**_plain(row), "resource/account": account} for row in rows]
        yield {"month": f"{month['first']:%Y-%m}", "operation": "replace_drop", "data": data}


def _plain(row: dict[str, Any]) -> dict[str, str]:
    """*row* without what is empty, all as text."""
    told = {}
    for name, value in row.items():
        if isinstance(value, datetime):
            told[name] = value.strftime("%Y-%m-%dT%H:%M:%SZ")
        elif value is not None:
            told[name] = value if isinstance(value, str) else f"{value:f}"
    return told
