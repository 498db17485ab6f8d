"""Alarms behind slices: a threshold that this process sees reached is told at once, not when its slice is used up."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import agentbudget as ab
from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.domain.alerts import Crossing
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.slices import SlicedLedger, SliceOptions
from agentbudget.testing import ScriptedChatModel, scripted_reply

TEAM = Account((("team", "cx"),), Meter.COST)
WATCHED = {TEAM: (5_000, 8_000)}
PATIENCE = 20.0
"""Seconds after which an alarm counts as lost."""


class Process:
    """A process that keeps its slices for ever unless it has a reason to give them back."""

    def __init__(self, shared: MemoryLedger) -> None:
        self.ledger = SlicedLedger(shared, SliceOptions(calls=100, share=2, idle_seconds=1e6))
        self.alarms: list[Crossing] = []
        self.told = threading.Semaphore(0)
        self.ledger.attach(keep_going=False, tell=pytest.fail, alarm=self._alarm)

    def _alarm(self, crossing: Crossing) -> None:
        self.alarms.append(crossing)
        self.told.release()

    def reserve(self, name: str, amount: int) -> None:
        self.ledger.reserve(name, [Posting(TEAM, amount, 1_000)], lease_seconds=60)

    def spend(self, name: str, amount: int) -> None:
        self.reserve(name, amount)
        self.ledger.settle(name, [Charge(TEAM, amount, amount)], alert_at=WATCHED)


def test_a_threshold_is_told_while_calls_are_in_flight_and_slices_unused() -> None:
    shared = MemoryLedger()
    one = Process(shared)
    one.reserve("in flight", 10)
    one.spend("a", 499)
    one.spend("b", 1)
    assert one.told.acquire(timeout=PATIENCE)
    assert [crossing.threshold for crossing in one.alarms] == [5_000]
    one.spend("c", 1)
    one.ledger.close()
    assert len(one.alarms) == 1


def test_what_another_process_spent_before_counts() -> None:
    shared = MemoryLedger()
    other = Process(shared)
    other.spend("theirs", 450)
    other.ledger.close()
    one = Process(shared)
    one.spend("mine", 60)
    assert one.told.acquire(timeout=PATIENCE)
    assert [(crossing.threshold, crossing.settled) for crossing in one.alarms] == [(5_000, 510)]
    one.ledger.close()
    assert not other.alarms


def test_an_alarm_of_a_governor_does_not_wait_for_its_slice(tmp_path: Path) -> None:
    told = threading.Event()
    limit = ab.Limit("model_calls", 4, scope="team", alert_at="50%")
    ledger = f"sqlite:///{tmp_path}/spend.db?slice=100&slice_share=1&slice_idle=1000000"
    governor = ab.Governor(ledger=ledger, limits=[limit], on_threshold=lambda _: told.set())
    with ab.task("busy", governor=governor, team="cx"):
        for _ in range(2):
            ScriptedChatModel(script=[scripted_reply("Yes.")]).invoke("Is it?")
        assert told.wait(PATIENCE)
    governor.close()
