"""The journal of the SQLite ledger: reading it, proving the balances by it, folding what is old."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from agentbudget.domain.ledger import JournalEntry, Verification
from agentbudget.ledgers import plan
from agentbudget.ledgers.keys import is_passing
from agentbudget.ledgers.sqlite_alerts import MICROSECONDS
from agentbudget.ledgers.sqlite_book import unpacked

FOLDED_AT_ONCE = 256
"""How many reservations are folded in one transaction: what an unlucky caller waits for stays short."""

_BASES = ("settled", "presumed", "overrun")
_COLUMNS = "settled, reserved, presumed, overrun, cut, granted, pin"
_COMPLETE = "reserved = 0 AND settled = base_settled AND presumed = base_presumed AND overrun = base_overrun"
"""Nothing of the account is in the journal but what was granted to it and pinned."""
_OLDEST = """
SELECT journal.id, at, deadline, reserved_in, ended_in, settled_in FROM journal JOIN reservation USING (id)
WHERE verb IN ('reserve', 'settle', 'release') ORDER BY sequence LIMIT ?
"""


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
    """Recompute every column of every account from the journal, and what is reserved from the live reservations."""
    told = plan.replay(entries(db))
    found: list[str] = []
    held = _held_by_account(db)
    stored = db.execute(f"SELECT id, key, {_COLUMNS} FROM account ORDER BY key").fetchall()  # noqa: S608 - constants
    for account, key, *columns in stored:
        kept = plan.Columns(*columns)
        found += plan.differences(key, recorded=told.columns.get(key, plan.Columns()), stored=kept)
        if held.get(account, 0) != kept.reserved:
            found.append(f"{key}: reserved is {kept.reserved}, its live reservations hold {held.get(account, 0)}")
    return Verification(accounts=len(stored), entries=told.entries, differences=tuple(found))


def fold(db: sqlite3.Connection, before: int) -> int:
    """Turn reservations that were resolved before that time into checkpoints; how many were folded.

    Their ids are forgotten: a settle of one that comes after this counts as lost. The newest entry always stays, so
    that no sequence is used twice and the ledger's time does not run back.
    """
    newest = db.execute("SELECT max(sequence) FROM journal").fetchone()[0]
    old: dict[str, list[int]] = {}
    for reservation_id, at, deadline, *sequences in db.execute(_OLDEST, (2 * FOLDED_AT_ONCE,)).fetchall():
        if at >= before:
            break
        known = [sequence for sequence in sequences if sequence is not None]
        if deadline is None and max(known) != newest and _at(db, max(known)) < before:
            old[reservation_id] = known
    for reservation_id, known in old.items():
        _fold(db, reservation_id, known)
    return len(old)


def collect_idle(db: sqlite3.Connection, before: int) -> int:
    """Forget tasks, minutes and hours whose last reservation was resolved before that time; how many were forgotten.

    What they spent stays in the accounts of their users and teams, and in the trace.
    """
    idle = db.execute("SELECT account FROM idle WHERE since < ? ORDER BY since LIMIT ?", (before, FOLDED_AT_ONCE))
    found = [account for (account,) in idle.fetchall()]
    for account in found:
        if db.execute(f"DELETE FROM account WHERE id = ? AND {_COMPLETE}", (account,)).rowcount:  # noqa: S608 - constants
            db.execute("DELETE FROM topup WHERE account = ?", (account,))
            db.execute("DELETE FROM alert WHERE account = ?", (account,))
        db.execute("DELETE FROM idle WHERE account = ?", (account,))
    return len(found)


def _at(db: sqlite3.Connection, sequence: int) -> int:
    at: int = db.execute("SELECT at FROM journal WHERE sequence = ?", (sequence,)).fetchone()[0]
    return at


def _fold(db: sqlite3.Connection, reservation_id: str, sequences: list[int]) -> None:
    marks = ",".join("?" * len(sequences))
    which = f"FROM journal WHERE sequence IN ({marks})"
    rows = db.execute(f"SELECT sequence, verb, id, lines, at {which} ORDER BY sequence", sequences).fetchall()
    accounts = {account: str(account) for row in rows for account, _ in unpacked(row[3])}
    for account, columns in plan.replay(_entry(row, accounts) for row in rows).columns.items():
        db.execute(
            "UPDATE account SET base_settled = base_settled + ?, base_presumed = base_presumed + ?, "
            "base_overrun = base_overrun + ? WHERE id = ?",
            (columns.settled, columns.presumed, columns.overrun, int(account)),
        )
        _note_idle(db, int(account), since=rows[-1][4])
    db.execute(f"DELETE {which}", sequences)
    db.execute("DELETE FROM reservation WHERE id = ?", (reservation_id,))
    db.execute("DELETE FROM crossing WHERE reservation = ?", (reservation_id,))


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


def _held_by_account(db: sqlite3.Connection) -> dict[int, int]:
    held: dict[int, int] = {}
    for (packed,) in db.execute("SELECT held FROM reservation WHERE deadline IS NOT NULL"):
        for account, amount in unpacked(packed):
            held[account] = held.get(account, 0) + amount
    return held
