"""The ledger in this process's memory: exact under threads, gone with the process.

Reserving and settling what is ordinary takes the short path in `reserve` and `settle`. Whatever is not (another
limit, no room, a retry, bad input) goes the careful way, which is complete in itself.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import ClassVar

from msgspec.structs import replace

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt, Crossing, check_alert_at, reached
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
from agentbudget.errors import ConfigurationError, ReservationConflictError, ReservationNotFoundError
from agentbudget.ledgers import plan
from agentbudget.ledgers.journal import (
    Record,
    entries_of_record,
    entries_of_row,
    is_tombstone,
    spent_by,
    still_held,
    terms_of,
)
from agentbudget.ledgers.rows import Grant, Pin, Row

RETAIN = 4_096
"""How many resolved reservations, and how many expired ones, keep their id and their journal entries."""

_LIVE, _SETTLED, _RELEASED, _EXPIRED = ReservationState
_GRANTED = {state: Granted(state) for state in ReservationState}
_SETTLED_AS = {how: Settled(how) for how in ("settled", "late", "lost", "duplicate")}
_AS_LIVE = _GRANTED[_LIVE]
_AS_RESERVED = _SETTLED_AS["settled"]
_ID_MOST = plan.MAX_ID_BYTES
_AMOUNT_MOST = plan.MAX_AMOUNT
_FOREVER = math.inf
_LEASES_PRUNED_FROM = 1024
BRIEF_SECONDS = 7_200.0
"""After so long the minute or hour of a settlement is over, whatever the clocks did."""


class MemoryLedger:
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

    _row: ClassVar[type[Row]] = Row
    """What accounts are kept as."""

    def __init__(self, clock: Clock | None = None, on_expire: str = OnExpire.CHARGE, *, retain: int = RETAIN) -> None:
        if on_expire not in set(OnExpire):
            raise ConfigurationError(f"on_expire={on_expire!r}: one of {', '.join(OnExpire)}.")
        if retain < 1:
            raise ConfigurationError(f"retain={retain!r}: at least 1 resolved reservation is kept.")
        self._monotonic = clock.monotonic if clock else time.monotonic
        self._epoch = (clock.now() if clock else time.time()) - self._monotonic()
        self._charging = on_expire == OnExpire.CHARGE
        self._retain = retain
        # Reentrant: the collector may close an abandoned stream, which settles, while this thread is in a verb.
        self._lock = threading.RLock()
        self._sequence = 0
        self._rows: dict[str, Row] = {}
        self._records: dict[str, Record] = {}
        self._resolved: deque[str] = deque()
        self._expired: deque[str] = deque()
        self._grants: dict[str, Row] = {}
        self._idle: deque[tuple[float, Row]] = deque()
        """Minutes and hours of which no record is retained, and when they were last settled."""
        self._crossed: dict[str, tuple[Crossing, ...]] = {}
        """The thresholds that settled reservations reached, by id; few reach any."""
        self._leases: list[tuple[float, str]] = []
        self._leases_most = _LEASES_PRUNED_FROM
        self._due = math.inf
        """The earliest deadline that may still be live."""

    # -- verbs ---------------------------------------------------------------------------------------------------------

    def reserve(  # noqa: C901 - in one piece: each call would cost as much as what it checks
        self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float
    ) -> Granted | Refused:
        """Take every posting or none; see `Ledger.reserve`."""
        with self._lock:
            now = self._monotonic()
            if now >= self._due:
                self._sweep(now)
            held: dict[Row, int] = {}
            opened: list[Row] = []
            if type(reservation_id) is str and reservation_id not in self._records and reservation_id.isascii():
                rows = self._rows
                for account, amount, limit in postings:
                    row = rows.get(account.key)
                    if row is None:
                        if limit is not None and (type(limit) is not int or not 0 <= limit <= _AMOUNT_MOST):
                            break
                        row = rows[account.key] = self._row(account)
                        row.declare(limit)
                        opened.append(row)
                    # A limit that is the declared object itself was validated when it was declared.
                    elif limit is not row.declared:
                        break
                    if type(amount) is not int or amount < 0:
                        break
                    if row.committed + amount > row.ceiling:
                        break
                    held[row] = amount
            if (
                not held
                or len(held) != len(postings)
                or not 0 < lease_seconds < _FOREVER
                or not 0 < len(reservation_id) <= _ID_MOST
            ):
                for row in opened:
                    del self._rows[row.key]
                return self._reserve_carefully(reservation_id, postings, lease_seconds, now)
            return self._grant(reservation_id, held, lease_seconds, now)

    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        """Replace the reservation by what was really spent; see `Ledger.settle`."""
        with self._lock:
            now = self._monotonic()
            if now >= self._due:
                self._sweep(now)
            record = self._records.get(reservation_id)
            if alert_at or record is None or record.state is not _LIVE or len(charges) != len(record.held):
                return self._settle_and_alert(reservation_id, charges, alert_at, now)
            held = record.held
            spent: list[int] = []
            for (row, kept), (account, reserved, actual) in zip(held.items(), charges):  # noqa: B905 - equally long
                if account is not row.account and account.key != row.key:
                    break
                if reserved is not kept or type(actual) is not int or actual < 0:
                    break
                if actual > kept and (actual > _AMOUNT_MOST or not kept):  # nothing kept: the account may be collected
                    break
                spent.append(actual)
            if len(spent) != len(held):
                return self._settle_carefully(reservation_id, charges, now)
            for (row, kept), actual in zip(held.items(), spent):  # noqa: B905 - equally long
                row.committed += actual - kept
                row.settled += actual
                if actual > kept:
                    row.overrun += actual - kept
            self._sequence = sequence = self._sequence + 1
            self._resolve(reservation_id, Record(_SETTLED, held, 0.0, sequence, now, tuple(spent), record))
            return _AS_RESERVED

    def release(self, reservation_id: str) -> ReservationState:
        """Give the reservation back; see `Ledger.release`."""
        plan.check_id(reservation_id)
        with self._lock:
            now = self._now()
            record = self._records.get(reservation_id)
            if record is not None and record.state is not _LIVE:
                return record.state
            held = record.held if record else {}
            for row, kept in held.items():
                row.committed -= kept
            self._resolve(reservation_id, Record(_RELEASED, held, 0.0, self._next(), now, None, record))
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
            if record.state is _LIVE:
                deadline = now + lease_seconds
                self._records[reservation_id] = replace(record, deadline=deadline)
                heappush(self._leases, (deadline, reservation_id))
                self._due = min(self._due, deadline)
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
            extras = row.adjusted()
            extras.granted += amount
            extras.grants[grant_id] = Grant(amount, self._next(), now)
            self._grants[grant_id] = row
            if len(extras.grants) > self._retain:
                oldest = next(iter(extras.grants))
                extras.base_grants += extras.grants.pop(oldest).amount
                del self._grants[oldest]
            row.declare(row.declared)
            return row.balance(row.declared)

    def set_limit(self, account: Account, limit: int | None) -> Balance:
        """Pin the limit of *account*; see `Ledger.set_limit`."""
        plan.check_limit(limit)
        with self._lock:
            now = self._now()
            row = self._open(account)
            extras = row.adjusted()
            lost = plan.cut(limit, grants=extras.granted, committed=row.committed, overrun=row.overrun)
            extras.pin = Pin(limit, lost, self._next(), now)
            self._next()  # the cut is an entry of its own
            row.declare(row.declared)
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
            return iter([row.account for row in self._rows.values()])

    def collect(self, accounts: Sequence[Account]) -> int:
        """Forget *accounts* of which nothing is reserved, their entries included; see `Ledger.collect`."""
        with self._lock:
            self._now()
            dropped = 0
            for account in accounts:
                row = self._rows.get(account.key)
                if row is None or row.reserved:
                    continue
                self._drop(row)
                dropped += 1
            return dropped

    def journal(self) -> Iterator[JournalEntry]:
        """Every retained entry in order, checkpoints first (sequence 0), as of this moment."""
        with self._lock:
            now = self._now()
            found = [entry for row in self._rows.values() for entry in entries_of_row(row, now, self._epoch)]
            for reservation_id, record in self._records.items():
                found += entries_of_record(reservation_id, record, self._rows, self._epoch, charging=self._charging)
        return iter(sorted(found, key=lambda entry: entry.sequence))

    def verify(self) -> Verification:
        """Recompute every balance from the journal."""
        with self._lock:
            told = plan.replay(self.journal())
            found: list[str] = []
            for key in sorted({*self._rows, *told.columns}):
                stored = self._rows[key].columns() if key in self._rows else plan.Columns()
                recorded = told.columns.get(key, plan.Columns())
                found += plan.differences(key, recorded=recorded, stored=stored)
            return Verification(accounts=len(self._rows), entries=told.entries, differences=tuple(found))

    def close(self) -> None:
        """Nothing to let go of."""

    # -- inside: each is called with the lock held ---------------------------------------------------------------------

    def _now(self) -> float:
        now = self._monotonic()
        if now >= self._due:
            self._sweep(now)
        return now

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _open(self, account: Account) -> Row:
        row = self._rows.get(account.key)
        if row is None:
            row = self._rows[account.key] = self._row(account)
        return row

    def _drop(self, row: Row) -> None:
        del self._rows[row.key]
        for grant_id in row.extras.grants if row.extras else ():
            del self._grants[grant_id]

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
        for row, (_, amount, limit) in zip(rows, postings, strict=True):
            self._rows[row.key] = row
            row.declare(limit)
            held[row] = amount
        return self._grant(reservation_id, held, lease_seconds, now)

    def _grant(self, reservation_id: str, held: dict[Row, int], lease_seconds: float, now: float) -> Granted:
        for row, amount in held.items():
            row.committed += amount
        deadline = now + lease_seconds
        self._sequence = sequence = self._sequence + 1
        self._records[reservation_id] = Record(_LIVE, held, deadline, sequence, now)
        heappush(self._leases, (deadline, reservation_id))
        if deadline < self._due:  # noqa: PLR1730 - `min` costs more than all of this line
            self._due = deadline
        if len(self._leases) > self._leases_most:
            self._prune_leases()
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
        record = self._records[reservation_id]
        found: list[Crossing] = []
        for row, actual in sorted(zip(record.held, record.spent or (), strict=True), key=lambda line: line[0].key):
            thresholds = alert_at.get(row.account, ())
            limit = row.limit_under(row.declared)
            if not thresholds or limit is None or self._rows.get(row.key) is not row:
                continue
            extras, settled = row.adjusted(), row.settled
            due, extras.raised = reached(
                thresholds, limit=limit, before=settled - actual, after=settled, raised=extras.raised
            )
            at = self._epoch + now
            found += [Crossing(account=row.account, threshold=one, limit=limit, settled=settled, at=at) for one in due]
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
        lines = [charge for charge in charges if charge[1] or charge[2]]
        held = {known.get(account.key) or self._open(account): reserved for account, reserved, _ in lines}
        spent = tuple([actual for _, _, actual in lines])
        still = still_held(record, charging=self._charging)
        for (row, reserved), actual in zip(held.items(), spent, strict=True):
            kept = reserved if still else 0
            row.committed += actual - kept
            row.settled += actual
            row.overrun += plan.overrun(kept, actual)
            if record is not None and record.state is _EXPIRED:
                row.presumed -= kept
        self._resolve(reservation_id, Record(_SETTLED, held, 0.0, self._next(), now, spent, record))
        return _SETTLED_AS["lost" if record is None else "settled" if record.state is _LIVE else "late"]

    def _resolve(self, reservation_id: str, record: Record) -> None:
        self._records[reservation_id] = record
        self._resolved.append(reservation_id)
        if len(self._resolved) > self._retain:
            self._fold_resolved()

    def _fold_resolved(self) -> None:
        """Turn the oldest resolved reservations into the bases of their rows."""
        records = self._records
        while len(self._resolved) > self._retain:
            reservation_id = self._resolved.popleft()
            record = records.get(reservation_id)
            # The id may have been folded before, and used anew since: it is in the queue once per resolution.
            if record is None or record.state is _LIVE or record.state is _EXPIRED:
                continue
            del records[reservation_id]
            if self._crossed:
                self._crossed.pop(reservation_id, None)
            held, spent, previous = record.held, record.spent, record.previous
            if spent is None:
                continue
            still = previous is not None and (previous.state is _LIVE or still_held(previous, charging=self._charging))
            for (row, reserved), actual in zip(held.items(), spent):  # noqa: B905 - equally long
                row.base_settled += actual
                if actual > reserved or not still:
                    row.adjusted().base_overrun += plan.overrun(reserved if still else 0, actual)
                if row.brief and row.settled == row.base_settled:
                    self._idle.append((record.at, row))
        self._collect_idle()

    def _collect_idle(self) -> None:
        """Forget minutes and hours that are long over, so that rates of many users do not fill the memory."""
        over = self._monotonic() - BRIEF_SECONDS
        while self._idle and self._idle[0][0] < over:
            row = self._idle.popleft()[1]
            folded = row.base_settled + (row.extras.base_presumed if row.extras else 0)
            if row.committed == folded and self._rows.get(row.key) is row:
                self._drop(row)

    def _fold_expired(self, reservation_id: str) -> None:
        record = self._records.get(reservation_id)
        if record is None or record.state is not _EXPIRED:
            return
        del self._records[reservation_id]
        for row, reserved in record.held.items():
            row.adjusted().base_presumed += reserved if self._charging else 0

    def _runs(self, deadline: float, reservation_id: str) -> bool:
        record = self._records.get(reservation_id)
        return record is not None and record.state is _LIVE and record.deadline == deadline

    def _prune_leases(self) -> None:
        """Let go of the leases of resolved reservations, whenever they may be half of all."""
        records = self._records
        self._leases = [
            lease
            for lease in self._leases
            if (record := records.get(lease[1])) is not None and record.state is _LIVE and record.deadline == lease[0]
        ]
        heapify(self._leases)
        self._leases_most = 2 * len(self._leases) + _LEASES_PRUNED_FROM

    def _sweep(self, now: float) -> None:
        """Expire all that is due, so that every answer is exact; each lease is looked at once."""
        while self._leases and self._leases[0][0] <= now:
            deadline, reservation_id = heappop(self._leases)
            if self._runs(deadline, reservation_id):
                self._expire(reservation_id, now)
        self._due = self._leases[0][0] if self._leases else math.inf

    def _expire(self, reservation_id: str, now: float) -> None:
        record = self._records[reservation_id]
        held = record.held
        for row, kept in held.items():
            if self._charging:
                row.presumed += kept
            else:
                row.committed -= kept
        self._records[reservation_id] = Record(_EXPIRED, held, 0.0, self._next(), now, None, record)
        self._expired.append(reservation_id)
        if len(self._expired) > self._retain:
            self._fold_expired(self._expired.popleft())
