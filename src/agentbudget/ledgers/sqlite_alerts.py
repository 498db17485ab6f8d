"""Alert thresholds in the SQLite ledger: what was raised, and which settlement reached what."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from agentbudget.domain.alerts import AlertAt, Crossing, reached
from agentbudget.ledgers import plan
from agentbudget.ledgers.keys import account_of

MICROSECONDS = 1_000_000

_FIND = """
SELECT key, settled, declared, pin, granted, coalesce(raised, 0)
FROM account LEFT JOIN alert ON alert.account = account.id WHERE account.id = ?
"""
_KEEP = "INSERT INTO alert VALUES (?, ?) ON CONFLICT (account) DO UPDATE SET raised = excluded.raised"


def raise_alerts(
    db: sqlite3.Connection, reservation_id: str, charged: Iterable[tuple[int, int]], alert_at: AlertAt, now: int
) -> tuple[Crossing, ...]:
    """Note and return the thresholds of *alert_at* that a settlement has reached, in the order of *charged*.

    *charged* are the account ids and amounts that were just booked; a collected account has no thresholds any more.
    """
    found: list[Crossing] = []
    for account, actual in charged:
        row = db.execute(_FIND, (account,)).fetchone()
        thresholds = alert_at.get(account_of(row[0]), ()) if row is not None else ()
        if not thresholds:
            continue
        key, settled, declared, pin, granted, raised = row
        limit = limit_under(declared, pin, granted)
        due, kept = reached(thresholds, limit=limit, before=settled - actual, after=settled, raised=raised)
        if kept != raised:
            db.execute(_KEEP, (account, kept))
        at = now / MICROSECONDS
        found += [
            Crossing(account=account_of(key), threshold=one, limit=limit or 0, settled=settled, at=at) for one in due
        ]
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


def limit_under(declared: int | None, pin: int | None, granted: int) -> int | None:
    """The limit where a posting declares *declared*: the pin wins, grants add."""
    limit = declared if pin is None else None if pin == plan.NO_LIMIT else pin
    return None if limit is None else plan.ceiling(limit, granted)
