"""An outage with `fail="slice"`: tasks go on, and new ones begin, as long as slices of what is shared cover them."""

from __future__ import annotations

from typing import Any

import pytest

import agentbudget as ab
from agentbudget.domain.accounts import Account, Balance, Charge, Meter, Posting
from agentbudget.domain.ledger import Granted, Refused
from agentbudget.errors import BudgetWarning, LedgerUnavailableError
from agentbudget.ledgers.failover import Failover
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.outbox import Outbox
from agentbudget.ledgers.slices import SlicedLedger, SliceOptions
from agentbudget.testing import ScriptedChatModel, scripted_reply
from agentbudget.testing.clock import FakeClock

TEAM = Account((("team", "cx"),), Meter.COST)


class Remote:
    """A ledger that can be out of reach."""

    def __init__(self, clock: FakeClock) -> None:
        self.ledger, self.down, self.asked = MemoryLedger(clock), False, 0

    def __getattr__(self, name: str) -> Any:
        if name not in {"close", "path", "on_expire", "authority"}:
            self.asked += 1
            if self.down:
                raise LedgerUnavailableError("the line is cut")
        return getattr(self.ledger, name)


class Bench:
    """A process with slices of 20 calls of a team's 100, which has made one call."""

    def __init__(self, *, keep_going: bool = True) -> None:
        self.clock, self.told = FakeClock(), list[str]()
        self.remote = Remote(self.clock)
        remote: Any = self.remote
        self.ledger = SlicedLedger(remote, SliceOptions(calls=20, share=1), clock=self.clock, background=False)
        self.ledger.attach(keep_going=keep_going, tell=self.told.append)
        assert self.call("before", task="t0") == Granted()
        self.pay("before", task="t0")

    def call(self, name: str, *, task: str, limit: int | None = 5, amount: int = 1) -> Granted | Refused:
        lines = [Posting(TEAM, amount, 100), Posting(mine(task), amount, limit)]
        return self.ledger.reserve(name, lines, lease_seconds=60)

    def pay(self, name: str, *, task: str, amount: int = 1) -> None:
        self.ledger.settle(name, [Charge(TEAM, amount, amount), Charge(mine(task), amount, amount)])

    def cut(self) -> None:
        """The line is cut, and that was found out."""
        self.remote.down = True
        with pytest.raises(LedgerUnavailableError):
            self.ledger._leasing.reach()

    def comes_back(self) -> None:
        self.remote.down = False
        self.clock.advance(2)
        self.ledger.look_after()


def mine(task: str) -> Account:
    return Account((("task", task),), Meter.COST)


def admitted(bench: Bench, task: str, **options: Any) -> int:
    """How many calls of *task* are, until one is refused or the ledger is out of reach."""
    for number in range(1_000):
        try:
            if type(bench.call(f"{task} {number}", task=task, **options)) is Refused:
                return number
        except LedgerUnavailableError:
            return number
    return 1_000


def test_a_task_that_begins_in_an_outage_is_held_to_its_own_limit() -> None:
    bench = Bench()
    bench.cut()
    assert admitted(bench, "new") == 5
    assert admitted(bench, "other", limit=3) == 3


def test_tasks_that_begin_in_an_outage_share_what_was_leased_and_no_more() -> None:
    bench = Bench()
    leased = bench.ledger._book.pool(TEAM)
    assert leased is not None
    room = leased.free
    bench.cut()
    assert sum(admitted(bench, f"new{number}") for number in range(40)) == room
    bench.comes_back()
    assert bench.remote.ledger.balance(TEAM).committed <= 100


@pytest.mark.parametrize("keep_going", [True, False])
def test_what_no_slice_of_a_shared_limit_covers_is_refused(keep_going: bool) -> None:
    bench = Bench(keep_going=keep_going)
    bench.cut()
    with pytest.raises(LedgerUnavailableError):
        bench.ledger.reserve("alone", [Posting(mine("new"), 1, 5)], lease_seconds=60)
    other = Account((("team", "other"),), Meter.COST)
    with pytest.raises(LedgerUnavailableError):
        bench.ledger.reserve("other", [Posting(other, 1, 5), Posting(mine("new"), 1, 5)], lease_seconds=60)
    if not keep_going:
        with pytest.raises(LedgerUnavailableError):
            bench.call("closed", task="new")


def test_what_a_task_spent_in_an_outage_counts_when_it_is_over() -> None:
    bench = Bench()
    bench.cut()
    for number in range(3):
        assert bench.call(f"c{number}", task="new") == Granted()
    for number in range(2):
        bench.pay(f"c{number}", task="new")
    bench.comes_back()
    assert bench.ledger.balance(mine("new")).committed == 3
    assert admitted(bench, "new") == 2  # of 5
    assert bench.remote.ledger.balance(mine("new")).committed == 5
    for name in ("c2", "new 0", "new 1"):
        bench.pay(name, task="new")
    bench.ledger.give_back()
    there = bench.remote.ledger.balance(mine("new"))
    assert (there.settled, there.committed, there.overrun) == (5, 5, 2)  # two were settled before they were leased
    assert bench.ledger.verify().ok
    assert bench.remote.ledger.verify().ok


def test_a_task_that_paused_goes_on_with_what_it_had_left() -> None:
    bench = Bench()
    for number in range(2):
        bench.call(f"early{number}", task="t0")
        bench.pay(f"early{number}", task="t0")
    bench.ledger.give_back()  # as after some idle seconds
    assert bench.call("hold", task="t9") == Granted()  # the team's slice
    bench.cut()
    assert admitted(bench, "t0") == 2  # it had spent 3 of 5


def test_what_was_noted_to_be_told_later_is_spent_once() -> None:
    bench, other = Bench(), Account((("team", "other"),), Meter.COST)
    assert bench.ledger.reserve("big", [Posting(other, 1, 50)], lease_seconds=60) == Granted()
    bench.cut()
    for number in range(2):
        assert bench.call(f"c{number}", task="new") == Granted()
        bench.pay(f"c{number}", task="new")
    bench.ledger.settle("big", [Charge(other, 1, 99)])
    bench.clock.advance(2)
    with pytest.raises(LedgerUnavailableError):  # it tries to tell the overrun first, and with it all that is untold
        bench.ledger.reserve("more", [Posting(other, 1, 50)], lease_seconds=60)
    assert admitted(bench, "new") == 3  # of 5


def test_in_an_outage_nothing_leased_is_given_back_for_being_idle() -> None:
    bench = Bench()
    bench.cut()
    for _ in range(20):
        bench.clock.advance(5)
        bench.ledger.look_after()
    assert admitted(bench, "new") == 5


def test_a_ledger_known_to_be_out_of_reach_is_not_asked_for_each_new_task() -> None:
    bench = Bench()
    bench.cut()
    asked = bench.remote.asked
    for number in range(5):
        bench.call(f"c{number}", task=f"new{number}")
    assert bench.remote.asked == asked


def test_an_outage_is_over_once_the_ledger_answers_not_when_a_slice_does() -> None:
    bench = Bench()
    guard = Failover(bench.ledger, Outbox(None), fail_open=None, tell=bench.told.append, clock=bench.clock)
    bench.cut()
    for number in range(3):
        with pytest.raises(LedgerUnavailableError):
            guard.reserve(f"alone{number}", [Posting(mine(f"alone{number}"), 1, 5)], lease_seconds=60)
        lines = [Posting(TEAM, 1, 100), Posting(mine("new"), 1, 5)]
        assert guard.reserve(f"c{number}", lines, lease_seconds=60) == Granted()
    assert not [said for said in bench.told if "is back" in said]
    bench.comes_back()
    guard.reserve("last", [Posting(TEAM, 1, 100)], lease_seconds=60)
    assert [said for said in bench.told if "is back" in said]


def test_each_invoke_of_a_governor_goes_on_though_each_is_a_task_of_its_own() -> None:
    clock = FakeClock()
    remote = Remote(clock)
    ledger: Any = remote
    sliced = SlicedLedger(ledger, SliceOptions(calls=20, share=1), clock=clock, background=False)
    limit = ab.Limit("model_calls", 100, scope="team")
    governor = ab.Governor(ledger=sliced, fail="slice", limits=[limit], clock=clock)

    def ask() -> None:
        with ab.task("ask", governor=governor, team="cx", max_model_calls=3):
            ScriptedChatModel(script=[scripted_reply("Yes.")]).invoke("Is it?")

    ask()
    remote.down = True
    with pytest.raises(LedgerUnavailableError), pytest.warns(BudgetWarning, match="out of reach"):
        sliced._leasing.reach()
    for _ in range(5):
        ask()
    remote.down = False
    clock.advance(2)
    with pytest.warns(BudgetWarning, match="leases again"):
        sliced.look_after()
    governor.close()
    team = limit.account({"team": "cx"}, at=clock.now())
    assert team is not None
    assert remote.ledger.balance(team) == Balance(limit=100, settled=6)
    assert remote.ledger.verify().ok
