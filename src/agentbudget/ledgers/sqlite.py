"""The ledger in a SQLite file: durable, exact over threads and processes of one machine.

A verb is one transaction; threads that write at the same time share one (`group_commit`). Answers are given after the
commit. With `synchronous=full` a commit is on the disk when the answer is given.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt, check_alert_at
from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import (
    Granted,
    JournalEntry,
    OnExpire,
    Refused,
    ReservationState,
    Settled,
    Verification,
)
from agentbudget.errors import ConfigurationError, LedgerError, LedgerUnavailableError
from agentbudget.ledgers import plan, sqlite_journal, sqlite_leases, sqlite_schema
from agentbudget.ledgers.group_commit import GroupCommit, Request
from agentbudget.ledgers.keys import account_of
from agentbudget.ledgers.slack import Slack
from agentbudget.ledgers.sqlite_book import Book
from agentbudget.ledgers.sqlite_cache import Cache
from agentbudget.ledgers.sqlite_schema import LATEST, MICROSECONDS, SqliteOptions, code_of, explained

T = TypeVar("T")
Work: TypeAlias = Callable[[Book], Any]

_COLLECTED_AT_ONCE = 500
_FOLD_EVERY = 256
"""Entries between two looks for what is old enough to be folded: less than one look folds, so that it keeps up."""
_LOOK_EVERY = 0.1
"""Seconds between two looks whether the file is still the same."""
_SECONDS_A_DAY = 86_400
_MOST = plan.MAX_AMOUNT


class SqliteLedger:
    """A `Ledger` in one file, for the threads and processes of one machine.

    It may be used before and after a fork: the connection is closed before and opened anew by whoever needs it.
    A verb blocks for one commit, a few more where others write at the same time, at most about `timeout` seconds.

    Args:
        options: the file and how it is kept.
        clock: its wall time is read once, its monotonic time from then on; the machine's own by default.

    Raises:
        ConfigurationError: the file cannot be written, or keeps another `on_expire`.
        LedgerSchemaError: another version wrote it, or it is not a ledger.
    """

    def __init__(self, options: SqliteOptions, clock: Clock | None = None) -> None:
        self._options = options
        self._monotonic = clock.monotonic if clock else time.monotonic
        self._ahead = (clock.now() if clock else time.time()) - self._monotonic()
        """The ledger's time minus the monotonic time, in seconds. It only grows: by entries that lie ahead of it."""
        self._charging = sqlite_schema.prepare(options) is OnExpire.CHARGE
        self._file = sqlite_schema.identity(options.path)
        self._slack = Slack(options.path.with_name(f"{options.path.name}-slack"))
        self._db: sqlite3.Connection | None = None
        self._cache = Cache()
        """Of this connection."""
        self._book: Book | None = None
        """The transaction that the leading thread is in."""
        self._batch: list[Request[Work]] = []
        self._fold_from = 0
        """The entry from which on to look for what is old."""
        self._looked = -_LOOK_EVERY
        self._closed = False
        self._start()
        _open_ledgers.add(self)

    def __repr__(self) -> str:
        return f"SqliteLedger({str(self._options.path)!r})"

    @property
    def path(self) -> Path:
        """The file."""
        return self._options.path

    @property
    def on_expire(self) -> OnExpire:
        """What an expired reservation means, as the file has it."""
        return OnExpire.CHARGE if self._charging else OnExpire.RELEASE

    # -- verbs ---------------------------------------------------------------------------------------------------------

    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        """Take every posting or none; see `Ledger.reserve`."""
        plan.check_id(reservation_id)
        plan.check_lease(lease_seconds)
        if not _ordinary(postings):
            plan.check_postings(postings)
        if self._slack.gone and not self._slack.take():
            raise LedgerUnavailableError(f"ledger {str(self.path)!r}: the disk is full; free some space.")
        lease = _microseconds(lease_seconds)
        return self._run(lambda book: book.reserve(reservation_id, postings, lease))

    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        """Replace the reservation by what was really spent; see `Ledger.settle`."""
        plan.check_id(reservation_id)
        if not _ordinary(charges):
            plan.check_charges(charges)
        if alert_at:
            check_alert_at(alert_at)
        return self._run(lambda book: book.settle(reservation_id, charges, alert_at), vital=True)

    def release(self, reservation_id: str) -> ReservationState:
        """Give the reservation back; see `Ledger.release`."""
        plan.check_id(reservation_id)
        return self._run(lambda book: book.release(reservation_id), vital=True)

    def renew(self, reservation_id: str, *, lease_seconds: float) -> ReservationState:
        """Start the lease anew; see `Ledger.renew`."""
        plan.check_id(reservation_id)
        plan.check_lease(lease_seconds)
        lease = _microseconds(lease_seconds)
        return self._run(lambda book: book.renew(reservation_id, lease), vital=True)

    def top_up(self, grant_id: str, account: Account, amount: int) -> Balance:
        """Add *amount* to the limit, once per *grant_id*; see `Ledger.top_up`."""
        plan.check_id(grant_id, what="grant_id")
        plan.check_amount(amount, what=f"top-up of {account}")
        return self._run(lambda book: book.top_up(grant_id, account, amount))

    def set_limit(self, account: Account, limit: int | None) -> Balance:
        """Pin the limit of *account*; see `Ledger.set_limit`."""
        plan.check_limit(limit)
        return self._run(lambda book: book.set_limit(account, limit))

    # -- readings ------------------------------------------------------------------------------------------------------

    def balance(self, account: Account) -> Balance:
        """The balance now; an unknown account has spent nothing."""
        return self._run(lambda book: book.balance(account))

    def accounts(self) -> Iterator[Account]:
        """Every account with a record, as of this moment."""
        return iter([account_of(key) for key in self._run(Book.keys)])

    def collect(self, accounts: Sequence[Account]) -> int:
        """Forget *accounts* of which nothing is reserved; see `Ledger.collect`.

        Their journal entries are no longer read, and leave the file with the reservations they belong to.
        """
        keys = [account.key for account in accounts]
        parts = [keys[start : start + _COLLECTED_AT_ONCE] for start in range(0, len(keys), _COLLECTED_AT_ONCE)]
        return sum(self._run(partial(Book.collect, keys=part)) for part in parts)

    def journal(self) -> Iterator[JournalEntry]:
        """Every retained entry in order, checkpoints first (sequence 0), as of this moment. Held in memory whole."""
        return iter(self._read(lambda db: list(sqlite_journal.entries(db))))

    def verify(self) -> Verification:
        """Recompute every balance from the journal. Writers are not kept waiting meanwhile."""
        return self._read(sqlite_journal.verify)

    def close(self) -> None:
        """Close the file. Whoever closes it last writes the log back into it. Idempotent."""
        with self._readers, self._writing:
            self._closed = True
            self._disconnect()
        _open_ledgers.discard(self)

    def __del__(self) -> None:
        if getattr(self, "_db", None) is not None:
            self._disconnect()

    # -- writing -------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._readers = threading.RLock()
        self._writing = threading.RLock()
        """Held by who writes, and during a fork."""
        patience = 2 * self._options.timeout + 5
        self._writer: GroupCommit[Work] = GroupCommit(self._commit, self._nested, patience=patience)

    def _run(self, work: Callable[[Book], T], *, vital: bool = False) -> T:
        answer: T = self._writer.run(work, vital=vital)
        return answer

    def _commit(self, batch: list[Request[Work]]) -> None:
        """Write *batch* in one transaction; where that cannot be, each request in one of its own."""
        try:
            with self._writing:
                self._transact(batch)
        except sqlite3.Error as error:
            code = code_of(error)
            if len(batch) > 1 and code not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN}:
                for request in list(batch):
                    self._commit([request])
            elif code == sqlite3.SQLITE_FULL and batch[0].vital and not self._slack.gone:
                self._slack.give_up()
                self._commit(batch)
            else:
                self._fail(batch, error)
        except LedgerError as error:
            for request in batch:
                request.fail(error)

    def _fail(self, batch: list[Request[Work]], error: sqlite3.Error) -> None:
        for request in batch:
            failed = LedgerUnavailableError(explained(error, self.path))
            failed.__cause__ = error
            request.fail(failed)

    def _transact(self, batch: list[Request[Work]]) -> None:
        db = self._connection()
        sqlite_schema.begin(db, timeout=self._options.timeout)
        answers: list[tuple[Request[Work], Any]] = []
        try:
            self._batch = batch
            now = round((self._monotonic() + self._ahead) * MICROSECONDS)
            self._book = book = Book(db, self._cache, now, charging=self._charging)
            self._ahead += (book.now - now) / MICROSECONDS
            for request in tuple(batch):
                try:
                    answers.append((request, request.work(book)))
                except (LedgerError, ValueError) as error:
                    answers.append((request, error))
            if book.has_reserved:  # who only looks forgets nothing: it may have been told to retain less
                self._tidy_sometimes(db, book.now)
            db.execute("COMMIT")
        except BaseException:
            self._cache.forget()
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        finally:
            self._book = None
        for request, answer in answers:
            if isinstance(answer, Exception):
                request.fail(answer)
            else:
                request.answer(answer)

    def _nested(self, request: Request[Work]) -> None:
        """Write in the middle of this thread's own transaction; it is done again if that has to be done again."""
        if self._book is None or self._db is None or not self._db.in_transaction:
            self._commit([request])
            return
        try:
            request.answer(request.work(self._book))
        except (LedgerError, ValueError) as error:
            request.fail(error)
        else:
            self._batch.append(request)

    def _tidy_sometimes(self, db: sqlite3.Connection, now: int) -> None:
        cache = self._cache
        if cache.sequence >= cache.watched + sqlite_leases.WATCH_EVERY:
            sqlite_leases.watch(db, cache)
        if cache.sequence >= self._fold_from:
            self._fold_from = cache.sequence + _FOLD_EVERY
            sqlite_journal.fold(db, now - _microseconds(self._options.retain_days * _SECONDS_A_DAY))
            sqlite_journal.collect_idle(
                db, cache, now - _microseconds(self._options.retain_tasks_days * _SECONDS_A_DAY)
            )

    # -- the file ------------------------------------------------------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        if self._closed:
            raise LedgerUnavailableError(f"ledger {str(self.path)!r} is closed.")
        if self._db is not None and self._monotonic() < self._looked + _LOOK_EVERY:
            return self._db
        self._looked = self._monotonic()
        self._slack.look()
        if sqlite_schema.identity(self.path) != self._file:
            raise LedgerUnavailableError(
                f"ledger {str(self.path)!r} was moved, deleted or replaced while it was open: put the file back, "
                "or start anew to begin with another one."
            )
        if self._db is None:
            self._db = sqlite_schema.connect(self._options, create=False)
        return self._db

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
            self._cache.forget()

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read a snapshot over a connection of its own, so that nobody who writes waits."""
        self._run(_nothing)  # expire what is due
        with self._readers:
            try:
                db = sqlite_schema.connect(self._options, create=False)
                try:
                    db.execute(f"PRAGMA busy_timeout = {round(self._options.timeout * 1000)}")
                    db.execute("BEGIN")
                    return read(db)
                finally:
                    db.close()
            except sqlite3.Error as error:
                raise LedgerUnavailableError(explained(error, self.path)) from error

    # -- fork ----------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Wait for readers and the writer of this process and close the file: no connection may cross a fork."""
        self._readers.acquire()
        self._writing.acquire()
        self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on; the next verb opens the file."""
        self._writing.release()
        self._readers.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: the threads that waited are not here."""
        self._start()


def _ordinary(lines: Sequence[Posting] | Sequence[Charge]) -> bool:
    """Whether nothing is wrong with *lines*; False where it takes a closer look to tell."""
    for _, first, second in lines:
        if type(first) is not int or not 0 <= first <= _MOST:
            return False
        if type(second) is not int or not 0 <= second <= _MOST:
            return False
    return 0 < len(lines) == len({line[0].key for line in lines})


def open_sqlite(path: str, options: Mapping[str, str], clock: Clock | None = None) -> SqliteLedger:
    """The ledger in the file at *path*, with the *options* of its URL.

    Raises:
        ConfigurationError: no path, an option that cannot mean anything, a file that cannot be written.
        LedgerSchemaError: another version wrote the file, or it is not a ledger.
    """
    if not path or path.startswith(":") or "\0" in path:
        raise ConfigurationError(
            f"ledger: sqlite path {path!r}: name a file, e.g. sqlite:///spend.db; a ledger that is gone with the "
            "process is 'memory:'."
        )
    given: dict[str, Any] = dict(options)
    for name in ("timeout", "retain_days", "retain_tasks_days"):
        if name in given:
            given[name] = _number(name, given[name])
    # Absolute, since the file is opened again after a fork and the folder may be another by then.
    return SqliteLedger(SqliteOptions(path=Path(path).absolute(), **given), clock)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigurationError(f"ledger: {name}={text!r} is no number.") from error


def _microseconds(seconds: float) -> int:
    return round(min(seconds, LATEST / MICROSECONDS) * MICROSECONDS)


def _nothing(_: Book) -> None:
    """Work that only lets time pass in the ledger."""


_open_ledgers: weakref.WeakSet[SqliteLedger] = weakref.WeakSet()
"""Those of this process, for forks."""


def _before_fork() -> None:
    _forking.extend(_open_ledgers)
    for ledger in _forking:
        ledger.before_fork()


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork_in_parent()


def _after_fork_in_child() -> None:
    while _forking:
        _forking.pop().after_fork_in_child()


_forking: list[SqliteLedger] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
