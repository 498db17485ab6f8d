"""A ledger that may be out of reach: what was paid is written down all the same, and what is refused is a choice.

Reserving follows `fail=`: closed refuses, open goes on within a bound. Everything after a reservation never fails for
want of the ledger: settlements and releases wait in the outbox and are delivered with the same id.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from agentbudget.domain.accounts import Account, Balance, Charge, Meter, Posting
from agentbudget.domain.alerts import AlertAt, Crossing
from agentbudget.domain.clock import Clock
from agentbudget.domain.failure import FailOpen, FailSlice
from agentbudget.domain.ledger import (
    Granted,
    JournalEntry,
    Ledger,
    Refused,
    ReservationState,
    Settled,
    Verification,
)
from agentbudget.domain.money import format_dollars
from agentbudget.errors import BudgetWarning, ConfigurationError, LedgerError, LedgerUnavailableError
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.outbox import Delivery, Outbox
from agentbudget.ledgers.slices import SlicedLedger, SliceOptions
from agentbudget.ledgers.slices.keeper import on_event_loop

DELIVERED_AT_ONCE = 32
"""Deliveries that one verb makes on the way, at most."""
RETRY_SECONDS = 1.0
"""After a failure the ledger is left alone for this long, or twice as long as the failure took."""
OUTAGE = Account((("ledger", "out of reach"),), Meter.COST)
"""What one outage may cost; kept by the local ledger only."""

Answer = TypeVar("Answer")
Tell = Callable[[str], None]


def guarded(
    ledger: Ledger,
    *,
    fail_open: FailOpen | FailSlice | None,
    outbox: str | Path | None,
    tell: Tell,
    alarm: Callable[[Crossing], None] | None = None,
    clock: Clock | None = None,
) -> Ledger:
    """*ledger* behind a `Failover`; one in memory is never out of reach and stays as it is.

    The outbox of a ledger in a file is the folder beside it, unless *outbox* names another; the slice journal is there
    as well. With `FailSlice` a ledger without slices gets them. *alarm* is told of thresholds that are reached by
    slices and by settlements that waited.

    Raises:
        ConfigurationError: no ledger, an outbox that cannot be a folder.
    """
    if not callable(getattr(ledger, "reserve", None)):
        raise ConfigurationError(f"ledger={ledger!r}: a URL such as 'sqlite:///spend.db', or a Ledger.")
    given = None if outbox is None else _folder(outbox)
    if isinstance(ledger, MemoryLedger | Failover):
        return ledger
    file = getattr(ledger, "path", None)
    beside = file.with_name(f"{file.name}-outbox") if isinstance(file, Path) else None
    box = Outbox(beside) if given is None else Outbox(given, ledger=_name(ledger))
    if box.others:
        others = ", ".join(sorted(box.others))
        warnings.warn(f"{given} keeps settlements for {others}: open that ledger to send them.", BudgetWarning, 3)
    folder = given or beside
    if isinstance(fail_open, FailSlice) and not isinstance(ledger, SlicedLedger):
        ledger = SlicedLedger(ledger, SliceOptions(journal=folder), clock=clock)
    if isinstance(ledger, SlicedLedger):
        ledger.attach(keep_going=fail_open is not None, tell=tell, alarm=alarm)
    bound = fail_open if isinstance(fail_open, FailOpen) else None
    return Failover(ledger, box, fail_open=bound, tell=tell, alarm=alarm, clock=clock)


def _folder(outbox: object) -> Path:
    """The folder that *outbox* names, which is made when it is first needed."""
    if not isinstance(outbox, str | Path) or not str(outbox):
        raise ConfigurationError(f"outbox={outbox!r}: the path of a folder.")
    folder = Path(outbox).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigurationError(f"outbox={str(outbox)!r}: {there} is no folder that can be written.")
    return folder


def _name(ledger: Ledger) -> str:
    """The same wherever this ledger is opened, with slices and without, and when its folder or server moved; empty
    where nothing names it."""
    shared = getattr(ledger, "authority", ledger)
    path = getattr(shared, "path", None)
    return path.name if isinstance(path, Path) else str(getattr(shared, "name", ""))


class Failover:
    """A `Ledger` in front of *primary* that outlives its outages.

    With *fail_open*, calls are admitted by a local ledger during an outage: by the limits that they declare, though
    without what was spent under them before, and by what one outage may cost and last. Each is noted in the outbox
    before it runs. When the primary is back they are booked there as overruns, since it never admitted them.

    It has no lock of its own: two threads that see an outage begin at once tell it twice, which is all that can happen.

    Args:
        primary: the ledger.
        outbox: where settlements wait.
        fail_open: None refuses every reservation with `LedgerUnavailableError` during an outage.
        tell: called once when an outage begins, when it ends, and for what can never be delivered.
        alarm: called with each threshold that a settlement reached which had to wait.
        clock: whose monotonic time an outage is measured by.
    """

    def __init__(
        self,
        primary: Ledger,
        outbox: Outbox,
        *,
        fail_open: FailOpen | None,
        tell: Tell,
        alarm: Callable[[Crossing], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.primary = primary
        self.outbox = outbox
        self._fail_open = fail_open
        self._tell = tell
        self._alarm = alarm
        self._clock = clock
        self._monotonic = clock.monotonic if clock else time.monotonic
        self._since: float | None = None
        """When the outage began; None while there is none."""
        self._again = 0.0
        """When the primary may be asked again."""
        self._why = ""
        """Why it did not answer last time."""
        self._local = MemoryLedger(clock)
        self._told = False
        self._unseen: dict[str, int] = {}
        """Calls in flight that only the local ledger admitted, and what each may cost."""

    # -- verbs that an outage does not stop ----------------------------------------------------------------------------

    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        """Take every posting or none; see `Ledger.reserve` and the class for outages."""
        if self._may_ask() or (self._fail_open is None and not self._holds_up_a_loop()):
            try:
                return self._asked(lambda: self._reserve_there(reservation_id, postings, lease_seconds))
            except LedgerUnavailableError:
                if self._fail_open is None:
                    raise
        if self._fail_open is None:
            raise LedgerUnavailableError(f"the ledger is out of reach; it is asked again soon. {self._why}")
        return self._admit(reservation_id, postings, lease_seconds, self._fail_open)

    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        """Replace the reservation by what was really spent. `Settled("queued")` where it waits in the outbox."""
        delivery = Delivery(id=reservation_id, charges=tuple(charges), alert_at=alert_at or {})
        admitted = self._unseen.pop(reservation_id, None)
        if admitted is not None:
            self._settle_locally(reservation_id, charges, admitted)
        elif self._may_ask():
            try:
                return self._asked(lambda: self.primary.settle(reservation_id, charges, alert_at=alert_at))
            except LedgerUnavailableError:
                pass
        self._queue(delivery)
        return Settled("queued")

    def release(self, reservation_id: str) -> ReservationState:
        """Give the reservation back, in the outbox where it has to be."""
        admitted = self._unseen.pop(reservation_id, None)
        if admitted is not None:
            self._local.release(reservation_id)
        elif self._may_ask():
            try:
                return self._asked(lambda: self.primary.release(reservation_id))
            except LedgerUnavailableError:
                pass
        self._queue(Delivery(id=reservation_id))
        return ReservationState.RELEASED

    def renew(self, reservation_id: str, *, lease_seconds: float) -> ReservationState:
        """Start the lease anew. In an outage it is not; then the amount is presumed spent until it is settled."""
        if reservation_id in self._unseen:
            return self._local.renew(reservation_id, lease_seconds=lease_seconds)
        if self._may_ask():
            try:
                return self._asked(lambda: self.primary.renew(reservation_id, lease_seconds=lease_seconds))
            except LedgerUnavailableError:
                pass
        return ReservationState.LIVE

    def collect(self, accounts: Sequence[Account]) -> int:
        """Forget accounts; in an outage they stay."""
        try:
            return self.primary.collect(accounts) if self._may_ask() else 0
        except LedgerUnavailableError:
            return 0

    def close(self) -> None:
        """Deliver what can be delivered, then close the primary and the outbox. Idempotent."""
        if len(self.outbox):
            self.flush()
        if len(self.outbox):
            where = f"in {self.outbox.path}; whoever opens this ledger next delivers them" if self.outbox.path else ""
            self._say(f"{len(self.outbox)} settlements could not be delivered: {where or 'they are lost'}.")
        self.outbox.close()
        self.primary.close()

    # -- verbs that need the primary -----------------------------------------------------------------------------------

    def top_up(self, grant_id: str, account: Account, amount: int) -> Balance:
        """See `Ledger.top_up`."""
        return self.primary.top_up(grant_id, account, amount)

    def set_limit(self, account: Account, limit: int | None) -> Balance:
        """See `Ledger.set_limit`."""
        return self.primary.set_limit(account, limit)

    def balance(self, account: Account) -> Balance:
        """See `Ledger.balance`."""
        return self.primary.balance(account)

    def accounts(self) -> Iterator[Account]:
        """See `Ledger.accounts`."""
        return self.primary.accounts()

    def journal(self) -> Iterator[JournalEntry]:
        """See `Ledger.journal`."""
        return self.primary.journal()

    def verify(self) -> Verification:
        """See `Ledger.verify`."""
        return self.primary.verify()

    # -- delivering ----------------------------------------------------------------------------------------------------

    def flush(self) -> int:
        """Deliver everything that waits, now; how many still wait. Never raises for want of the ledger."""
        try:
            self._deliver(len(self.outbox))
        except LedgerUnavailableError as error:
            self._failed(error, 0.0)
        return len(self.outbox)

    def _deliver_some(self) -> None:
        if len(self.outbox):
            self._deliver(DELIVERED_AT_ONCE)

    def _deliver(self, most: int) -> None:
        delivering = self.outbox.delivering
        if not delivering.acquire(blocking=False):
            return  # another thread is at it
        try:
            for delivery in self.outbox.waiting()[:most]:
                try:
                    if delivery.charges:
                        self._settle_late(delivery)
                    else:
                        self.primary.release(delivery.id)
                except LedgerUnavailableError:
                    raise
                except LedgerError as error:
                    self._say(f"the ledger refuses a settlement for good: {error} It said: {delivery}")
                self.outbox.delivered(delivery)
        finally:
            delivering.release()

    def _settle_late(self, delivery: Delivery) -> None:
        settled = self.primary.settle(delivery.id, delivery.charges, alert_at=delivery.alert_at or None)
        if self._alarm is not None:
            for crossing in settled.crossed:
                self._alarm(crossing)

    def _reserve_there(
        self, reservation_id: str, postings: Sequence[Posting], lease_seconds: float
    ) -> Granted | Refused:
        """Reserve at the primary, after what was spent before."""
        self._deliver_some()
        return self.primary.reserve(reservation_id, postings, lease_seconds=lease_seconds)

    def _queue(self, delivery: Delivery) -> None:
        if not self.outbox.put(delivery) and not self._told:
            self._told = True
            self._say(
                "settlements wait in memory only and are lost with this process: "
                "name a folder that can be written, Governor(outbox=...)."
            )
        if self._may_ask():
            self.flush()

    # -- outages -------------------------------------------------------------------------------------------------------

    def _may_ask(self) -> bool:
        return self._since is None or self._monotonic() >= self._again

    def _holds_up_a_loop(self) -> bool:
        """Whether to ask now would make every task of an event loop wait once more; slices see to that themselves."""
        return not isinstance(self.primary, SlicedLedger) and on_event_loop()

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        """The primary's answer; whether it gave one begins or ends an outage."""
        started = self._monotonic()
        try:
            answer = ask()
        except LedgerUnavailableError as error:
            self._failed(error, self._monotonic() - started)
            raise
        if self._since is not None and not (isinstance(self.primary, SlicedLedger) and self.primary.out_of_reach):
            self._recovered()
        return answer

    def _failed(self, error: LedgerUnavailableError, took: float) -> None:
        now = self._monotonic()
        begins = self._since is None
        self._since = now if begins else self._since
        self._again = now + max(RETRY_SECONDS, 2 * took)
        self._why = str(error)
        if begins:
            self._say(f"the ledger is out of reach, {self._mode()}: {error}")

    def _say(self, detail: str) -> None:
        with suppress(Warning):  # where warnings are errors, a settlement is not lost for one
            self._tell(detail)

    def _mode(self) -> str:
        """What an outage means, in words."""
        bound = self._fail_open
        if bound is None and isinstance(self.primary, SlicedLedger):
            return "calls that no slice covers are refused"
        if bound is None:
            return "every call is refused"
        return f"calls go on for up to {format_dollars(bound.max_nanos)} and {bound.max_seconds:g} s"

    def _recovered(self) -> None:
        self.flush()
        since = self._since
        if since is None or len(self.outbox) or self._unseen:
            return
        self._since = None
        self._local = MemoryLedger(self._clock)
        lasted = self._monotonic() - since
        self._say(f"the ledger is back after {lasted:.0f} s; nothing waits to be written.")

    # -- admitting without the ledger ----------------------------------------------------------------------------------

    def _admit(
        self, reservation_id: str, postings: Sequence[Posting], lease_seconds: float, bound: FailOpen
    ) -> Granted | Refused:
        since = self._since if self._since is not None else self._monotonic()
        if self._monotonic() - since >= bound.max_seconds:
            raise LedgerUnavailableError(f"the ledger has been out of reach for more than {bound.max_seconds:g} s.")
        if self.outbox.full:
            raise LedgerUnavailableError("the ledger is out of reach and its outbox is full.")
        cost = max((amount for account, amount, _ in postings if account.meter is Meter.COST), default=0)
        lines = [*postings, Posting(OUTAGE, cost, bound.max_nanos)]
        answer = self._local.reserve(reservation_id, lines, lease_seconds=lease_seconds)
        if isinstance(answer, Refused):
            if any(short.account == OUTAGE for short in answer.shortfalls):
                raise LedgerUnavailableError(
                    f"the ledger is out of reach, and the {format_dollars(bound.max_nanos)} that may be spent without "
                    "it are used up."
                )
            return answer
        if answer.state is ReservationState.LIVE:
            self._note(reservation_id, postings, cost)
        return answer

    def _note(self, reservation_id: str, postings: Sequence[Posting], cost: int) -> None:
        try:
            self.outbox.admit(reservation_id, postings)
        except OSError as error:
            self._local.release(reservation_id)
            raise LedgerUnavailableError(
                f"the ledger is out of reach and its outbox cannot be written: {error}"
            ) from error
        self._unseen[reservation_id] = cost

    def _settle_locally(self, reservation_id: str, charges: Sequence[Charge], reserved: int) -> None:
        actual = max((charge.actual for charge in charges if charge.account.meter is Meter.COST), default=0)
        with suppress(LedgerError):  # other terms: the primary will say so
            self._local.settle(reservation_id, [*charges, Charge(OUTAGE, reserved, actual)])
