"""Trace files into partitioned Parquet, each call once, whatever crashes or runs again.

The archive is a folder: `calls/day=…/`, `tasks/day=…/` and `archive.sqlite`, which says how far each trace file was
taken. Traces only grow, so a later run takes the calls behind those it has. A run writes its files under names made of
its number and is counted only when all are there: after a crash the next run has the same number and overwrites them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from agentbudget.errors import ConfigurationError, TraceError
from agentbudget.finops.flatten import Row
from agentbudget.finops.intake import Intake
from agentbudget.finops.schema import CALLS, TASKS, VERSION
from agentbudget.trace.files import OnProblem, Problem, trace_files

ROWS = 100_000
"""Rows held in memory before they are written."""
_TABLES = {"calls": (CALLS, "ended"), "tasks": (TASKS, "opened")}
_SCHEMA = "CREATE TABLE IF NOT EXISTS archive (version TEXT NOT NULL, batch INTEGER NOT NULL)"

OnProgress = Callable[[int, int], None]
"""Bytes of trace files done, and in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What one run did."""

    files: int
    """Trace files that had something new."""
    calls: int
    """Rows added to `calls`."""
    problems: int
    """Lines and files that were skipped."""


def compact(
    source: str | PathLike[str],
    archive: str | PathLike[str],
    *,
    on_problem: OnProblem,
    on_progress: OnProgress = lambda _done, _all: None,
) -> Compaction:
    """Bring the archive up to date with the traces below *source* (file, folder or glob). Memory is bounded.

    A copy of a file that was taken counts as that file; a call of several root tasks is taken once.

    Raises:
        TraceError: there is nothing to read, or another run is at work on the archive.
        ConfigurationError: the archive was written by another version.
    """
    files = trace_files(source)
    folder = Path(archive)
    folder.mkdir(parents=True, exist_ok=True)
    problems = 0

    def note(problem: Problem) -> None:
        nonlocal problems
        problems += 1
        on_problem(problem)

    with _run(folder) as book:
        run = _Run(folder, book)
        sizes = [_size(file) for file in files]
        done, total = 0, sum(sizes)
        for file, size in zip(files, sizes, strict=True):
            run.take(file, note)
            done += size
            on_progress(done, total)
        run.finish()
    return Compaction(files=run.files, calls=run.calls, problems=problems)


def _size(file: Path) -> int:
    """Bytes of *file*; 0 where it is gone, which taking it will tell."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def is_archive(path: str | PathLike[str]) -> bool:
    """Whether *path* is a folder that `compact` made."""
    return (Path(path) / "archive.sqlite").is_file()


@contextmanager
def _run(folder: Path) -> Iterator[sqlite3.Connection]:
    """The book of the archive, locked for one writer; what is in it counts when the block ends well."""
    with closing(sqlite3.connect(folder / "archive.sqlite", timeout=0, isolation_level=None)) as book:
        try:
            book.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as busy:
            msg = f"{folder}: another compaction is at work on this archive ({busy}); try again when it is done."
            raise TraceError(msg) from busy
        book.execute(_SCHEMA)
        found = book.execute("SELECT version FROM archive").fetchone()
        if found is None:
            book.execute("INSERT INTO archive VALUES (?, 0)", (VERSION,))
        elif found[0] != VERSION:
            msg = f"{folder}: written with schema {found[0]}, this version writes {VERSION}: compact into a new folder."
            raise ConfigurationError(msg)
        try:
            yield book
        except BaseException:
            book.execute("ROLLBACK")
            raise
        book.execute("COMMIT")


class _Run:
    """One run of the compaction: what it takes from each file, and the files it writes."""

    def __init__(self, folder: Path, book: sqlite3.Connection) -> None:
        self.files = self.calls = 0
        self._book, self._intake = book, Intake(book)
        (last,) = book.execute("SELECT batch FROM archive").fetchone()
        self._batch = last + 1
        self._parts = {name: _Parts(folder / name, name, self._batch) for name in _TABLES}

    def take(self, file: Path, on_problem: OnProblem) -> None:
        """The calls of *file* behind those that were taken before."""
        flat = self._intake.take(file, self._add, on_problem)
        if flat is not None:
            self.files += 1
            for row in flat.tasks():
                self._parts["tasks"].add({**row, "batch": self._batch})

    def finish(self) -> None:
        """Write what is left and count the run."""
        for parts in self._parts.values():
            parts.flush()
        if self.files:
            self._book.execute("UPDATE archive SET batch = ?", (self._batch,))

    def _add(self, row: Row) -> None:
        self._parts["calls"].add({**row, "batch": self._batch})
        self.calls += 1


class _Parts:
    """The files of one table that one run writes: rows by day, one row group a flush, one file a day."""

    def __init__(self, folder: Path, table: str, batch: int) -> None:
        self._schema, self._when = _TABLES[table]
        self._folder, self._name = folder, f"part-{batch:08d}.parquet"
        self._days: dict[str, list[Row]] = {}
        self._written: dict[str, int] = {}
        self._held = 0
        for left in folder.glob(f"day=*/part-{batch:08d}*.parquet"):  # by a run that never ended
            left.unlink()

    def add(self, row: Row) -> None:
        self._days.setdefault(row[self._when].date().isoformat(), []).append(row)
        self._held += 1
        if self._held >= ROWS:
            self.flush()

    def flush(self) -> None:
        for day, rows in self._days.items():
            where = self._folder / f"day={day}"
            where.mkdir(parents=True, exist_ok=True)
            number = self._written[day] = self._written.get(day, 0) + 1
            table = pa.table({name: [row[name] for row in rows] for name in self._schema.names}, schema=self._schema)
            pq.write_table(table, where / self._name.replace(".", f"-{number:04d}."), compression="zstd")
        self._days.clear()
        self._held = 0
