"""A deterministic simulation of processes that spend from slices of one ledger, and are killed and restarted.

Everything that happens in a `SliceWorld` follows from its seed: which message is lost before or after it arrives, which
process is killed with what in flight, how wrong an estimate is. After each step the ledger is compared with what the
provider was truly paid, which no ledger can know. A failure prints `seed=… step=…`; the same seed fails again there.

Laws (T: what the provider was paid; *excess*: what calls took beyond their reservation, before it was told):

* I4 `committed <= limit + overrun + cut`, I5 the journal proves every balance.
* I6 `T <= limit + overrun + cut + excess`: slices never overshoot.
* I7 `T <= committed + excess`: slices never count too little.
* I7 at the end without *excess*, but for calls of killed processes of which nobody could tell it.
* I10 at the end nothing is reserved.
* I12 at the end `settled + presumed - T` is at most what calls in flight of killed processes had reserved, and, where
  there was no journal, the slices that those processes held.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.domain.ledger import Granted
from agentbudget.errors import LedgerUnavailableError
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.slices import SlicedLedger, SliceOptions
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.simulation import LawBrokenError

STEPS = 150
TEAM = Account((("team", "cx"),), Meter.COST)
USER = Account((("user", "u1"),), Meter.COST)
_VERBS = {"reserve", "settle", "release", "renew", "balance"}


@dataclass(frozen=True, slots=True)
class Call:
    """One call: what it reserved and what the provider was paid."""

    reserved: int
    actual: int


@dataclass(slots=True)
class Process:
    """One process; `ledger` is None while it is dead."""

    ledger: SlicedLedger | None
    running: dict[str, Call] = field(default_factory=dict)


class Wire:
    """The way to *ledger*, on which messages are lost."""

    def __init__(self, ledger: MemoryLedger, lost: Callable[[], bool]) -> None:
        self._ledger = ledger
        self._lost = lost

    def __repr__(self) -> str:
        return "Wire()"

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._ledger, name)
        if name not in _VERBS:
            return verb

        def carried(*args: Any, **kwargs: Any) -> Any:
            if self._lost():
                raise LedgerUnavailableError("the request was lost")
            answer = verb(*args, **kwargs)
            if self._lost():
                raise LedgerUnavailableError("the reply was lost")
            return answer

        return carried


class SliceWorld:
    """One world; journals are kept in *folder*."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.step, self.names = seed, 0, 0
        self.dice = random.Random(seed)
        self.clock = FakeClock()
        self.shared = MemoryLedger(self.clock)
        self.seen: Counter[str] = Counter()
        self.loss = self.dice.choice([0.0, 0.1, 0.2])
        self.wrong = self.dice.choice([0.0, 0.0, 0.2])
        self.limits = {TEAM: 10 * self.dice.randrange(10, 40), USER: 10 * self.dice.randrange(10, 60)}
        self.limit_now = dict(self.limits)
        self.call_lease = self.dice.choice([10.0, 400.0])
        self.options = SliceOptions(
            calls=self.dice.choice([1, 4, 20]),
            share=self.dice.choice([1, 2, 8]),
            lease_seconds=self.dice.choice([20.0, 300.0]),
            idle_seconds=self.dice.choice([3.0, 50.0]),
            recall_seconds=0.0,
            journal=folder if self.dice.random() < 0.6 else None,
        )
        self.paid: dict[str, Call] = {}
        self.unsure = 0
        """What killed processes may have left counted without being paid."""
        self.untold = 0
        """What calls of killed processes took beyond their reservation, and nobody could tell."""
        self.processes = [Process(None) for _ in range(self.dice.randrange(2, 5))]
        for one in self.processes:
            self._start(one)

    def run(self) -> Counter[str]:
        """Live for some steps, then come to an end; returns what happened, counted.

        Raises:
            LawBrokenError: a law did not hold.
        """
        acts = [self._begin] * 8 + [self._end] * 6 + [self._look_after] * 3 + [self._wait] * 2
        acts += [self._kill, self._start, self._give_back, self._cut]
        for self.step in range(STEPS):
            act, one = self.dice.choice(acts), self.dice.choice(self.processes)
            act(one)
            self._check()
        self._come_to_an_end()
        return self.seen

    # -- what happens --------------------------------------------------------------------------------------------------

    def _begin(self, one: Process) -> None:
        if one.ledger is None:
            return
        name, reserved = f"c{self.step}", self.dice.choice([5, 10, 15])
        postings = [Posting(account, reserved, limit) for account, limit in self.limits.items()]
        try:
            granted = one.ledger.reserve(name, postings, lease_seconds=self.call_lease) == Granted()
        except LedgerUnavailableError:
            self.seen["out of reach"] += 1
            return
        self.seen["granted" if granted else "refused"] += 1
        if granted:
            over = self.dice.random() < self.wrong
            actual = reserved + self.dice.randrange(1, 6) if over else self.dice.randrange(reserved + 1)
            one.running[name] = self.paid[name] = Call(reserved, actual)
            self.seen["overrun"] += over

    def _end(self, one: Process) -> None:
        if one.ledger is None or not one.running:
            return
        name = self.dice.choice(sorted(one.running))
        call = one.running.pop(name)
        how = one.ledger.settle(name, [Charge(account, call.reserved, call.actual) for account in self.limits]).how
        self.seen[how] += 1

    def _look_after(self, one: Process) -> None:
        if one.ledger is not None:
            one.ledger.look_after()

    def _give_back(self, one: Process) -> None:
        if one.ledger is not None:
            with suppress(LedgerUnavailableError):
                one.ledger.give_back()

    def _wait(self, _: Process) -> None:
        self.clock.advance(self.dice.randrange(1, 16))

    def _cut(self, _: Process) -> None:
        if self.dice.random() < 0.3:
            self.limit_now[TEAM] = 10 * self.dice.randrange(10, 40)
            self.shared.set_limit(TEAM, self.limit_now[TEAM])
            self.seen["limit set"] += 1

    def _kill(self, one: Process) -> None:
        if one.ledger is None:
            return
        self.seen["killed"] += 1
        self.seen["killed with calls in flight"] += bool(one.running)
        self.unsure += sum(max(0, call.reserved - call.actual) for call in one.running.values())
        journalled = self.options.journal is not None
        self.untold += _excess(one.running.values() if journalled else self.paid.values())
        if not journalled:
            self.unsure += max(self._held_by(one.ledger, account) for account in self.limits)
        one.ledger._journal.close(empty=False)  # noqa: SLF001 - as the end of a process does
        one.ledger, one.running = None, {}

    def _start(self, one: Process) -> None:
        if one.ledger is None:
            wire: Any = Wire(self.shared, lambda: self.dice.random() < self.loss)
            one.ledger = SlicedLedger(
                wire, self.options, clock=self.clock, keep_going=True, background=False, name=self._name
            )
            self.seen["started"] += 1

    def _name(self) -> str:
        self.names += 1
        return f"{self.names:06}"

    def _held_by(self, ledger: SlicedLedger, account: Account) -> int:
        """What the shared ledger holds of *account* for a process, its lost and its unsettled slices included."""
        balance = self.shared.balance(account)
        return balance.reserved + balance.presumed

    def _come_to_an_end(self) -> None:
        self.loss = 0.0
        for one in self.processes:
            self._start(one)
            while one.running:
                self._end(one)
        for _ in range(2):  # what was left behind may be taken up only now, and calls in flight held once more
            self.clock.advance(self.call_lease + self.options.lease_seconds)
            for one in self.processes:
                self._look_after(one)
        for one in self.processes:
            if one.ledger is not None:
                one.ledger.close()
        self.clock.advance(self.options.lease_seconds)
        self._check()
        for account in self.limits:
            balance = self.shared.balance(account)
            paid = sum(call.actual for call in self.paid.values())
            counted = balance.settled + balance.presumed
            self._law("I7", paid <= counted + self.untold, f"{account}: paid {paid}, {balance}, untold {self.untold}")
            self._law("I10", balance.reserved == 0, f"{account}: {balance}")
            self._law("I12", counted - paid <= self.unsure, f"{account}: paid {paid}, {balance}, unsure {self.unsure}")

    # -- the laws ------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        paid = sum(call.actual for call in self.paid.values())
        excess = _excess(self.paid.values())
        for account in self.limits:
            balance = self.shared.balance(account)
            told = f"{account}: paid {paid}, of which {excess} beyond reservations, {balance}"
            self._law("I7", paid <= balance.committed + excess, told)
            most = self.limit_now[account] + balance.overrun + balance.cut
            self._law("I4", balance.committed <= most, told)
            self._law("I6", paid <= most + excess, told)
            self.seen["exactly full"] += balance.committed == balance.limit
        found = self.shared.verify()
        self._law("I5", found.ok, f"{found.differences}")

    def _law(self, law: str, holds: bool, told: str) -> None:  # noqa: FBT001 - the one thing it is about
        if not holds:
            raise LawBrokenError(f"seed={self.seed} step={self.step} {law}: {told} ({self.options})")


def _excess(calls: Iterable[Call]) -> int:
    """What *calls* took beyond their reservations."""
    return sum(max(0, call.actual - call.reserved) for call in calls)
