"""A naive ledger to compare others with: lists of facts, and every number recomputed from them each time.

It shares no code with the real ones and is written to be read, not to be fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt, Crossing
from agentbudget.domain.ledger import Granted, Refused, ReservationState, Settled, Shortfall
from agentbudget.errors import ReservationConflictError, ReservationNotFoundError
from agentbudget.testing.clock import FakeClock

MAX = 2**53 - 1
LIVE, SETTLED, RELEASED, EXPIRED = ReservationState
Line = tuple[Account, int]
"""An account and its generation: each time it is collected a new one begins."""


@dataclass
class Kept:
    """A reservation and all that became of it."""

    state: ReservationState
    held: dict[Line, int]
    deadline: float
    actual: dict[Line, int]
    excess: dict[Line, int]
    """Overrun of each line."""
    terms_known: bool = True
    crossed: tuple[Crossing, ...] = ()


class Oracle:
    """Answers like a `Ledger`; errors have the right type but no message."""

    def __init__(self, clock: FakeClock, on_expire: str = "charge") -> None:
        self.clock = clock
        self.charging = on_expire == "charge"
        self.kept: dict[str, Kept] = {}
        self.declared: dict[Line, int | None] = {}
        self.pins: dict[Line, int | None] = {}
        self.cuts: dict[Line, int] = {}
        self.grants: dict[str, tuple[Line, int]] = {}
        self.generations: dict[Account, int] = {}
        self.raised: dict[Line, int] = {}
        """The highest threshold that was raised."""
        self.opened: set[Line] = set()
        """Every line that was ever written to."""

    def line(self, account: Account) -> Line:
        """The account as it is since it was last collected."""
        return account, self.generations.get(account, 0)

    def balance(self, account: Account, *, declared: Sequence[int | None] = ()) -> Balance:
        """Everything recomputed; *declared* is what a posting would declare, where one is judged."""
        self._expire()
        line = self.line(account)
        every = self.kept.values()
        limit = declared[0] if declared else self.declared.get(line)
        limit = self.pins.get(line, limit)
        granted = sum(amount for where, amount in self.grants.values() if where == line)
        return Balance(
            limit=None if limit is None else min(limit + granted, MAX),
            settled=sum(one.actual.get(line, 0) for one in every),
            reserved=sum(one.held.get(line, 0) for one in every if one.state is LIVE),
            presumed=sum(one.held.get(line, 0) for one in every if one.state is EXPIRED and self.charging),
            overrun=sum(one.excess.get(line, 0) for one in every),
            cut=self.cuts.get(line, 0),
        )

    def reserve(self, key: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        """All or nothing; compare with the limit, nothing else."""
        self._expire()
        known = self.kept.get(key)
        if known is not None:
            if known.terms_known and {a: n for a, n, _ in postings if n} != _nonzero(known.held):
                raise ReservationConflictError
            return Granted(known.state)
        shortfalls = []
        for account, amount, limit in postings:
            balance = self.balance(account, declared=[limit])
            if balance.committed + amount > (MAX if balance.limit is None else balance.limit):
                shortfalls.append(Shortfall(account, amount, balance))
        if shortfalls:
            return Refused(tuple(shortfalls))
        for account, _, limit in postings:
            self.declared[self.line(account)] = limit
            self.opened.add(self.line(account))
        held = {self.line(account): amount for account, amount, _ in postings}
        self.kept[key] = Kept(LIVE, held, self.clock.monotonic() + lease_seconds, {}, {})
        return Granted()

    def settle(self, key: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        """Whatever it finds, the money is counted once."""
        self._expire()
        known = self.kept.get(key)
        held = known.held if known else {}
        if known is not None and known.terms_known:
            if {a: n for a, n, _ in charges if n} != _nonzero(held):
                raise ReservationConflictError
            if known.state is SETTLED:
                if {a: n for a, _, n in charges if n} != _nonzero(known.actual):
                    raise ReservationConflictError
                return Settled("duplicate", known.crossed)
        still = known is not None and (known.state is LIVE or (known.state is EXPIRED and self.charging))
        how = "lost" if known is None else "settled" if known.state is LIVE else "late"
        homes = {line[0]: line for line, amount in held.items() if amount}
        now = Kept(SETTLED, {}, 0.0, {}, {})
        for account, reserved, actual in charges:
            if not reserved and not actual:
                continue
            line = homes.get(account, self.line(account))
            self.opened.add(line)
            now.held[line] = reserved
            now.actual[line] = actual
            now.excess[line] = max(0, actual - (reserved if still else 0))
        self.kept[key] = now
        now.crossed = tuple(
            Crossing(account=line[0], threshold=threshold, limit=limit, settled=spent)
            for line, actual in sorted(now.actual.items(), key=lambda one: one[0][0].key)
            for threshold, limit, spent in self._reached(line, actual, (alert_at or {}).get(line[0], ()))
        )
        return Settled(how, now.crossed)

    def _reached(self, line: Line, actual: int, thresholds: Sequence[int]) -> list[tuple[int, int, int]]:
        """Threshold, limit and spend of each alarm that *actual*, just booked, raises."""
        balance = self.balance(line[0])
        limit, after = balance.limit, balance.settled
        if not limit or not thresholds or line != self.line(line[0]):
            return []

        def is_reached(threshold: int, spent: int) -> bool:
            return spent * 10_000 >= threshold * limit or spent >= MAX

        raised = self.raised.get(line, 0)
        if not is_reached(raised, after - actual):  # the limit was raised since: what lies above is armed anew
            raised = max([0, *[one for one in thresholds if is_reached(one, after - actual)]])
        new = [one for one in thresholds if one > raised and is_reached(one, after)]
        self.raised[line] = max([raised, *new])
        return [(one, limit, after) for one in new]

    def release(self, key: str) -> ReservationState:
        """The state it is now in."""
        self._expire()
        known = self.kept.get(key)
        if known is None:
            self.kept[key] = Kept(RELEASED, {}, 0.0, {}, {}, terms_known=False)
        elif known.state is LIVE:
            known.state = RELEASED
        return self.kept[key].state

    def renew(self, key: str, *, lease_seconds: float) -> ReservationState:
        """Only where it is live."""
        self._expire()
        if key not in self.kept:
            raise ReservationNotFoundError
        if self.kept[key].state is LIVE:
            self.kept[key].deadline = self.clock.monotonic() + lease_seconds
        return self.kept[key].state

    def top_up(self, grant_id: str, account: Account, amount: int) -> Balance:
        """Once per id."""
        known = self.grants.setdefault(grant_id, (self.line(account), amount))
        if (known[0][0], known[1]) != (account, amount):
            raise ReservationConflictError
        self.opened.add(self.line(account))
        return self.balance(account)

    def set_limit(self, account: Account, limit: int | None) -> Balance:
        """The cut is what neither the new limit nor overruns explain."""
        line = self.line(account)
        self.opened.add(line)
        self.pins[line] = limit
        self.cuts[line] = 0
        now = self.balance(account)
        if now.limit is not None:
            self.cuts[line] = max(0, now.committed - now.overrun - now.limit)
        return self.balance(account)

    def accounts(self) -> list[Account]:
        """Those written to since they were last collected."""
        return [line[0] for line in self.opened if line == self.line(line[0])]

    def collect(self, accounts: Sequence[Account]) -> int:
        """A new generation of each account of which nothing is reserved."""
        dropped = 0
        for account in accounts:
            line = self.line(account)
            if self.balance(account).reserved or line not in self.opened:
                continue
            self.generations[account] = line[1] + 1
            self.grants = {key: grant for key, grant in self.grants.items() if grant[0] != line}
            dropped += 1
        return dropped

    def _expire(self) -> None:
        for one in self.kept.values():
            if one.state is LIVE and one.deadline <= self.clock.monotonic():
                one.state = EXPIRED


def _nonzero(lines: dict[Line, int]) -> dict[Account, int]:
    return {account: amount for (account, _), amount in lines.items() if amount}
