"""One account of the memory ledger, as mutable columns."""

from __future__ import annotations

from typing import NamedTuple

from agentbudget.domain.accounts import Account, Balance
from agentbudget.ledgers.plan import MAX_AMOUNT, NO_LIMIT, Columns, ceiling


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
        "brief",
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
        self.brief = account.window[10:11] == "T"
        """Whether its window is a minute or an hour."""
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
        return ceiling(self.limit_under(declared), 0)

    def declare(self, limit: int | None) -> None:
        """Keep *limit* as the declared one and find the ceiling anew."""
        self.declared = limit
        self.ceiling = self.ceiling_under(limit)

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
