"""Many recorded runs as they are read: each report once, and the total, in memory that the runs do not fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from agentbudget.trace.events import ActionTaken, Event, TaskClosed, TaskOpened
from agentbudget.trace.files import OnProblem, trace_files
from agentbudget.trace.reader import read_files
from agentbudget.trace.report import Combined, TaskReport
from agentbudget.trace.tally import Tally

KEPT = 1024
"""Closed tasks of one file that are kept, because an outcome or a resume may still follow."""
_ALL = ""

OnRead = Callable[[int, int], None]
"""Told, now and then, how many files of how many are read."""


class Survey:
    """Reads all traces below *path*: iterate over it for the report of each root task, then ask for `total`.

    A call that several root tasks pay for is in the report of each and once in the total. A copy of a task that was
    read before is left out. Raises as `iter_events` does.
    """

    def __init__(self, path: str | PathLike[str], *, on_problem: OnProblem, on_read: OnRead | None = None) -> None:
        self._path = path
        self._on_problem = on_problem
        self._on_read = on_read or _ignore
        self._tally = Tally(_ALL)
        self._known: dict[str, float] = {}
        """Root tasks read so far, and when each was opened."""
        self._shared: set[tuple[type[Event], str, float]] = set()
        """Facts about calls of several tasks: other files may have them too."""
        self._combined = Combined()

    def __iter__(self) -> Iterator[TaskReport]:
        files = trace_files(self._path)
        current, run = Path(), _File("")
        done = 0
        for file, batch in read_files(files, self._on_problem):
            if file != current:
                yield from self._counted(run.rest())
                current, run = file, _File(str(file))
                self._on_read(done, len(files))
                done += 1
            fresh = [event for event in batch if self._is_new(event, run)]
            run.add(fresh)
            yield from self._counted(run.closed())
        yield from self._counted(run.rest())
        self._on_read(len(files), len(files))

    @property
    def total(self) -> TaskReport:
        """All calls read so far; its `task_id` is empty."""
        name = Path(self._path).name or fspath(self._path)
        return self._combined.report(self._tally.report(), name=name, trace_path=fspath(self._path))

    def _counted(self, reports: Iterator[TaskReport]) -> Iterator[TaskReport]:
        for report in reports:
            self._combined.add(report)
            yield report

    def _is_new(self, event: Event, run: _File) -> bool:
        """Whether *event* was not read before; its call is part of the total then."""
        tasks: tuple[str, ...] = getattr(event, "tasks", ())
        if not tasks:
            task = getattr(event, "task", "")
            if isinstance(event, TaskOpened) and not event.parent:
                if self._known.get(task) == event.at:
                    run.copies.add(task)
                self._known[task] = event.at
            return task not in run.copies
        if tasks[-1] in run.copies:
            return False
        counts: Any = event
        if len(tasks) == 1 or self._is_first(event):
            self._tally.apply(replace(counts, tasks=(_ALL,)))
        return True

    def _is_first(self, event: Event) -> bool:
        """Whether *event*, about a call of several tasks, was in no file before this one."""
        call = getattr(event, "call", "")
        if not call or isinstance(event, ActionTaken):
            return True
        fact = (type(event), call, event.at)
        if fact in self._shared:
            return False
        self._shared.add(fact)
        return True


class _File:
    """The tasks of one file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.copies: set[str] = set()
        self._tallies: dict[str, Tally] = {}
        self._closed: dict[str, None] = {}
        self._orphans: dict[str, Tally] | None = {}
        """Tasks of which no opening was read, as long as none was: of a file whose beginning is lost."""

    def add(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, TaskOpened):
                self._open(event)
            tasks = getattr(event, "tasks", None) or (getattr(event, "task", ""),)
            if self._orphans is not None and tasks[-1] and tasks[-1] not in self._orphans:
                self._orphans[tasks[-1]] = Tally(tasks[-1])
            for task in tasks:
                for tallies in (self._tallies, self._orphans or {}):
                    if (tally := tallies.get(task)) is not None:
                        tally.apply(event)
            if isinstance(event, TaskClosed) and event.task in self._tallies:
                self._closed[event.task] = None

    def _open(self, event: TaskOpened) -> None:
        if not event.parent:
            self._orphans = None
            self._closed.pop(event.task, None)
            self._tallies.setdefault(event.task, Tally(event.task))

    def closed(self) -> Iterator[TaskReport]:
        """Those that closed long ago."""
        while len(self._closed) > KEPT:
            task = next(iter(self._closed))
            del self._closed[task]
            yield self._tallies.pop(task).report(trace_path=self.path)

    def rest(self) -> Iterator[TaskReport]:
        """All others."""
        for tally in (*self._tallies.values(), *(self._orphans or {}).values()):
            yield tally.report(trace_path=self.path)


def _ignore(done: int, files: int) -> None:
    """Nobody wants to know."""
