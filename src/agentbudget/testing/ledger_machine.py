"""Any sequence of verbs leaves a ledger, or several in lock step, equal to a naive oracle (Hypothesis).

```python
TestMyLedger = ledger_machine(lambda clock, on_expire: MyLedger(clock=clock, on_expire=on_expire)).TestCase
```
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.domain.alerts import AlertAt
from agentbudget.domain.ledger import Ledger, Refused
from agentbudget.errors import LedgerError
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.oracle import MAX, Oracle

OpenLedger = Callable[[FakeClock, str], Ledger]

ACCOUNTS = (
    Account((("task", "t,1"),), Meter.COST),
    Account((("task", "t"), ("tool", "1")), Meter.COST),
    Account((("team", "🦊"),), Meter.COST, "2026-11"),
    Account((("team", "🦊"),), Meter.MODEL_CALLS, "2026-11"),
)
IDS = ["r0", "r1", "r2", "r3", "r,1", "{r}"]
small = st.integers(0, 6)
amounts = st.one_of(small, small, small, small, st.sampled_from([10, MAX - 1, MAX]))
limits = st.one_of(st.integers(0, 12), st.integers(20, 60), st.none(), st.just(MAX))
seconds = st.sampled_from([1.0, 2.0, 5.0, 30.0])
picks = st.integers(0, 99)
thresholds = st.sampled_from([(5_000, 8_000, 10_000), (3_333,), (10_000, 15_000), (1, 100_000)])
alerts = st.one_of(st.none(), st.dictionaries(st.sampled_from(ACCOUNTS), thresholds))
lines = st.lists(
    st.tuples(st.sampled_from(ACCOUNTS), amounts, limits), min_size=1, max_size=3, unique_by=lambda x: x[0]
)


class LedgerMachine(RuleBasedStateMachine):
    """The verbs, drawn; `ledger_machine` binds it to the ledgers under test."""

    openers: ClassVar[tuple[OpenLedger, ...]] = ()

    @initialize(on_expire=st.sampled_from(["charge", "charge", "release"]))
    def open(self, on_expire: str) -> None:
        self.clock = FakeClock()
        self.oracle = Oracle(self.clock, on_expire)
        self.ledgers = [opener(self.clock, on_expire) for opener in self.openers]
        self.asked: dict[str, list[Posting]] = {}

    def teardown(self) -> None:
        for ledger in getattr(self, "ledgers", ()):
            ledger.close()

    def known(self, pick: int) -> tuple[str, list[Posting]]:
        """One of the ids that were granted, with what was asked for."""
        return list(self.asked.items())[pick % len(self.asked)]

    def compare(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        expected = _answer(self.oracle, verb, *args, **kwargs)
        for ledger in self.ledgers:
            found = _answer(ledger, verb, *args, **kwargs)
            assert self.agree(found, expected), (
                f"{type(ledger).__name__}.{verb}{args}: {found!r}, expected {expected!r}"
            )
        return expected

    def agree(self, found: Any, expected: Any) -> bool:
        """Whether a ledger's answer is the oracle's."""
        return bool(found == expected)

    @rule(key=st.sampled_from(IDS), lines=lines, lease=seconds)
    def reserve(self, key: str, lines: list[tuple[Account, int, int | None]], lease: float) -> None:
        postings = [Posting(*line) for line in lines]
        answer = self.compare("reserve", key, postings, lease_seconds=lease)
        if not isinstance(answer, Refused | type):
            self.asked.setdefault(key, postings)

    @rule(among=st.sets(st.sampled_from(ACCOUNTS), min_size=1, max_size=3), amount=small, lease=seconds)
    def reserve_what_fits(self, among: set[Account], amount: int, lease: float) -> None:
        self.reserve(f"n{len(self.asked)}", [(account, amount, 200) for account in sorted(among, key=str)], lease)

    @precondition(lambda self: self.asked)
    @rule(pick=picks, lease=seconds, turn=st.booleans())
    def reserve_again(self, pick: int, lease: float, turn: bool) -> None:  # noqa: FBT001 - drawn
        key, postings = self.known(pick)
        self.compare("reserve", key, postings[::-1] if turn else postings, lease_seconds=lease)

    @rule(
        key=st.sampled_from(IDS),
        lines=lines,
        verb=st.sampled_from(["settle", "settle", "release", "renew"]),
        alert_at=alerts,
    )
    def stray(
        self, key: str, lines: list[tuple[Account, int, int | None]], verb: str, alert_at: AlertAt | None
    ) -> None:
        if verb == "settle":
            charges = [Charge(account, amount, actual or 0) for account, amount, actual in lines]
            self.compare("settle", key, charges, alert_at=alert_at)
        elif verb == "release":
            self.compare("release", key)
        else:
            self.compare("renew", key, lease_seconds=1.0)

    @precondition(lambda self: self.asked)
    @rule(pick=picks, actuals=st.lists(amounts, min_size=3, max_size=3), more=st.booleans(), alert_at=alerts)
    def settle(self, pick: int, actuals: list[int], more: bool, alert_at: AlertAt | None) -> None:  # noqa: FBT001 - drawn
        key, postings = self.known(pick)
        charges = [
            Charge(account, amount, actual) for (account, amount, _), actual in zip(postings, actuals, strict=False)
        ]
        others = [account for account in ACCOUNTS if account not in {charge.account for charge in charges}]
        if more and others:
            charges.append(Charge(others[0], 0, actuals[-1]))
        self.compare("settle", key, charges, alert_at=alert_at)

    @precondition(lambda self: self.asked)
    @rule(pick=picks, passed=st.sampled_from([0.0, 0.0, 40.0]), share=st.sampled_from([1, 2]), alert_at=alerts)
    def settle_within_the_reservation(self, pick: int, passed: float, share: int, alert_at: AlertAt | None) -> None:
        key, postings = self.known(pick)
        self.clock.advance(passed)
        charges = [Charge(account, amount, amount // share) for account, amount, _ in postings]
        self.compare("settle", key, charges, alert_at=alert_at)

    @precondition(lambda self: self.asked)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        self.compare("release", self.known(pick)[0])

    @precondition(lambda self: self.asked)
    @rule(lease=seconds, pick=picks)
    def renew(self, pick: int, lease: float) -> None:
        self.compare("renew", self.known(pick)[0], lease_seconds=lease)

    @rule(
        what=st.sampled_from(["top_up", "set_limit", "collect"]),
        grant=st.sampled_from(["g1", "g2"]),
        accounts=st.lists(st.sampled_from(ACCOUNTS), min_size=1, max_size=2, unique=True),
        amount=small,
        limit=limits,
    )
    def administer(self, what: str, grant: str, accounts: list[Account], amount: int, limit: int | None) -> None:
        if what == "top_up":
            self.compare("top_up", grant, accounts[0], amount)
        elif what == "set_limit":
            self.compare("set_limit", accounts[0], limit)
        else:
            self.compare("collect", accounts)

    @precondition(lambda self: self.asked)
    @rule(passed=seconds)
    def time_passes(self, passed: float) -> None:
        self.clock.advance(passed)

    @invariant()
    def every_balance_equals_the_oracle_and_keeps_the_law(self) -> None:
        for account in ACCOUNTS:
            balance = self.compare("balance", account)
            if balance.limit is not None:
                assert balance.committed <= balance.limit + balance.overrun + balance.cut

    @invariant()
    def every_ledger_knows_the_same_accounts(self) -> None:
        for ledger in self.ledgers:
            assert set(ledger.accounts()) == set(self.oracle.accounts())

    @invariant()
    def every_journal_proves_its_balances(self) -> None:
        for ledger in self.ledgers:
            assert ledger.verify().differences == ()
            order = [entry.sequence for entry in ledger.journal() if entry.sequence]
            assert order == sorted(set(order))


def ledger_machine(*openers: OpenLedger) -> type[RuleBasedStateMachine]:
    """A state machine over one ledger from each of *openers*, all given the same verbs on one clock.

    Every answer, error type and balance must equal the oracle's, so that all ledgers equal one another.
    """
    return type("LedgerMachine", (LedgerMachine,), {"openers": openers})


def _answer(ledger: Any, verb: str, *args: Any, **kwargs: Any) -> Any:
    """What *ledger* answers; the type of the error where it raises one."""
    try:
        return getattr(ledger, verb)(*args, **kwargs)
    except LedgerError as error:
        return type(error)
