"""A deterministic simulation of agents, a bad network and a provider, around one real ledger.

Everything that happens in a `World` follows from its seed: which message is lost, doubled or late, which agent is
killed and when, how wrong an estimate is. After each delivery the ledger's answer and balances are compared with a
naive oracle, and with what the provider was truly paid, which no ledger can know. A failure prints `seed=… step=…`;
the same seed fails again at the same step.

Laws, by the numbers used in failures (s: an account, T: what the provider was paid):

* I0 no column below zero. I1-I3 `reserved`, `settled`, `presumed` are the sums of their reservations.
* I4 `committed <= limit + overrun + cut`. I5 `settled` never decreases, the journal proves every balance.
* I6 `T <= limit + overrun + cut`, I7 `T <= committed`: both but for what calls in flight spend past their reservation;
  only where expiry charges.
* I9 granted exactly where every account has room, I11 retries change nothing: the oracle's answer.
* I10 at the end nothing is reserved and every reservation has ended.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, TypeAlias

from agentbudget.domain.accounts import Account, Balance, Charge, Meter, Posting
from agentbudget.domain.ledger import Granted, Ledger, Refused, ReservationState
from agentbudget.errors import LedgerError
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.oracle import Oracle

OpenLedger = Callable[[FakeClock, str], Ledger]
Request: TypeAlias = "int | tuple[Any, ...]"
"""What an agent waits for: ticks, or the answer to `(verb, *arguments)`."""
Script: TypeAlias = "Generator[Request, Any, Any]"

TEAM = Account((("team", "cx"),), Meter.COST)
TENANT = Account((("tenant", "acme"),), Meter.COST, "2026-11")
TIMEOUT = 12
RETRIES = 40


class LawBrokenError(AssertionError):
    """A law did not hold. `str()` has the seed and the step that reproduce it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How bad a world is. Probabilities are per message or call, times are ticks of one second."""

    on_expire: str
    lease: int
    call: int
    """Longest call; leases may be shorter."""
    loss: float
    doubled: float
    delay: int
    killed: float
    wrong: float
    """Share of estimates below the true cost."""
    open: bool
    """Whether agents call the provider without an answer from the ledger."""
    outage: bool

    @classmethod
    def draw(cls, dice: random.Random) -> Weather:
        """Some weather."""
        return cls(
            on_expire=dice.choice(["charge"] * 4 + ["release"]),
            lease=dice.choice([20, 100, 1000]),
            call=dice.choice([5, 60]),
            loss=dice.choice([0.0, 0.1, 0.3]),
            doubled=dice.choice([0.0, 0.2]),
            delay=dice.choice([1, 5, 40]),
            killed=dice.choice([0.0, 0.1]),
            wrong=dice.choice([0.0, 0.0, 0.3]),
            open=dice.random() < 0.25,
            outage=dice.random() < 0.2,
        )


@dataclass(slots=True)
class Paid:
    """What the provider was paid for one call, and what the caller knew to be reserved for it."""

    actual: dict[Account, int]
    reserved: dict[Account, int]
    settled: bool = False

    def unknown(self, account: Account) -> int:
        """What no ledger can know yet."""
        return 0 if self.settled else max(0, self.actual.get(account, 0) - self.reserved.get(account, 0))


class World:
    """One simulated world around the ledger that *opener* makes; *log* gets a line for each delivery."""

    def __init__(self, seed: int, opener: OpenLedger, *, log: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.step = 0
        self.dice = random.Random(seed)
        self.weather = Weather.draw(self.dice)
        self.clock = FakeClock()
        self.ledger = opener(self.clock, self.weather.on_expire)
        self.oracle = Oracle(self.clock, self.weather.on_expire)
        self.paid: dict[str, Paid] = {}
        self.seen: Counter[str] = Counter()
        self._log = log
        self._events: list[tuple[float, float, int, Callable[[], None]]] = []
        self._made = 0
        self._settled: dict[Account, int] = {}
        self._down = (self.dice.randrange(200), 200) if self.weather.outage else (0, 0)
        agents = self.dice.randrange(3, 7)
        self._limits = {TEAM: 10 * self.dice.randrange(4, 13), TENANT: 10 * self.dice.randrange(6, 20)}
        for number in range(agents):
            self._start(self._agent(f"agent{number}"))
        self._start(self._admin())

    def run(self) -> Counter[str]:
        """Live until nothing is left to happen; returns what happened, counted.

        Raises:
            LawBrokenError: a law did not hold.
        """
        while self._events:
            at, _, _, event = heappop(self._events)
            self.clock.advance(max(0.0, at - self.clock.monotonic()))
            event()
        self.clock.advance(self.weather.lease + 1)
        self._check_laws()
        self._law(
            "I10", all(self.ledger.balance(one).reserved == 0 for one in self.ledger.accounts()), "still reserved"
        )
        self.ledger.close()
        return self.seen

    # -- agents --------------------------------------------------------------------------------------------------------

    def _agent(self, name: str) -> Script:
        task = Account((("task", name),), Meter.COST)
        calls = Account((("task", name),), Meter.MODEL_CALLS)
        self._limits[task] = 10 * self.dice.randrange(1, 6)
        self._limits[calls] = self.dice.randrange(2, 8)
        for number in range(self.dice.randrange(3, 8)):
            estimate = self.dice.choice([5, 10, 10, 15])
            held = {task: estimate, calls: 1, TEAM: estimate, TENANT: estimate}
            yield from self._call(f"{name}.{number}", held)
            yield self.dice.randrange(5)

    def _call(self, key: str, held: dict[Account, int]) -> Script:
        answer = yield from self._reserve(key, held)
        if isinstance(answer, Refused) and self.dice.random() < 0.3:
            short = answer.shortfalls[0]
            yield from self._until_answered("top_up", f"grant {key}", short.account, short.requested)
            answer = yield from self._reserve(key, held)
        live = answer == Granted()
        if not live and not (answer is None and self.weather.open):
            if answer is None:
                yield ("release", key)
            return
        if self.dice.random() < 0.1:
            yield from self._until_answered("release", key)
            return
        self._maybe_killed("killed before the call")
        actual = self._actual(held)
        self.paid[key] = Paid(actual, held if live else {})
        for part in range(2):
            yield self.dice.randrange(1, self.weather.call + 1)
            if part == 0 and self.dice.random() < 0.3:
                yield ("renew", key, self.weather.lease)
        self._maybe_killed("killed after the call")
        charges = [Charge(account, held[account], actual[account]) for account in held]
        yield from self._until_answered("settle", key, charges)
        yield from self._mistakes(key, held, charges)

    def _reserve(self, key: str, held: dict[Account, int]) -> Script:
        postings = [Posting(account, amount, self._limits[account]) for account, amount in held.items()]
        for _ in range(3):
            answer = yield ("reserve", key, postings, self.weather.lease)
            if answer is not None:
                return answer
        return None

    def _mistakes(self, key: str, held: dict[Account, int], charges: list[Charge]) -> Script:
        """What a broken or late client may still send."""
        if self.dice.random() < 0.2:
            yield ("settle", key, charges)
        if self.dice.random() < 0.1:
            yield ("settle", key, [charge._replace(actual=charge.actual + 1) for charge in charges])
        if self.dice.random() < 0.1:
            yield ("reserve", key, [Posting(account, amount + 1, None) for account, amount in held.items()], 20)
        if self.dice.random() < 0.1:
            yield ("release", key)

    def _admin(self) -> Script:
        for _ in range(3):
            yield self.dice.randrange(30, 200)
            if self.dice.random() < 0.4:
                yield ("set_limit", TEAM, self.dice.choice([0, 20, 60, 100]))

    def _actual(self, held: dict[Account, int]) -> dict[Account, int]:
        estimate = held[TEAM]
        cost = estimate + self.dice.randrange(1, 9) if self.dice.random() < self.weather.wrong else None
        cost = self.dice.randrange(estimate + 1) if cost is None else cost
        return {account: 1 if account.meter is Meter.MODEL_CALLS else cost for account in held}

    def _until_answered(self, *request: Any) -> Script:
        for _ in range(RETRIES):
            answer = yield request
            if answer is not None:
                return answer
        return None

    def _maybe_killed(self, what: str) -> None:
        if self.dice.random() < self.weather.killed:
            self.seen[what] += 1
            raise _KilledError

    # -- time and network ----------------------------------------------------------------------------------------------

    def _after(self, ticks: float, event: Callable[[], None]) -> None:
        self._made += 1
        heappush(self._events, (self.clock.monotonic() + ticks, self.dice.random(), self._made, event))

    def _start(self, script: Script) -> None:
        self._after(self.dice.randrange(10), lambda: self._resume(script, None))

    def _resume(self, script: Script, answer: Any) -> None:
        try:
            request = script.send(answer)
        except (StopIteration, _KilledError):
            return
        if isinstance(request, int):
            self._after(request, lambda: self._resume(script, None))
            return
        waiting = [True]

        def go_on(answer: Any) -> None:
            if waiting.pop() if waiting else False:
                self._resume(script, answer)

        self._send(request, go_on)
        self._after(TIMEOUT, lambda: go_on(None))

    def _send(self, request: tuple[Any, ...], reply: Callable[[Any], None]) -> None:
        for _ in range(2 if self.dice.random() < self.weather.doubled else 1):
            self._over_the_wire(lambda: self._deliver(request, reply))

    def _over_the_wire(self, arrive: Callable[[], None]) -> None:
        start, length = self._down
        out = start <= self.clock.monotonic() < start + length
        if out or self.dice.random() < self.weather.loss:
            self.seen["outage" if out else "message lost"] += 1
            return
        self._after(self.dice.randrange(self.weather.delay + 1), arrive)

    def _deliver(self, request: tuple[Any, ...], reply: Callable[[Any], None]) -> None:
        answer = self._apply(*request)
        self._over_the_wire(lambda: reply(answer))

    # -- the ledger, the oracle and the laws ---------------------------------------------------------------------------

    def _apply(self, verb: str, *args: Any) -> Any:
        self.step += 1
        known = self.oracle.kept.get(args[0]) if isinstance(args[0], str) else None
        before = known.state.value if known else "unknown"
        expected, found = _answer(self.oracle, verb, args), _answer(self.ledger, verb, args)
        if verb == "settle" and not isinstance(found, type) and args[0] in self.paid:
            self.paid[args[0]].settled = True
        self.seen[f"{verb} on {before}"] += 1
        self.seen[f"{verb} -> {found.__name__ if isinstance(found, type) else _kind(found)}"] += 1
        if self._log:
            self._log(f"seed={self.seed} step={self.step} at={self.clock.monotonic():g} {verb}{args} -> {found}")
        self._check_laws()
        self._law("I9, I11", found == expected, f"{verb}{args} answered {found}, the oracle {expected}")
        return found

    def _check_laws(self) -> None:
        for account in [*self._limits]:
            balance = self.ledger.balance(account)
            self._check_balance(account, balance)
            if self.weather.on_expire == "charge":
                self._check_truth(account, balance)
            expected = self.oracle.balance(account)
            self._law("I1-I3", balance == expected, f"{account}: {balance}, the oracle {expected}")
        found = self.ledger.verify()
        self._law("I5", found.ok, f"{found.differences}")

    def _check_balance(self, account: Account, balance: Balance) -> None:
        columns = (balance.settled, balance.reserved, balance.presumed, balance.overrun, balance.cut)
        self._law("I0", min(columns) >= 0, f"{account}: {balance}")
        if balance.limit is not None:
            self._law("I4", balance.committed <= balance.limit + balance.overrun + balance.cut, f"{account}: {balance}")
            self.seen["exactly full"] += balance.committed == balance.limit
            self.seen["overrun"] += balance.overrun > 0
            self.seen["cut"] += balance.cut > 0
        self._law(
            "I5", balance.settled >= self._settled.get(account, 0), f"{account}: settled fell to {balance.settled}"
        )
        self._settled[account] = balance.settled

    def _check_truth(self, account: Account, balance: Balance) -> None:
        truth = sum(one.actual.get(account, 0) for one in self.paid.values())
        unknown = sum(one.unknown(account) for one in self.paid.values())
        told = f"{account}: paid {truth}, of which {unknown} unknown, {balance}"
        self._law("I7", truth <= balance.committed + unknown, told)
        if balance.limit is not None:
            self._law("I6", truth <= balance.limit + balance.overrun + balance.cut + unknown, told)

    def _law(self, law: str, holds: bool, told: str) -> None:  # noqa: FBT001 - the one thing it is about
        if not holds:
            raise LawBrokenError(f"seed={self.seed} step={self.step} {law}: {told} ({self.weather})")


class _KilledError(Exception):
    """The agent's process is gone."""


def _answer(ledger: Any, verb: str, args: tuple[Any, ...]) -> Any:
    """What *ledger* answers; the type of the error where it raises one."""
    try:
        if verb in {"reserve", "renew"}:
            return getattr(ledger, verb)(*args[:-1], lease_seconds=args[-1])
        return getattr(ledger, verb)(*args)
    except LedgerError as error:
        return type(error)


def _kind(answer: Any) -> str:
    if isinstance(answer, Granted):
        return f"granted {answer.state.value}"
    if isinstance(answer, ReservationState):
        return answer.value
    return str(getattr(answer, "how", type(answer).__name__.lower()))
