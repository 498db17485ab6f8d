"""What a SQLite ledger remembers from one transaction to the next is what the file says, whoever else writes to it."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from agentbudget.domain.accounts import Balance, Charge, Posting
from agentbudget.domain.ledger import Granted, Ledger, Refused, ReservationState, Settled, Verification
from agentbudget.errors import LedgerUnavailableError, ReservationConflictError
from agentbudget.ledgers import open_ledger, sqlite_cache
from agentbudget.ledgers.sqlite import SqliteLedger
from agentbudget.ledgers.sqlite_book import Book
from agentbudget.ledgers.sqlite_cache import Cache, Row
from agentbudget.ledgers.sqlite_leases import LIVE, LOOK_AHEAD, WATCH_EVERY
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import LEASE, TASK, TEAM, account, pay, take
from agentbudget.testing.ledger_machine import ledger_machine

FOLDER = TemporaryDirectory()
FILES = itertools.count()


def opened(path: Path, clock: FakeClock | None = None, options: str = "") -> SqliteLedger:
    ledger = open_ledger(f"sqlite:///{path}?synchronous=normal{options}", clock=clock)
    assert isinstance(ledger, SqliteLedger)
    return ledger


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "spend.db"


@pytest.fixture
def ours(file: Path, clock: FakeClock) -> Iterator[SqliteLedger]:
    ledger = opened(file, clock)
    yield ledger
    ledger.close()


@pytest.fixture
def theirs(file: Path, clock: FakeClock) -> Iterator[SqliteLedger]:
    """Another connection to the same file, as another process has one."""
    ledger = opened(file, clock)
    yield ledger
    ledger.close()


def columns(row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in sorted(Row.__slots__))


def wrongly_remembered(ledger: SqliteLedger) -> tuple[str, ...]:
    """What the ledger would take for granted in its next transaction and the file does not say."""

    def compared(book: Book) -> list[str]:
        known, db, fresh = book._cache, book._db, Cache()
        fresh.look(db)
        wrong = [key for key, row in known.accounts.items() if columns(row) != columns(fresh.rows(db, [key])[0])]
        wrong += [one for one, found in known.live.items() if found != fresh.find(db, one)]
        first_to_end = db.execute(
            "SELECT coalesce(min(coalesce(lease.deadline, journal.deadline)), 0) "
            f"FROM journal LEFT JOIN lease USING (sequence) WHERE {LIVE}"
        ).fetchone()[0]
        facts = {
            "accounts by id": {row.id: row for row in known.accounts.values()} == known.stored,
            "the end of the journal": known.sequence >= fresh.sequence,  # a retry leaves a number out
            "the next lease": not first_to_end or known.earliest <= first_to_end,
        }
        return wrong + [what for what, holds in facts.items() if not holds]

    return tuple(ledger._run(compared))


class Alternating:
    """One ledger made of two connections to one file, which take turns in a pattern that leaves none alone for long."""

    def __init__(self, clock: FakeClock, on_expire: str) -> None:
        path = Path(FOLDER.name) / f"{next(FILES)}.db"
        self.both = [opened(path, clock, f"&on_expire={on_expire}") for _ in range(2)]
        self.turns = itertools.cycle([0, 0, 1, 0, 1, 1, 1])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.both[next(self.turns)], name)

    def verify(self) -> Verification:
        found = self.both[0].verify()
        wrong = tuple(text for ledger in self.both for text in wrongly_remembered(ledger))
        return Verification(found.accounts, found.entries, found.differences + wrong)

    def close(self) -> None:
        for ledger in self.both:
            ledger.close()


def alternating(clock: FakeClock, on_expire: str) -> Ledger:
    return Alternating(clock, on_expire)


TestTwoConnectionsInTurn = ledger_machine(alternating).TestCase
TestTwoConnectionsInTurn.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


# -- what others write -------------------------------------------------------------------------------------------------


def test_what_another_connection_reserved_counts_at_once(ours: SqliteLedger, theirs: SqliteLedger) -> None:
    assert take(ours, "a", (TASK, 4, 10)) == Granted()
    assert take(theirs, "b", (TASK, 5, 10)) == Granted()
    assert isinstance(take(ours, "c", (TASK, 2, 10)), Refused)
    assert take(ours, "c", (TASK, 1, 10)) == Granted()
    assert ours.balance(TASK) == theirs.balance(TASK) == Balance(limit=10, reserved=10)


def test_what_another_connection_settled_is_not_settled_again(ours: SqliteLedger, theirs: SqliteLedger) -> None:
    take(ours, "a", (TASK, 4, 10), (TEAM, 4, None))
    assert pay(theirs, "a", (TASK, 4, 3), (TEAM, 4, 3)) == Settled()
    assert pay(ours, "a", (TASK, 4, 3), (TEAM, 4, 3)) == Settled("duplicate")
    with pytest.raises(ReservationConflictError, match="another amount"):
        pay(ours, "a", (TASK, 4, 2), (TEAM, 4, 2))
    assert ours.release("a") is ReservationState.SETTLED
    assert ours.balance(TEAM) == Balance(limit=None, settled=3)


def test_a_limit_that_another_connection_pinned_holds_at_once(ours: SqliteLedger, theirs: SqliteLedger) -> None:
    take(ours, "a", (TASK, 4, 10))
    theirs.set_limit(TASK, 5)
    assert isinstance(take(ours, "b", (TASK, 2, 10)), Refused)
    theirs.top_up("g", TASK, 1)
    assert take(ours, "b", (TASK, 2, 10)) == Granted()


def test_an_account_that_another_connection_collected_and_made_anew_is_another_one(
    ours: SqliteLedger, theirs: SqliteLedger
) -> None:
    take(ours, "a", (TASK, 4, 10))
    pay(ours, "a", (TASK, 4, 4))
    theirs.collect([TASK])
    take(theirs, "b", (TASK, 7, 10))
    assert isinstance(take(ours, "c", (TASK, 4, 10)), Refused)
    assert take(ours, "c", (TASK, 3, 10)) == Granted()
    assert ours.balance(TASK) == Balance(limit=10, reserved=10)
    assert ours.verify().ok


def test_a_lease_that_another_connection_cut_short_ends_here(
    ours: SqliteLedger, theirs: SqliteLedger, clock: FakeClock
) -> None:
    ours.reserve("a", [Posting(TASK, 4, 10)], lease_seconds=1_000)
    theirs.renew("a", lease_seconds=10)
    clock.advance(10)
    assert ours.balance(TASK).presumed == 4


# -- what is undone ----------------------------------------------------------------------------------------------------


class Failing(sqlite3.Connection):
    """A connection whose next statements of one kind fail, as on a disk that gives up."""

    words = ""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if Failing.words and Failing.words in sql:
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *args)

    def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if Failing.words and Failing.words in sql:
            raise sqlite3.OperationalError("disk I/O error")
        return super().executemany(sql, *args)


@pytest.mark.parametrize("words", ["COMMIT", "UPDATE account", "INSERT INTO journal", "INSERT INTO account"])
def test_what_was_not_committed_is_not_remembered(
    file: Path, clock: FakeClock, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Failing, **options))
    ledger = opened(file, clock)
    take(ledger, "a", (TASK, 4, 10))
    monkeypatch.setattr(Failing, "words", words)
    with pytest.raises(LedgerUnavailableError):
        take(ledger, "b", (TASK, 4, 10), (account("new"), 4, 10))
    if words != "INSERT INTO account":
        with pytest.raises(LedgerUnavailableError):
            pay(ledger, "a", (TASK, 4, 3))
    monkeypatch.setattr(Failing, "words", "")
    assert wrongly_remembered(ledger) == ()
    assert ledger.balance(TASK) == Balance(limit=10, reserved=4)
    assert list(ledger.accounts()) == [TASK]
    assert take(ledger, "b", (TASK, 4, 10), (account("new"), 4, 10)) == Granted()
    assert pay(ledger, "a", (TASK, 4, 3)) == Settled()
    assert ledger.verify().ok
    ledger.close()


class Interrupted(sqlite3.Connection):
    """A connection in which something else happens right after a commit, as a finaliser or signal handler would."""

    then: Callable[[], object] | None = None

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        done = super().execute(sql, *args)
        if sql == "COMMIT" and Interrupted.then is not None:
            then, Interrupted.then = Interrupted.then, None
            then()
        return done


def test_a_verb_that_comes_right_after_a_commit_has_a_transaction_of_its_own(
    file: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Interrupted, **options))
    ledger = opened(file, clock)
    take(ledger, "stream", (TASK, 4, 10))
    assert ledger._db is not None
    told: list[str] = []
    ledger._db.set_trace_callback(told.append)
    Interrupted.then = lambda: pay(ledger, "stream", (TASK, 4, 3))
    take(ledger, "b", (TASK, 2, 10))
    ledger._db.set_trace_callback(None)
    assert [one for one in told if one in {"BEGIN IMMEDIATE", "COMMIT"}] == ["BEGIN IMMEDIATE", "COMMIT"] * 2
    assert wrongly_remembered(ledger) == ()
    assert ledger.balance(TASK) == Balance(limit=10, settled=3, reserved=2)
    assert ledger.verify().ok
    ledger.close()


def test_a_ledger_that_remembers_too_much_forgets_it_and_answers_the_same(
    ours: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_cache, "MOST_REMEMBERED", 6)
    for number in range(40):
        assert take(ours, f"r{number}", (account(f"t{number}"), 1, 1), (TEAM, 1, 40)) == Granted()
        assert len(ours._cache.stored) + len(ours._cache.live) <= 6 + 3
    assert isinstance(take(ours, "more", (TEAM, 1, 40)), Refused)
    for number in range(40):
        assert pay(ours, f"r{number}", (account(f"t{number}"), 1, 1), (TEAM, 1, 1)) == Settled()
    assert ours.balance(TEAM) == Balance(limit=40, settled=40)
    assert ours.verify().ok


# -- leases ------------------------------------------------------------------------------------------------------------


def test_each_of_many_leases_ends_at_its_time_however_many_entries_came_after_it(
    ours: SqliteLedger, clock: FakeClock
) -> None:
    late = 3 * WATCH_EVERY
    for number in range(late):
        ours.reserve(f"r{number}", [Posting(TASK, 1, None)], lease_seconds=100 + number)
        ours.reserve(f"s{number}", [Posting(TEAM, 1, None)], lease_seconds=100 + number)
        pay(ours, f"s{number}", (TEAM, 1, 1))
    assert ours._cache.watched > 0
    clock.advance(99.5)
    for number in range(late):
        assert ours.balance(TASK).presumed == number
        clock.advance(1)
    assert ours.balance(TASK) == Balance(limit=None, presumed=late)
    assert ours.verify().ok


def test_leases_of_what_was_settled_in_time_are_cleared_away_many_at_once(ours: SqliteLedger, clock: FakeClock) -> None:
    number = LOOK_AHEAD + 2 * WATCH_EVERY
    for one in range(number):
        ours.reserve(f"r{one}", [Posting(TASK, 1, None)], lease_seconds=100 + one)
    for one in range(number):
        pay(ours, f"r{one}", (TASK, 1, 1))
    ours.reserve("long", [Posting(TEAM, 1, None)], lease_seconds=10_000)
    clock.advance(100)
    ours.balance(TASK)
    assert ours._db is not None
    left = ours._db.execute("SELECT count(*) FROM lease").fetchone()[0]
    assert left <= number - LOOK_AHEAD + 2
    clock.advance(5_000)
    ours.balance(TASK)
    assert ours._db.execute("SELECT count(*) FROM lease").fetchone()[0] == 1
    assert ours.balance(TASK) == Balance(limit=None, settled=number)
    clock.advance(5_000)
    assert ours.balance(TEAM).presumed == 1


def test_a_live_reservation_whose_lease_nobody_watches_is_seen_by_verify(ours: SqliteLedger, file: Path) -> None:
    for number in range(WATCH_EVERY + 1):
        take(ours, f"r{number}", (TASK, 1, None))
    assert ours.verify().ok
    db = sqlite3.connect(file)
    db.execute("DELETE FROM lease WHERE sequence = 7")
    db.commit()
    db.close()
    assert ours.verify().differences == ("reservation 'r6': it is live, but nobody watches its lease",)


# -- the journal -------------------------------------------------------------------------------------------------------


def test_entries_are_added_and_never_changed(
    ours: SqliteLedger, theirs: SqliteLedger, clock: FakeClock, file: Path
) -> None:
    def entries() -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(file)) as db:
            return db.execute("SELECT * FROM journal ORDER BY sequence").fetchall()

    steps: Sequence[Callable[[], object]] = (
        lambda: take(ours, "a", (TASK, 4, 10), (TEAM, 4, None)),
        lambda: take(ours, "b", (TASK, 2, 10)),
        lambda: take(theirs, "c", (TASK, 3, 10)),
        lambda: ours.renew("b", lease_seconds=LEASE / 2),
        lambda: pay(ours, "a", (TASK, 4, 5), (TEAM, 4, 0)),
        lambda: theirs.set_limit(TASK, 50),
        lambda: clock.advance(LEASE / 2),
        lambda: pay(theirs, "b", (TASK, 2, 1)),
        lambda: ours.release("c"),
        lambda: ours.release("unknown"),
        lambda: pay(ours, "c", (TASK, 3, 3)),
        lambda: pay(theirs, "lost", (TASK, 1, 1)),
    )
    before = entries()
    for step in steps:
        step()
        now = entries()
        assert now[: len(before)] == before
        before = now
    assert [(entry[1], entry[2]) for entry in before] == [
        ("reserve", "a"),
        ("reserve", "b"),
        ("reserve", "c"),
        ("settle", "a"),
        ("limit", ""),
        ("cut", ""),
        ("expire", "b"),
        ("settle", "b"),
        ("release", "c"),
        ("release", "unknown"),
        ("settle", "c"),
        ("settle", "lost"),
    ]


def test_the_same_terms_are_known_again_in_another_order_and_with_lines_of_nothing(
    ours: SqliteLedger, theirs: SqliteLedger
) -> None:
    take(ours, "a", (TEAM, 4, None), (TASK, 5, None))
    nothing = account("nothing")
    assert take(theirs, "a", (TASK, 5, None), (nothing, 0, None), (TEAM, 4, None)) == Granted()
    charges = [Charge(TASK, 5, 0), Charge(TEAM, 4, 7), Charge(nothing, 0, 2)]
    assert theirs.settle("a", charges) == Settled()
    assert ours.settle("a", charges[::-1]) == Settled("duplicate")
    assert theirs.settle("a", [*charges, Charge(account("more"), 0, 0)]) == Settled("duplicate")
    for other in (charges[:2], [*charges[:2], Charge(account("else"), 0, 2)], [Charge(TASK, 5, 1), *charges[1:]]):
        with pytest.raises(ReservationConflictError, match="another amount"):
            ours.settle("a", other)
    with pytest.raises(ReservationConflictError, match="other accounts or amounts"):
        ours.settle("a", [Charge(TASK, 4, 0), *charges[1:]])
