"""Results in a SQLite file, which the processes of one machine share and which outlives them."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from agentbudget.errors import ConfigurationError
from agentbudget.retries.results import Change, Row, State

_APPLICATION_ID = 0x41425252
"""Marks the file as one of results ("ABRR")."""
_BUSY_SECONDS = 30.0
_TABLE = """
CREATE TABLE IF NOT EXISTS result (
    key TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    at REAL NOT NULL,
    owner TEXT NOT NULL,
    until REAL NOT NULL,
    payload BLOB NOT NULL,
    note TEXT NOT NULL
) STRICT
"""


class SqliteResults:
    """One connection a process, guarded by a lock; a write survives a loss of power before the call is made.

    Raises:
        ConfigurationError: the file cannot be used, or holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._lock = threading.Lock()
        self._connection: tuple[int, sqlite3.Connection] | None = None
        with self._opened():
            pass

    def change(self, key: str, change: Change) -> None:
        """See `ResultStore`."""
        with self._opened() as db, _writing(db):
            found = db.execute("SELECT state, at, owner, until, payload, note FROM result WHERE key = ?", (key,))
            row = change(next(map(_row, found), None))
            if row is None:
                db.execute("DELETE FROM result WHERE key = ?", (key,))
            else:
                values = (key, row.state.value, row.at, row.owner, row.until, row.payload, row.note)
                db.execute("INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def rows(self, state: State) -> Mapping[str, Row]:
        """See `ResultStore`."""
        with self._opened() as db:
            found = db.execute(
                "SELECT state, at, owner, until, payload, note, key FROM result WHERE state = ? ORDER BY at",
                (state.value,),
            )
            return {line[-1]: _row(line[:-1]) for line in found.fetchall()}

    def prune(self, before: float) -> int:
        """See `ResultStore`."""
        with self._opened() as db:
            return db.execute("DELETE FROM result WHERE state = 'done' AND at < ?", (before,)).rowcount

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._connection[0] == os.getpid():
                self._connection[1].close()
            self._connection = None

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._connection is None or self._connection[0] != os.getpid():  # a fork must not share it
                self._connection = (os.getpid(), self._open())
            yield self._connection[1]

    def _open(self) -> sqlite3.Connection:
        try:
            db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise ConfigurationError(f"results: {self._path!r} cannot be used: {error}") from error
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        try:
            mark = db.execute("PRAGMA application_id").fetchone()[0]
            tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if mark != _APPLICATION_ID and (mark or tables):
                raise ConfigurationError(f"results: {self._path!r} holds something else; name a file of its own.")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(_TABLE)
        except sqlite3.Error as error:
            raise ConfigurationError(f"results: {self._path!r} cannot be used: {error}") from error


@contextmanager
def _writing(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _row(line: tuple[str, float, str, float, bytes, str]) -> Row:
    state, at, owner, until, payload, note = line
    return Row(state=State(state), at=at, owner=owner, until=until, payload=payload, note=note)
