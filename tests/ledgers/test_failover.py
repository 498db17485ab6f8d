"""A ledger out of reach: what was paid is never lost, and what goes on without it is bounded."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import agentbudget as ab
from agentbudget.domain.accounts import Account, Balance, Charge, Meter, Posting
from agentbudget.domain.alerts import AlertAt
from agentbudget.domain.failure import FailOpen, FailSlice, failure_mode
from agentbudget.domain.ledger import Granted, Refused, ReservationState, Settled
from agentbudget.errors import BudgetWarning, ConfigurationError, LedgerUnavailableError
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.failover import RETRY_SECONDS, Failover, guarded
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.outbox import Delivery, Outbox
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import LEASE, TASK, TEAM, LedgerContract, MakeLedger, pay, take

CALLS = Account((("task", "t1"),), Meter.MODEL_CALLS)
FAR = 2 * RETRY_SECONDS


class Remote(MemoryLedger):
    """A ledger whose connection can be cut: before the request arrives, or before the answer does."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.up = True
        self.answers = True
        self.asked = 0

    def _through(self, verb: str, *args: Any, **options: Any) -> Any:
        self.asked += 1
        if not self.up:
            raise LedgerUnavailableError("connection refused")
        answer = getattr(MemoryLedger, verb)(self, *args, **options)
        if not self.answers:
            raise LedgerUnavailableError("connection lost")
        return answer

    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        answer: Granted | Refused = self._through("reserve", reservation_id, postings, lease_seconds=lease_seconds)
        return answer

    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        answer: Settled = self._through("settle", reservation_id, charges, alert_at=alert_at)
        return answer

    def release(self, reservation_id: str) -> ReservationState:
        answer: ReservationState = self._through("release", reservation_id)
        return answer

    def renew(self, reservation_id: str, *, lease_seconds: float) -> ReservationState:
        answer: ReservationState = self._through("renew", reservation_id, lease_seconds=lease_seconds)
        return answer


class Bench:
    """A failover in front of a remote ledger, and what it told."""

    def __init__(self, folder: Path | None, fail_open: FailOpen | None = None, *, most: int = 1000) -> None:
        self.clock = FakeClock()
        self.remote = Remote(self.clock)
        self.told: list[str] = []
        self.outbox = Outbox(folder, most=most)
        self.ledger = Failover(self.remote, self.outbox, fail_open=fail_open, tell=self.told.append, clock=self.clock)

    def comes_back(self) -> None:
        self.remote.up = self.remote.answers = True
        self.clock.advance(FAR)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


class TestFailoverInFrontOfALedgerThatIsThere(LedgerContract):
    @pytest.fixture
    def make_ledger(self, clock: FakeClock, folder: Path) -> MakeLedger:
        def make(on_expire: str = "charge") -> Failover:
            primary = MemoryLedger(clock, on_expire)
            return Failover(primary, Outbox(folder), fail_open=FailOpen(), tell=pytest.fail, clock=clock)

        return make


# -- settlements -------------------------------------------------------------------------------------------------------


def test_a_settlement_that_cannot_be_delivered_waits_and_is_delivered_once(folder: Path) -> None:
    bench = Bench(folder)
    take(bench.ledger, "a", (TASK, 5, 10))
    take(bench.ledger, "b", (TASK, 5, 10))
    bench.remote.up = False
    assert pay(bench.ledger, "a", (TASK, 5, 3)) == Settled("queued")
    assert bench.ledger.release("b") is ReservationState.RELEASED
    assert len(bench.outbox) == 2
    bench.comes_back()
    assert take(bench.ledger, "c", (TASK, 7, 10)) == Granted(), "what waits is booked before anything is reserved"
    assert bench.remote.balance(TASK) == Balance(limit=10, settled=3, reserved=7)
    assert len(bench.outbox) == 0
    assert ["out of reach" in bench.told[0], "back" in bench.told[1], len(bench.told)] == [True, True, 2]
    bench.ledger.close()
    assert list(folder.iterdir()) == []


def test_a_settlement_whose_answer_was_lost_is_charged_once(folder: Path) -> None:
    bench = Bench(folder)
    take(bench.ledger, "a", (TASK, 5, 10))
    bench.remote.answers = False
    assert pay(bench.ledger, "a", (TASK, 5, 3)) == Settled("queued")
    bench.comes_back()
    assert bench.ledger.flush() == 0
    assert bench.remote.balance(TASK) == Balance(limit=10, settled=3)
    assert bench.remote.verify().ok


def test_nothing_after_a_reservation_raises_for_want_of_the_ledger(folder: Path) -> None:
    bench = Bench(folder)
    take(bench.ledger, "a", (TASK, 5, 10))
    bench.remote.up = False
    assert bench.ledger.renew("a", lease_seconds=LEASE) is ReservationState.LIVE
    assert pay(bench.ledger, "a", (TASK, 5, 3)) == Settled("queued")
    assert bench.ledger.collect([TASK]) == 0
    with pytest.raises(LedgerUnavailableError):
        take(bench.ledger, "b", (TASK, 1, 10))
    bench.ledger.close()


def test_an_outage_is_not_asked_about_at_every_settlement(folder: Path) -> None:
    bench = Bench(folder)
    bench.remote.up = False
    for number in range(50):
        pay(bench.ledger, f"r{number}", (TASK, 1, 1))
    assert bench.remote.asked == 1
    bench.clock.advance(FAR)
    pay(bench.ledger, "next", (TASK, 1, 1))
    assert bench.remote.asked == 2
    bench.comes_back()
    pay(bench.ledger, "last", (TASK, 1, 1))
    assert bench.remote.balance(TASK).settled == 52


def test_a_settlement_that_the_ledger_refuses_for_good_is_told_and_stops_no_other(folder: Path) -> None:
    bench = Bench(folder)
    take(bench.ledger, "a", (TASK, 5, 10))
    bench.remote.up = False
    pay(bench.ledger, "a", (TASK, 6, 3))
    pay(bench.ledger, "b", (TASK, 2, 2))
    bench.comes_back()
    assert bench.ledger.flush() == 0
    assert any("refuses a settlement for good" in text for text in bench.told)
    assert bench.remote.balance(TASK).settled == 2


# -- the file ----------------------------------------------------------------------------------------------------------


def test_the_next_process_delivers_what_a_killed_one_had_waiting(folder: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from agentbudget.ledgers.outbox import *\n"
        "from agentbudget.domain.accounts import Account, Meter\n"
        "task = Account((('task', 'a|b:🦊'),), Meter.COST)\n"
        "box = Outbox(Path(sys.argv[1]))\n"
        "box.admit('flying', [Posting(task, 7, 10)])\n"
        "box.admit('landed', [Posting(task, 7, 10)])\n"
        "box.put(Delivery(id='landed', charges=(Charge(task, 7, 2),)))\n"
        "box.put(Delivery(id='gone', charges=(Charge(task, 1, 1),))); box.delivered(Delivery(id='gone'))\n"
        "box.put(Delivery(id='back'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    task = Account((("task", "a|b:🦊"),), Meter.COST)
    box = Outbox(folder)
    assert box.waiting() == [
        Delivery(id="flying", charges=(Charge(task, 7, 7),)),
        Delivery(id="landed", charges=(Charge(task, 7, 2),)),
        Delivery(id="back"),
    ]
    assert len(list(folder.iterdir())) == 1
    again = Outbox(folder)
    assert len(again) == 0, "a file that its process still has is left alone"
    box.close()
    assert len(Outbox(folder)) == 3


def test_a_line_that_was_not_written_whole_is_skipped_and_counted(folder: Path) -> None:
    box = Outbox(folder)
    for number in range(3):
        box.put(Delivery(id=f"r{number}", charges=(Charge(TASK, 5, number),)))
    assert box.path is not None
    whole = box.path.read_bytes()
    box.close()
    box.path.unlink()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last + 1, len(whole) - 1):
        (folder / "dead.jsonl").write_bytes(whole[:end])
        found = Outbox(folder)
        assert ([one.id for one in found.waiting()], found.damaged) == (["r0", "r1"], 1)
        assert found.path is not None
        found.close()
        found.path.unlink()


def test_a_child_leaves_what_its_parent_has_waiting_to_the_parent(folder: Path) -> None:
    script = (
        "import os, sys, json; from pathlib import Path\n"
        "from agentbudget.ledgers.outbox import *\n"
        "box = Outbox(Path(sys.argv[1]))\n"
        "box.put(Delivery(id='parent'))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    box.put(Delivery(id='child'))\n"
        "    os._exit(len(box.waiting()))\n"
        "status = os.waitpid(child, 0)[1]\n"
        "print(json.dumps([os.waitstatus_to_exitcode(status), [one.id for one in box.waiting()]]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [1, ["parent"]]
    assert sorted(one.id for one in Outbox(folder).waiting()) == ["child", "parent"]


def test_what_waits_in_memory_only_is_said_so_once() -> None:
    bench = Bench(None)
    bench.remote.up = False
    for number in range(3):
        pay(bench.ledger, f"r{number}", (TASK, 1, 1))
    bench.ledger.close()
    assert [text.split(":")[0].split(" with")[0] for text in bench.told] == [
        "the ledger is out of reach, every call is refused",
        "settlements wait in memory only and are lost",
        "3 settlements could not be delivered",
    ]


# -- failing open ------------------------------------------------------------------------------------------------------


def test_failing_open_stops_at_its_money(folder: Path) -> None:
    bench = Bench(folder, FailOpen(max_cost="$0.00000002"))
    bench.remote.up = False
    postings = [(TASK, 5, 100), (TEAM, 5, None), (CALLS, 1, 100)]
    assert [take(bench.ledger, f"r{number}", *postings) for number in range(4)] == [Granted()] * 4
    with pytest.raises(LedgerUnavailableError, match="used up"):
        take(bench.ledger, "r4", *postings)
    pay(bench.ledger, "r0", (TASK, 5, 1), (TEAM, 5, 1), (CALLS, 1, 1))
    with pytest.raises(LedgerUnavailableError, match="used up"):
        take(bench.ledger, "r5", (TASK, 5, 100))
    assert take(bench.ledger, "r6", (TASK, 4, 100)) == Granted()


def test_failing_open_stops_at_its_time(folder: Path) -> None:
    bench = Bench(folder, FailOpen(max_seconds=10))
    bench.remote.up = False
    assert take(bench.ledger, "a", (TASK, 5, 10)) == Granted()
    bench.clock.advance(9)
    assert take(bench.ledger, "b", (TASK, 1, 10)) == Granted()
    bench.clock.advance(1)
    with pytest.raises(LedgerUnavailableError, match="more than 10 s"):
        take(bench.ledger, "c", (TASK, 1, 10))


def test_failing_open_keeps_the_limits_of_the_calls_themselves(folder: Path) -> None:
    bench = Bench(folder, FailOpen())
    bench.remote.up = False
    assert take(bench.ledger, "a", (TASK, 8, 10)) == Granted()
    refused = take(bench.ledger, "b", (TASK, 3, 10))
    assert isinstance(refused, Refused)
    assert [short.account for short in refused.shortfalls] == [TASK]


def test_what_was_spent_without_the_ledger_is_booked_in_it_as_overrun(folder: Path) -> None:
    bench = Bench(folder, FailOpen())
    take(bench.ledger, "before", (TASK, 5, 10))
    bench.remote.up = False
    take(bench.ledger, "settled", (TASK, 5, 10))
    take(bench.ledger, "released", (TASK, 2, 10))
    take(bench.ledger, "flying", (TASK, 2, 10))
    pay(bench.ledger, "settled", (TASK, 5, 4))
    pay(bench.ledger, "before", (TASK, 5, 5))
    bench.ledger.release("released")
    bench.comes_back()
    pay(bench.ledger, "flying", (TASK, 2, 1))
    assert bench.remote.balance(TASK) == Balance(limit=10, settled=10, overrun=5)
    assert bench.remote.verify().ok
    assert isinstance(take(bench.ledger, "full", (TASK, 1, 10)), Refused)
    assert (len(bench.outbox), "back" in bench.told[-1]) == (0, True)


def test_a_reservation_whose_answer_was_lost_and_that_went_on_open_is_charged_once(folder: Path) -> None:
    bench = Bench(folder, FailOpen())
    bench.remote.answers = False
    assert take(bench.ledger, "a", (TASK, 5, 10)) == Granted()
    bench.comes_back()
    pay(bench.ledger, "a", (TASK, 5, 4))
    assert bench.remote.balance(TASK) == Balance(limit=10, settled=4)


def test_nothing_goes_on_open_that_could_not_be_noted(folder: Path) -> None:
    bench = Bench(folder, FailOpen(), most=2)
    bench.remote.up = False
    take(bench.ledger, "a", (TASK, 1, 10))
    take(bench.ledger, "b", (TASK, 1, 10))
    with pytest.raises(LedgerUnavailableError, match="outbox is full"):
        take(bench.ledger, "c", (TASK, 1, 10))
    blocked = Bench(folder / "file" / "outbox", FailOpen())
    (folder / "file").write_text("in the way")
    blocked.remote.up = False
    with pytest.raises(LedgerUnavailableError, match="cannot be written"):
        take(blocked.ledger, "a", (TASK, 1, 10))


# -- options and the governor ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"max_cost": 0}, {"max_cost": "-1"}, {"max_seconds": 0}, {"max_seconds": float("inf")}]
)
def test_a_bound_that_is_none_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        FailOpen(**options)


def test_fail_is_closed_or_slice_or_open_or_a_bound() -> None:
    assert failure_mode("closed") is None
    assert failure_mode("slice") == FailSlice()
    assert failure_mode("open") == FailOpen(max_cost="$5", max_seconds=300)
    assert failure_mode(FailOpen(max_cost=1)) == FailOpen(max_cost=1)
    for wrong in ("slices", None, True, 5):
        with pytest.raises(ConfigurationError, match="'closed', 'slice', 'open' or FailOpen"):
            failure_mode(wrong)


def test_a_memory_ledger_is_never_out_of_reach_and_stays_bare(tmp_path: Path) -> None:
    memory = MemoryLedger()
    assert guarded(memory, fail_open=None, outbox=None, tell=pytest.fail) is memory
    sqlite = open_ledger(f"sqlite:///{tmp_path}/spend.db")
    ledger = guarded(sqlite, fail_open=None, outbox=None, tell=pytest.fail)
    assert isinstance(ledger, Failover)
    assert guarded(ledger, fail_open=None, outbox=None, tell=pytest.fail) is ledger
    ledger.close()


def test_a_governor_records_an_outage_in_its_tasks_and_warns_once(tmp_path: Path) -> None:
    governor = ab.Governor(ledger=f"sqlite:///{tmp_path}/spend.db", fail=FailOpen(max_cost="$1"))
    assert isinstance(governor.ledger, Failover)
    task = governor.open_task("t", ab.Budget(max_cost="$1"))
    (tmp_path / "spend.db").rename(tmp_path / "moved.db")
    governor.ledger.primary._looked = -1.0  # type: ignore[attr-defined]  # look at the file now
    with pytest.warns(BudgetWarning, match="out of reach, calls go on for up to \\$1.00 and 300 s"):
        assert take(governor.ledger, "a", (TASK, 1, 10)) == Granted()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pay(governor.ledger, "a", (TASK, 1, 1)) == Settled("queued")
    assert [found["kind"] for found in governor.report(task).discrepancies] == ["ledger"]
    (tmp_path / "moved.db").rename(tmp_path / "spend.db")
    governor.ledger._again = 0.0
    with pytest.warns(BudgetWarning, match="back"):
        governor.ledger.reserve("b", [Posting(TASK, 1, 10)], lease_seconds=LEASE)
    assert governor.ledger.balance(TASK).settled == 1
    governor.close()


def test_the_outbox_lies_beside_the_file_unless_it_is_named(tmp_path: Path) -> None:
    for outbox, where in ((None, "spend.db-outbox"), (tmp_path / "other", "other")):
        governor = ab.Governor(ledger=f"sqlite:///{tmp_path}/spend.db", outbox=outbox)
        assert isinstance(governor.ledger, Failover)
        governor.ledger.outbox.put(Delivery(id="a"))
        assert list((tmp_path / where).iterdir())
        governor.close()
