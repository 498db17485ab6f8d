"""Which leases run out next.

Nearly every reservation is resolved within seconds, long before its lease ends. So none is put in order of deadlines
at first: every `WATCH_EVERY` entries those that are still live get a row in `lease`, all at once. A settlement leaves
that row alone; it goes when its time has come. What was reserved since is few and is looked through where necessary.
"""

from __future__ import annotations

import sqlite3

from agentbudget.ledgers.sqlite_cache import Cache
from agentbudget.ledgers.sqlite_schema import LATEST

WATCH_EVERY = 64
LOOK_AHEAD = 256
"""Rows of `lease` that are looked through at once for those whose reservation was resolved."""

LIVE = """
verb = 'reserve' AND NOT EXISTS (SELECT 1 FROM journal AS later WHERE later.id = journal.id AND later.step > 0)
"""
_WATCH = f"""
INSERT INTO lease SELECT sequence, deadline FROM journal WHERE sequence > ? AND {LIVE} ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants
_DUE = f"""
SELECT journal.id, lines FROM lease JOIN journal USING (sequence) WHERE lease.deadline <= ? AND {LIVE}
ORDER BY lease.deadline, journal.id
"""  # noqa: S608 - constants
_AHEAD = f"""
SELECT deadline, EXISTS (SELECT 1 FROM journal WHERE journal.sequence = lease.sequence AND {LIVE})
FROM lease ORDER BY deadline LIMIT {LOOK_AHEAD}
"""  # noqa: S608 - constants
_RENEW = "INSERT INTO lease VALUES (?, ?) ON CONFLICT (sequence) DO UPDATE SET deadline = excluded.deadline"


def watch(db: sqlite3.Connection, cache: Cache) -> None:
    """See to it that every live reservation has a row in `lease`."""
    db.execute(_WATCH, (cache.watched,))
    db.execute("UPDATE setting SET value = ? WHERE name = 'watched'", (cache.sequence,))
    cache.watched = cache.sequence


def take_due(db: sqlite3.Connection, cache: Cache, now: int) -> list[tuple[str, str]]:
    """The id and lines of every live reservation whose lease has run out, oldest first. They are watched no more."""
    watch(db, cache)
    found = db.execute(_DUE, (now,)).fetchall()
    db.execute("DELETE FROM lease WHERE deadline <= ?", (now,))
    ahead = db.execute(_AHEAD).fetchall()
    last = ahead[-1][0] if ahead else LATEST
    cache.earliest = next((deadline for deadline, is_live in ahead if is_live), last)
    db.execute("DELETE FROM lease WHERE deadline < ?", (cache.earliest,))
    return found


def renew(db: sqlite3.Connection, cache: Cache, sequence: int, deadline: int) -> None:
    """Give the reservation that was made by the entry *sequence* another deadline."""
    db.execute(_RENEW, (sequence, deadline))
    cache.earliest = min(cache.earliest, deadline)
