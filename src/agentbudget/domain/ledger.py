"""The ledger port: the durable record of reservations and settlements.

Laws every implementation keeps (the shipped `agentbudget.testing.LedgerContract` checks them):

1. `settled + reserved + presumed <= limit` at every instant for every account, under any concurrency; only overruns
   and explicit limit cuts, each in a column of its own, can exceed it.
2. A reservation over several accounts is all or nothing.
3. Writes carry caller-made ids and may be retried: same id and terms, same answer; same id, other terms,
   `ReservationConflictError`. Each id charges at most once.
4. A reservation ends exactly once: settled, released or expired. A settle never fails for business reasons.
5. Expiry uses the ledger's own clock; clients send durations. A balance equals the sum of its records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt, Crossing


class ReservationState(StrEnum):
    """Where a reservation is. `expired` and `released` may still become `settled`, by a settle that comes late."""

    LIVE = "live"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class OnExpire(StrEnum):
    """What an expired reservation means. The provider may have been paid, so the default is to count it."""

    CHARGE = "charge"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Granted:
    """The reservation holds. `state` is not `live` where a retry of an id found it already resolved."""

    state: ReservationState = ReservationState.LIVE


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One account that had no room: *requested* against the *balance* seen."""

    account: Account
    requested: int
    balance: Balance


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was reserved. Every account without room is listed, in the order of the postings."""

    shortfalls: tuple[Shortfall, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settle found: `late` after expiry or release, `lost` where no reservation was known, `duplicate` for a
    retry."""

    how: str = "settled"
    crossed: tuple[Crossing, ...] = ()
    """The thresholds that it reached, by account key, then ascending. A retry is told those of the first
    time, so that no alarm is lost with a reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One immutable fact of the ledger, in order. Replaying all entries gives every balance.

    `lines` are `(account key, amount)`. Verbs: `reserve` (amounts held), `settle` (actual amounts), `release` (no
    lines), `expire` (amounts now presumed, none where expiry releases), `grant`, `limit` (-1: no limit), `cut` (the
    column from here on) and `checkpoint` (sequence 0; its id names the column, its lines are what entries that are no
    longer retained had added to it).
    """

    sequence: int
    verb: str
    id: str
    lines: tuple[tuple[str, int], ...]
    at: float


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of `verify()`: the accounts whose stored balance differs from their records."""

    accounts: int
    entries: int
    differences: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every balance equals the sum of its records."""
        return not self.differences


class Ledger(Protocol):
    """A ledger. All verbs are safe under threads. Durations are seconds; `at` times are the ledger's own clock.

    Every verb raises `LedgerUnavailableError` where the store is out of reach; nothing else is retried.
    """

    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        """Take every posting or none.

        Granted where `committed + amount <= limit` for every account; an account without a limit holds 2**53 - 1.
        A refused id leaves no record: it is judged anew when it is tried again. A released id (a tombstone)
        answers `Granted(RELEASED)` and holds nothing.

        Raises:
            ReservationConflictError: the id is known with other accounts or amounts (amounts of 0 and limits do not
                tell terms apart).
            ValueError: an amount or limit that is not an int from 0 to 2**53 - 1, an account twice, no posting at
                all, a lease that is not finite and above 0, an id that is empty or longer than 200 bytes.
        """
        ...

    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        """Replace the reservation by what was really spent. Never refused for business reasons.

        The first settle wins; the same again answers `duplicate`. A charge of an account that the reservation did
        not hold has `reserved` 0. What is spent past what the ledger still held for it is an overrun: all of it,
        where the reservation was lost or given back.

        `alert_at` names thresholds of accounts among the charges. The answer has those that this settle reached, over
        all callers each once (see `domain.alerts.reached`); an account that holds no limit has none. A limit that was
        cut, or spend that somebody settled without thresholds, is told by the next settle with them.

        Raises:
            ReservationConflictError: reserved with other terms, or settled before with another actual amount. The
                reservation stays as it is; if it is live, it will expire.
            ValueError: an amount that is not an int from 0 to 2**53 - 1, an account twice, no charge at all,
                thresholds that are not ascending basis points.
        """
        ...

    def release(self, reservation_id: str) -> ReservationState:
        """Give the reservation back: the call never ran. An unknown id leaves a tombstone, so that a delayed
        duplicate of its reserve holds nothing. Returns the state the reservation is now in: an expired one stays
        expired, and is settled with 0 where the call is known not to have run."""
        ...

    def renew(self, reservation_id: str, *, lease_seconds: float) -> ReservationState:
        """Start the lease anew. Only a live reservation is renewed; returns the state found.

        Raises:
            ReservationNotFoundError: no reservation with this id.
        """
        ...

    def top_up(self, grant_id: str, account: Account, amount: int) -> Balance:
        """Add *amount* to the limit of *account*, once per *grant_id*.

        Raises:
            ReservationConflictError: the grant was made with another account or amount.
            ValueError: not an amount, or more than 2**53 - 1 with the account's earlier top-ups.
        """
        ...

    def set_limit(self, account: Account, limit: int | None) -> Balance:
        """Pin the limit of *account*, whatever later postings declare; top-ups add to it. A cut below what is
        committed is recorded in a column of its own, found anew by each `set_limit`."""
        ...

    def balance(self, account: Account) -> Balance:
        """The balance now; an unknown account has spent nothing."""
        ...

    def accounts(self) -> Iterator[Account]:
        """Every account with a record."""
        ...

    def collect(self, accounts: Sequence[Account]) -> int:
        """Forget accounts of closed tasks, with their entries; returns how many were dropped. An account of which
        something is reserved stays. Other accounts of the same reservations are not touched, and a late settle of
        one still counts there."""
        ...

    def journal(self) -> Iterator[JournalEntry]:
        """Every retained entry in order."""
        ...

    def verify(self) -> Verification:
        """Recompute every balance from the journal."""
        ...

    def close(self) -> None:
        """Let go of files and connections. Idempotent."""
        ...
