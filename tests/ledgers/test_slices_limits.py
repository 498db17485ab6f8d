"""A limit that somebody cuts holds for what other processes leased before: soon, and whatever they have in flight."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import agentbudget as ab
from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.domain.ledger import Granted, Refused
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.slices import SlicedLedger, SliceOptions
from agentbudget.ledgers.slices.recall import RECALL, recall
from agentbudget.testing import ScriptedChatModel, scripted_reply
from agentbudget.testing.clock import FakeClock

TEAM = Account((("team", "cx"),), Meter.COST)
TASK = Account((("task", "t1"),), Meter.COST)


def process(shared: MemoryLedger, clock: FakeClock) -> SlicedLedger:
    return SlicedLedger(shared, SliceOptions(calls=10, share=1), clock=clock, background=False)


def call(ledger: SlicedLedger, name: str) -> Granted | Refused:
    return ledger.reserve(name, [Posting(TEAM, 1, 100), Posting(TASK, 1, 50)], lease_seconds=60)


@pytest.mark.parametrize("in_flight", [0, 1, 3])
@pytest.mark.parametrize("limit", [0, 3])
def test_a_cut_limit_stops_a_process_that_works_from_a_slice(in_flight: int, limit: int) -> None:
    clock = FakeClock()
    shared = MemoryLedger(clock)
    busy, other = process(shared, clock), process(shared, clock)
    for number in range(3):
        assert call(busy, f"c{number}") == Granted()
    for number in range(in_flight, 3):
        busy.settle(f"c{number}", [Charge(TEAM, 1, 1), Charge(TASK, 1, 1)])
    other.set_limit(TEAM, limit)
    busy.look_after()
    assert type(call(busy, "more")) is Refused
    assert busy.verify().ok
    for one in (busy, other):
        one.close()


def test_a_limit_that_leaves_room_goes_on_from_the_slice() -> None:
    clock = FakeClock()
    shared = MemoryLedger(clock)
    busy, other = process(shared, clock), process(shared, clock)
    assert call(busy, "c0") == Granted()
    other.set_limit(TEAM, 60)
    busy.look_after()
    for number in range(1, 50):
        assert call(busy, f"c{number}") == Granted()
    assert type(call(busy, "c50")) is Refused  # the task's own limit
    assert shared.balance(TEAM).committed <= 60
    for one in (busy, other):
        one.close()


def test_a_ledger_without_slices_can_make_others_look_at_their_limits() -> None:
    clock = FakeClock()
    shared = MemoryLedger(clock)
    busy = process(shared, clock)
    assert call(busy, "c0") == Granted()
    shared.set_limit(TEAM, 0)
    recall(shared)
    busy.look_after()
    assert type(call(busy, "c1")) is Refused
    assert RECALL not in busy.accounts()
    busy.close()


def test_a_process_that_closes_keeps_what_its_calls_in_flight_need_and_no_more() -> None:
    clock = FakeClock()
    shared = MemoryLedger(clock)
    one = SlicedLedger(shared, SliceOptions(calls=10, share=2), clock=clock, background=False)
    for name in ("done", "in flight"):
        assert one.reserve(name, [Posting(TEAM, 1, 100)], lease_seconds=60) == Granted()
    one.settle("done", [Charge(TEAM, 1, 1)])
    one.close()
    there = shared.balance(TEAM)
    assert (there.settled, there.reserved) == (1, 1)


@pytest.mark.parametrize("from_slices", ["", "?slice=10"])
def test_a_stop_from_another_process_reaches_a_task_that_works_from_slices(tmp_path: Path, from_slices: str) -> None:
    file = f"sqlite:///{tmp_path}/spend.db"
    governor = ab.Governor(ledger=f"{file}?slice=10")
    model = ScriptedChatModel(script=[scripted_reply("Yes.")] * 2)
    with ab.task("long", max_cost="$1", governor=governor, task_id="t1"):
        model.invoke("Is it?")
        stop = "import sys, agentbudget; agentbudget.stop('t1', ledger=sys.argv[1])"
        subprocess.run([sys.executable, "-c", stop, file + from_slices], check=True)
        governor.ledger.primary.look_after()  # type: ignore[attr-defined]  # as the background thread does
        with pytest.raises(ab.BudgetExceeded, match="stopped by hand"):
            model.invoke("Is it?")
    governor.close()
