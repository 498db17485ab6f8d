"""What was taken from each trace file already, so that a file which grew gives only what is new, and each call once."""

from __future__ import annotations

import gzip
import hashlib
import sqlite3
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from agentbudget.errors import TraceError
from agentbudget.finops.flatten import Flattener, Row
from agentbudget.trace.files import OnProblem, Problem, read_batches

_SAMPLE = 4096
"""Bytes of a file's beginning that tell it from others."""
_UNREAD = -1
"""Bytes of a file that was not read to its end: no file has so many."""
_GZIP = b"\x1f\x8b"
_TABLES = (
    "CREATE TABLE IF NOT EXISTS files (fingerprint TEXT PRIMARY KEY, path TEXT, bytes INTEGER, calls INTEGER)",
    "CREATE TABLE IF NOT EXISTS shared (call TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (call, at))",
)


class Intake:
    """The calls of trace files, each once: across runs, copies of files, and files of several root tasks.

    Its memory is in *book*, in the transaction that the caller has open there: what is rolled back was not taken.
    """

    def __init__(self, book: sqlite3.Connection) -> None:
        self._book = book
        for table in _TABLES:
            book.execute(table)

    def take(self, file: Path, add: Callable[[Row], None], on_problem: OnProblem) -> Flattener | None:
        """Give the new calls of *file* to *add*; the state behind them, or None where there is nothing new."""
        try:
            fingerprint, size = _fingerprint(file), file.stat().st_size
        except (OSError, EOFError, zlib.error) as refusal:  # taken away, or cut off, while this run is at work
            on_problem(Problem(str(file), 0, f"cannot be read ({refusal})"))
            return None
        known = self._book.execute(
            "SELECT bytes, calls, path FROM files WHERE fingerprint = ?", (fingerprint,)
        ).fetchone()
        if known is not None and known[0] == size and known[2] == str(file):
            return None
        flat, seen = Flattener(), 0
        skip = known[1] if known is not None else 0  # sizes say nothing of other paths: one may be compressed
        try:
            for events in read_batches(file, on_problem):
                rows = list(flat.calls(events))
                for row in islice(rows, max(0, skip - seen), None):
                    if not row["shared"] or self._is_first(row):
                        add(row)
                seen += len(rows)
        except TraceError as refusal:
            on_problem(Problem(str(file), 0, str(refusal).removeprefix(f"{file}: ")))
            size = _UNREAD
            if seen <= skip:
                return None
        if seen < skip or (seen == skip and known is not None and known[2] != str(file) and Path(known[2]).exists()):
            return None  # a copy, perhaps an old one
        self._book.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (fingerprint, str(file), size, seen))
        return flat

    def _is_first(self, row: Row) -> bool:
        """Whether this call of several root tasks was not met before, in another file."""
        key = (row["call"], row["ended"].timestamp())
        return self._book.execute("INSERT OR IGNORE INTO shared VALUES (?, ?)", key).rowcount == 1


def _fingerprint(file: Path) -> str:
    """Tells a file from others by its beginning, so that a moved or copied file is known again."""
    with file.open("rb") as raw:
        zipped = raw.read(len(_GZIP)) == _GZIP
    with gzip.open(file) if zipped else file.open("rb") as plain:
        sample = plain.read(_SAMPLE)
    first = sample.split(b"\n", 2)[:2]
    return hashlib.sha256(b"\n".join(first)).hexdigest()
