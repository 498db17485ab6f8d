"""Alert thresholds in the SQLite ledger: what was raised, and which settlement reached what."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from agentbudget.domain.alerts import AlertAt, Crossing, reached
from agentbudget.ledgers.keys import account_of
from agentbudget.ledgers.sqlite_cache import Row
from agentbudget.ledgers.sqlite_schema import MICROSECONDS


def raise_alerts(
    db: sqlite3.Connection, reservation_id: str, charged: Iterable[tuple[Row, int]], alert_at: AlertAt, now: int
) -> tuple[Crossing, ...]:
    """Note and return the thresholds of *alert_at* that a settlement has reached, in the order of *charged*.

    *charged* are the accounts and amounts that were just booked.
    """
    found: list[Crossing] = []
    for row, actual in charged:
        account = account_of(row.key)
        thresholds = alert_at.get(account, ())
        if not thresholds:
            continue
        limit = row.limit_under(row.declared)
        due, kept = reached(thresholds, limit=limit, before=row.settled - actual, after=row.settled, raised=row.raised)
        if kept != row.raised:
            row.raised = kept
            db.execute("UPDATE account SET raised = ? WHERE id = ?", (kept, row.id))
        at = now / MICROSECONDS
        found += [Crossing(account=account, threshold=one, limit=limit or 0, settled=row.settled, at=at) for one in due]
    db.executemany(
        "INSERT INTO crossing VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (reservation_id, place, one.account.key, one.threshold, one.limit, one.settled, now)
            for place, one in enumerate(found)
        ],
    )
    return tuple(found)


def crossed_by(db: sqlite3.Connection, reservation_id: str) -> tuple[Crossing, ...]:
    """What the settlement of this reservation reached."""
    rows = db.execute(
        "SELECT key, threshold, most, settled, at FROM crossing WHERE reservation = ? ORDER BY place",
        (reservation_id,),
    )
    return tuple(
        Crossing(account=account_of(key), threshold=threshold, limit=most, settled=settled, at=at / MICROSECONDS)
        for key, threshold, most, settled, at in rows
    )
