"""Slices keep every law of a ledger, whatever is leased when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings

from agentbudget.domain.accounts import Balance, Charge
from agentbudget.domain.alerts import Crossing
from agentbudget.domain.ledger import Granted, Ledger, Refused, Settled
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.slices import SlicedLedger, SliceOptions
from agentbudget.ledgers.slices.recall import RECALL
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import MAX, TASK, TEAM, LedgerContract, MakeLedger, pay, take
from agentbudget.testing.ledger_machine import LedgerMachine

SHAPES = [(1, 8), (5, 1), (100, 8), (3, 2)]
"""Calls a slice, and the share of what is left that it takes at most."""


def sliced(clock: FakeClock, on_expire: str = "charge", *, calls: int = 5, share: int = 1) -> SlicedLedger:
    """Slices of a memory ledger, without a thread."""
    authority = MemoryLedger(clock, on_expire)
    options = SliceOptions(calls=calls, share=share)
    return SlicedLedger(authority, options, clock=clock, on_expire=on_expire, background=False)


class SlicedContract(LedgerContract):
    """All laws but those of *when* a threshold is told: slices tell it when they are settled."""


for _law in (
    "test_the_settle_that_reaches_a_threshold_tells_it_and_no_other_does",
    "test_what_is_only_reserved_or_presumed_reaches_nothing_and_a_late_settle_does",
    "test_an_overrun_and_a_lost_settle_reach_thresholds_above_the_limit",
    "test_a_retry_is_told_what_its_first_try_reached",
    "test_a_raised_limit_arms_thresholds_anew_and_only_those_above_what_is_spent",
    "test_a_cut_limit_is_told_by_the_next_settle_once",
    "test_what_others_settled_without_thresholds_is_told_by_the_next_that_has_them",
    "test_other_thresholds_of_somebody_else_raise_nothing_twice",
    "test_thresholds_are_judged_exactly_up_to_the_largest_amount",
    "test_each_account_of_a_settle_has_thresholds_and_a_state_of_its_own",
):
    setattr(SlicedContract, _law, None)


class TestSlicedLedger(SlicedContract):
    @pytest.fixture(params=SHAPES, ids=str)
    def make_ledger(self, clock: FakeClock, request: pytest.FixtureRequest) -> MakeLedger:
        calls, share = request.param

        def make(on_expire: str = "charge") -> Ledger:
            return sliced(clock, on_expire, calls=calls, share=share)

        return make


class SlicedMachine(LedgerMachine):
    """Lock step with the oracle, but for lines of 0 (which are judged by what was last heard), for when thresholds are
    told, and for accounts that a slice keeps from being collected."""

    def compare(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        if verb == "settle":
            kwargs.pop("alert_at", None)
        if verb == "reserve":
            args = (args[0], [posting._replace(amount=max(1, posting.amount)) for posting in args[1]])
        if verb == "collect" and any(
            ledger._book.slices for ledger in self.ledgers if isinstance(ledger, SlicedLedger)
        ):
            for ledger in self.ledgers:
                assert isinstance(ledger, SlicedLedger)
                ledger.give_back()
                if ledger._book.slices:
                    return None
        return super().compare(verb, *args, **kwargs)

    def agree(self, found: Any, expected: Any) -> bool:
        """A limit of 2**53 - 1 is none."""
        return super().agree(_without_the_largest(found), _without_the_largest(expected))


def _without_the_largest(answer: Any) -> Any:
    return replace(answer, limit=None) if isinstance(answer, Balance) and answer.limit == MAX else answer


def sliced_machine(**shape: int) -> Any:
    def opener(clock: FakeClock, on_expire: str) -> Ledger:
        return sliced(clock, on_expire, **shape)

    machine: Any = type("Machine", (SlicedMachine,), {"openers": (opener,)})
    case = machine.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
    return case


TestOneCallASlice = sliced_machine(calls=1, share=8)
TestAllThatIsLeftInASlice = sliced_machine(calls=5, share=1)
TestHalfOfWhatIsLeftInASlice = sliced_machine(calls=3, share=2)


class TestThresholds:
    def watched(self, ledger: Ledger, key: str, amount: int) -> Settled:
        take(ledger, key, (TASK, amount, 100))
        return pay(ledger, key, (TASK, amount, amount), alert_at={TASK: (5_000, 8_000)})

    def test_a_threshold_is_told_by_the_settle_after_its_slice_was_settled_and_once(self) -> None:
        ledger = sliced(FakeClock(), calls=100, share=1)
        assert self.watched(ledger, "a", 60) == Settled()
        ledger.give_back()
        assert [one.threshold for one in self.watched(ledger, "b", 1).crossed] == [5_000]
        ledger.give_back()
        assert self.watched(ledger, "c", 1).crossed == ()

    def test_an_alarm_is_told_when_the_slice_is_settled(self) -> None:
        ledger, alarms = sliced(FakeClock(), calls=100, share=1), list[Crossing]()
        ledger.attach(keep_going=False, tell=pytest.fail, alarm=alarms.append)
        assert self.watched(ledger, "a", 85) == Settled()
        ledger.give_back()
        assert [one.threshold for one in alarms] == [5_000, 8_000]
        assert self.watched(ledger, "b", 1) == Settled()


class TestOneOfSeveral:
    """Two processes, as far as the ledger can tell."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def shared(self, clock: FakeClock) -> MemoryLedger:
        return MemoryLedger(clock)

    def one(self, shared: Ledger, clock: FakeClock, **options: Any) -> SlicedLedger:
        return SlicedLedger(shared, SliceOptions(**options), clock=clock, background=False)

    def test_what_one_leased_no_other_is_granted(self, shared: MemoryLedger, clock: FakeClock) -> None:
        mine, other = (self.one(shared, clock, calls=8, share=1, recall_seconds=0.0) for _ in range(2))
        assert take(mine, "a", (TEAM, 1, 10)) == Granted()
        assert shared.balance(TEAM).reserved == 8
        assert mine.balance(TEAM) == Balance(limit=10, reserved=1)
        assert (mine.balance(TEAM).leased, other.balance(TEAM)) == (7, Balance(limit=10, reserved=8))
        refused = take(other, "b", (TEAM, 3, 10))
        assert isinstance(refused, Refused)
        assert refused.shortfalls[0].balance == Balance(limit=10, reserved=8)
        mine.give_back()
        assert shared.balance(TEAM).reserved == 1  # what the call in flight needs
        assert take(other, "b", (TEAM, 9, 10)) == Granted()
        pay(mine, "a", (TEAM, 1, 1))
        mine.give_back()
        assert shared.balance(TEAM) == Balance(limit=10, settled=1, reserved=9)

    def test_without_room_to_lease_less_a_slice_stays_until_its_call_ends(
        self, shared: MemoryLedger, clock: FakeClock
    ) -> None:
        ledger = self.one(shared, clock, calls=10, share=1)
        take(ledger, "a", (TEAM, 1, 10))
        ledger.give_back()
        assert shared.balance(TEAM) == Balance(limit=10, reserved=10)
        pay(ledger, "a", (TEAM, 1, 1))
        ledger.give_back()
        assert shared.balance(TEAM) == Balance(limit=10, settled=1)

    def test_slices_shrink_towards_the_end_of_a_budget_until_single_calls(
        self, shared: MemoryLedger, clock: FakeClock
    ) -> None:
        several = [self.one(shared, clock, calls=100, recall_seconds=0.0) for _ in range(4)]
        spent, refused = 0, 0
        while refused < len(several):
            ledger = several[spent % 4]
            if isinstance(take(ledger, f"c{spent}", (TEAM, 1, 1_000)), Refused):
                refused += 1
                several.remove(ledger) if len(several) > 1 else None
                if len(several) == 1:
                    break
                continue
            pay(ledger, f"c{spent}", (TEAM, 1, 1))
            spent += 1
        assert 1_000 >= spent > 1_000 * 0.995

    def test_an_idle_slice_goes_back_and_a_used_one_stays(self, shared: MemoryLedger, clock: FakeClock) -> None:
        ledger = self.one(shared, clock, calls=10, share=1, idle_seconds=5.0)
        for second in range(6):
            take(ledger, f"c{second}", (TEAM, 1, 100))
            pay(ledger, f"c{second}", (TEAM, 1, 1))
            ledger.look_after()
            clock.advance(1)
        assert shared.balance(TEAM) == Balance(limit=100, reserved=10)
        clock.advance(5)
        ledger.look_after()
        assert shared.balance(TEAM) == Balance(limit=100, settled=6)

    def test_a_recall_makes_others_give_back_what_they_do_not_use(self, shared: MemoryLedger, clock: FakeClock) -> None:
        ledger = self.one(shared, clock, calls=10, share=1)
        take(ledger, "a", (TEAM, 1, 10))
        pay(ledger, "a", (TEAM, 1, 1))
        ledger.look_after()
        assert shared.balance(TEAM).reserved == 10
        shared.settle("recall", [Charge(RECALL, 0, 1)])
        ledger.look_after()
        assert shared.balance(TEAM) == Balance(limit=10, settled=1)
        assert RECALL not in set(ledger.accounts())

    def test_a_slice_is_renewed_and_one_that_expired_is_settled_exactly(
        self, shared: MemoryLedger, clock: FakeClock
    ) -> None:
        ledger = self.one(shared, clock, calls=10, share=1, lease_seconds=30.0, idle_seconds=1e6)
        take(ledger, "a", (TEAM, 1, 100))
        for _ in range(9):
            clock.advance(10)
            ledger.look_after()
        assert shared.balance(TEAM) == Balance(limit=100, reserved=10)
        ledger.renew("a", lease_seconds=100)
        clock.advance(30)
        assert shared.balance(TEAM) == Balance(limit=100, presumed=10)
        assert ledger.balance(TEAM) == Balance(limit=100, presumed=1)
        ledger.look_after()
        assert pay(ledger, "a", (TEAM, 1, 1)) == Settled("late")
        ledger.give_back()
        assert shared.balance(TEAM) == Balance(limit=100, settled=1)

    def test_where_expiry_releases_an_expired_slice_admits_nothing(self, clock: FakeClock) -> None:
        shared = MemoryLedger(clock, "release")
        options = SliceOptions(calls=10, share=1, lease_seconds=30.0)
        ledger = SlicedLedger(shared, options, clock=clock, on_expire="release", background=False)
        take(ledger, "a", (TEAM, 1, 10))
        clock.advance(30)
        assert take(shared, "b", (TEAM, 10, 10)) == Granted()
        assert isinstance(take(ledger, "c", (TEAM, 1, 10)), Refused)

    def test_an_overrun_is_told_to_all(self, shared: MemoryLedger, clock: FakeClock) -> None:
        ledger = self.one(shared, clock, calls=1, share=8)
        take(ledger, "a", (TEAM, 5, 10))
        pay(ledger, "a", (TEAM, 5, 12))
        ledger.look_after()
        assert shared.balance(TEAM) == Balance(limit=10, settled=12, overrun=7)

    def test_a_call_that_the_ledger_itself_reserved_is_settled_there(
        self, shared: MemoryLedger, clock: FakeClock
    ) -> None:
        take(shared, "before", (TEAM, 5, 10))
        ledger = self.one(shared, clock)
        assert pay(ledger, "before", (TEAM, 5, 3)) == Settled()
        assert shared.balance(TEAM) == Balance(limit=10, settled=3)
