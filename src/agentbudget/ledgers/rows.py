"""One account of the memory ledger, as mutable columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentbudget.domain.accounts import Account, Balance
from agentbudget.domain.alerts import Crossing, reached
from agentbudget.ledgers.plan import MAX_AMOUNT, NO_LIMIT, Columns, ceiling, cut


class Grant(NamedTuple):
    """A top-up that is still in the journal."""

    amount: int
    sequence: int
    at: float


class Pin(NamedTuple):
    """The last explicit limit, and how far it cut."""

    limit: int | None
    cut: int
    sequence: int
    at: float


class Extras:
    """What few accounts have: grants, a pinned limit, and sums of rare records that are no longer retained."""

    __slots__ = ("base_grants", "base_overrun", "base_presumed", "granted", "grants", "pin", "raised")

    def __init__(self) -> None:
        self.pin: Pin | None = None
        self.granted = 0
        """All that was ever granted."""
        self.grants: dict[str, Grant] = {}
        """Those still in the journal, by id."""
        self.base_grants = 0
        self.base_presumed = 0
        self.base_overrun = 0
        self.raised = 0
        """The highest alert threshold that was raised, in basis points."""


class Row:
    """The columns of one account. `committed` is the running sum that admission compares with `ceiling`."""

    __slots__ = (
        "account",
        "base_settled",
        "ceiling",
        "committed",
        "declared",
        "extras",
        "key",
        "overrun",
        "presumed",
        "settled",
    )

    def __init__(self, account: Account) -> None:
        self.account = account
        self.key = account.key
        self.declared: int | None = None
        """The limit of the last posting that was granted."""
        self.ceiling = MAX_AMOUNT
        """What `declared`, the pin and the grants come to."""
        self.committed = 0
        self.settled = 0
        self.presumed = 0
        self.overrun = 0
        self.base_settled = 0
        self.extras: Extras | None = None

    @property
    def reserved(self) -> int:
        """What live reservations hold."""
        return self.committed - self.settled - self.presumed

    def adjusted(self) -> Extras:
        """The extras, made on first use."""
        if self.extras is None:
            self.extras = Extras()
        return self.extras

    def limit_under(self, declared: int | None) -> int | None:
        """The limit that holds where a posting declares *declared*: the pin wins, grants add."""
        if self.extras is None:
            return declared
        limit = declared if self.extras.pin is None else self.extras.pin.limit
        return None if limit is None else ceiling(limit, self.extras.granted)

    def ceiling_under(self, declared: int | None) -> int:
        """The most that may be committed where a posting declares *declared*."""
        limit = declared if self.extras is None else self.limit_under(declared)
        return MAX_AMOUNT if limit is None else limit

    def declare(self, limit: int | None) -> None:
        """Keep *limit* as the declared one and find the ceiling anew."""
        self.declared = limit
        self.ceiling = self.ceiling_under(limit)

    def top_up(self, grant_id: str, amount: int, *, sequence: int, at: float) -> None:
        """Add *amount* to the limit."""
        extras = self.adjusted()
        extras.granted += amount
        extras.grants[grant_id] = Grant(amount, sequence, at)
        self.declare(self.declared)

    def fold_grant(self) -> str:
        """Forget the oldest top-up; its id."""
        extras = self.adjusted()
        oldest = next(iter(extras.grants))
        extras.base_grants += extras.grants.pop(oldest).amount
        return oldest

    def pin(self, limit: int | None, *, sequence: int, at: float) -> None:
        """Hold *limit* from here on, whatever postings declare."""
        extras = self.adjusted()
        lost = cut(limit, grants=extras.granted, committed=self.committed, overrun=self.overrun)
        extras.pin = Pin(limit, lost, sequence, at)
        self.declare(self.declared)

    def crossings(self, thresholds: Sequence[int], actual: int, at: float) -> list[Crossing]:
        """Those of *thresholds* that the settlement of *actual*, which is booked already, has reached."""
        limit = self.limit_under(self.declared)
        if not thresholds or limit is None:
            return []
        extras, settled = self.adjusted(), self.settled
        due, extras.raised = reached(
            thresholds, limit=limit, before=settled - actual, after=settled, raised=extras.raised
        )
        return [Crossing(account=self.account, threshold=one, limit=limit, settled=settled, at=at) for one in due]

    def balance(self, declared: int | None) -> Balance:
        """The state of the account as a posting that declares *declared* sees it."""
        pin = self.extras.pin if self.extras else None
        return Balance(
            limit=self.limit_under(declared),
            settled=self.settled,
            reserved=self.reserved,
            presumed=self.presumed,
            overrun=self.overrun,
            cut=pin.cut if pin else 0,
        )

    def columns(self) -> Columns:
        """The stored columns, to compare with the recorded ones."""
        extras = self.extras
        pin = extras.pin if extras else None
        return Columns(
            settled=self.settled,
            reserved=self.reserved,
            presumed=self.presumed,
            overrun=self.overrun,
            cut=pin.cut if pin else 0,
            grants=extras.granted if extras else 0,
            pin=None if pin is None else NO_LIMIT if pin.limit is None else pin.limit,
        )
