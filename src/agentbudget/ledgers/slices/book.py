"""The calls of this process, which are admitted from slices, and the slices themselves. No I/O."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt
from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import Granted, Refused, Shortfall
from agentbudget.ledgers import plan
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.outbox import Delivery
from agentbudget.ledgers.slices.options import SliceOptions
from agentbudget.ledgers.slices.pool import Pool, Slice

RETAIN = 16_384
"""How many resolved calls keep their id here."""
MOST_POOLS = 4_096
"""From so many accounts on those that are idle are forgotten here."""
UNKNOWN = Refused(())
"""An account of which nothing was ever leased."""


_OWN = {"slice", "report", "probe"}


class Want(NamedTuple):
    """What one line of a reservation needs beyond what its pool has free; at most 0 where it has enough."""

    pool: Pool
    posting: Posting
    need: int


class Book(MemoryLedger):
    """A memory ledger whose limits are what was leased. Every method takes its lock.

    Args:
        options: how much is leased at once.
        clock: whose monotonic time leases run by.
        on_expire: what expiry means at the authority, and so here.
        owner: first part of the ids of slices; nobody else has it.
    """

    _row = Pool

    def __init__(self, options: SliceOptions, clock: Clock | None, on_expire: str, owner: str) -> None:
        super().__init__(clock, on_expire, retain=RETAIN)
        self.options = options
        self.owner = owner
        self.owners = {owner}
        """Of all slices held, those of processes before this one included."""
        self.slices: list[Slice] = []
        """Those that hold something at the authority, oldest first."""
        self.owed: dict[str, Delivery] = {}
        """What the authority is yet to be told, by id."""
        self.prefetching = False
        """Whether somebody refills in the background."""
        self.fence: float | None = None
        """When the first slice stops being usable; None: no slice does by itself."""
        self.calls: Collection[str] = self._records.keys()
        """Ids of the calls that were admitted here."""
        self._made = 0

    # -- admission -----------------------------------------------------------------------------------------------------

    def pool(self, account: Account) -> Pool | None:
        """What is held of *account*; None where nothing ever was."""
        return cast("Pool | None", self._rows.get(account.key))

    def pools(self) -> list[Pool]:
        """Of every account."""
        with self._lock:
            return cast("list[Pool]", list(self._rows.values()))

    def wants(self, postings: Sequence[Posting]) -> list[Want]:
        """What a reservation of *postings* that was not admitted lacks."""
        with self._lock:
            self._now()
            wants = []
            for posting in postings:
                pool = self.pool(posting.account) or Pool(posting.account)
                wants.append(Want(pool, posting, posting.amount - pool.free))
            return wants

    def has_room(self, wants: Sequence[Want]) -> None:
        """The authority has room for all *wants*, or leased what they lacked: they may be admitted."""
        with self._lock:
            for found, (account, amount, _), _ in wants:
                pool = cast("Pool", self._rows.setdefault(account.key, found))
                pool.typical = (3 * pool.typical + amount) // 4 if pool.typical else amount

    def harden(self, postings: Sequence[Posting]) -> None:
        """Let the last parts of the slices be spent."""
        with self._lock:
            for posting in postings:
                pool = self.pool(posting.account)
                if pool is not None:
                    pool.harden()

    def size(self, want: Want, room: int) -> int:
        """How much to lease for *want*, of which the authority has *room*: what is needed, and a slice for later."""
        pool = want.pool
        call = pool.typical or want.posting.amount
        later = min(self.options.calls * call - max(0, pool.free), room // self.options.share)
        if _is_of_task(pool.account):
            later = room if want.need > 0 else 0  # others hardly need it, and to ask once is enough
        return min(max(want.need, later if later >= call else 0, 0), room)

    def trust(self, postings: Sequence[Posting]) -> bool:
        """With the authority out of reach, let a task begin that slices of shared limits cover: of its own accounts
        nobody but this process knows anything. Whether *postings* may be tried again."""
        with self._lock:
            shared = [posting for posting in postings if not _is_of_task(posting.account)]
            if not shared or not all(self._covers(posting) for posting in shared):
                return False
            for account, _, limit in postings:
                if _is_of_task(account):
                    pool = cast("Pool", self._open(account))
                    if pool.doubted:
                        return False
                    pool.trust(limit)
            return True

    def distrust(self) -> None:
        """The authority answers again."""
        with self._lock:
            for pool in self.pools():
                pool.distrust()

    def _covers(self, posting: Posting) -> bool:
        pool = self.pool(posting.account)
        return pool is not None and pool.committed + posting.amount <= pool.ceiling_under(posting.limit)

    # -- slices --------------------------------------------------------------------------------------------------------

    def next_id(self, kind: str = "slice") -> str:
        """An id that nobody had before."""
        with self._lock:
            self._made += 1
            return f"{kind} {self.owner} {self._made}"

    def is_mine(self, reservation_id: str) -> bool:
        """Whether this is an id of one of this ledger's slices or reports."""
        kind, _, rest = reservation_id.partition(" ")
        return kind in _OWN and rest.partition(" ")[0] in self.owners

    def opened(self, one: Slice, limits: dict[Pool, int | None], *, asked_at: float) -> None:
        """The authority granted *one*, asked for at the monotonic time *asked_at*."""
        lease = self.options.lease_seconds
        with self._lock:
            one.renew_at, one.ends_at = asked_at + lease / 3, asked_at + lease
            one.quiet_since = asked_at
            self.slices.append(one)
            granted, one.lines = one.lines, {}
            for found, amount in granted.items():
                pool = cast("Pool", self._rows.setdefault(found.key, found))
                one.lines[pool] = amount
                pool.told = limits[found]
                pool.lease(amount, limits[found], amount // 4 if self.prefetching else 0)
            self._set_fence()

    def renewed(self, one: Slice, *, asked_at: float) -> None:
        """The lease of *one* runs anew."""
        lease = self.options.lease_seconds
        with self._lock:
            one.renew_at, one.ends_at = asked_at + lease / 3, asked_at + lease
            self._set_fence()

    def expire_slices(self, now: float) -> None:
        """Where expiry releases, what may have been given back to others is not spent any more."""
        with self._lock:
            for one in self.slices:
                if one.ends_at <= now:
                    self.drop(one)

    def drop(self, one: Slice) -> None:
        """The authority does not count *one* any more."""
        with self._lock:
            one.expired = True
            if one.usable:
                one.usable = False
                for pool, amount in one.lines.items():
                    pool.give_back(amount, 0)
            self._set_fence()

    def watch(self, alert_at: AlertAt) -> None:
        """Settlements of slices watch these thresholds."""
        with self._lock:
            for account, thresholds in alert_at.items():
                pool = self.pool(account)
                if pool is not None:
                    pool.alert_at = tuple(thresholds)

    def has_reached(self, watched: Iterable[Account]) -> bool:
        """Whether more thresholds of accounts *watched* seem to be reached than before."""
        with self._lock:
            pools = [self.pool(account) for account in watched]
            more = [pool.has_reached() for pool in pools if pool is not None]
        return any(more)

    def owe_for(self, account: Account, amount: int) -> None:
        """*amount* was spent of *account* before, and not reported."""
        with self._lock:
            cast("Pool", self._open(account)).give_back(0, -amount)

    def hold(self, reservation_id: str, postings: Sequence[Posting], lease_seconds: float) -> None:
        """Hold a call that another process admitted, even where overruns have used up what was leased for it."""
        with self._lock:
            pools = [cast("Pool", self._open(account)) for account, _, _ in postings]
            before = [(pool.leased, pool.doubted) for pool in pools]
            for pool in pools:
                pool.leased, pool.low, pool.doubted = plan.MAX_AMOUNT, 0, False
            self.reserve(reservation_id, postings, lease_seconds=lease_seconds)
            for pool, (leased, doubted) in zip(pools, before, strict=True):
                pool.leased, pool.doubted = leased, doubted
                pool.declare(pool.declared)

    def doubt(self, accounts: Iterable[Account]) -> None:
        """More of *accounts* may be committed than their limits allow: ask before more is admitted."""
        with self._lock:
            for account in accounts:
                pool = self.pool(account)
                if pool is not None:
                    pool.doubt()

    def dead(self, pool: Pool) -> int:
        """What of *pool* the authority presumes spent, since its slice has expired."""
        return sum(one.lines.get(pool, 0) for one in self.slices if one.expired and one.usable)

    def _set_fence(self) -> None:
        if not self._charging:
            self.fence = min([one.ends_at for one in self.slices if one.usable], default=None)

    # -- settling slices -----------------------------------------------------------------------------------------------

    def close_spent(self) -> None:
        """Settle the slices that are spent in full."""
        with self._lock:
            for one in list(self.slices):
                if any(pool.unreported < amount for pool, amount in one.lines.items()):
                    return
                self._settle(one, one.lines)

    def close_unused(
        self, among: Iterable[Pool] | None = None, *, quiet_before: float | None = None, for_good: bool = False
    ) -> None:
        """Settle every slice that no call needs, so that what is unused goes back to all.

        Only those with one of the pools *among*, and only those of which nothing was spent since the monotonic time
        *quiet_before*, where given. *for_good* tells what is presumed as spent, too.
        """
        pools = None if among is None else set(among)
        with self._lock:
            now = self._now()
            for one in list(self.slices):
                if pools is not None and not pools & one.lines.keys():
                    continue
                if quiet_before is not None and not self._is_quiet(one, now, quiet_before):
                    continue
                actual = {pool: min(most, _to_tell(pool, for_good=for_good)) for pool, most in one.lines.items()}
                needed = one.usable and any(most - actual[pool] > max(0, pool.free) for pool, most in one.lines.items())
                if not needed:
                    self._settle(one, actual)
            self.report_excess(for_good=for_good)

    def worth_splitting(self, quiet_before: float | None) -> dict[Pool, int]:
        """What calls need of slices that are mostly unused: leased anew, it lets the slices go back."""
        with self._lock:
            now = self._now()
            found = {
                pool: pool.in_use
                for one in self.slices
                if quiet_before is None or self._is_quiet(one, now, quiet_before)
                for pool in one.lines
            }
            for one in self.slices:
                one.quiet_since = now  # where there is no room for it, not again at once
            # A slice that was taken over from another process does not tell its limit.
            worth = any(pool.free > needed for pool, needed in found.items()) and all(
                pool.told is not None for pool in found
            )
            return {pool: needed for pool, needed in found.items() if needed > 0} if worth else {}

    def forget_idle(self) -> None:
        """Where there are many accounts, forget those of which nothing is held and everything was told."""
        with self._lock:
            if len(self._rows) > MOST_POOLS:
                pools = self.pools()
                self.collect([p.account for p in pools if not (p.leased or p.in_use or p.unreported or p.overrun)])

    def report_excess(self, *, for_good: bool = False) -> None:
        """Owe what was spent past every slice: an overrun at the authority."""
        with self._lock:
            while found := [charge for pool in self.pools() if (charge := self._excess(pool, for_good=for_good))]:
                self._owe_charges(self.next_id("report"), found)

    def _excess(self, pool: Pool, *, for_good: bool) -> Charge | None:
        slices = sum(one.lines.get(pool, 0) for one in self.slices)
        excess = min(_to_tell(pool, for_good=for_good) - slices, plan.MAX_AMOUNT)
        if excess <= 0:
            return None
        pool.excess += excess
        pool.trusted = max(0, pool.trusted - excess)
        pool.give_back(0, excess)
        if not pool.trusted:
            pool.doubt()
        return Charge(pool.account, 0, excess)

    def _is_quiet(self, one: Slice, now: float, before: float) -> bool:
        seen = tuple(number for pool in one.lines for number in (pool.committed, pool.settled))
        if seen != one.seen:
            one.seen, one.quiet_since = seen, now
        return one.quiet_since <= before

    def _settle(self, one: Slice, actual: Mapping[Pool, int]) -> None:
        self.slices.remove(one)
        charges = []
        for pool, amount in one.lines.items():
            charges.append(Charge(pool.account, amount, actual[pool]))
            pool.give_back(amount if one.usable else 0, actual[pool])
        self._owe_charges(one.id, charges)
        self._set_fence()

    def _owe_charges(self, name: str, charges: Sequence[Charge]) -> None:
        pools = [self.pool(account) for account, _, _ in charges]
        watched = {pool.account: pool.alert_at for pool in pools if pool is not None and pool.alert_at}
        self.owe(Delivery(id=name, charges=tuple(charges), alert_at=watched))

    def owe(self, delivery: Delivery) -> None:
        """The authority is to be told *delivery*."""
        self.owed[delivery.id] = delivery

    # -- readings ------------------------------------------------------------------------------------------------------

    def shortfall(self, posting: Posting, there: Balance) -> Shortfall:
        """*posting*, which the authority has no room for by the balance *there*."""
        with self._lock:
            return Shortfall(posting.account, posting.amount, self.seen_here(posting.account, there))

    def seen_here(self, account: Account, there: Balance) -> Balance:
        """The authority's balance of *account* with the calls of this process in place of its slices."""
        with self._lock:
            self._now()
            pool = self.pool(account)
            return there if pool is None else pool.as_seen_here(there, self.dead(pool))

    def own(self, pool: Pool) -> int:
        """What the authority counts as committed by this process."""
        return pool.reported + pool.leased

    def declared(self, account: Account) -> tuple[bool, int | None]:
        """Whether the authority was told another limit of *account* than the last call declared, and that limit."""
        pool = self.pool(account)
        return (False, None) if pool is None else (pool.declared != pool.told, pool.declared)

    @property
    def charges_expired(self) -> bool:
        """Whether the authority counts an expired slice as spent."""
        return self._charging

    # -- inside --------------------------------------------------------------------------------------------------------

    def _collect_idle(self) -> None:
        """Slices may hold something of a minute that is over: see `forget_idle`."""
        self._idle.clear()

    def _reserve_carefully(
        self, reservation_id: str, postings: Sequence[Posting], lease_seconds: float, now: float
    ) -> Granted | Refused:
        if reservation_id not in self._records:
            plan.check_id(reservation_id)
            plan.check_lease(lease_seconds)
            plan.check_postings(postings)
            if any(account.key not in self._rows for account, _, _ in postings):
                return UNKNOWN
        return super()._reserve_carefully(reservation_id, postings, lease_seconds, now)


def _is_of_task(account: Account) -> bool:
    """Whether it is of one task, which others hardly need."""
    return any(kind == "task" for kind, _ in account.scope)


def _to_tell(pool: Pool, *, for_good: bool) -> int:
    return max(0, pool.settled + pool.presumed - pool.reported) if for_good else pool.unreported


def unique_name() -> str:
    """A name that nobody has."""
    return uuid.uuid4().hex[:16]
