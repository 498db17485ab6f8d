"""What this process holds of one account: a row of the local ledger, whose ceiling is what was leased."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentbudget.domain.accounts import Account, Balance
from agentbudget.domain.alerts import amount_at
from agentbudget.ledgers.plan import MAX_AMOUNT, cut
from agentbudget.ledgers.rows import Row


class Pool(Row):
    """All slices of one account together: `committed` may rise to what they cover.

    Law: `reported + leased` is what the authority counts for this process, and nothing is admitted beyond it, but for
    what is `trusted` in an outage. So whatever other processes do, the limit holds.
    """

    __slots__ = (
        "alarmed",
        "alert_at",
        "cuts",
        "doubted",
        "excess",
        "judged",
        "leased",
        "low",
        "other",
        "others_settled",
        "reported",
        "told",
        "trusted",
        "typical",
        "widest",
    )

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.ceiling = 0
        self.alert_at: tuple[int, ...] = ()
        """Thresholds that settlements of this account watch, as the last call said."""
        self.alarmed = 0
        """How many of them were reached, as far as this process can tell."""
        self.reported = 0
        """Spend that the authority knows of as settled."""
        self.leased = 0
        """What live slices hold at the authority."""
        self.trusted = 0
        """What may be spent though it was not leased, while the authority is out of reach."""
        self.low = 0
        """The last part of `leased`, which is spent only while more is on its way."""
        self.other = MAX_AMOUNT
        """What all others had committed when the authority was last asked; at first they may have everything."""
        self.others_settled = 0
        """What all others had spent then."""
        self.typical = 0
        """What a call takes, lately."""
        self.told: int | None = None
        """The limit that the authority was last told."""
        self.widest = 0
        """The widest limit under which the slices were leased."""
        self.judged: tuple[int | None, int] = (None, MAX_AMOUNT)
        """A declared limit, and what it came to at the authority, with top-ups and pins."""
        self.excess = 0
        """Spend reported without a slice: an overrun there."""
        self.doubted = False
        """Whether the slices prove nothing about the limit any more: then only what was judged since holds."""
        self.cuts = (0, 0)
        """The authority's `cut` when this process last set the limit, and what it is without unused slices."""

    @property
    def cover(self) -> int:
        """How far `committed` may rise."""
        return self.reported + self.leased + self.trusted

    @property
    def free(self) -> int:
        """What may still be reserved without asking; below 0 after an overrun."""
        return self.cover - self.committed

    @property
    def unreported(self) -> int:
        """Spend that the authority does not know yet. What is presumed stays covered by a slice instead, since a late
        settlement may still say less."""
        return max(0, self.settled - self.reported)

    @property
    def in_use(self) -> int:
        """What calls in flight hold, and what is presumed."""
        return self.committed - self.settled

    def ceiling_under(self, declared: int | None) -> int:
        """The most that may be committed here where a posting declares *declared*.

        A slice leased under a wider limit than *declared* proves nothing about it; then what others had is counted.
        """
        known, limit = self.judged
        if self.doubted:
            return min(self.cover, limit - self.other) if known == declared else -1
        if declared is not None and declared < self.widest:
            return min(self.cover, (limit if known == declared else declared) - self.other) - self.low
        return self.cover - self.low

    def limit_under(self, declared: int | None) -> int | None:
        """The declared limit: pins and top-ups are the authority's."""
        return declared

    def lease(self, amount: int, declared: int | None, low: int) -> None:
        """*amount* more was leased under the limit *declared*."""
        if not self.leased:
            self.doubted = False
        self.leased += amount
        self.widest = max(self.widest, MAX_AMOUNT if declared is None else declared)
        self.low = low
        self.declare(self.declared)

    def trust(self, declared: int | None) -> None:
        """Let *declared* be spent, less what is known to be spent already, where nothing is leased."""
        if self.leased:
            return
        most = MAX_AMOUNT if declared is None else declared
        self.other = 0 if self.other == MAX_AMOUNT else self.other
        self.trusted = max(0, most - self.other - self.reported)
        self.widest = max(self.widest, most)
        self.declare(self.declared)

    def distrust(self) -> None:
        """The authority answers again, and is to be asked."""
        if self.trusted:
            self.trusted = 0
            self.doubt()

    def give_back(self, amount: int, actual: int) -> None:
        """A slice of *amount* is settled with *actual*."""
        self.leased -= amount
        self.reported += actual
        if not self.leased:
            self.widest = 0
        self.low = 0
        self.declare(self.declared)

    def doubt(self) -> None:
        """More may be committed than the limit allows: it was set, or an overrun reported."""
        self.doubted, self.judged = True, (-1, 0)
        self.declare(self.declared)

    def has_reached(self) -> bool:
        """Whether more thresholds seem to be reached than before."""
        known, limit = self.judged
        most = limit if known == self.declared else self.declared
        spent = self.others_settled + self.settled
        before, self.alarmed = self.alarmed, 0
        if most:
            self.alarmed = sum(amount_at(one, most) <= spent for one in self.alert_at)
        return self.alarmed > before

    def harden(self) -> None:
        """Let the last part be spent, too."""
        if self.low:
            self.low = 0
            self.declare(self.declared)

    def learn(self, declared: int | None, found: Balance, own: int) -> None:
        """The authority judged *declared* with the balance *found*, of which *own* is this process's."""
        self.other = found.committed - own
        self.others_settled = max(0, found.settled - self.reported)
        self.judged = (declared, MAX_AMOUNT if found.limit is None else found.limit)
        self.declare(self.declared)

    def as_seen_here(self, there: Balance, dead: int = 0) -> Balance:
        """The authority's balance with what calls of this process hold and spent in place of its slices, *dead* of
        which have expired there."""
        seen, without_slices = self.cuts
        return Balance(
            limit=there.limit,
            settled=there.settled - self.reported + self.settled,
            reserved=there.reserved - (self.leased - dead) + self.reserved,
            presumed=there.presumed - dead + self.presumed,
            overrun=there.overrun - self.excess + self.overrun,
            cut=without_slices if there.cut == seen else there.cut,
            leased=max(0, self.free),
        )

    def recut(self, there: Balance, here: Balance) -> Balance:
        """*here* after the limit was set: unused slices are no reason for a cut."""
        lost = cut(here.limit, grants=0, committed=here.committed, overrun=here.overrun)
        self.cuts = (there.cut, lost)
        self.told = self.declared  # a limit that was set wins over any that is declared
        return Balance(
            limit=here.limit,
            settled=here.settled,
            reserved=here.reserved,
            presumed=here.presumed,
            overrun=here.overrun,
            cut=lost,
            leased=here.leased,
        )


@dataclass(slots=True, eq=False, kw_only=True)
class Slice:
    """One reservation at the authority that calls of this process are admitted from."""

    id: str
    lines: dict[Pool, int] = field(default_factory=dict)
    renew_at: float = 0.0
    """When its lease is to be renewed, on this process's monotonic clock."""
    ends_at: float = 0.0
    """When it can have ended at the authority at the earliest."""
    expired: bool = False
    """Whether the authority says that its lease ran out."""
    usable: bool = True
    """Whether its pools count it; where expiry releases, it is not after its end."""
    seen: tuple[int, ...] = ()
    """The pools when they last changed."""
    quiet_since: float = 0.0
