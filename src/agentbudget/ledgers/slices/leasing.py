"""What is asked of the authority: slices, their renewal and their settlement. One thread at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import Crossing
from agentbudget.domain.ledger import Granted, Ledger, Refused, ReservationState, Shortfall
from agentbudget.errors import LedgerError, LedgerUnavailableError, ReservationNotFoundError
from agentbudget.ledgers.outbox import Delivery
from agentbudget.ledgers.plan import MAX_AMOUNT
from agentbudget.ledgers.slices.book import Book, Want
from agentbudget.ledgers.slices.journal import Left, SliceJournal
from agentbudget.ledgers.slices.pool import Pool, Slice
from agentbudget.ledgers.slices.recall import RECALL, recall
from agentbudget.ledgers.slices.restart import take_up

PROBE_SECONDS = 1.0
"""Lease of a reservation of everything, which is refused wherever there is a limit."""
POLL_SECONDS = 0.02
RETRY_SECONDS = 1.0
"""After a failure the authority is left alone for this long."""

Answer = TypeVar("Answer")


class Leasing:
    """The authority as this process's slices see it. Methods may block; those that ask take `asking`."""

    def __init__(self, authority: Ledger, book: Book, journal: SliceJournal, monotonic: Callable[[], float]) -> None:
        self.authority = authority
        self.book = book
        self.journal = journal
        self.monotonic = monotonic
        self.left: list[Left] = []
        """What processes that are gone left behind, and nobody took up yet."""
        self.asking = threading.RLock()
        """Held by the thread that asks."""
        self.crossed: list[Crossing] = []
        """Alert thresholds that slices reached and nobody was told yet."""
        self.alarm: Callable[[Crossing], None] = self.crossed.append
        """Told of each, in whatever thread."""
        self.out_of_reach: LedgerUnavailableError | None = None
        """Why the authority did not answer last time; None where it did."""
        self.again = 0.0
        """When it may be asked again."""
        self.tell: Callable[[str], None] = lambda _: None
        """Told when the authority goes out of reach and when it is back."""
        self._recalled = 0
        self._recalled_at = -1.0

    # -- leasing -------------------------------------------------------------------------------------------------------

    def lease(self, postings: Sequence[Posting], *, patient: bool) -> Refused | None:
        """Lease what *postings* lack, and a slice for later; the refusal where there is no room.

        *patient* waits for the unused slices of others, where they are in the way.
        """
        refused = self._lease_now(postings)
        if refused is not None and patient and self._others_may_give_back(refused):
            refused = self._lease_after_recall(postings, refused)
        return refused

    def _lease_now(self, postings: Sequence[Posting]) -> Refused | None:
        with self.asking:
            refused = self._lease(postings)
            with suppress(LedgerUnavailableError):  # what is owed waits
                self.settle_owed()
        return refused

    def _lease(self, postings: Sequence[Posting]) -> Refused | None:
        wants = self.book.wants(postings)
        if any(want.pool.free < 0 for want in wants):  # an overrun, of which the authority should know first
            self.book.report_excess()
            self.settle_owed()
            wants = self.book.wants(postings)
        judged = self._judge(wants)
        while True:
            short = {want.posting.account: self._short(want, judged) for want in wants}
            if any(short.values()):
                return Refused(tuple(found for found in short.values() if found is not None))
            sizes = {want.pool: self.book.size(want, self._room(want, judged)) for want in wants}
            answer = self._reserve(wants, {pool: size for pool, size in sizes.items() if size})
            if answer is None:
                self.book.close_spent()
                return None
            found = {short.account: short.balance for short in answer.shortfalls}
            judged = {**judged, **found}
            if not any(self._short(want, judged) for want in wants):
                continue  # less than a whole slice
            return Refused(tuple(self._seen(want, judged) for want in wants if self._short(want, judged)))

    def _reserve(self, wants: Sequence[Want], sizes: Mapping[Pool, int]) -> Refused | None:
        """Lease *sizes* in one slice."""
        if sizes:
            limits = {want.pool: want.posting.limit for want in wants}
            refused = self._take(Slice(id=self.book.next_id(), lines=dict(sizes)), limits)
            if refused is not None:
                return refused
        self.book.has_room(wants)
        return None

    def _take(self, one: Slice, limits: dict[Pool, int | None]) -> Refused | None:
        """Reserve *one* at the authority."""
        lines = [Posting(pool.account, amount, limits[pool]) for pool, amount in one.lines.items()]
        lease = self.book.options.lease_seconds
        self.journal.leasing(one)
        asked_at = self.monotonic()
        try:
            answer = self._asked(lambda: self.authority.reserve(one.id, lines, lease_seconds=lease))
        except LedgerUnavailableError:  # it may have been granted all the same, and expire
            self.book.owe(Delivery(id=one.id, charges=tuple(Charge(account, most, 0) for account, most, _ in lines)))
            raise
        if isinstance(answer, Refused):
            self.journal.settled(one.id)
            return answer
        self.book.opened(one, limits, asked_at=asked_at)
        return None

    def _judge(self, wants: Sequence[Want]) -> dict[Account, Balance]:
        """The balances of limited accounts, as a reservation of everything is refused with."""
        # Where nothing has a limit, a reservation of everything might be granted.
        judging = any(want.pool.doubted or want.pool.free < 0 or _is_limit(want.posting.limit) for want in wants)
        asked = wants if judging else ()
        own = {want.pool: self.book.own(want.pool) for want in asked}
        told = self._probe([posting for _, posting, _ in asked])
        found = {want.posting.account: told.get(want.posting.account, _unlimited(want.posting.limit)) for want in asked}
        for pool, posting, _ in asked:
            pool.learn(posting.limit, found[posting.account], own[pool])
        return found

    def _probe(self, postings: Sequence[Posting]) -> dict[Account, Balance]:
        """The balances that refuse a reservation of everything; none where nothing limits it."""
        if not postings:
            return {}
        probe = self.book.next_id("probe")
        lines = [Posting(account, MAX_AMOUNT, limit) for account, _, limit in postings]
        answer = self._asked(lambda: self.authority.reserve(probe, lines, lease_seconds=PROBE_SECONDS))
        if isinstance(answer, Granted):  # limits that somebody lifted
            self._asked(lambda: self.authority.release(probe))
            return {}
        return {short.account: short.balance for short in answer.shortfalls}

    def judged(self, account: Account, declared: int | None, there: Balance) -> Balance:
        """The authority's balance of *account*, which is *there*, under the limit *declared*."""
        found = self._probe([Posting(account, 0, declared)]).get(account)
        if found is not None:
            return found
        return there if _is_limit(declared) else replace(there, limit=declared)  # a limit that was set lets all pass

    def _room(self, want: Want, judged: Mapping[Account, Balance]) -> int:
        """What the authority has left for *want*."""
        there = judged.get(want.posting.account)
        if there is None:
            return MAX_AMOUNT
        return max(0, (MAX_AMOUNT if there.limit is None else there.limit) - there.committed)

    def _short(self, want: Want, judged: Mapping[Account, Balance]) -> Shortfall | None:
        """Why *want* is refused."""
        there = judged.get(want.posting.account)
        if there is None:
            return None
        # With unused slices given back there would be `-need` more room.
        limit = MAX_AMOUNT if there.limit is None else there.limit
        return self._seen(want, judged) if there.committed + want.need > limit else None

    def _seen(self, want: Want, judged: Mapping[Account, Balance]) -> Shortfall:
        return self.book.shortfall(want.posting, judged[want.posting.account])

    # -- recall --------------------------------------------------------------------------------------------------------

    def _others_may_give_back(self, refused: Refused) -> bool:
        """Whether only what others have reserved is in the way."""
        return self.book.options.recall_seconds > 0 and all(
            short.balance.limit is not None
            and short.requested + short.balance.settled + short.balance.presumed <= short.balance.limit
            for short in refused.shortfalls
        )

    def _lease_after_recall(self, postings: Sequence[Posting], refused: Refused) -> Refused | None:
        with self.asking:
            self.book.close_unused()
            self.settle_owed()
            if self.monotonic() - self._recalled_at > self.book.options.recall_seconds:
                self._recalled_at = self.monotonic()
                self._asked(lambda: recall(self.authority))
        until = time.monotonic() + self.book.options.recall_seconds
        found: Refused | None = refused
        while found is not None and time.monotonic() < until and self._others_may_give_back(found):
            time.sleep(POLL_SECONDS)
            found = self._lease_now(postings)
        return found

    def heed_recall(self) -> None:
        """Give back what is unused where somebody asked for it since the last time. A limit may have been cut: where
        calls in flight keep a slice, ask before more is admitted from it."""
        if any(pool.free > 0 for pool in self.book.pools()):
            marks = self._asked(lambda: self.authority.balance(RECALL)).settled
            if marks != self._recalled:
                self._recalled = marks
                self.keep()
                self.book.doubt([pool.account for pool in self.book.pools() if pool.leased])

    # -- keeping and settling ------------------------------------------------------------------------------------------

    def keep(self, *, among: Sequence[Pool] | None = None, idle: float | None = None, for_good: bool = False) -> None:
        """Give back what was idle for *idle* seconds (None: all that is unused), renew the rest, settle what is owed.
        *for_good* tells what is presumed as spent.

        Raises:
            LedgerUnavailableError: no answer; nothing is lost.
        """
        with self.asking:
            self.take_up()
            now = self.monotonic()
            for one in [one for one in self.book.slices if one.renew_at <= now and not one.expired]:
                self._renew(one)
            self.book.close_spent()
            quiet = None if idle is None else now - idle
            self.book.close_unused(among, quiet_before=quiet, for_good=for_good)
            if among is None:
                self._split(quiet, for_good=for_good)
            self.settle_owed()
            self.book.forget_idle()

    def _split(self, quiet_before: float | None, *, for_good: bool) -> None:
        """Where calls in flight need a little of a slice that is not used otherwise, lease just that instead of it."""
        needed = self.book.worth_splitting(quiet_before)
        if not needed:
            return
        if self._take(Slice(id=self.book.next_id(), lines=needed), {pool: pool.told for pool in needed}) is None:
            self.book.close_unused(for_good=for_good)

    def expire(self) -> None:
        """Ask about slices that may have expired."""
        now = self.monotonic()
        for one in [one for one in self.book.slices if one.ends_at <= now and not one.expired]:
            self._renew(one)

    def reach(self) -> None:
        """Ask whether the authority answers again.

        Raises:
            LedgerUnavailableError: it does not.
        """
        self._asked(lambda: self.authority.balance(RECALL))

    def settle_owed(self) -> None:
        """Tell the authority everything that it is owed, oldest first."""
        with self.asking:
            for delivery in list(self.book.owed.values()):
                self.journal.settling(delivery)
                self._deliver(delivery)
                self.book.owed.pop(delivery.id, None)
                self.journal.settled(delivery.id)

    def _deliver(self, delivery: Delivery) -> None:
        try:
            if delivery.charges:
                watched = delivery.alert_at or None
                answer = self._asked(lambda: self.authority.settle(delivery.id, delivery.charges, alert_at=watched))
                for crossing in answer.crossed:
                    self.alarm(crossing)
            else:
                self._asked(lambda: self.authority.release(delivery.id))
        except LedgerUnavailableError:
            raise
        except LedgerError as error:
            self._say(f"the ledger refuses a settlement for good: {error} It said: {delivery}")

    def take_up(self) -> None:
        """Go on with the slices of processes that are gone."""
        with self.asking:
            for left in list(self.left):
                asked_at = self.monotonic()
                states = {name: self._renewed(name) for name in left.slices}
                self.left.remove(left)
                take_up(self.book, left, states, asked_at=asked_at)

    def _renewed(self, name: str) -> ReservationState:
        """The state of a slice, renewed if it is live."""
        lease = self.book.options.lease_seconds
        try:
            return self._asked(lambda: self.authority.renew(name, lease_seconds=lease))
        except ReservationNotFoundError:  # the authority lost it, or was never asked
            return ReservationState.RELEASED

    def _renew(self, one: Slice) -> None:
        asked_at = self.monotonic()
        state = self._renewed(one.id)
        if state is ReservationState.LIVE:
            self.book.renewed(one, asked_at=asked_at)
        elif state is ReservationState.EXPIRED and self.book.charges_expired:
            one.expired = True
        else:
            self.book.drop(one)

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        try:
            answer = ask()
        except LedgerUnavailableError as error:
            began = self.out_of_reach is None
            self.out_of_reach, self.again = error, self.monotonic() + RETRY_SECONDS
            if began:
                self._say(f"the ledger is out of reach, what was leased from it is all there is: {error}")
            raise
        if self.out_of_reach is not None:
            self.out_of_reach = None
            self.book.distrust()
            self._say("the ledger leases again.")
        return answer

    def _say(self, detail: str) -> None:
        with suppress(Warning):  # where warnings are errors, a settlement is not lost for one
            self.tell(detail)


def _unlimited(declared: int | None) -> Balance:
    """The balance of an account that has room for everything under the limit *declared*."""
    return Balance(limit=None if _is_limit(declared) else declared)


def _is_limit(limit: int | None) -> bool:
    return limit is not None and limit < MAX_AMOUNT
