"""What each verb reads and writes, inside one transaction of the SQLite ledger.

A verb finds all its errors before its first write, so an error of one verb leaves the transaction of a group whole.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt
from agentbudget.domain.ledger import Granted, Refused, ReservationState, Settled, Shortfall
from agentbudget.errors import ReservationConflictError, ReservationNotFoundError
from agentbudget.ledgers import plan, sqlite_alerts
from agentbudget.ledgers.sqlite_alerts import limit_under

LATEST = 2**62
"""A deadline no clock reaches."""

_LIVE, _SETTLED, _RELEASED, _EXPIRED = ReservationState
_ACCOUNT = "id, key, declared, pin, granted, cut, reserved, settled, presumed, overrun"
_FIND_RESERVATION = "SELECT state, deadline, terms, spent, held FROM reservation WHERE id = ?"
_HEAD = """
SELECT (SELECT max(sequence) FROM journal), (SELECT at FROM journal ORDER BY sequence DESC LIMIT 1),
       (SELECT min(deadline) FROM reservation WHERE deadline IS NOT NULL)
"""
_HOLD = "UPDATE account SET reserved = reserved + ?, declared = ? WHERE id = ?"
_CHARGE = {
    column: f"UPDATE account SET {column or 'cut'} = {column or 'cut'} - ?, settled = settled + ?, "  # noqa: S608 - constants
    "overrun = overrun + ? WHERE id = ?"
    for column in ("reserved", "presumed", "")
}
"""By the column that holds what was reserved; where none does, 0 is taken from another."""
_ADD_RESERVATION = """
INSERT INTO reservation (id, state, deadline, terms, held, reserved_in) VALUES (?, 'live', ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING
"""
_SETTLE_LIVE = """
UPDATE reservation SET state = 'settled', deadline = NULL, spent = ?, settled_in = ?
WHERE id = ? AND state = 'live' AND terms = ? RETURNING held
"""
_SETTLE_ENDED = """
INSERT INTO reservation (id, state, terms, spent, held, settled_in) VALUES (?, 'settled', ?, ?, '', ?)
ON CONFLICT (id) DO UPDATE
SET state = 'settled', terms = excluded.terms, spent = excluded.spent, settled_in = excluded.settled_in
"""


class Row(NamedTuple):
    """One account as it is stored. `id` is 0 for one that is not."""

    id: int
    key: str
    declared: int | None = None
    pin: int | None = None
    granted: int = 0
    cut: int = 0
    reserved: int = 0
    settled: int = 0
    presumed: int = 0
    overrun: int = 0

    @property
    def committed(self) -> int:
        """What counts against the limit."""
        return self.settled + self.reserved + self.presumed

    def limit_under(self, declared: int | None) -> int | None:
        """The limit that holds where a posting declares *declared*: the pin wins, grants add."""
        return limit_under(declared, self.pin, self.granted)

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
    """One reservation as it is stored. `terms` is None for a tombstone."""

    state: ReservationState
    deadline: int | None
    terms: bytes | None
    spent: bytes | None
    held: list[tuple[int, int]]
    """`(account id, amount)` in the order of the accounts' keys, lines of 0 left out."""


class Book:
    """The ledger during one transaction. *clock* is its time in microseconds; it never runs back behind an entry."""

    def __init__(self, db: sqlite3.Connection, clock: int, *, charging: bool) -> None:
        self._db = db
        self._charging = charging
        sequence, last, due = db.execute(_HEAD).fetchone()
        self._sequence: int = sequence or 0
        self.has_reserved = False
        """Whether a verb of this transaction has reserved something."""
        self.now: int = max(clock, last or 0)
        if due is not None and due <= self.now:
            self._sweep()

    # -- verbs, their arguments checked --------------------------------------------------------------------------------

    def reserve(self, reservation_id: str, postings: Sequence[Posting], lease: int) -> Granted | Refused:
        """Take every posting or none."""
        lines = sorted([(account.key, amount, limit) for account, amount, limit in postings], key=_key)
        fingerprint = _fingerprint([(key, amount) for key, amount, _ in lines])
        rows = self._rows([key for key, _, _ in lines])
        if len(rows) < len(lines) and (found := self._find(reservation_id)) is not None:
            return _known(found, fingerprint, reservation_id)
        shortfalls = _shortfalls(postings, rows)
        if shortfalls:
            found = self._find(reservation_id)
            return Refused(shortfalls) if found is None else _known(found, fingerprint, reservation_id)
        homes = [(self._open(key, rows), amount, limit) for key, amount, limit in lines]
        packed = _packed([(account, amount) for account, amount, _ in homes if amount])
        deadline = min(self.now + lease, LATEST)
        add = (reservation_id, deadline, fingerprint, packed, self._sequence + 1)
        if not self._db.execute(_ADD_RESERVATION, add).rowcount:  # all its accounts exist, so nothing was written yet
            return _known(self._stored(reservation_id), fingerprint, reservation_id)
        self.has_reserved = True
        self._db.executemany(_HOLD, [(amount, limit, account) for account, amount, limit in homes])
        self._write("reserve", reservation_id, packed)
        return Granted()

    def settle(self, reservation_id: str, charges: Sequence[Charge], alert_at: AlertAt | None = None) -> Settled:
        """Replace the reservation by what was really spent; tell which of the thresholds that reached."""
        lines = sorted([(account.key, reserved, actual) for account, reserved, actual in charges], key=_key)
        terms = _fingerprint([(key, reserved) for key, reserved, _ in lines])
        spent = _fingerprint([(key, actual) for key, _, actual in lines])
        ended = (spent, self._sequence + 1, reservation_id, terms)
        live = self._db.execute(_SETTLE_LIVE, ended).fetchall()
        if live:
            homes = [account for account, _ in unpacked(live[0][0])]
            charged = self._charge(reservation_id, lines, homes, held_in="reserved")
            return self._alerted("settled", reservation_id, charged, alert_at) if alert_at else Settled()
        found = self._find(reservation_id)
        if found is not None and found.terms is not None:
            if found.terms != terms:
                raise ReservationConflictError(f"reservation {reservation_id!r} holds other accounts or amounts.")
            if found.state is _SETTLED:
                if found.spent != spent:
                    raise ReservationConflictError(f"reservation {reservation_id!r} was settled with another amount.")
                return Settled("duplicate", sqlite_alerts.crossed_by(self._db, reservation_id))
        self._db.execute(_SETTLE_ENDED, (reservation_id, terms, spent, self._sequence + 1))
        presumed = found is not None and found.state is _EXPIRED and self._charging
        homes = [account for account, _ in found.held] if found is not None else []
        charged = self._charge(reservation_id, lines, homes, held_in="presumed" if presumed else "")
        how = "lost" if found is None else "late"
        return self._alerted(how, reservation_id, charged, alert_at) if alert_at else Settled(how)

    def release(self, reservation_id: str) -> ReservationState:
        """Give the reservation back; an unknown one leaves a tombstone."""
        found = self._find(reservation_id)
        if found is not None and found.state is not _LIVE:
            return found.state
        sequence = self._write("release", reservation_id, "")
        if found is None:
            tombstone = "INSERT INTO reservation (id, state, held, ended_in) VALUES (?, 'released', '', ?)"
            self._db.execute(tombstone, (reservation_id, sequence))
            return _RELEASED
        give_back = "UPDATE account SET reserved = reserved - ? WHERE id = ?"
        self._db.executemany(give_back, [(amount, account) for account, amount in found.held])
        self._end(reservation_id, _RELEASED, sequence)
        return _RELEASED

    def renew(self, reservation_id: str, lease: int) -> ReservationState:
        """Start the lease of a live reservation anew."""
        found = self._find(reservation_id)
        if found is None:
            raise ReservationNotFoundError(f"no reservation {reservation_id!r} to renew: reserve it first.")
        if found.state is _LIVE:
            renewed = (min(self.now + lease, LATEST), reservation_id)
            self._db.execute("UPDATE reservation SET deadline = ? WHERE id = ?", renewed)
        return found.state

    def top_up(self, grant_id: str, account: Account, amount: int) -> Balance:
        """Add to the limit, once per id."""
        rows = self._rows([account.key])
        row = rows.get(account.key)
        known = self._db.execute("SELECT account, amount FROM topup WHERE id = ?", (grant_id,)).fetchone()
        if known is not None:
            if row is None or known != (row.id, amount):
                raise ReservationConflictError(f"grant {grant_id!r} was made with another account or amount.")
            return row.balance(row.declared)
        granted = (row.granted if row else 0) + amount
        plan.check_amount(granted, what=f"sum of all top-ups of {account}")
        home = self._open(account.key, rows)
        self._db.execute("UPDATE account SET granted = ? WHERE id = ?", (granted, home))
        self._db.execute("INSERT INTO topup VALUES (?, ?, ?)", (grant_id, home, amount))
        self._write("grant", grant_id, _packed([(home, amount)]))
        return self.balance(account)

    def set_limit(self, account: Account, limit: int | None) -> Balance:
        """Pin the limit; what it cuts is an entry of its own."""
        rows = self._rows([account.key])
        row = rows.get(account.key) or Row(0, account.key)
        home = self._open(account.key, rows)
        lost = plan.cut(limit, grants=row.granted, committed=row.committed, overrun=row.overrun)
        pin = plan.NO_LIMIT if limit is None else limit
        self._db.execute("UPDATE account SET pin = ?, cut = ? WHERE id = ?", (pin, lost, home))
        self._write("limit", "", _packed([(home, pin)]))
        self._write("cut", "", _packed([(home, lost)]))
        return self.balance(account)

    def balance(self, account: Account) -> Balance:
        """The balance now."""
        row = self._rows([account.key]).get(account.key)
        return Balance(limit=None) if row is None else row.balance(row.declared)

    def keys(self) -> list[str]:
        """The key of every account."""
        return [key for (key,) in self._db.execute("SELECT key FROM account ORDER BY id")]

    def collect(self, keys: Sequence[str]) -> int:
        """Forget accounts of which nothing is reserved."""
        dropped = 0
        for row in self._rows(keys).values():
            if row.reserved:
                continue
            self._db.execute("DELETE FROM account WHERE id = ?", (row.id,))
            self._db.execute("DELETE FROM topup WHERE account = ?", (row.id,))
            self._db.execute("DELETE FROM alert WHERE account = ?", (row.id,))
            dropped += 1
        return dropped

    # -- inside --------------------------------------------------------------------------------------------------------

    def _find(self, reservation_id: str) -> Found | None:
        row = self._db.execute(_FIND_RESERVATION, (reservation_id,)).fetchone()
        if row is None:
            return None
        state, deadline, terms, spent, held = row
        return Found(ReservationState(state), deadline, terms, spent, unpacked(held))

    def _stored(self, reservation_id: str) -> Found:
        found = self._find(reservation_id)
        if found is None:
            raise AssertionError("a reservation that is in the way is there")
        return found

    def _rows(self, keys: Sequence[str]) -> dict[str, Row]:
        """The stored accounts among *keys*."""
        marks = ",".join("?" * len(keys))
        found = self._db.execute(f"SELECT {_ACCOUNT} FROM account WHERE key IN ({marks})", list(keys))  # noqa: S608 - marks
        return {row[1]: Row._make(row) for row in found}

    def _open(self, key: str, rows: dict[str, Row]) -> int:
        """The id of the account with this *key*, made if it is not among *rows*."""
        if key in rows:
            return rows[key].id
        made = self._db.execute("INSERT INTO account (key) VALUES (?)", (key,)).lastrowid
        if made is None:
            raise AssertionError("an inserted row has an id")
        return made

    def _charge(
        self, reservation_id: str, lines: Sequence[tuple[str, int, int]], homes: Sequence[int], *, held_in: str
    ) -> list[tuple[int, int]]:
        """Move each `(key, reserved, actual)` of *lines* from the column *held_in* (empty: held no more) to settled.

        An account that the reservation held may have been collected since; its line stays with the id it had, which is
        the next of *homes*. Returns the account ids and what each was charged.
        """
        fresh = [key for key, reserved, actual in lines if (reserved or actual) and not (homes and reserved)]
        rows = self._rows(fresh) if fresh else {}
        held = iter(homes)
        changes, packed = [], []
        for key, reserved, actual in lines:
            if not reserved and not actual:
                continue
            account = next(held) if reserved and homes else self._open(key, rows)
            kept = reserved if held_in else 0
            past = actual - kept if actual > kept else 0
            changes.append((kept, actual, past, account))
            packed.append((account, actual))
        self._db.executemany(_CHARGE[held_in], changes)
        self._write("settle", reservation_id, _packed(packed))
        return packed

    def _alerted(self, how: str, reservation_id: str, charged: list[tuple[int, int]], alert_at: AlertAt) -> Settled:
        return Settled(how, sqlite_alerts.raise_alerts(self._db, reservation_id, charged, alert_at, self.now))

    def _end(self, reservation_id: str, state: ReservationState, sequence: int) -> None:
        self._db.execute(
            "UPDATE reservation SET state = ?, deadline = NULL, ended_in = ? WHERE id = ?",
            (state.value, sequence, reservation_id),
        )

    def _write(self, verb: str, entry_id: str, lines: str) -> int:
        """Add an entry to the journal; its sequence."""
        self._sequence += 1
        self._db.execute(
            "INSERT INTO journal VALUES (?, ?, ?, ?, ?)", (self._sequence, verb, entry_id, lines, self.now)
        )
        return self._sequence

    def _sweep(self) -> None:
        """Expire all that is due, so that every answer is exact."""
        due = "SELECT id, held FROM reservation WHERE deadline <= ? ORDER BY deadline, id"
        expire = "UPDATE account SET reserved = reserved - ?, presumed = presumed + ? WHERE id = ?"
        for reservation_id, held in self._db.execute(due, (self.now,)).fetchall():
            self._db.executemany(
                expire, [(amount, amount * self._charging, account) for account, amount in unpacked(held)]
            )
            self._end(reservation_id, _EXPIRED, self._write("expire", reservation_id, held if self._charging else ""))


def unpacked(lines: str) -> list[tuple[int, int]]:
    """`(account id, amount)` of each line."""
    return [(int(account), int(amount)) for account, _, amount in (line.partition(":") for line in lines.split())]


def _packed(lines: Iterable[tuple[int, int]]) -> str:
    return " ".join([f"{account}:{amount}" for account, amount in lines])


def _key(line: tuple[str, int, int | None]) -> str:
    return line[0]


def _known(found: Found, terms: bytes, reservation_id: str) -> Granted:
    """The answer to a reserve whose id is known."""
    if found.terms is not None and found.terms != terms:
        raise ReservationConflictError(f"reservation {reservation_id!r} holds other accounts or amounts.")
    return Granted(found.state)


def _shortfalls(postings: Sequence[Posting], rows: Mapping[str, Row]) -> tuple[Shortfall, ...]:
    """Every posting that has no room, in the order of the postings."""
    found = []
    for account, amount, limit in postings:
        row = rows.get(account.key) or Row(0, account.key)
        most = row.limit_under(limit)
        if row.committed + amount > (plan.MAX_AMOUNT if most is None else most):
            found.append(Shortfall(account, amount, row.balance(limit)))
    return tuple(found)


def _fingerprint(lines: Sequence[tuple[str, int]]) -> bytes:
    """16 bytes that tell terms apart, of *lines* in the order of their keys; no key holds a blank or a line break."""
    text = "\n".join([f"{key} {amount}" for key, amount in lines if amount])
    return blake2b(text.encode(), digest_size=16).digest()
