"""Whether a bill's days begin at another hour than ours: why days may differ while their sum does not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from agentbudget.domain.money import dollars
from agentbudget.finops.dimensions import quoted
from agentbudget.finops.history import History

_HOURS = range(-14, 15)
_WORTHWHILE = Decimal("0.5")
"""A shift is told that leaves at most this share of the difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Days that begin *hours* later than those compared leave dollars *differs* of variance."""

    hours: int
    differs: Decimal


def better_shift(history: History, differs: Decimal, timezone: str) -> Shift | None:
    """The shift that leaves least, where it explains half of what *differs*; None: no hour does.

    Needs the tables `bill_dollars` and `names`.
    """
    billed = {
        (row["period"], row["key"]): row["billed"]
        for row in history.rows("""
            SELECT period, key, sum(dollars) AS billed FROM bill_dollars
            WHERE category = 'Usage' AND dollars IS NOT NULL GROUP BY ALL
        """)
    }
    if not billed:
        return None
    hours = history.rows(f"""
        SELECT date_trunc('hour', ended AT TIME ZONE {quoted(timezone)}) AS hour, key, sum(cost)::BIGINT AS cost
        FROM calls JOIN names ON side = 'calls' AND names.provider = coalesce(calls.provider, '')
                              AND names.model = coalesce(nullif(calls.model, ''), calls.name)
        WHERE cost > 0 GROUP BY ALL
    """)  # noqa: S608 - the zone is quoted
    found = min((_shift(billed, hours, shift) for shift in _HOURS if shift), key=lambda each: each.differs)
    return found if found.differs <= differs * _WORTHWHILE else None


def _shift(billed: dict[tuple[str, str], Decimal], hours: list[dict[str, Any]], shift: int) -> Shift:
    recorded: dict[tuple[str, str], int] = {}
    first, last = min(period for period, _ in billed), max(period for period, _ in billed)
    for row in hours:
        day = f"{row['hour'] - timedelta(hours=shift):%Y-%m-%d}"
        if first <= day <= last:
            key = day, row["key"]
            recorded[key] = recorded.get(key, 0) + row["cost"]
    every = billed.keys() | recorded.keys()
    left = sum((abs(billed.get(key, Decimal(0)) - dollars(recorded.get(key, 0))) for key in every), start=Decimal(0))
    return Shift(hours=shift, differs=left)
