"""The file behind the SQLite ledger: opening it, sharing it, its clock, a full disk, old records."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentbudget.domain.accounts import Account, Balance, Charge, Meter, Posting
from agentbudget.domain.ledger import Granted, Settled
from agentbudget.errors import ConfigurationError, LedgerSchemaError, LedgerUnavailableError
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.group_commit import Request
from agentbudget.ledgers.keys import account_of
from agentbudget.ledgers.slack import SLACK_BYTES
from agentbudget.ledgers.sqlite import SqliteLedger
from agentbudget.ledgers.sqlite_book import Book
from agentbudget.ledgers.sqlite_schema import MICROSECONDS, SCHEMA_VERSION
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import HOSTILE, LEASE, TASK, TEAM, account, pay, take
from agentbudget.testing.races import at_once

DAY = 86_400
LEASE_MICROSECONDS = round(LEASE * MICROSECONDS)


def opened(path: Path, options: str = "", clock: FakeClock | None = None) -> SqliteLedger:
    ledger = open_ledger(f"sqlite:///{path}{options}", clock=clock)
    assert isinstance(ledger, SqliteLedger)
    return ledger


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "spend.db"


@pytest.fixture
def ledger(file: Path) -> Iterator[SqliteLedger]:
    ledger = opened(file)
    yield ledger
    ledger.close()


# -- opening -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "name a file"),
        ("sqlite:///", "name a file"),
        ("sqlite:///:memory:", "'memory:'"),
        ("sqlite://host/spend.db", "sqlite:///spend.db"),
        ("sqlite:///spend.db#1", "%23"),
        ("sqlite:///spend.db?sync=full", "unknown option 'sync'"),
        ("sqlite:///spend.db?synchronous=off", "synchronous='off'"),
        ("sqlite:///spend.db?timeout=soon", "timeout='soon'"),
        ("sqlite:///spend.db?timeout=nan", "timeout=nan"),
        ("sqlite:///spend.db?retain_days=0", "retain_days=0.0"),
        ("sqlite:///spend.db?on_expire=keep", "on_expire='keep'"),
        ("sqlite:///%00", "name a file"),
    ],
)
def test_a_url_that_cannot_mean_a_file_says_what_to_write(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        open_ledger(url)


def test_a_missing_folder_is_refused_when_the_ledger_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="folder does not exist"):
        opened(tmp_path / "none" / "spend.db")


def test_a_file_that_is_no_ledger_or_of_another_version_is_refused(tmp_path: Path) -> None:
    text, other, changed = tmp_path / "text", tmp_path / "other.db", tmp_path / "changed.db"
    text.write_text("no database" * 200)
    with pytest.raises(ConfigurationError, match="not a SQLite file"):
        opened(text)
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE account (id)")
    db.close()
    with pytest.raises(LedgerSchemaError, match="no ledger"):
        opened(other)
    opened(changed).close()
    for version in (SCHEMA_VERSION - 1, SCHEMA_VERSION + 1):
        db = sqlite3.connect(changed)
        db.execute(f"PRAGMA user_version = {version}")
        db.close()
        with pytest.raises(LedgerSchemaError, match=f"has schema {version}, .* name a new file"):
            opened(changed)


def test_a_file_that_may_only_be_read_is_refused_when_the_ledger_is_opened(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(file).close()
    connect = sqlite3.connect

    def read_only(name: str, **options: object) -> sqlite3.Connection:
        """As the file would be for a user without the right to write; root may always write."""
        return connect(name.replace("mode=rwc", "mode=ro"), **options)  # type: ignore[call-overload,no-any-return]  # as it came

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        opened(file)


def test_what_expiry_means_is_kept_in_the_file(file: Path) -> None:
    clock = FakeClock()
    opened(file, "?on_expire=release").close()
    with pytest.raises(ConfigurationError, match="was made with on_expire='release'"):
        opened(file, "?on_expire=charge")
    ledger = opened(file, clock=clock)
    take(ledger, "a", (TASK, 4, 10))
    clock.advance(LEASE)
    assert ledger.balance(TASK).committed == 0
    ledger.close()


def test_many_open_a_new_file_at_once(file: Path) -> None:
    ledgers = at_once(8, lambda _: opened(file))
    for number, ledger in enumerate(ledgers):
        assert take(ledger, f"r{number}", (TASK, 1, 8)) == Granted()
    assert ledgers[0].balance(TASK).reserved == 8
    for ledger in ledgers:
        ledger.close()


class Busy(sqlite3.Connection):
    """A file that others have for themselves for a moment, which SQLite says at once however long it is to wait."""

    left = 0

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if "journal_mode" in sql and Busy.left:
            Busy.left -= 1
            busy = sqlite3.OperationalError("database is locked")
            busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise busy
        return super().execute(sql, *args)


def test_a_file_that_others_are_just_opening_or_closing_is_waited_for(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Busy, **options))
    monkeypatch.setattr(Busy, "left", 3)
    opened(file).close()
    monkeypatch.setattr(Busy, "left", 10**6)
    with pytest.raises(ConfigurationError, match="keeps it locked"):
        opened(file, "?timeout=0.001")


def test_a_relative_path_is_the_same_file_after_the_folder_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = open_ledger("sqlite:///spend.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    take(ledger, "a", (TASK, 1, 8))
    assert ledger.verify().entries == 1
    assert (tmp_path / "spend.db").exists()
    ledger.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_key_names_its_account(name: str) -> None:
    one = Account((("task", name), (name, "x")), Meter.COST, name)
    assert account_of(one.key) == one


# -- sharing and losing it ---------------------------------------------------------------------------------------------


def test_everything_is_there_after_it_was_closed_and_opened(file: Path) -> None:
    ledger = opened(file)
    take(ledger, "a", (TASK, 5, 10), (TEAM, 5, 50))
    take(ledger, "b", (TASK, 5, 10))
    pay(ledger, "a", (TASK, 5, 3), (TEAM, 5, 3))
    before = list(ledger.journal())
    ledger.close()
    ledger = opened(file)
    assert list(ledger.journal()) == before
    assert ledger.balance(TASK) == Balance(limit=10, settled=3, reserved=5)
    assert take(ledger, "b", (TASK, 5, 10)) == Granted()
    assert pay(ledger, "a", (TASK, 5, 3), (TEAM, 5, 3)) == Settled("duplicate")
    ledger.close()


def test_a_closed_ledger_is_out_of_reach(ledger: SqliteLedger) -> None:
    ledger.close()
    with pytest.raises(LedgerUnavailableError, match="closed"):
        take(ledger, "a", (TASK, 1, 1))


def test_a_file_locked_by_another_process_is_out_of_reach_after_the_timeout_and_comes_back(file: Path) -> None:
    ledger = opened(file, "?timeout=0.05")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailableError, match="keeps it locked"):
        take(ledger, "a", (TASK, 1, 1))
    other.execute("ROLLBACK")
    assert take(ledger, "a", (TASK, 1, 1)) == Granted()
    other.close()
    ledger.close()


def test_a_replaced_file_grants_nobody_a_fresh_budget(tmp_path: Path, file: Path) -> None:
    clock = FakeClock()
    ledger = opened(file, clock=clock)
    take(ledger, "a", (TASK, 10, 10))
    file.rename(tmp_path / "moved.db")
    clock.advance(1)
    with pytest.raises(LedgerUnavailableError, match="moved, deleted or replaced"):
        take(ledger, "b", (TASK, 10, 10))
    (tmp_path / "moved.db").rename(file)
    clock.advance(1)
    assert ledger.balance(TASK).reserved == 10
    ledger.close()


def test_a_damaged_balance_is_seen_by_verify(file: Path) -> None:
    ledger = opened(file)
    take(ledger, "a", (TASK, 5, 10))
    db = sqlite3.connect(file)
    db.execute("UPDATE account SET settled = 1, reserved = 4")
    db.commit()
    db.close()
    assert [text.split(": ", 1)[1] for text in ledger.verify().differences] == [
        "settled is 1, its records say 0",
        "reserved is 4, its records say 5",
    ]
    ledger.close()


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_wall_clock_that_was_set_back_gives_no_lease_more_time(file: Path) -> None:
    clock = FakeClock()
    ledger = opened(file, clock=clock)
    take(ledger, "a", (TASK, 4, 10))
    ledger.close()
    earlier = FakeClock(clock.now() - DAY)
    ledger = opened(file, clock=earlier)
    earlier.advance(LEASE)
    assert ledger.balance(TASK).presumed == 0, "its time begins with its first write, where the file's time stood"
    earlier.advance(LEASE)
    assert ledger.balance(TASK).presumed == 4
    entries = list(ledger.journal())
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)
    ledger.close()


# -- the disk ----------------------------------------------------------------------------------------------------------


class Disk:
    """Stands in for a full disk: SQLite may have no page more, until the slack is given up."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self.ledger = ledger
        self.gone = False

    def fill(self) -> None:
        self._allow(0)

    def look(self) -> None:
        pass

    def take(self) -> bool:
        return False

    def give_up(self) -> None:
        self.gone = True
        self._allow(200)

    def _allow(self, more: int) -> None:
        assert self.ledger._db is not None
        pages = self.ledger._db.execute("PRAGMA page_count").fetchone()[0]
        self.ledger._db.execute(f"PRAGMA max_page_count = {pages + more}")


def fill(ledger: SqliteLedger) -> int:
    """Reserve until the disk is full; how many reservations there are."""
    for number in range(1, 1_000):
        try:
            take(ledger, f"r{number}", (TASK, 1, None), (TEAM, 1, None))
        except LedgerUnavailableError as error:
            if "disk is full" in str(error):
                return number
            raise
    pytest.fail("the disk was never full")


def test_on_a_full_disk_nothing_is_reserved_and_everything_reserved_is_settled(file: Path) -> None:
    ledger = opened(file)
    take(ledger, "r0", (TASK, 1, None), (TEAM, 1, None))
    disk = Disk(ledger)
    ledger._slack = disk  # type: ignore[assignment]  # stands in for it
    disk.fill()
    granted = fill(ledger)
    assert not disk.gone
    assert ledger.balance(TASK).reserved == ledger.balance(TEAM).reserved == granted
    for number in range(granted):
        assert pay(ledger, f"r{number}", (TASK, 1, 1), (TEAM, 1, 1)) == Settled()
    assert disk.gone
    with pytest.raises(LedgerUnavailableError, match="disk is full"):
        take(ledger, "more", (TASK, 1, None))
    assert ledger.balance(TASK) == ledger.balance(TEAM) == Balance(limit=None, settled=granted)
    assert ledger.verify().differences == ()
    ledger.close()


def test_the_slack_takes_real_space_and_is_taken_back(file: Path) -> None:
    clock = FakeClock()
    ledger = opened(file, clock=clock)
    slack = file.with_name("spend.db-slack")
    assert slack.stat().st_blocks * 512 >= SLACK_BYTES
    slack.unlink()
    clock.advance(1)
    take(ledger, "a", (TASK, 1, 10))
    take(ledger, "b", (TASK, 1, 10))
    assert slack.stat().st_size == SLACK_BYTES
    ledger.close()


# -- old records -------------------------------------------------------------------------------------------------------


def test_records_older_than_retained_are_folded_and_the_balance_still_proves(file: Path) -> None:
    clock = FakeClock()
    ledger = opened(file, "?retain_days=1&synchronous=normal", clock=clock)
    ledger.top_up("g", TASK, 5)
    ledger.reserve("live", [Posting(TASK, 7, 10_000)], lease_seconds=30 * DAY)
    for n in range(120):
        take(ledger, f"r{n}", (TASK, 5, 10_000), (TEAM, 5, None), (account(f"x{n}"), 5, None))
        if n % 4 == 0:
            clock.advance(LEASE)
        if n % 4 == 1:
            ledger.release(f"r{n}")
        elif n % 8:
            pay(ledger, f"r{n}", (TASK, 5, 4 + n % 3), (TEAM, 5, 4), (account(f"x{n}"), 5, 4))
        ledger.collect([account(f"x{n}")])
    before, team = ledger.balance(TASK), ledger.balance(TEAM)
    long = len(list(ledger.journal()))
    clock.advance(2 * DAY)
    ledger.renew("r0", lease_seconds=1)
    for _ in range(600):
        ledger.balance(TASK)
    assert len(list(ledger.journal())) == long, "who only looks forgets nothing"
    for n in range(600):
        take(ledger, f"later-{n}", (account("later"), 1, None))
    old = [entry for entry in ledger.journal() if entry.sequence and entry.at < clock.now() - DAY]
    assert len(old) < long / 5
    after = ledger.balance(TASK)
    assert (after.committed, after.settled, after.overrun) == (before.committed, before.settled, before.overrun)
    assert ledger.balance(TEAM) == team
    assert ledger.verify().differences == ()
    assert pay(ledger, "r2", (TASK, 5, 6), (TEAM, 5, 4)) == Settled("lost"), "forgotten ids are not deduplicated"
    assert pay(ledger, "live", (TASK, 7, 7)) == Settled(), "what is live is never folded"
    assert ledger.verify().differences == ()
    ledger.close()


def test_what_many_callers_wrote_in_shared_commits_is_folded_as_fast_as_it_comes(file: Path) -> None:
    clock = FakeClock()
    ledger = opened(file, "?retain_days=1&synchronous=normal", clock=clock)
    verbs: list[Callable[..., object]] = [
        partial(Book.reserve, postings=[Posting(TEAM, 5, None)], lease=LEASE_MICROSECONDS),
        partial(Book.settle, charges=[Charge(TEAM, 5, 4)]),
    ]
    for day in range(3):
        for group in range(20):
            for verb in verbs:
                ledger._commit([Request(partial(verb, reservation_id=f"{day}-{group}-{n}")) for n in range(64)])
        clock.advance(2 * DAY)
    entries = [entry for entry in ledger.journal() if entry.sequence]
    assert len(entries) < 1.2 * 20 * 64 * 2, "those of one day, and a few that were not looked at yet"
    assert ledger.balance(TEAM).settled == 3 * 20 * 64 * 4
    assert ledger.verify().ok
    ledger.close()


def test_a_settlement_finds_the_account_it_reserved_not_one_made_anew_under_its_name(ledger: SqliteLedger) -> None:
    take(ledger, "first", (TEAM, 1, None))
    ledger.release("first")
    ledger.reserve("old", [Posting(TASK, 5, 10), Posting(TEAM, 5, None)], lease_seconds=0.000001)
    assert ledger.balance(TASK).presumed == 5
    assert ledger.collect([TASK]) == 1
    take(ledger, "new", (TASK, 5, 10))
    assert pay(ledger, "old", (TASK, 5, 4), (TEAM, 5, 4)) == Settled("late")
    assert ledger.balance(TASK) == Balance(limit=10, reserved=5)
    assert ledger.balance(TEAM) == Balance(limit=None, settled=4)


# -- the writer --------------------------------------------------------------------------------------------------------


def test_a_verb_inside_a_verb_does_not_deadlock(ledger: SqliteLedger) -> None:
    take(ledger, "stream", (TASK, 5, 10))

    class Abandoned(list[Posting]):
        def __iter__(self) -> Iterator[Posting]:
            if ledger._book is not None:
                pay(ledger, "stream", (TASK, 5, 1))  # as the finaliser of a stream would, wherever it is collected
            return super().__iter__()

    assert ledger.reserve("b", Abandoned([Posting(TASK, 5, 10)]), lease_seconds=LEASE) == Granted()
    assert ledger.balance(TASK) == Balance(limit=10, settled=1, reserved=5)
    assert ledger.verify().ok


def test_an_error_of_one_caller_is_no_error_of_the_others_in_its_group(ledger: SqliteLedger) -> None:
    take(ledger, "known", (TASK, 5, None))

    def call(number: int) -> object:
        if number % 4:
            return take(ledger, f"r{number}", (TASK, 1, None))
        with pytest.raises(Exception, match="other accounts or amounts"):
            pay(ledger, "known", (TASK, 6, 1))
        return Granted()

    assert set(at_once(24, call)) == {Granted()}
    assert ledger.balance(TASK).reserved == 5 + 18


def test_equal_terms_in_other_objects_are_settled(ledger: SqliteLedger) -> None:
    fresh = Account((("task", "t1"),), Meter.COST)
    take(ledger, "a", (TASK, 10, 10), (TEAM, 10, None))
    charges = [Charge(TEAM, 10, 4), Charge(fresh, 10, 4)]
    assert ledger.settle("a", charges) == Settled()
