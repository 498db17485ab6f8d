"""What the memory ledger keeps, and for how long: accounts, reservations and their leases."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import ClassVar

from agentbudget.domain.accounts import Account
from agentbudget.domain.alerts import Crossing
from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import OnExpire, ReservationState
from agentbudget.errors import ConfigurationError
from agentbudget.ledgers import journal
from agentbudget.ledgers.journal import Ended, Held
from agentbudget.ledgers.rows import Row

RETAIN = 4_096
"""How many resolved reservations, and how many expired ones, keep their id and their journal entries."""
BRIEF_SECONDS = 7_200.0
"""After so long a minute or hour is over, whatever the clocks did."""

_EXPIRED = ReservationState.EXPIRED


class MemoryStore:
    """The state of a memory ledger, without its verbs. Whoever calls a method holds the ledger's lock.

    Raises:
        ConfigurationError: an unknown *on_expire* or a *retain* below 1.
    """

    _row: ClassVar[type[Row]] = Row
    """What accounts are kept as."""

    def __init__(self, clock: Clock | None, on_expire: str, retain: int) -> None:
        if on_expire not in set(OnExpire):
            raise ConfigurationError(f"on_expire={on_expire!r}: one of {', '.join(OnExpire)}.")
        if retain < 1:
            raise ConfigurationError(f"retain={retain!r}: at least 1 resolved reservation is kept.")
        self._monotonic = clock.monotonic if clock else time.monotonic
        self._epoch = (clock.now() if clock else time.time()) - self._monotonic()
        self._charging = on_expire == OnExpire.CHARGE
        self._retain = retain
        self._sequence = 0
        self._rows: dict[str, Row] = {}
        self._records: dict[str, Held | Ended] = {}
        self._resolved: deque[str] = deque()
        self._expired: deque[str] = deque()
        self._grants: dict[str, Row] = {}
        self._idle: deque[tuple[float, Row]] = deque()
        """Minutes and hours, and when to see whether nothing of them is retained any more."""
        self._crossed: dict[str, tuple[Crossing, ...]] = {}
        """The thresholds that settled reservations reached, by id; few reach any."""
        self._leases: dict[float, dict[str, float]] = {}
        """The deadlines of live reservations by id: leases of one length end in the order in which they began."""
        self._due = math.inf
        """When there may be something for `_sweep` to do."""

    def _now(self) -> float:
        now = self._monotonic()
        if now >= self._due:
            self._sweep(now)
        return now

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _open(self, account: Account) -> Row:
        return self._rows.get(account.key) or self._add(account)

    def _add(self, account: Account) -> Row:
        """The row of an account that has none."""
        row = self._rows[account.key] = self._row(account)
        if account.window and account.window[10:11] == "T":  # a minute or an hour
            again = self._monotonic() + BRIEF_SECONDS
            self._idle.append((again, row))
            self._due = min(self._due, again)
        return row

    def _drop(self, row: Row) -> None:
        del self._rows[row.key]
        for grant_id in row.extras.grants if row.extras else ():
            del self._grants[grant_id]

    def _begin_lease(self, reservation_id: str, lease_seconds: float, now: float) -> dict[str, float]:
        """The leases of this length, with a new one of *reservation_id*."""
        if lease_seconds not in self._leases:
            self._leases = {length: leases for length, leases in self._leases.items() if leases}
        leases = self._leases.setdefault(lease_seconds, {})
        leases[reservation_id] = deadline = now + lease_seconds
        self._due = min(self._due, deadline)
        return leases

    def _sweep(self, now: float) -> None:
        """Expire all that is due, so that every answer is exact, and forget minutes and hours that are over."""
        self._due = math.inf
        for leases in list(self._leases.values()):
            for reservation_id in list(leases):
                deadline = leases.get(reservation_id)
                if deadline is None:  # a verb within this one has ended it
                    continue
                if deadline > now:
                    self._due = min(self._due, deadline)
                    break
                del leases[reservation_id]
                self._expire(reservation_id, now)
        self._collect_idle()
        if self._idle:
            self._due = min(self._due, self._idle[0][0])

    def _expire(self, reservation_id: str, now: float) -> None:
        record = self._records[reservation_id]
        for row, kept in record.held.items():
            if self._charging:
                row.presumed += kept
            else:
                row.committed -= kept
        self._records[reservation_id] = Ended(_EXPIRED, record.held, self._next(), now, record)
        self._expired.append(reservation_id)
        if len(self._expired) > self._retain:
            self._forget_expired()

    def _resolve(self, reservation_id: str, record: Ended) -> None:
        self._records[reservation_id] = record
        self._resolved.append(reservation_id)
        if len(self._resolved) > self._retain:
            self._forget_resolved()

    def _forget_resolved(self) -> None:
        """Fold the reservation that was settled or released first into the bases of its accounts."""
        reservation_id = self._resolved.popleft()
        record = self._records.get(reservation_id)
        # The id may have been forgotten before, and used anew since: it is in the queue once per resolution.
        if type(record) is not Ended or record.state is _EXPIRED:
            return
        del self._records[reservation_id]
        if record.spent is not None:
            for row, actual in record.spent.items():
                row.base_settled += actual
            if record.over:
                journal.fold_overrun(record, charging=self._charging)
        if self._crossed:
            self._crossed.pop(reservation_id, None)

    def _forget_expired(self) -> None:
        reservation_id = self._expired.popleft()
        record = self._records.get(reservation_id)
        if record is None or record.state is not _EXPIRED:
            return
        del self._records[reservation_id]
        for row, kept in record.held.items():
            row.adjusted().base_presumed += kept if self._charging else 0

    def _collect_idle(self) -> None:
        """Forget minutes and hours of which nothing is retained, so that rates of many users do not fill the memory."""
        now = self._monotonic()
        while self._idle and self._idle[0][0] <= now:
            row = self._idle.popleft()[1]
            if self._rows.get(row.key) is not row:
                continue
            if row.committed == row.base_settled + (row.extras.base_presumed if row.extras else 0):
                self._drop(row)
            else:
                self._idle.append((now + BRIEF_SECONDS, row))
