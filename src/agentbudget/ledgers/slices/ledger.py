"""A ledger in front of another that admits calls from slices which it leased there."""

from __future__ import annotations

import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from contextlib import suppress
from pathlib import Path

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt, Crossing, check_alert_at
from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import (
    Granted,
    JournalEntry,
    Ledger,
    OnExpire,
    Refused,
    ReservationState,
    Settled,
    Verification,
)
from agentbudget.errors import LedgerUnavailableError
from agentbudget.ledgers import plan
from agentbudget.ledgers.outbox import Delivery
from agentbudget.ledgers.slices.book import Book, unique_name
from agentbudget.ledgers.slices.journal import SliceJournal
from agentbudget.ledgers.slices.keeper import Keeper, look_after, on_event_loop
from agentbudget.ledgers.slices.leasing import Leasing
from agentbudget.ledgers.slices.options import SliceOptions
from agentbudget.ledgers.slices.reading import held_there, in_order, uncovered
from agentbudget.ledgers.slices.recall import RECALL, recall

_TRIES = 100
"""Slices that other threads of this process may snatch away before a call gets one."""
_ELSEWHERE = 65_536
"""Ids that the authority resolved itself and that are remembered."""


class SlicedLedger:
    """A `Ledger` that leases slices of limits from *authority* and admits calls from them, without asking it.

    A slice is an ordinary reservation there, so every law holds over all processes whatever becomes of this one. Spend
    is settled there a slice at a time. Calls that were not reserved here are the authority's own.

    Args:
        authority: the ledger that all share.
        options: how much is leased at once, and how long it is kept.
        clock: whose monotonic time leases run by.
        on_expire: what expiry means at the authority; by default what it says itself.
        keep_going: whether calls are admitted from slices while the authority is out of reach.
        background: whether a thread refills slices and gives them back; without it `look_after` has to be called.
        name: gives names that nobody has, for slices and files.
    """

    def __init__(
        self,
        authority: Ledger,
        options: SliceOptions | None = None,
        *,
        clock: Clock | None = None,
        on_expire: str | None = None,
        keep_going: bool = False,
        background: bool = True,
        name: Callable[[], str] = unique_name,
    ) -> None:
        self.authority = authority
        self.options = options or SliceOptions()
        self.keep_going = keep_going
        self._clock = clock
        self._on_expire: str = on_expire or getattr(authority, "on_expire", None) or OnExpire.CHARGE
        self._background = background
        self._name = name
        self._journal = SliceJournal(self.options.journal, repr(authority), name)
        self._begin()
        if self._journal.on:
            self._take_over()
        SLICED.add(self)

    def __repr__(self) -> str:
        return f"SlicedLedger({self.authority!r})"

    def _begin(self) -> None:
        self._book = Book(self.options, self._clock, self._on_expire, self._name())
        self._book.prefetching = self._background
        self._monotonic = self._clock.monotonic if self._clock else time.monotonic
        self._leasing = Leasing(self.authority, self._book, self._journal, self._monotonic)
        self._keeper = Keeper(self._leasing)
        self._elsewhere: OrderedDict[str, None] = OrderedDict()
        self._past: set[str] = set()
        """Calls that a process before this one settled."""
        self._late: Future[Refused | None] | None = None
        """What an event loop waited for in vain: until it comes no other call waits."""
        self._closed = False

    # -- verbs ---------------------------------------------------------------------------------------------------------

    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        """Take every posting or none; see `Ledger.reserve`.

        It asks the authority only where a slice is used up: on a thread for as long as the authority takes, on an
        event loop for `wait_seconds` at most.

        Raises:
            LedgerUnavailableError: the authority did not answer (in time), and the slice is used up or may not be used
                without it.
        """
        if self._elsewhere and reservation_id in self._elsewhere:
            return self.authority.reserve(reservation_id, postings, lease_seconds=lease_seconds)
        if self._leasing.out_of_reach is not None and not self.keep_going:
            self._refuse_out_of_reach()
        book = self._book
        if book.fence is not None and self._monotonic() >= book.fence:
            book.expire_slices(self._monotonic())
        answer = book.reserve(reservation_id, postings, lease_seconds=lease_seconds)
        if type(answer) is Refused:
            answer = self._reserve_with_more(reservation_id, postings, lease_seconds)
        if self._journal.on and type(answer) is Granted and answer.state is ReservationState.LIVE:
            self._journal.reserved(reservation_id, postings, lease_seconds)
        return answer

    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        """Replace the reservation by what was really spent; see `Ledger.settle`.

        Thresholds are reached when a slice is settled, which is done at once where one seems to be. The next
        settlement of this process is told of them, unless there is an `alarm`.
        """
        if alert_at:
            check_alert_at(alert_at)
            self._book.watch(alert_at)
        book = self._book
        if reservation_id not in book.calls:
            return self._settle_elsewhere(reservation_id, charges, alert_at)
        answer = book.settle(reservation_id, charges)
        if self._journal.on and answer.how != "duplicate":
            self._journal.spent(reservation_id, charges)
        if alert_at and book.has_reached(alert_at) and self._background:
            self._keeper.report()
        if self._leasing.crossed:
            crossed = tuple(self._leasing.crossed)
            del self._leasing.crossed[: len(crossed)]
            return Settled(answer.how, crossed)
        return answer

    def release(self, reservation_id: str) -> ReservationState:
        """Give the reservation back; see `Ledger.release`."""
        if reservation_id not in self._book.calls:
            plan.check_id(reservation_id)
            if on_event_loop():
                self._owe(Delivery(id=reservation_id))
                return ReservationState.RELEASED
            state = self.authority.release(reservation_id)
            self._remember_elsewhere(reservation_id)
            return state
        state = self._book.release(reservation_id)
        if self._journal.on:
            self._journal.released(reservation_id)
        return state

    def renew(self, reservation_id: str, *, lease_seconds: float) -> ReservationState:
        """Start the lease anew; see `Ledger.renew`."""
        if reservation_id in self._book.calls:
            return self._book.renew(reservation_id, lease_seconds=lease_seconds)
        return self.authority.renew(reservation_id, lease_seconds=lease_seconds)

    def top_up(self, grant_id: str, account: Account, amount: int) -> Balance:
        """Add *amount* to the limit, once per *grant_id*; see `Ledger.top_up`."""
        there = self.authority.top_up(grant_id, account, amount)
        return self._seen(account, there)

    def set_limit(self, account: Account, limit: int | None) -> Balance:
        """Pin the limit of *account*; see `Ledger.set_limit`. Other processes look at it when they next look after
        their slices."""
        with self._leasing.asking:
            self._give_back([account], for_good=False)
            there = self.authority.set_limit(account, limit)
            with suppress(LedgerUnavailableError):  # then they find it when they lease next
                recall(self.authority)
            here = self._book.seen_here(account, there)
            self._book.doubt([account])
            pool = self._book.pool(account)
            return here if pool is None else pool.recut(there, here)

    # -- readings ------------------------------------------------------------------------------------------------------

    def balance(self, account: Account) -> Balance:
        """The balance now, with this process's own calls in place of its slices. `leased` is what it may still reserve
        without asking. The slices of other processes are `reserved`."""
        with self._leasing.asking:
            self._leasing.expire()
            return self._seen(account, self.authority.balance(account))

    def accounts(self) -> Iterator[Account]:
        """Every account with a record."""
        there = {account: None for account in self.authority.accounts() if account != RECALL}
        return iter({**there, **{pool.account: None for pool in self._book.pools()}})

    def collect(self, accounts: Sequence[Account]) -> int:
        """Forget accounts of which nothing is reserved; see `Ledger.collect`. One whose slice calls in flight of other
        accounts need stays."""
        with self._leasing.asking:
            self._give_back(accounts, for_good=True)
            gone: set[Account] = set()
            for account in accounts:
                pool = self._book.pool(account)
                if pool is not None and (pool.reserved or pool.leased):
                    continue
                if self.authority.balance(account).reserved:
                    continue
                if self.authority.collect([account]) + self._book.collect([account]):
                    gone.add(account)
            return len(gone)

    def journal(self) -> Iterator[JournalEntry]:
        """Every retained entry, in order: this process's calls and the authority's entries without its slices.

        Spend that slices settled longer ago than a ledger retains stands in its checkpoints.
        """
        with self._leasing.asking:
            there = [
                entry
                for entry in self.authority.journal()
                if not self._book.is_mine(entry.id) and RECALL.key not in dict(entry.lines)
            ]
            entries = [*there, *self._book.journal()]
        yield from in_order(entries)

    def verify(self) -> Verification:
        """Recompute every balance of the authority and of this process's calls from their journals, and compare what
        slices hold there with what they cover here."""
        with self._leasing.asking:
            there, here = self.authority.verify(), self._book.verify()
            held = held_there(self.authority.journal(), self._book.is_mine)
            differences = [*there.differences, *here.differences, *uncovered(self._book.pools(), held)]
        return Verification(
            accounts=len(list(self.accounts())),
            entries=len(list(self.journal())),
            differences=tuple(differences),
        )

    @property
    def path(self) -> Path | None:
        """The file of the authority, where it is in one."""
        path = getattr(self.authority, "path", None)
        return path if isinstance(path, Path) else None

    @property
    def out_of_reach(self) -> bool:
        """Whether the authority did not answer last time, so that slices are all there is."""
        return self._leasing.out_of_reach is not None

    def attach(
        self, *, keep_going: bool, tell: Callable[[str], None], alarm: Callable[[Crossing], None] | None = None
    ) -> None:
        """Whether calls are admitted from slices while the authority is out of reach, who is told of that, and who of
        thresholds that slices reach."""
        self.keep_going = keep_going
        self._leasing.tell = tell
        if alarm is not None:
            self._leasing.alarm = alarm

    def look_after(self) -> None:
        """What the background thread does every now and then: refill, give back, renew, settle."""
        look_after(self._leasing)

    def give_back(self) -> None:
        """Settle every slice that no call in flight needs, now.

        Raises:
            LedgerUnavailableError: no answer; it is done later.
        """
        self._leasing.keep()

    def close(self) -> None:
        """Give back what is not in use, then close the authority. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._keeper.stop()
        with suppress(LedgerUnavailableError):
            self._leasing.keep(for_good=True)
        left = self._book.slices or self._book.owed or self._leasing.left
        self._journal.close(empty=not left)
        self.authority.close()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Go on with what processes that are gone left behind, now or when the authority answers."""
        self._leasing.left = self._journal.take_over()
        for left in self._leasing.left:
            self._past |= left.settled
        if self._leasing.left:
            with suppress(LedgerUnavailableError):
                self._leasing.keep()

    def _reserve_with_more(
        self, reservation_id: str, postings: Sequence[Posting], lease_seconds: float
    ) -> Granted | Refused:
        """Reserve after a slice was found short."""
        book = self._book
        book.harden(postings)
        answer = book.reserve(reservation_id, postings, lease_seconds=lease_seconds)
        if type(answer) is Granted:
            if self._background:
                self._keeper.ask(postings)
            return answer
        on_loop = self._background and on_event_loop()
        if self._background and not on_loop:
            self._keeper.start()
        for _ in range(_TRIES):
            try:
                refused = self._lease(postings, on_loop=on_loop)
            except LedgerUnavailableError:
                answer = self._reserve_trusting(reservation_id, postings, lease_seconds)
                if type(answer) is Granted:
                    return answer
                raise
            if refused is not None:
                return refused
            book.harden(postings)
            answer = book.reserve(reservation_id, postings, lease_seconds=lease_seconds)
            if type(answer) is Granted:
                break
        return answer

    def _reserve_trusting(
        self, reservation_id: str, postings: Sequence[Posting], lease_seconds: float
    ) -> Granted | Refused:
        """Reserve with the authority out of reach, where slices cover what is shared."""
        if self.keep_going and self._book.trust(postings):
            self._book.harden(postings)
        return self._book.reserve(reservation_id, postings, lease_seconds=lease_seconds)

    def _lease(self, postings: Sequence[Posting], *, on_loop: bool) -> Refused | None:
        found = self._leasing.out_of_reach
        if found is not None and (on_loop or self.keep_going) and self._monotonic() < self._leasing.again:
            raise LedgerUnavailableError(f"the slice is used up, and the ledger is out of reach: {found}")
        return self._lease_in_time(postings) if on_loop else self._leasing.lease(postings, patient=self._background)

    def _lease_in_time(self, postings: Sequence[Posting]) -> Refused | None:
        """Lease by the background thread, and wait for it as long as an event loop may stand still."""
        if self._late is not None and not self._late.done():
            raise LedgerUnavailableError(
                "the slice is used up, and the ledger has not leased what was asked for before."
            )
        wait = self.options.wait_seconds
        asked = self._keeper.ask(postings)
        try:
            return asked.result(wait)
        except NotYetError:
            self._late = asked
            raise LedgerUnavailableError(
                f"the slice is used up, and the ledger did not lease another within {wait:g} s; "
                "raise ?slice= or ?slice_wait=."
            ) from None

    def _refuse_out_of_reach(self) -> None:
        """Raise where the authority is out of reach; on a thread only after it was asked again."""
        leasing = self._leasing
        if leasing.monotonic() >= leasing.again and not (self._background and on_event_loop()):
            leasing.reach()
        found = leasing.out_of_reach
        if found is not None:
            raise LedgerUnavailableError(
                f"calls are not admitted from slices while the ledger is out of reach: {found}"
            )

    def _settle_elsewhere(self, reservation_id: str, charges: Sequence[Charge], alert_at: AlertAt | None) -> Settled:
        if reservation_id in self._past:
            return Settled("duplicate")
        plan.check_id(reservation_id)
        plan.check_charges(charges)
        if on_event_loop():
            self._owe(Delivery(id=reservation_id, charges=tuple(charges), alert_at=alert_at or {}))
            return Settled("queued")
        answer = self.authority.settle(reservation_id, charges, alert_at=alert_at)
        self._remember_elsewhere(reservation_id)
        self._book.doubt([account for account, _, _ in charges])
        return answer

    def _owe(self, delivery: Delivery) -> None:
        """Let the background thread tell the authority."""
        self._journal.settling(delivery)
        self._book.owe(delivery)
        self._remember_elsewhere(delivery.id)
        self._keeper.start()

    def _remember_elsewhere(self, reservation_id: str) -> None:
        self._elsewhere[reservation_id] = None
        if len(self._elsewhere) > _ELSEWHERE:
            self._elsewhere.popitem(last=False)

    def _give_back(self, accounts: Sequence[Account], *, for_good: bool) -> None:
        pools = [pool for account in accounts if (pool := self._book.pool(account)) is not None]
        if pools:
            self._leasing.keep(among=pools, for_good=for_good)

    def _seen(self, account: Account, there: Balance) -> Balance:
        """The authority's balance *there* as this process sees it, under the limit that its last call declared."""
        differs, declared = self._book.declared(account)
        if differs:
            there = self._leasing.judged(account, declared, there)
        return self._book.seen_here(account, there)

    def _forked(self) -> None:
        """In a child process: slices and calls are the parent's."""
        self._journal.forked()
        before = self._leasing
        self._begin()
        self._leasing.tell = before.tell
        if before.alarm != before.crossed.append:
            self._leasing.alarm = before.alarm


SLICED: weakref.WeakSet[SlicedLedger] = weakref.WeakSet()
"""Every one of this process."""


def _after_fork_in_child() -> None:
    for ledger in list(SLICED):
        ledger._forked()  # noqa: SLF001 - this module's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
