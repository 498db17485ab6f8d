"""The ledger in this process's memory: exact under threads, gone with the process.

Reserving and settling what is ordinary takes the short path in `reserve` and `settle`. Whatever is not (another
limit, no room, a retry, bad input) goes the careful way, which is complete in itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt, Crossing, check_alert_at
from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import (
    Granted,
    JournalEntry,
    OnExpire,
    Refused,
    ReservationState,
    Settled,
    Shortfall,
    Verification,
)
from agentbudget.errors import ReservationConflictError, ReservationNotFoundError
from agentbudget.ledgers import journal, plan
from agentbudget.ledgers.journal import Ended, Held, is_tombstone, spent_by, still_held, terms_of
from agentbudget.ledgers.memory_store import RETAIN, MemoryStore
from agentbudget.ledgers.rows import Row

_LIVE, _SETTLED, _RELEASED, _EXPIRED = ReservationState
_GRANTED = {state: Granted(state) for state in ReservationState}
_SETTLED_AS = {how: Settled(how) for how in ("settled", "late", "lost", "duplicate")}
_AS_LIVE = _GRANTED[_LIVE]
_AS_RESERVED = _SETTLED_AS["settled"]
_ID_MOST = plan.MAX_ID_BYTES
_AMOUNT_MOST = plan.MAX_AMOUNT


class MemoryLedger(MemoryStore):
    """A `Ledger` in memory. It never blocks for longer than other threads' few microseconds in it.

    Args:
        clock: whose monotonic time leases run by; the machine's own by default.
        on_expire: `"charge"` counts what an expired reservation held as presumed spent, `"release"` gives it back.
        retain: the newest *retain* resolved reservations, and as many expired ones, keep their id and their journal
            entries. Older ones are folded into a checkpoint, so balances and `verify()` stay exact and memory bounded,
            but **ids older than that are no longer deduplicated**, and a late settle of one counts as lost.

    Raises:
        ConfigurationError: an unknown *on_expire* or a *retain* below 1.
    """

    def __init__(self, clock: Clock | None = None, on_expire: str = OnExpire.CHARGE, *, retain: int = RETAIN) -> None:
        super().__init__(clock, on_expire, retain)
        # Reentrant: the collector may close an abandoned stream, which settles, while this thread is in a verb.
        self._lock = threading.RLock()

    # -- verbs ---------------------------------------------------------------------------------------------------------

    def reserve(  # noqa: C901 - in one piece: each call would cost as much as what it checks
        self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float
    ) -> Granted | Refused:
        """Take every posting or none; see `Ledger.reserve`."""
        with self._lock:
            now = self._monotonic()
            if now >= self._due:
                self._sweep(now)
            rows = self._rows
            held: dict[Row, int] = {}
            opened: tuple[Row, ...] = ()
            try:
                for account, amount, limit in postings:
                    row = rows.get(account.key)
                    if row is None:
                        if limit is not None and (type(limit) is not int or not 0 <= limit <= _AMOUNT_MOST):
                            break
                        row = self._add(account)
                        row.declare(limit)
                        opened += (row,)
                    elif limit is not row.declared and (limit != row.declared or type(limit) is not int):
                        break
                    if type(amount) is not int or amount < 0 or row in held:
                        break
                    committed = row.committed + amount
                    if committed > row.ceiling:
                        break
                    row.committed = committed
                    held[row] = amount
                else:
                    leases = self._leases[lease_seconds]  # of a length that was found right before
                    if (
                        held
                        and type(reservation_id) is str
                        and reservation_id
                        and reservation_id.isascii()
                        and len(reservation_id) <= _ID_MOST
                        and reservation_id not in self._records
                    ):
                        self._sequence = sequence = self._sequence + 1
                        self._records[reservation_id] = Held(held, leases, sequence, now)
                        leases[reservation_id] = deadline = now + lease_seconds
                        if deadline < self._due:  # noqa: PLR1730 - `min` costs more than all of this line
                            self._due = deadline
                        return _AS_LIVE
            except KeyError:
                pass
            except BaseException:
                self._give_back(held, opened)
                raise
            self._give_back(held, opened)
            return self._reserve_carefully(reservation_id, postings, lease_seconds, now)

    def settle(  # noqa: C901 - as above
        self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None
    ) -> Settled:
        """Replace the reservation by what was really spent; see `Ledger.settle`."""
        with self._lock:
            now = self._monotonic()
            if now >= self._due:
                self._sweep(now)
            record = self._records.get(reservation_id)
            if alert_at or type(record) is not Held or len(charges) != len(record.held):
                return self._settle_and_alert(reservation_id, charges, alert_at, now)
            rows = self._rows
            held = record.held
            spent: dict[Row, int] = {}
            over = booked = False
            try:
                for account, reserved, actual in charges:
                    row = rows[account.key]
                    kept = held[row]
                    if reserved is not kept or type(actual) is not int or actual < 0 or row in spent:
                        break
                    if actual > kept:
                        if actual > _AMOUNT_MOST or not kept:  # nothing kept: the account may be collected
                            break
                        row.overrun += actual - kept
                        over = True
                    row.committed += actual - kept
                    row.settled += actual
                    spent[row] = actual
                else:
                    self._sequence = sequence = self._sequence + 1
                    ended = Ended(_SETTLED, held, sequence, now, record, spent, over)
                    del record.leases[reservation_id]
                    self._records[reservation_id] = ended
                    booked = True
            except KeyError:  # an account that is not held or was collected since, or a verb within this one ended it
                pass
            except BaseException:
                _take_back(held, spent)
                raise
            if booked:
                self._resolved.append(reservation_id)
                if len(self._resolved) > self._retain:
                    self._forget_resolved()
                return _AS_RESERVED
            _take_back(held, spent)
            return self._settle_carefully(reservation_id, charges, now)

    def release(self, reservation_id: str) -> ReservationState:
        """Give the reservation back; see `Ledger.release`."""
        plan.check_id(reservation_id)
        with self._lock:
            now = self._now()
            record = self._records.get(reservation_id)
            if isinstance(record, Ended):
                return record.state
            held = record.held if record else {}
            for row, kept in held.items():
                row.committed -= kept
            if record is not None:
                del record.leases[reservation_id]
            self._resolve(reservation_id, Ended(_RELEASED, held, self._next(), now, record))
            return _RELEASED

    def renew(self, reservation_id: str, *, lease_seconds: float) -> ReservationState:
        """Start the lease anew; see `Ledger.renew`."""
        plan.check_id(reservation_id)
        plan.check_lease(lease_seconds)
        with self._lock:
            now = self._now()
            record = self._records.get(reservation_id)
            if record is None:
                raise ReservationNotFoundError(f"no reservation {reservation_id!r} to renew: reserve it first.")
            if isinstance(record, Held):
                del record.leases[reservation_id]
                leases = self._begin_lease(reservation_id, lease_seconds, now)
                self._records[reservation_id] = replace(record, leases=leases)
            return record.state

    def top_up(self, grant_id: str, account: Account, amount: int) -> Balance:
        """Add *amount* to the limit, once per *grant_id*; see `Ledger.top_up`."""
        plan.check_id(grant_id, what="grant_id")
        plan.check_amount(amount, what=f"top-up of {account}")
        with self._lock:
            now = self._now()
            known = self._grants.get(grant_id)
            if known is not None:
                if known.key != account.key or known.adjusted().grants[grant_id].amount != amount:
                    raise ReservationConflictError(f"grant {grant_id!r} was made with another account or amount.")
                return known.balance(known.declared)
            row = self._rows.get(account.key)
            granted = row.extras.granted if row and row.extras else 0
            plan.check_amount(granted + amount, what=f"sum of all top-ups of {account}")
            row = self._open(account)
            row.top_up(grant_id, amount, sequence=self._next(), at=now)
            self._grants[grant_id] = row
            if len(row.adjusted().grants) > self._retain:
                del self._grants[row.fold_grant()]
            return row.balance(row.declared)

    def set_limit(self, account: Account, limit: int | None) -> Balance:
        """Pin the limit of *account*; see `Ledger.set_limit`."""
        plan.check_limit(limit)
        with self._lock:
            now = self._now()
            row = self._open(account)
            row.pin(limit, sequence=self._next(), at=now)
            self._next()  # the cut is an entry of its own
            return row.balance(row.declared)

    # -- readings ------------------------------------------------------------------------------------------------------

    def balance(self, account: Account) -> Balance:
        """The balance now; an unknown account has spent nothing."""
        with self._lock:
            self._now()
            row = self._rows.get(account.key)
            return Balance(limit=None) if row is None else row.balance(row.declared)

    def accounts(self) -> Iterator[Account]:
        """Every account with a record, as of this moment."""
        with self._lock:
            self._now()
            return iter([row.account for row in self._rows.values()])

    def collect(self, accounts: Sequence[Account]) -> int:
        """Forget *accounts* of which nothing is reserved, their entries included; see `Ledger.collect`."""
        with self._lock:
            self._now()
            dropped = 0
            for account in accounts:
                row = self._rows.get(account.key)
                if row is not None and row.committed == row.settled + row.presumed:
                    self._drop(row)
                    dropped += 1
            return dropped

    def journal(self) -> Iterator[JournalEntry]:
        """Every retained entry in order, checkpoints first (sequence 0), as of this moment."""
        with self._lock:
            now = self._now()
            return iter(journal.entries(self._rows, self._records, now, self._epoch, charging=self._charging))

    def verify(self) -> Verification:
        """Recompute every balance from the journal."""
        with self._lock:
            return journal.verify(self._rows, self.journal())

    def close(self) -> None:
        """Nothing to let go of."""

    # -- inside: each is called with the lock held ---------------------------------------------------------------------

    def _give_back(self, held: dict[Row, int], opened: Sequence[Row]) -> None:
        """Undo what a reservation that is not granted has taken so far."""
        for row, amount in held.items():
            row.committed -= amount
        for row in opened:
            self._rows.pop(row.key, None)

    def _reserve_carefully(
        self, reservation_id: str, postings: Sequence[Posting], lease_seconds: float, now: float
    ) -> Granted | Refused:
        plan.check_id(reservation_id)
        plan.check_lease(lease_seconds)
        plan.check_postings(postings)
        record = self._records.get(reservation_id)
        if record is not None:
            asked = plan.terms((account.key, amount) for account, amount, _ in postings)
            if not is_tombstone(record) and asked != terms_of(record):
                raise ReservationConflictError(f"reservation {reservation_id!r} holds other accounts or amounts.")
            return _GRANTED[record.state]
        rows = [self._rows.get(account.key) or self._row(account) for account, _, _ in postings]
        shortfalls = tuple(
            Shortfall(account, amount, row.balance(limit))
            for row, (account, amount, limit) in zip(rows, postings, strict=True)
            if row.committed + amount > row.ceiling_under(limit)
        )
        if shortfalls:
            return Refused(shortfalls)
        held: dict[Row, int] = {}
        for account, amount, limit in postings:
            row = self._open(account)
            row.declare(limit)
            row.committed += amount
            held[row] = amount
        leases = self._begin_lease(reservation_id, lease_seconds, now)
        self._records[reservation_id] = Held(held, leases, self._next(), now)
        return _AS_LIVE

    def _settle_and_alert(
        self, reservation_id: str, charges: Sequence[Charge], alert_at: AlertAt | None, now: float
    ) -> Settled:
        check_alert_at(alert_at or {})
        answer = self._settle_carefully(reservation_id, charges, now)
        if alert_at and answer.how != "duplicate" and (crossed := self._crossed_by(reservation_id, alert_at, now)):
            self._crossed[reservation_id] = crossed
            return Settled(answer.how, crossed)
        return answer

    def _crossed_by(self, reservation_id: str, alert_at: AlertAt, now: float) -> tuple[Crossing, ...]:
        """The thresholds that the settle which was just booked has reached."""
        found: list[Crossing] = []
        spent = journal.spent_on(self._records[reservation_id])
        for row in sorted(spent, key=lambda row: row.key):
            if self._rows.get(row.key) is row:
                found += row.crossings(alert_at.get(row.account, ()), spent[row], self._epoch + now)
        return tuple(found)

    def _settle_carefully(self, reservation_id: str, charges: Sequence[Charge], now: float) -> Settled:
        plan.check_id(reservation_id)
        plan.check_charges(charges)
        record = self._records.get(reservation_id)
        if record is not None and not is_tombstone(record):
            if plan.terms((account.key, reserved) for account, reserved, _ in charges) != terms_of(record):
                raise ReservationConflictError(f"reservation {reservation_id!r} holds other accounts or amounts.")
            if record.state is _SETTLED:
                if plan.terms((account.key, actual) for account, _, actual in charges) != spent_by(record):
                    raise ReservationConflictError(f"reservation {reservation_id!r} was settled with another amount.")
                return Settled("duplicate", self._crossed.get(reservation_id, ()))
        # An account that the reservation held may have been collected since; its line stays with the row it had.
        known = {row.key: row for row, kept in record.held.items() if kept} if record else {}
        still = still_held(record, charging=self._charging)
        over = False
        held: dict[Row, int] = {}
        spent: dict[Row, int] = {}
        for account, reserved, actual in charges:
            if not reserved and not actual:
                continue
            row = known.get(account.key) or self._open(account)
            kept = reserved if still else 0
            over |= actual > kept
            row.committed += actual - kept
            row.settled += actual
            row.overrun += plan.overrun(kept, actual)
            if record is not None and record.state is _EXPIRED:
                row.presumed -= kept
            held[row], spent[row] = reserved, actual
        if isinstance(record, Held):
            del record.leases[reservation_id]
        self._resolve(reservation_id, Ended(_SETTLED, held, self._next(), now, record, spent, over))
        return _SETTLED_AS["lost" if record is None else "settled" if record.state is _LIVE else "late"]


def _take_back(held: dict[Row, int], spent: dict[Row, int]) -> None:
    """Undo what a settlement that is not booked has written so far."""
    for row, actual in spent.items():
        kept = held[row]
        row.committed -= actual - kept
        row.settled -= actual
        row.overrun -= plan.overrun(kept, actual)
