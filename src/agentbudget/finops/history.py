"""Recorded calls and tasks as two SQL views, in DuckDB: larger than memory, local or in object storage."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

from agentbudget.errors import ConfigurationError, TraceError
from agentbudget.finops.compact import OnProgress, compact, is_archive
from agentbudget.trace.files import Problem

_LATEST = "QUALIFY row_number() OVER (PARTITION BY task ORDER BY batch DESC) = 1"
_GLOB = re.compile(r"[*?\[]")
"""What DuckDB takes for a pattern in a path."""
MAX_PROBLEMS = 1000
"""Problems kept one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From *since* to before *until*, both UTC; None is open."""

    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None and value.tzinfo is None:
                msg = f"{name}={value.isoformat()}: a time needs a zone, e.g. datetime(2026, 11, 1, tzinfo=UTC)."
                raise ConfigurationError(msg)
        if self.since is not None and self.until is not None and self.since >= self.until:
            msg = f"since={self.since.isoformat()} is not before until={self.until.isoformat()}."
            raise ConfigurationError(msg)

    def where(self, column: str) -> str:
        """As an SQL condition on *column*; the day of the partition is named too, so that other days are not read."""
        parts = ["true"]
        for value, sign, side in ((self.since, ">=", ">="), (self.until, "<", "<=")):
            if value is not None:
                at = value.astimezone(UTC)
                parts.append(f"{column} {sign} TIMESTAMPTZ '{at.isoformat()}' AND day {side} DATE '{at.date()}'")
        return " AND ".join(parts)


class History:
    """What was recorded, open for queries: the views `calls` and `tasks`, columns as in `agentbudget.finops.schema`.

    Close it, or use it as a context manager. Not thread-safe; `con.cursor()` gives another thread its own.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, *, path: str, cleanup: ExitStack) -> None:
        """Made by `open`."""
        self.con = con
        self.path = path
        self.problems: list[Problem] = []
        """Lines and files that were skipped."""
        self._cleanup = cleanup

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        *,
        period: Period | None = None,
        threads: int | None = None,
        memory: str = "1GB",
        on_progress: OnProgress = lambda _done, _all: None,
    ) -> Self:
        """The history at *path*: an archive that `compact` made, a URL of one (`s3://bucket/spend`), or traces.

        Traces (file, folder or glob) are compacted into a temporary archive first; a team's own archive spares that.

        Args:
            path: where to look.
            period: only calls of this time; tasks are kept whole.
            threads: of DuckDB; None: one a core.
            memory: what DuckDB may use before it spills to disk.
            on_progress: told the bytes of traces read, and in all.

        Raises:
            TraceError: there is nothing to read.
        """
        problems: list[Problem] = []
        with ExitStack() as cleanup:
            root = fspath(path)
            if "://" not in root and not is_archive(root):
                root = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="agentbudget-history-"))
                compact(path, root, on_problem=lambda problem: _keep(problems, problem), on_progress=on_progress)
            con = duckdb.connect(config={"memory_limit": memory, **({"threads": threads} if threads else {})})
            cleanup.callback(con.close)
            con.execute("SET TimeZone = 'UTC'")
            period = period or Period()
            _view(con, root, "calls", f"WHERE {period.where('ended')}")
            _view(con, root, "tasks", _LATEST)
            history = cls(con, path=fspath(path), cleanup=cleanup.pop_all())
        history.problems = problems
        return history

    def rows(self, query: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """The rows of *query* as dictionaries."""
        found = self.con.execute(query, parameters)
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def close(self) -> None:
        """Let go of the engine and of temporary files."""
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _view(con: duckdb.DuckDBPyConnection, root: str, table: str, rest: str) -> None:
    folder = _GLOB.sub(r"[\g<0>]", root.rstrip("/"))
    files = f"{folder}/{table}/*/*.parquet".replace("'", "''")
    parts = f"read_parquet('{files}', hive_partitioning = true, hive_types = {{'day': DATE}}, union_by_name = true)"
    try:
        con.execute(f"CREATE VIEW {table} AS SELECT * FROM {parts} {rest}")  # noqa: S608 - the path is quoted above
    except duckdb.IOException as missing:
        if "://" not in root and not any(Path(root, table).glob("*/*.parquet")):
            _empty(con, table)
            return
        msg = f"{root}: no readable archive ({missing}). Make one: agentbudget compact TRACES {root}"
        raise TraceError(msg) from missing


def _empty(con: duckdb.DuckDBPyConnection, table: str) -> None:
    """A view without rows: traces of tasks that made no call yet."""
    from agentbudget.finops import schema  # noqa: PLC0415 - only an empty history asks for the columns

    blank = getattr(schema, table.upper()).empty_table()
    con.register(f"_{table}", blank)
    con.execute(f"CREATE VIEW {table} AS SELECT *, NULL::DATE AS day FROM _{table}")  # noqa: S608 - a constant


def _keep(problems: list[Problem], problem: Problem) -> None:
    if len(problems) < MAX_PROBLEMS:
        problems.append(problem)
