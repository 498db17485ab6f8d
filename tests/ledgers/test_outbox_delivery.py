"""What waits in an outbox reaches the ledger it is for, and raises the alarms it would have raised at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import agentbudget as ab
from agentbudget.domain.accounts import Charge, Posting
from agentbudget.domain.alerts import Crossing
from agentbudget.errors import BudgetWarning, ConfigurationError, LedgerUnavailableError
from agentbudget.ledgers.failover import Failover
from agentbudget.ledgers.outbox import Delivery, Outbox
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import LEASE, TEAM
from tests.ledgers.test_failover import FAR, Remote

HALF_AND_ALL = {TEAM: (5_000, 10_000)}


def failover(remote: Remote, folder: Path, clock: FakeClock, alarms: list[Crossing]) -> Failover:
    return Failover(remote, Outbox(folder), fail_open=None, tell=lambda _: None, alarm=alarms.append, clock=clock)


def left_behind(folder: Path, ledger: str) -> None:
    """A file of a process that is gone: its lock went with it."""
    box = Outbox(folder, ledger=ledger)
    box.put(Delivery(id="left", charges=(Charge(TEAM, 0, 7),)))
    box.close()


# -- alarms ------------------------------------------------------------------------------------------------------------


def test_a_threshold_reached_by_a_settlement_that_waited_is_told_once(tmp_path: Path) -> None:
    clock, alarms = FakeClock(), list[Crossing]()
    remote = Remote(clock)
    ledger = failover(remote, tmp_path, clock, alarms)
    ledger.reserve("a", [Posting(TEAM, 10, 10)], lease_seconds=LEASE)
    remote.up = False
    assert ledger.settle("a", [Charge(TEAM, 10, 10)], alert_at=HALF_AND_ALL).how == "queued"
    remote.up = True
    clock.advance(FAR)
    ledger.flush()
    ledger.flush()
    assert [crossing.percent for crossing in alarms] == ["50%", "100%"]
    ledger.close()


def test_whoever_delivers_what_a_process_left_behind_raises_its_alarms(tmp_path: Path) -> None:
    clock, alarms = FakeClock(), list[Crossing]()
    remote = Remote(clock)
    remote.reserve("a", [Posting(TEAM, 10, 10)], lease_seconds=LEASE)
    gone = Outbox(tmp_path)
    gone.put(Delivery(id="a", charges=(Charge(TEAM, 10, 10),), alert_at=HALF_AND_ALL))
    gone.close()
    ledger = failover(remote, tmp_path, clock, alarms)
    assert ledger.flush() == 0
    assert [crossing.percent for crossing in alarms] == ["50%", "100%"]
    ledger.close()


# -- whose it is -------------------------------------------------------------------------------------------------------


def test_what_waits_for_one_ledger_is_not_delivered_to_another_and_that_is_said(tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path}/a.db"
    left_behind(tmp_path / "outbox", "a.db")
    with pytest.warns(BudgetWarning, match=r"keeps settlements for a\.db"):
        other = ab.Governor(ledger=f"sqlite:///{tmp_path}/b.db", outbox=tmp_path / "outbox")
    assert not len(other.ledger.outbox)  # type: ignore[attr-defined]  # the failover has one
    other.close()
    for url in (f"{ledger}?slice=10", ledger):  # with slices it is the same ledger
        mine = ab.Governor(ledger=url, outbox=tmp_path / "outbox")
        mine.ledger.flush()  # type: ignore[attr-defined]  # as above
        assert mine.ledger.balance(TEAM).settled == 7
        mine.close()


def test_a_ledger_that_moved_is_the_same(tmp_path: Path, fresh_url: str) -> None:
    prefix = fresh_url.partition("prefix=")[2]
    for outbox, name in (("one", f"Redis prefix {prefix}"), ("two", "Redis prefix other")):
        left_behind(tmp_path / outbox, name)
    moved = fresh_url.replace("127.0.0.1", "localhost")
    mine = ab.Governor(ledger=moved, outbox=tmp_path / "one")
    assert len(mine.ledger.outbox) == 1  # type: ignore[attr-defined]  # of the guarded ledger
    mine.close()
    with pytest.warns(BudgetWarning, match="Redis prefix other"):
        ab.Governor(ledger=moved, outbox=tmp_path / "two").close()
    (tmp_path / "folder").mkdir()
    left_behind(tmp_path / "three", "a.db")
    file = ab.Governor(ledger=f"sqlite:///{tmp_path}/folder/a.db", outbox=tmp_path / "three")
    assert len(file.ledger.outbox) == 1  # type: ignore[attr-defined]  # as above
    file.close()


def test_what_waits_for_a_ledger_without_a_name_is_for_whoever_opens_the_folder(tmp_path: Path) -> None:
    left_behind(tmp_path, "")
    assert len(Outbox(tmp_path, ledger="a")) == 1


def test_a_file_that_was_emptied_names_its_ledger_again(tmp_path: Path) -> None:
    box = Outbox(tmp_path, ledger="a")
    for name in ("first", "second"):
        box.put(Delivery(id=name))
        if name == "first":
            box.delivered(Delivery(id=name))
    box.close()
    other = Outbox(tmp_path, ledger="b")
    assert not len(other)
    assert other.others == {"a"}


# -- refused when it is named ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ledger", [None, 5, Path("spend.db"), ab.open_ledger])
def test_what_is_no_ledger_is_refused_before_anything_is_paid(ledger: object) -> None:
    with pytest.raises(ConfigurationError, match="a URL such as"):
        ab.Governor(ledger=ledger)  # type: ignore[arg-type]  # what a user may try


@pytest.mark.parametrize("url", ["memory:", "sqlite"])
@pytest.mark.parametrize("outbox", [5, "", "file", "file/within"])
def test_what_cannot_be_a_folder_is_no_outbox(tmp_path: Path, url: str, outbox: object) -> None:
    (tmp_path / "file").write_text("")
    named = tmp_path / outbox if isinstance(outbox, str) and outbox else outbox
    with pytest.raises(ConfigurationError, match="outbox="):
        ab.Governor(ledger=url if url == "memory:" else f"sqlite:///{tmp_path}/a.db", outbox=named)  # type: ignore[arg-type]  # the same


# -- an outage and an event loop ---------------------------------------------------------------------------------------


async def test_on_an_event_loop_a_closed_governor_asks_once_and_again_later(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    remote = Remote(clock)
    guard = failover(remote, tmp_path, clock, [])
    remote.up = False
    for number in range(10):
        with pytest.raises(LedgerUnavailableError, match="connection refused"):
            guard.reserve(f"r{number}", [Posting(TEAM, 1, 10)], lease_seconds=LEASE)
    assert remote.asked == 1
    with pytest.raises(LedgerUnavailableError):  # a thread may wait, and is not refused for an outage that is over
        await asyncio.to_thread(guard.reserve, "thread", [Posting(TEAM, 1, 10)], lease_seconds=LEASE)
    assert remote.asked == 2
    remote.up = True
    clock.advance(FAR)
    guard.reserve("back", [Posting(TEAM, 1, 10)], lease_seconds=LEASE)
    guard.close()
