"""What each verb reads and writes, inside one transaction of the SQLite ledger.

A verb finds all its errors before its first write, so an error of one verb leaves the transaction of a group whole.
Balances are changed by what a verb adds or takes, in the file and in the cache alike: a verb that a finaliser brings in
the middle of another is counted in both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt, Crossing
from agentbudget.domain.ledger import Granted, Refused, ReservationState, Settled, Shortfall
from agentbudget.errors import ReservationConflictError, ReservationNotFoundError
from agentbudget.ledgers import plan, sqlite_alerts, sqlite_leases
from agentbudget.ledgers.sqlite_cache import Cache, Found, Row
from agentbudget.ledgers.sqlite_lines import Terms, digest, packed, terms_of, unpacked, written
from agentbudget.ledgers.sqlite_schema import LATEST

_LIVE, _SETTLED, _RELEASED, _EXPIRED = ReservationState
_GRANTED = Granted()
_RESERVE = """
INSERT INTO journal (sequence, verb, id, step, lines, at, deadline, keys) VALUES (?, 'reserve', ?, 0, ?, ?, ?, ?)
ON CONFLICT (id, step) DO NOTHING
"""
_WRITE = "INSERT INTO journal (sequence, verb, id, step, lines, at, keys, terms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_HOLD = "UPDATE account SET reserved = reserved + ?, declared = ? WHERE id = ?"
_GIVE_BACK = "UPDATE account SET reserved = reserved - ?, presumed = presumed + ? WHERE id = ?"
_CHARGE = {
    column: f"UPDATE account SET {column or 'cut'} = {column or 'cut'} - ?, settled = settled + ?, "  # noqa: S608 - constants
    "overrun = overrun + ? WHERE id = ?"
    for column in ("reserved", "presumed", "")
}
"""By the column that holds what was reserved; where none does, 0 is taken from another."""


class Book:
    """The ledger during one transaction. *clock* is its time in microseconds; it never runs back behind an entry."""

    def __init__(self, db: sqlite3.Connection, cache: Cache, clock: int, *, charging: bool) -> None:
        self._db = db
        self._cache = cache
        self._charging = charging
        self.has_reserved = False
        """Whether a verb of this transaction has reserved something."""
        cache.look(db)
        self.now: int = max(clock, cache.at)
        if cache.earliest <= self.now:
            self._sweep()

    # -- verbs, their arguments checked --------------------------------------------------------------------------------

    def reserve(self, reservation_id: str, postings: Sequence[Posting], lease: int) -> Granted | Refused:
        """Take every posting or none."""
        lines = sorted([(account.key, amount, limit) for account, amount, limit in postings])  # no key is there twice
        keys, amounts, limits = zip(*lines)
        terms = terms_of(keys, amounts)
        rows = self._cache.rows(self._db, keys)
        full = _is_full(rows, amounts, limits)
        if full or not all([row.id for row in rows]):  # noqa: C419 - quicker than a generator
            found = self._cache.find(self._db, reservation_id)
            if found is not None:
                return _known(found, terms, reservation_id)
            if full:
                return Refused(self._shortfalls(postings))
            rows = [self._opened(row) for row in rows]
        homes = [row.id for row in rows]
        held = [(home, amount) for home, amount in zip(homes, amounts) if amount]
        sequence, deadline = self._next(), min(self.now + lease, LATEST)
        entry = (sequence, reservation_id, packed(held), self.now, deadline, terms[0])
        if not self._db.execute(_RESERVE, entry).rowcount:  # all its accounts exist, so nothing was written yet
            return _known(self._stored(reservation_id), terms, reservation_id)
        self._db.executemany(_HOLD, zip(amounts, limits, homes))
        for row, amount, limit in zip(rows, amounts, limits):
            row.reserved += amount
            row.declared = limit
        self._cache.live[reservation_id] = Found(_LIVE, 1, sequence, terms, None, held)
        self._cache.earliest = min(self._cache.earliest, deadline)
        self.has_reserved = True
        return _GRANTED

    def settle(self, reservation_id: str, charges: Sequence[Charge], alert_at: AlertAt | None = None) -> Settled:
        """Replace the reservation by what was really spent; tell which of the thresholds that reached."""
        lines = sorted([(account.key, reserved, actual) for account, reserved, actual in charges if reserved or actual])
        keys, reserved, actuals = zip(*lines) if lines else ((), (), ())
        terms = terms_of(keys, reserved)
        spent = digest(keys), actuals
        found = self._cache.find(self._db, reservation_id)
        if found is not None and found.terms is not None:
            if found.terms != terms:
                raise ReservationConflictError(f"reservation {reservation_id!r} holds other accounts or amounts.")
            if found.state is _SETTLED:
                if found.spent != spent:
                    raise ReservationConflictError(f"reservation {reservation_id!r} was settled with another amount.")
                return Settled("duplicate", sqlite_alerts.crossed_by(self._db, reservation_id))
        homes = self._homes(keys, reserved, found)
        charged = list(zip(homes, actuals))
        self._charge(homes, reserved, actuals, self._held_in(found))
        told = None if found is not None and found.terms is not None else written(terms)
        self._write("settle", reservation_id, 0 if found is None else found.entries, packed(charged), spent[0], told)
        how = "lost" if found is None else "settled" if found.state is _LIVE else "late"
        return Settled(how, self._alerted(reservation_id, charged, alert_at)) if alert_at else Settled(how)

    def release(self, reservation_id: str) -> ReservationState:
        """Give the reservation back; an unknown one leaves a tombstone."""
        found = self._cache.find(self._db, reservation_id)
        if found is not None and found.state is not _LIVE:
            return found.state
        self._write("release", reservation_id, 0 if found is None else found.entries, "")
        if found is not None:
            self._give_back(found.held, presume=False)
        return _RELEASED

    def renew(self, reservation_id: str, lease: int) -> ReservationState:
        """Start the lease of a live reservation anew."""
        found = self._cache.find(self._db, reservation_id)
        if found is None:
            raise ReservationNotFoundError(f"no reservation {reservation_id!r} to renew: reserve it first.")
        if found.state is _LIVE:
            sqlite_leases.renew(self._db, self._cache, found.sequence, min(self.now + lease, LATEST))
        return found.state

    def top_up(self, grant_id: str, account: Account, amount: int) -> Balance:
        """Add to the limit, once per id."""
        (row,) = self._cache.rows(self._db, [account.key])
        known = self._db.execute("SELECT account, amount FROM topup WHERE id = ?", (grant_id,)).fetchone()
        if known is not None:
            if known != (row.id, amount):
                raise ReservationConflictError(f"grant {grant_id!r} was made with another account or amount.")
            return row.balance(row.declared)
        plan.check_amount(row.granted + amount, what=f"sum of all top-ups of {account}")
        row = self._opened(row)
        self._db.execute("UPDATE account SET granted = granted + ? WHERE id = ?", (amount, row.id))
        self._db.execute("INSERT INTO topup VALUES (?, ?, ?)", (grant_id, row.id, amount))
        row.granted += amount
        self._write_apart("grant", grant_id, row, amount)
        return row.balance(row.declared)

    def set_limit(self, account: Account, limit: int | None) -> Balance:
        """Pin the limit; what it cuts is an entry of its own."""
        row = self._opened(self._cache.rows(self._db, [account.key])[0])
        lost = plan.cut(limit, grants=row.granted, committed=row.committed, overrun=row.overrun)
        pin = plan.NO_LIMIT if limit is None else limit
        self._db.execute("UPDATE account SET pin = ?, cut = ? WHERE id = ?", (pin, lost, row.id))
        row.pin, row.cut = pin, lost
        self._write_apart("limit", "", row, pin)
        self._write_apart("cut", "", row, lost)
        return row.balance(row.declared)

    def balance(self, account: Account) -> Balance:
        """The balance now."""
        (row,) = self._cache.rows(self._db, [account.key])
        return row.balance(row.declared)

    def keys(self) -> list[str]:
        """The key of every account."""
        return [key for (key,) in self._db.execute("SELECT key FROM account ORDER BY id")]

    def collect(self, keys: Sequence[str]) -> int:
        """Forget accounts of which nothing is reserved."""
        dropped = [row.id for row in self._cache.rows(self._db, keys) if row.id and not row.reserved]
        for account in dropped:
            self._db.execute("DELETE FROM account WHERE id = ?", (account,))
            self._db.execute("DELETE FROM topup WHERE account = ?", (account,))
            self._cache.drop(account)
        return len(dropped)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _opened(self, row: Row) -> Row:
        """*row* as it is stored; made if it was not."""
        if row.id:
            return row
        known = self._cache.accounts.get(row.key)
        if known is not None:
            return known
        made = self._db.execute("INSERT INTO account (key) VALUES (?)", (row.key,)).lastrowid
        if made is None:
            raise AssertionError("an inserted row has an id")
        row.id = made
        return self._cache.remember(row)

    def _shortfalls(self, postings: Sequence[Posting]) -> tuple[Shortfall, ...]:
        """Every posting that has no room, in the order of the postings."""
        rows = self._cache.rows(self._db, [account.key for account, _, _ in postings])
        return tuple(
            Shortfall(account, amount, row.balance(limit))
            for row, (account, amount, limit) in zip(rows, postings)
            if _is_full([row], [amount], [limit])
        )

    def _stored(self, reservation_id: str) -> Found:
        found = self._cache.find(self._db, reservation_id)
        if found is None:
            raise AssertionError("a reservation that is in the way is there")
        return found

    def _charge(self, homes: Sequence[int], reserved: Sequence[int], actuals: Sequence[int], column: str) -> None:
        """Move what was *reserved* of the accounts *homes* from *column* to settled, as much as it was actually."""
        stored = self._cache.stored
        changes = []
        for home, held, actual in zip(homes, reserved, actuals):
            kept = held if column else 0
            past = actual - kept if actual > kept else 0
            changes.append((kept, actual, past, home))
            if (row := stored.get(home)) is not None:
                row.settled += actual
                row.overrun += past
                if column == "reserved":
                    row.reserved -= kept
                else:
                    row.presumed -= kept
        self._db.executemany(_CHARGE[column], changes)

    def _alerted(
        self, reservation_id: str, charged: Sequence[tuple[int, int]], alert_at: AlertAt
    ) -> tuple[Crossing, ...]:
        """The thresholds that *charged*, accounts and amounts, have reached."""
        found = [(self._cache.row(self._db, home), actual) for home, actual in charged]
        rows = [(row, actual) for row, actual in found if row is not None]
        return sqlite_alerts.raise_alerts(self._db, reservation_id, rows, alert_at, self.now)

    def _held_in(self, found: Found | None) -> str:
        """The column in which the amounts of this reservation still stand; empty for none."""
        if found is None or found.state is _RELEASED:
            return ""
        if found.state is _LIVE:
            return "reserved"
        return "presumed" if self._charging else ""

    def _homes(self, keys: Sequence[str], reserved: Sequence[int], found: Found | None) -> list[int]:
        """The account ids of the lines of a settlement.

        An account that the reservation held may have been collected since; its line stays with the id it had.
        """
        held = found.held if found is not None else ()
        if len(held) == len(keys):
            return [home for home, _ in held]
        fresh = [key for key, amount in zip(keys, reserved) if not (amount and held)]
        opened = iter([self._opened(row) for row in self._cache.rows(self._db, fresh)])
        kept = iter(held)
        return [next(kept)[0] if amount and held else next(opened).id for amount in reserved]

    def _give_back(self, held: Sequence[tuple[int, int]], *, presume: bool) -> None:
        """What was reserved is so no more; with *presume* it counts as spent."""
        changes = [(amount, amount * presume, home) for home, amount in held]
        self._db.executemany(_GIVE_BACK, changes)
        for amount, presumed, home in changes:
            if (row := self._cache.stored.get(home)) is not None:
                row.reserved -= amount
                row.presumed += presumed

    def _write(
        self,
        verb: str,
        reservation_id: str,
        step: int,
        lines: str,
        keys: bytes | None = None,
        told: bytes | None = None,
    ) -> None:
        """Add an entry that ends a reservation to the journal."""
        sequence = self._next()
        self._db.execute(_WRITE, (sequence, verb, reservation_id, step, lines, self.now, keys, told))
        self._cache.live.pop(reservation_id, None)

    def _write_apart(self, verb: str, entry_id: str, row: Row, amount: int) -> None:
        """Add an entry that belongs to no reservation to the journal."""
        lines = packed([(row.id, amount)])
        self._db.execute(_WRITE, (self._next(), verb, entry_id, None, lines, self.now, None, None))

    def _next(self) -> int:
        """The sequence of an entry that is written now."""
        cache = self._cache
        cache.sequence = sequence = cache.sequence + 1
        cache.at = self.now
        return sequence

    def _sweep(self) -> None:
        """Expire all that is due, so that every answer is exact."""
        for reservation_id, lines in sqlite_leases.take_due(self._db, self._cache, self.now):
            self._give_back(unpacked(lines), presume=self._charging)
            self._write("expire", reservation_id, 1, lines if self._charging else "")


def _known(found: Found, terms: Terms, reservation_id: str) -> Granted:
    """The answer to a reserve whose id is known."""
    if found.terms is not None and found.terms != terms:
        raise ReservationConflictError(f"reservation {reservation_id!r} holds other accounts or amounts.")
    return Granted(found.state)


def _is_full(rows: Sequence[Row], amounts: Sequence[int], limits: Sequence[int | None]) -> bool:
    """Whether one of *rows* has no room for its amount under its limit."""
    for row, amount, limit in zip(rows, amounts, limits):
        most = limit if row.pin is None and not row.granted else row.limit_under(limit)
        if row.settled + row.reserved + row.presumed + amount > (plan.MAX_AMOUNT if most is None else most):
            return True
    return False
