"""Slices over real processes, threads, servers and event loops."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import agentbudget as ab
from agentbudget.domain.accounts import Balance, Charge, Posting
from agentbudget.domain.ledger import Granted, Ledger, Settled
from agentbudget.errors import BudgetWarning, ConfigurationError, LedgerUnavailableError
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.slices import SlicedLedger, SliceOptions
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import TEAM, MakeLedger, pay, take
from tests.ledgers.proxy import Proxy
from tests.ledgers.servers import fresh
from tests.ledgers.test_slices import SlicedContract
from tests.ledgers.worker import LIMIT
from tests.ledgers.worker import TEAM as SHARED

WORKER = Path(__file__).with_name("worker.py")
DYING = Path(__file__).with_name("slice_worker.py")
PATIENCE = 20


class TestSlicesOfRedis(SlicedContract):
    @pytest.fixture
    def make_ledger(self, clock: FakeClock, redis_url: str) -> MakeLedger:
        def make(on_expire: str = "charge") -> SlicedLedger:
            authority = open_ledger(f"{fresh(redis_url)}&on_expire={on_expire}", clock=clock)
            options = SliceOptions(calls=5, share=2)
            return SlicedLedger(authority, options, clock=clock, background=False)

        return make


class TestSlicesOfSqlite(SlicedContract):
    @pytest.fixture
    def make_ledger(self, clock: FakeClock, tmp_path: Path) -> MakeLedger:
        def make(on_expire: str = "charge") -> SlicedLedger:
            url = f"sqlite:///{tmp_path}/{on_expire}.db?synchronous=normal&on_expire={on_expire}"
            options = SliceOptions(calls=5, share=2)
            return SlicedLedger(open_ledger(url, clock=clock), options, clock=clock, background=False)

        return make


@pytest.mark.parametrize("backend", ["sqlite", "redis"])
def test_four_processes_of_32_threads_spend_at_most_the_cap_from_slices_and_strand_little(
    backend: str, tmp_path: Path, redis_url: str
) -> None:
    url = f"sqlite:///{tmp_path}/spend.db?synchronous=normal" if backend == "sqlite" else fresh(redis_url)
    command = [sys.executable, str(WORKER), f"{url}&slice=20"]
    workers = [
        subprocess.Popen([*command, f"p{number}", "32", "1000"], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    lines = [line for worker in workers for line in worker.communicate(timeout=100)[0].splitlines()]
    told = [json.loads(line) for line in lines if line.endswith("}")]
    assert [worker.returncode for worker in workers] == [0] * 4
    ledger = open_ledger(url)
    balance = ledger.balance(SHARED)
    assert balance.settled == sum(one["actual"] for one in told)
    assert LIMIT * 0.995 < balance.settled <= LIMIT
    assert (balance.reserved, balance.presumed, balance.overrun) == (0, 0, 0)
    assert ledger.verify().differences == ()
    ledger.close()


def dying(url: str, *arguments: str) -> dict[str, Any]:
    """What a process told that was killed with slices out."""
    worker = subprocess.Popen([sys.executable, str(DYING), url, *arguments], stdout=subprocess.PIPE, text=True)
    told, _ = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == -9
    found: dict[str, Any] = json.loads(told)
    return found


def test_without_a_journal_the_slices_of_a_killed_process_are_presumed_spent(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/spend.db"
    dying(f"{url}?slice=10&slice_share=1&slice_lease=0.01")
    clock = FakeClock()
    clock.set_now(time.time())
    ledger = open_ledger(url, clock=clock)
    clock.advance(3600)
    balance = ledger.balance(SHARED)
    assert (balance.settled, balance.reserved) == (0, 0)
    assert balance.presumed > 0
    ledger.close()


def test_with_a_journal_a_restarted_process_settles_them_exactly(tmp_path: Path) -> None:
    url, journal = f"sqlite:///{tmp_path}/spend.db", tmp_path / "journal"
    sliced = f"{url}?slice=10&slice_share=1&slice_journal={journal}"
    told = dying(sliced)
    assert told["spent"] > 0
    ledger = open_ledger(sliced)
    balance = ledger.balance(SHARED)
    assert (balance.settled, balance.reserved) == (told["spent"], told["held"])
    assert ledger.settle(told["settled"][0], told_charges(told, "settled")) == Settled("duplicate")
    assert ledger.settle(told["live"], told_charges(told, "live")) == Settled()
    ledger.close()
    assert list(journal.iterdir()) == []
    plain = open_ledger(url)
    balance = plain.balance(SHARED)
    assert (balance.settled, balance.reserved, balance.presumed) == (told["spent"] + 1, 0, 0)
    assert plain.verify().differences == ()
    plain.close()


def told_charges(told: dict[str, Any], which: str) -> list[Any]:
    amount = told["held"] if which == "live" else 3
    return [Charge(SHARED, amount, 1)]


def test_a_journal_of_another_start_of_the_machine_is_not_believed(tmp_path: Path) -> None:
    url, journal = f"sqlite:///{tmp_path}/spend.db", tmp_path / "journal"
    sliced = f"{url}?slice=10&slice_share=1&slice_journal={journal}"
    dying(sliced)
    (left,) = journal.iterdir()
    head, _, rest = left.read_bytes().partition(b"\n")
    told = json.loads(head)
    told[1]["boot"] = "another"
    left.write_bytes(json.dumps(told).encode() + b"\n" + rest)
    ledger = open_ledger(sliced)
    assert ledger.balance(SHARED).settled == 0
    assert ledger.balance(SHARED).reserved > 0
    ledger.close()


def test_a_forked_child_spends_nothing_of_its_parents_slices(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/spend.db?slice=10&slice_share=1&slice_recall=0")
    assert take(ledger, "a", (SHARED, 1, 10)) == Granted()
    child = os.fork()
    if child == 0:
        os._exit(0 if isinstance(take(ledger, "b", (SHARED, 1, 10)), Granted) else 7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert take(ledger, "c", (SHARED, 9, 10)) == Granted()
    ledger.close()


@pytest.fixture
def proxy(redis_url: str) -> Any:
    port = int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    with Proxy(port) as found:
        yield found


def through(proxy: Proxy, redis_url: str, options: str) -> str:
    return fresh(f"redis://127.0.0.1:{proxy.port}/0?timeout=0.2&{options}")


def spend_up(ledger: SlicedLedger) -> None:
    for number in range(10):
        take(ledger, f"more{number}", (TEAM, 1, 100))


async def test_on_an_event_loop_a_ledger_that_hangs_costs_one_bounded_wait_and_no_call_from_the_slice(
    proxy: Proxy, redis_url: str
) -> None:
    ledger = open_ledger(through(proxy, redis_url, "slice=10&slice_share=1&slice_wait=0.2"))
    assert isinstance(ledger, SlicedLedger)
    ledger.keep_going = True
    loop = asyncio.get_running_loop()
    assert take(ledger, "first", (TEAM, 1, 100)) == Granted()
    proxy.open.clear()
    start = loop.time()
    for number in range(8):
        assert take(ledger, f"c{number}", (TEAM, 1, 100)) == Granted()
        assert pay(ledger, f"c{number}", (TEAM, 1, 1)) == Settled()
    from_the_slice = loop.time() - start
    with pytest.raises(LedgerUnavailableError, match="used up"):
        spend_up(ledger)
    proxy.open.set()
    await asyncio.to_thread(ledger.close)
    assert from_the_slice < 0.2  # it never waited for a reply


class Switch:
    """A ledger that can be out of reach."""

    def __init__(self) -> None:
        self.ledger, self.down = MemoryLedger(), False

    def __getattr__(self, name: str) -> Any:
        if self.down and name not in {"close", "path", "on_expire"}:
            raise LedgerUnavailableError("the switch is off")
        return getattr(self.ledger, name)


def admitted(ledger: Ledger) -> int:
    """How many calls are, until the ledger says that it is out of reach."""
    number = 0
    with suppress(LedgerUnavailableError):
        while True:
            ledger.reserve(f"c{number}", [Posting(TEAM, 1, 100)], lease_seconds=60)
            number += 1
    return number


@pytest.mark.parametrize(("fail", "most"), [("slice", 9), ("closed", 0)])
def test_fail_slice_goes_on_from_the_slice_only_and_fail_closed_does_not(fail: str, most: int) -> None:
    shared, clock = Switch(), FakeClock()
    sliced = SlicedLedger(shared, SliceOptions(calls=10, share=1), clock=clock, background=False)
    governor = ab.Governor(ledger=sliced, fail=fail)
    governor.ledger.reserve("a", [Posting(TEAM, 1, 100)], lease_seconds=60)
    shared.down = True
    with pytest.raises(LedgerUnavailableError), pytest.warns(BudgetWarning, match="all there is"):
        sliced._leasing.reach()
    with pytest.warns(BudgetWarning, match="no slice covers"):
        assert admitted(governor.ledger) == most
    shared.down = False
    clock.advance(1)
    with pytest.warns(BudgetWarning, match="leases again"):
        sliced.look_after()
    assert take(sliced, "again", (TEAM, 1, 100)) == Granted()
    assert shared.ledger.balance(TEAM).committed <= 100
    governor.close()


def test_fail_slice_gives_slices_to_a_ledger_without(tmp_path: Path) -> None:
    governor = ab.Governor(ledger=f"sqlite:///{tmp_path}/spend.db", fail="slice")
    assert isinstance(governor.ledger.primary, SlicedLedger)  # type: ignore[attr-defined]  # the failover has one
    governor.close()


@pytest.mark.parametrize(
    "options",
    ["slice=0", "slice=x", "slice=10&slice_idle=-1", "slice_idle=5", "slice=10&slices=3", "slice=10&slice_lease=nan"],
)
def test_options_that_mean_nothing_are_refused_when_the_ledger_is_opened(tmp_path: Path, options: str) -> None:
    with pytest.raises(ConfigurationError, match="slice"):
        open_ledger(f"sqlite:///{tmp_path}/spend.db?{options}")


def test_what_is_leased_is_told_and_given_back_on_close(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/spend.db"
    ledger = open_ledger(f"{url}?slice=10&slice_share=1")
    take(ledger, "a", (TEAM, 2, 100))
    pay(ledger, "a", (TEAM, 2, 1))
    assert (ledger.balance(TEAM), ledger.balance(TEAM).leased) == (Balance(limit=100, settled=1), 19)
    ledger.close()
    plain = open_ledger(url)
    assert plain.balance(TEAM) == Balance(limit=100, settled=1)
    plain.close()


def test_a_governor_hears_of_a_threshold_that_its_last_slice_reached(tmp_path: Path) -> None:
    heard: list[Any] = []
    limit = ab.Limit("cost", "$1", scope="team", alert_at="50%")
    governor = ab.Governor(ledger=f"sqlite:///{tmp_path}/spend.db?slice=10", limits=[limit], on_threshold=heard.append)
    account = limit.account({"team": "cx"}, at=0.0)
    assert account is not None
    governor.ledger.reserve("a", [Posting(account, 600_000_000, 1_000_000_000)], lease_seconds=60)
    governor.ledger.settle("a", [Charge(account, 600_000_000, 600_000_000)], alert_at={account: (5_000,)})
    governor.close()
    assert [one.threshold for one in heard] == [5_000]
