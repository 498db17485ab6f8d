"""What a connection to the SQLite ledger remembers from one transaction to the next, so that it need not read it again.

It holds as long as nobody else has written to the file. `PRAGMA data_version`, asked inside the transaction, tells: it
changes with every commit of another connection, the very thing by which SQLite trusts the pages that it keeps itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from agentbudget.domain.accounts import Balance
from agentbudget.domain.ledger import ReservationState
from agentbudget.ledgers import plan
from agentbudget.ledgers.sqlite_lines import Terms, read, unpacked
from agentbudget.ledgers.sqlite_schema import LATEST

MOST_REMEMBERED = 20_000
"""Accounts and live reservations; beyond it all are forgotten and read anew."""

_COLUMNS = "key, id, declared, pin, granted, cut, reserved, settled, presumed, overrun, raised"
_NEW = (0, None, None, 0, 0, 0, 0, 0, 0, 0)
_HEAD = """
SELECT coalesce((SELECT max(sequence) FROM journal), 0),
       coalesce((SELECT at FROM journal ORDER BY sequence DESC LIMIT 1), 0),
       watched.value,
       coalesce((SELECT min(deadline) FROM lease), ?),
       coalesce((SELECT min(deadline) FROM journal WHERE sequence > watched.value), ?)
FROM setting AS watched WHERE watched.name = 'watched'
"""
_FIND = "SELECT sequence, verb, lines, keys, terms FROM journal WHERE id = ? AND step >= 0 ORDER BY step"
_STATES = {
    "reserve": ReservationState.LIVE,
    "settle": ReservationState.SETTLED,
    "release": ReservationState.RELEASED,
    "expire": ReservationState.EXPIRED,
}


class Row:
    """One account as it is stored. `id` is 0 for one that is not."""

    __slots__ = (
        "cut",
        "declared",
        "granted",
        "id",
        "key",
        "overrun",
        "pin",
        "presumed",
        "raised",
        "reserved",
        "settled",
    )

    def __init__(self, key: str, columns: Sequence[Any] = _NEW) -> None:
        self.key = key
        self.id: int
        self.declared: int | None
        self.pin: int | None
        self.granted: int
        self.cut: int
        self.reserved: int
        self.settled: int
        self.presumed: int
        self.overrun: int
        self.raised: int
        (
            self.id,
            self.declared,
            self.pin,
            self.granted,
            self.cut,
            self.reserved,
            self.settled,
            self.presumed,
            self.overrun,
            self.raised,
        ) = columns

    @property
    def committed(self) -> int:
        """What counts against the limit."""
        return self.settled + self.reserved + self.presumed

    def limit_under(self, declared: int | None) -> int | None:
        """The limit that holds where a posting declares *declared*: the pin wins, grants add."""
        limit = declared if self.pin is None else None if self.pin == plan.NO_LIMIT else self.pin
        return limit if limit is None or not self.granted else plan.ceiling(limit, self.granted)

    def balance(self, declared: int | None) -> Balance:
        """The balance as a posting that declares *declared* sees it."""
        return Balance(
            limit=self.limit_under(declared),
            settled=self.settled,
            reserved=self.reserved,
            presumed=self.presumed,
            overrun=self.overrun,
            cut=self.cut,
        )


class Found(NamedTuple):
    """One reservation, as its entries have it."""

    state: ReservationState
    entries: int
    """How many it has; the next one's `step`."""
    sequence: int
    """Of the first of them."""
    terms: Terms | None
    """What was reserved, or what a settlement without a reservation said was; None for a tombstone."""
    spent: Terms | None
    """Once it is settled: the keys of all lines that were reserved or spent, and what was spent."""
    held: Sequence[tuple[int, int]]
    """`(account id, amount)` in the order of the accounts' keys, lines of 0 left out."""


class Cache:
    """The accounts and live reservations that were used last, where the journal ends, and when the next lease does.

    What is remembered is what the file says, at every moment of a transaction. Forget it when one is rolled back.
    """

    __slots__ = ("accounts", "at", "earliest", "live", "sequence", "stored", "version", "watched")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Trust nothing any more."""
        self.version = -1
        self.accounts: dict[str, Row] = {}
        """By key."""
        self.stored: dict[int, Row] = {}
        """The same, by id."""
        self.live: dict[str, Found] = {}
        """Live reservations by id."""
        self.sequence = 0
        """Of the newest entry."""
        self.at = 0
        """Its time."""
        self.watched = 0
        """Every reservation up to this sequence that is live has a row in `lease`."""
        self.earliest = LATEST
        """No lease runs out before."""

    def look(self, db: sqlite3.Connection) -> None:
        """In the beginning of a transaction: forget everything if somebody else has written since the last one."""
        version = db.execute("PRAGMA data_version").fetchone()[0]
        if version == self.version and len(self.stored) + len(self.live) < MOST_REMEMBERED:
            return
        self.forget()
        self.sequence, self.at, self.watched, *deadlines = db.execute(_HEAD, (LATEST, LATEST)).fetchone()
        self.earliest = min(deadlines)
        self.version = version

    def rows(self, db: sqlite3.Connection, keys: Sequence[str]) -> list[Row]:
        """The accounts with these *keys*, in their order; those that are not stored have the id 0."""
        accounts = self.accounts
        try:
            return [accounts[key] for key in keys]
        except KeyError:
            unknown = [key for key in keys if key not in accounts]
        marks = ",".join("?" * len(unknown))
        for key, *columns in db.execute(f"SELECT {_COLUMNS} FROM account WHERE key IN ({marks})", unknown):  # noqa: S608 - marks
            self.remember(Row(key, columns))
        return [accounts.get(key) or Row(key) for key in keys]

    def row(self, db: sqlite3.Connection, account: int) -> Row | None:
        """The account with this id; None if it was collected."""
        if account not in self.stored:
            found = db.execute(f"SELECT {_COLUMNS} FROM account WHERE id = ?", (account,)).fetchone()  # noqa: S608 - constants
            if found is None:
                return None
            self.remember(Row(found[0], found[1:]))
        return self.stored[account]

    def remember(self, row: Row) -> Row:
        """Keep *row*, which is stored."""
        self.accounts[row.key] = self.stored[row.id] = row
        return row

    def drop(self, account: int) -> None:
        """The account is stored no more."""
        row = self.stored.pop(account, None)
        if row is not None:
            del self.accounts[row.key]

    def find(self, db: sqlite3.Connection, reservation_id: str) -> Found | None:
        """The reservation with this id."""
        found = self.live.get(reservation_id)
        if found is not None:
            return found
        entries = db.execute(_FIND, (reservation_id,)).fetchall()
        return _found(entries) if entries else None


def _found(entries: Sequence[tuple[int, str, str, bytes | None, bytes | None]]) -> Found:
    first, verb, lines, keys, _ = entries[0]
    held = unpacked(lines) if verb == "reserve" else []
    terms = (keys or b"", tuple([amount for _, amount in held])) if verb == "reserve" else None
    spent = None
    _, verb, lines, keys, told = entries[-1]
    if verb == "settle":
        spent = keys or b"", tuple([amount for _, amount in unpacked(lines)])
        terms = terms if told is None else read(told)
    return Found(_STATES[verb], len(entries), first, terms, spent, held)
