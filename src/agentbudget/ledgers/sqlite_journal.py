"""The journal of the SQLite ledger: reading it, proving the balances by it, folding what is old."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from agentbudget.domain.ledger import JournalEntry, Verification
from agentbudget.ledgers import plan
from agentbudget.ledgers.keys import is_passing
from agentbudget.ledgers.sqlite_cache import Cache
from agentbudget.ledgers.sqlite_leases import LIVE
from agentbudget.ledgers.sqlite_lines import unpacked
from agentbudget.ledgers.sqlite_schema import MICROSECONDS

FOLDED_AT_ONCE = 256
"""How many reservations are folded in one transaction: what an unlucky caller waits for stays short."""

_BASES = ("settled", "presumed", "overrun")
_COLUMNS = "settled, reserved, presumed, overrun, cut, granted, pin"
_COMPLETE = "reserved = 0 AND settled = base_settled AND presumed = base_presumed AND overrun = base_overrun"
"""Nothing of the account is in the journal but what was granted to it and pinned."""
_OLDEST = "SELECT id, at FROM journal WHERE step IS NOT NULL ORDER BY sequence LIMIT ?"
_UNWATCHED = f"""
SELECT id FROM journal WHERE {LIVE} AND sequence <= (SELECT value FROM setting WHERE name = 'watched')
AND sequence NOT IN (SELECT sequence FROM lease) ORDER BY sequence
"""  # noqa: S608 - constants


def entries(db: sqlite3.Connection) -> Iterator[JournalEntry]:
    """Every retained entry over the accounts that still exist, checkpoints first."""
    keys = dict(db.execute("SELECT id, key FROM account").fetchall())
    last = db.execute("SELECT coalesce(max(at), 0) FROM journal").fetchone()[0]
    for column in _BASES:
        base = f"SELECT key, base_{column} FROM account WHERE base_{column} != 0 ORDER BY id"  # noqa: S608 - constants
        for line in db.execute(base):
            yield JournalEntry(sequence=0, verb="checkpoint", id=column, lines=(line,), at=last / MICROSECONDS)
    for row in db.execute("SELECT sequence, verb, id, lines, at FROM journal ORDER BY sequence"):
        entry = _entry(row, keys)
        if entry.lines or not row[3]:
            yield entry


def verify(db: sqlite3.Connection) -> Verification:
    """Recompute every column of every account from the journal, and see that every live reservation will end."""
    told = plan.replay(entries(db))
    found: list[str] = []
    stored = db.execute(f"SELECT key, {_COLUMNS} FROM account ORDER BY key").fetchall()  # noqa: S608 - constants
    for key, *columns in stored:
        recorded = told.columns.get(key, plan.Columns())
        found += plan.differences(key, recorded=recorded, stored=plan.Columns(*columns))
    found += [f"reservation {one!r}: it is live, but nobody watches its lease" for (one,) in db.execute(_UNWATCHED)]
    return Verification(accounts=len(stored), entries=told.entries, differences=tuple(found))


def fold(db: sqlite3.Connection, before: int) -> int:
    """Turn reservations that were resolved before that time into checkpoints; how many were folded.

    Their ids are forgotten: a settle of one that comes after this counts as lost. The newest entry always stays, so
    that no sequence is used twice and the ledger's time does not run back.
    """
    newest = db.execute("SELECT max(sequence) FROM journal").fetchone()[0]
    old: dict[str, None] = {}
    for reservation_id, at in db.execute(_OLDEST, (2 * FOLDED_AT_ONCE,)):
        if at >= before:
            break
        old[reservation_id] = None
    return sum(_fold(db, reservation_id, before, newest) for reservation_id in old)


def collect_idle(db: sqlite3.Connection, cache: Cache, before: int) -> int:
    """Forget tasks, minutes and hours whose last reservation was resolved before that time; how many were forgotten.

    What they spent stays in the accounts of their users and teams, and in the trace.
    """
    idle = db.execute("SELECT account FROM idle WHERE since < ? ORDER BY since LIMIT ?", (before, FOLDED_AT_ONCE))
    found = [account for (account,) in idle.fetchall()]
    for account in found:
        if db.execute(f"DELETE FROM account WHERE id = ? AND {_COMPLETE}", (account,)).rowcount:  # noqa: S608 - constants
            db.execute("DELETE FROM topup WHERE account = ?", (account,))
            cache.drop(account)
        db.execute("DELETE FROM idle WHERE account = ?", (account,))
    return len(found)


def _fold(db: sqlite3.Connection, reservation_id: str, before: int, newest: int) -> bool:
    """Fold one reservation, if it is resolved and all its entries are old; whether it was."""
    which = "FROM journal WHERE id = ? AND step >= 0"
    rows = db.execute(f"SELECT sequence, verb, id, lines, at {which} ORDER BY step", (reservation_id,)).fetchall()
    sequence, verb, *_, at = rows[-1]
    if verb == "reserve" or at >= before or sequence == newest:
        return False
    accounts = {account: str(account) for row in rows for account, _ in unpacked(row[3])}
    for account, columns in plan.replay(_entry(row, accounts) for row in rows).columns.items():
        db.execute(
            "UPDATE account SET base_settled = base_settled + ?, base_presumed = base_presumed + ?, "
            "base_overrun = base_overrun + ? WHERE id = ?",
            (columns.settled, columns.presumed, columns.overrun, int(account)),
        )
        _note_idle(db, int(account), since=at)
    db.execute(f"DELETE {which}", (reservation_id,))
    db.execute("DELETE FROM crossing WHERE reservation = ?", (reservation_id,))
    return True


def _note_idle(db: sqlite3.Connection, account: int, *, since: int) -> None:
    """Note an account of which nothing is retained any more, if it may be collected some day."""
    key = db.execute(f"SELECT key FROM account WHERE id = ? AND {_COMPLETE}", (account,)).fetchone()  # noqa: S608 - constants
    if key is not None and is_passing(key[0]):
        db.execute(
            "INSERT INTO idle VALUES (?, ?) ON CONFLICT (account) DO UPDATE SET since = excluded.since",
            (account, since),
        )


def _entry(row: tuple[int, str, str, str, int], keys: dict[int, str]) -> JournalEntry:
    sequence, verb, entry_id, packed, at = row
    lines = tuple((keys[account], amount) for account, amount in unpacked(packed) if account in keys)
    return JournalEntry(sequence=sequence, verb=verb, id=entry_id, lines=lines, at=at / MICROSECONDS)
