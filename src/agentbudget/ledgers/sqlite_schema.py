"""The file of the SQLite ledger: its tables, its connection, and whether it can be used at all."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agentbudget.domain.ledger import OnExpire
from agentbudget.errors import ConfigurationError, LedgerSchemaError

T = TypeVar("T")

SCHEMA_VERSION = 3
APPLICATION_ID = 0x41425544
"""Marks a SQLite file as a ledger of this project ("ABUD")."""
MICROSECONDS = 1_000_000
LATEST = 2**62
"""A deadline no clock reaches."""
PAGE_BYTES = 1024
"""A commit writes whole pages, about three; small ones are quicker to sum up and to write."""
LOG_PAGES = 4096
"""Pages in the write-ahead log at which it is written back into the file."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.0001, 0.0005
"""Seconds between two tries while another process writes. SQLite's own handler waits up to 100 ms, for writes of
about 0.5 ms, and whoever waits longer than the others is passed over again and again."""

# `account.id` is never used again: the journal knows accounts by id, so that one which was collected and made anew is
# another account. Times are microseconds of the ledger's clock.
#
# The journal is all there is to know of a reservation: its entries are those with its `id`, counted by `step`, and the
# last of them says in which state it is. `keys` is a digest of the keys of the lines; `terms`, in a settlement that
# found no reservation, what it said was reserved; `deadline` the end of the first lease. An entry is never changed.
TABLES = """
CREATE TABLE setting (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO setting VALUES ('watched', 0);
CREATE TABLE account (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    declared INTEGER CHECK (declared >= 0),
    pin INTEGER CHECK (pin >= -1),
    granted INTEGER NOT NULL DEFAULT 0 CHECK (granted >= 0),
    cut INTEGER NOT NULL DEFAULT 0 CHECK (cut >= 0),
    reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    settled INTEGER NOT NULL DEFAULT 0 CHECK (settled >= 0),
    presumed INTEGER NOT NULL DEFAULT 0 CHECK (presumed >= 0),
    overrun INTEGER NOT NULL DEFAULT 0 CHECK (overrun >= 0),
    base_settled INTEGER NOT NULL DEFAULT 0,
    base_presumed INTEGER NOT NULL DEFAULT 0,
    base_overrun INTEGER NOT NULL DEFAULT 0,
    raised INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE journal (
    sequence INTEGER PRIMARY KEY,
    verb TEXT NOT NULL,
    id TEXT NOT NULL,
    step INTEGER,
    lines TEXT NOT NULL,
    at INTEGER NOT NULL,
    deadline INTEGER,
    keys BLOB,
    terms BLOB,
    UNIQUE (id, step)
) STRICT;
CREATE TABLE lease (sequence INTEGER PRIMARY KEY, deadline INTEGER NOT NULL) STRICT;
CREATE INDEX lease_deadline ON lease (deadline);
CREATE TABLE topup (
    id TEXT PRIMARY KEY,
    account INTEGER NOT NULL,
    amount INTEGER NOT NULL CHECK (amount >= 0)
) STRICT, WITHOUT ROWID;
CREATE TABLE crossing (
    reservation TEXT NOT NULL,
    place INTEGER NOT NULL,
    key TEXT NOT NULL,
    threshold INTEGER NOT NULL,
    most INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (reservation, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE idle (account INTEGER PRIMARY KEY, since INTEGER NOT NULL) STRICT;
CREATE INDEX idle_since ON idle (since);
"""

_KNOWN_CODES = {
    sqlite3.SQLITE_CANTOPEN: "the folder does not exist or may not be used; create it, or name another file",
    sqlite3.SQLITE_READONLY: "it cannot be written; allow writing to the file and its folder, or name another file",
    sqlite3.SQLITE_PERM: "it cannot be written; allow writing to the file and its folder, or name another file",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite file; name another file",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup, or name another file",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; end that process, or wait longer with ?timeout=",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteOptions:
    """What a `sqlite:` URL says.

    Raises:
        ConfigurationError: a value that cannot mean anything.
    """

    path: Path
    synchronous: str = "full"
    """`"full"`: an answer survives a loss of power; `"normal"`: it survives the end of every process."""
    on_expire: str = ""
    """`"charge"` or `"release"`; empty: what the file says, and `"charge"` in a new file."""
    timeout: float = 5.0
    """Seconds to wait for other processes."""
    retain_days: float = 30.0
    """Days for which resolved reservations keep their id and their journal entries."""
    retain_tasks_days: float = 30.0
    """Days after which accounts of tasks, minutes and hours that nobody used meanwhile are collected; at least 1."""

    def __post_init__(self) -> None:
        if self.synchronous not in {"full", "normal"}:
            raise ConfigurationError(f"ledger: synchronous={self.synchronous!r}: 'full' or 'normal'.")
        if self.on_expire and self.on_expire not in set(OnExpire):
            raise ConfigurationError(f"ledger: on_expire={self.on_expire!r}: one of {', '.join(OnExpire)}.")
        for name, value, most in (("timeout", self.timeout, 3_600), ("retain_days", self.retain_days, 36_500)):
            if not 0 < value <= most:
                raise ConfigurationError(f"ledger: {name}={value!r}: a number above 0, at most {most}.")
        if not 1 <= self.retain_tasks_days <= 36_500:  # noqa: PLR2004 - a hundred years
            raise ConfigurationError(f"ledger: retain_tasks_days={self.retain_tasks_days!r}: a number from 1 to 36500.")


def code_of(error: sqlite3.Error) -> int:
    """The primary result code; 0 where SQLite gave none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def explained(error: sqlite3.Error, path: Path) -> str:
    """What went wrong with the file at *path*, and what to do."""
    return f"ledger {str(path)!r}: {_KNOWN_CODES.get(code_of(error), f'SQLite says {error}')}."


def patiently(act: Callable[..., T], *args: object, timeout: float) -> T:
    """What *act* returns, tried for at most *timeout* seconds while other processes are in its way.

    Raises:
        sqlite3.OperationalError: they still are, or the file is out of reach.
    """
    give_up, pause = 0.0, SHORTEST_PAUSE
    while True:
        try:
            return act(*args)
        except sqlite3.OperationalError as error:
            now = time.monotonic()
            give_up = give_up or now + timeout
            if code_of(error) != sqlite3.SQLITE_BUSY or now >= give_up:
                raise
        time.sleep(pause * (0.5 + random.random()))  # noqa: S311 - so that waiting processes do not march in step
        pause = min(2 * pause, LONGEST_PAUSE)


def begin(db: sqlite3.Connection, *, timeout: float) -> None:
    """Start a write transaction, waiting at most *timeout* seconds for other processes to end theirs.

    Raises:
        sqlite3.OperationalError: they did not, or the file is out of reach.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        patiently(db.execute, "BEGIN IMMEDIATE", timeout=timeout)


def connect(options: SqliteOptions, *, create: bool = True) -> sqlite3.Connection:
    """A connection to the file; with *create* it may be made.

    Raises:
        sqlite3.Error: the file is out of reach.
        LedgerSchemaError: another version wrote it, or it is not a ledger.
        ConfigurationError: its file system knows no write-ahead log.
    """
    # Whoever opens the file first or closes it last has it alone for a moment, and SQLite does not wait for that.
    return patiently(_connect, options, create, timeout=options.timeout)


def _connect(options: SqliteOptions, create: bool) -> sqlite3.Connection:  # noqa: FBT001 - as `patiently` hands it on
    uri = f"{options.path.as_uri()}?mode={'rwc' if create else 'rw'}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=0)
    try:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file
        _check_log(db.execute("PRAGMA journal_mode = WAL").fetchone()[0], options)
        db.execute(f"PRAGMA synchronous = {options.synchronous.upper()}")
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        _check_schema(db, options)
    except BaseException:
        db.close()
        raise
    return db


def prepare(options: SqliteOptions) -> OnExpire:
    """Make the file where it is new, write to it for a test, and return what an expired reservation means in it.

    Raises:
        ConfigurationError: the file cannot be written, or keeps another `on_expire`.
        LedgerSchemaError: another version wrote it, or it is not a ledger.
    """
    try:
        db = connect(options)
        try:
            return _probe(db, options)
        finally:
            db.close()
    except sqlite3.Error as error:
        raise ConfigurationError(explained(error, options.path)) from error


def identity(path: Path) -> tuple[int, int]:
    """Which file *path* names now; `(0, 0)` where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - called at every write; a Path's own costs twice as much
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _check_log(mode: str, options: SqliteOptions) -> None:
    if mode != "wal":
        raise ConfigurationError(
            f"ledger {str(options.path)!r}: no write-ahead log here (journal mode {mode!r}). "
            "Put the file on a local disk; several machines share a ledger through a server."
        )


def _probe(db: sqlite3.Connection, options: SqliteOptions) -> OnExpire:
    """A real write: on a file that may only be read, `BEGIN IMMEDIATE` alone succeeds."""
    begin(db, timeout=options.timeout)
    try:
        db.execute(
            "INSERT INTO setting VALUES ('on_expire', ?) ON CONFLICT (name) DO UPDATE SET value = value",
            (options.on_expire or OnExpire.CHARGE.value,),
        )
        kept = db.execute("SELECT value FROM setting WHERE name = 'on_expire'").fetchone()[0]
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
    if options.on_expire and options.on_expire != kept:
        raise ConfigurationError(
            f"ledger {str(options.path)!r} was made with on_expire={kept!r}, not {options.on_expire!r}: "
            "leave the option out, or name another file."
        )
    return OnExpire(kept)


def _check_schema(db: sqlite3.Connection, options: SqliteOptions) -> None:
    db.execute("BEGIN")  # one snapshot: another process may be making the tables
    try:
        made = _is_made(db, options)
    finally:
        db.execute("COMMIT")
    if made:
        return
    begin(db, timeout=options.timeout)
    try:
        if not _is_made(db, options):  # asked anew: another process may have done it meanwhile
            for statement in TABLES.split(";")[:-1]:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _is_made(db: sqlite3.Connection, options: SqliteOptions) -> bool:
    """Whether the file has the tables; False for one without any."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    mark = db.execute("PRAGMA application_id").fetchone()[0]
    empty = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if empty and not version and not mark:
        return False
    if mark != APPLICATION_ID:
        raise LedgerSchemaError(f"ledger {str(options.path)!r} is a SQLite file, but no ledger; name another file.")
    if version != SCHEMA_VERSION:
        raise LedgerSchemaError(
            f"ledger {str(options.path)!r} has schema {version}, this version of agentbudget reads {SCHEMA_VERSION}: "
            "use the version that wrote it, or name a new file."
        )
    return True
