"""Traces back from disk: what is damaged is skipped and named, what is intact is used."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from agentbudget.errors import BudgetWarning, TraceError
from agentbudget.trace import rendering
from agentbudget.trace.events import (
    ActionTaken,
    CallDenied,
    CallExtended,
    CallReleased,
    CallReserved,
    CallSettled,
    Discrepancy,
    Event,
    LimitRaised,
    TaskOpened,
    ThresholdReached,
    TraceOpened,
)
from agentbudget.trace.files import OnProblem, Problem, read_batches, trace_files
from agentbudget.trace.replayed import Replayed
from agentbudget.trace.report import TaskReport, combine
from agentbudget.trace.tally import Tally

MAX_PROBLEMS = 1000
"""Problems kept one by one; further ones are only counted."""


def iter_events(path: str | PathLike[str], *, on_problem: OnProblem | None = None) -> Iterator[Event]:
    """All events of a file, folder or glob in bounded memory: file by file, each in its order.

    Skipped lines go to *on_problem*; without it one `BudgetWarning` at the end counts them. In a folder a file
    that cannot be used is a problem like a bad line.

    Raises:
        TraceError: nothing is there or it cannot be read; `TraceFormatError`: not one usable line;
            `TraceVersionError`: written by a newer version. The last two only if no file can be used.
    """
    problems = _Problems()
    for _, batch in read_files(trace_files(path), on_problem or problems.add):
        yield from batch
    if problems.count:
        msg = f"{problems.count} lines or files of {fspath(path)!r} were skipped, the first: {problems.kept[0]}"
        warnings.warn(msg, BudgetWarning, stacklevel=2)


class Trace:
    """A recorded trace: the events of one or more root tasks.

    An event found twice (a copied file, a call of two root tasks) counts once.
    """

    def __init__(
        self,
        groups: Sequence[tuple[str, Sequence[Event]]],
        *,
        path: str,
        problems: Sequence[Problem] = (),
        roots: Sequence[str] | None = None,
    ) -> None:
        """*groups*: file and its events, in order. *roots*: the tasks to report on; None: all root tasks."""
        self._groups = tuple(groups)
        self._roots = None if roots is None else tuple(roots)
        self.path = path
        """What was loaded: file, folder or pattern."""
        self.problems = list(problems)
        """Lines and files that were skipped."""

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Trace:
        """The trace in a file (`.jsonl`, gzip too), a folder or the files matching a glob.

        Raises:
            TraceError: nothing is there or it cannot be read; `TraceFormatError`: not one usable line;
                `TraceVersionError`: written by a newer version. The last two only if no file can be used.
        """
        problems, facts = _Problems(), Facts()
        groups: dict[str, list[Event]] = {}
        for file, batch in read_files(trace_files(path), problems.add):
            groups.setdefault(str(file), []).extend(facts.new(batch))
        return cls(tuple(groups.items()), path=fspath(path), problems=problems.listed(fspath(path)))

    @cached_property
    def events(self) -> list[Event]:
        """All events: file by file, each in its order."""
        return [event for _, events in self._groups for event in events]

    @property
    def paths(self) -> list[str]:
        """The files the events come from."""
        return [file for file, _ in self._groups]

    @property
    def tasks(self) -> list[str]:
        """Ids of the root tasks, in order of appearance."""
        return list(self._fold.tallies)

    @cached_property
    def reports(self) -> list[TaskReport]:
        """The report of each root task, in order."""
        return self._fold.reports()

    @cached_property
    def report(self) -> TaskReport:
        """The report of the root task; of several, one over all their calls with an empty `task_id`."""
        if len(self.reports) == 1:
            return self.reports[0]
        total = Tally(_ALL)
        _add_all(total, self.events)
        return combine(self.reports, total.report(), name=_name(self.path), trace_path=self.path)

    def task(self, task_id: str) -> Trace:
        """The trace of one task, root or within another, with the tasks within it.

        Raises:
            LookupError: no such task in this trace.
        """
        inside = {task_id}
        groups = []
        for file, events in self._groups:
            own = [event for event in events if isinstance(event, TraceOpened) or _belongs(event, task_id, inside)]
            if not all(isinstance(event, TraceOpened) for event in own):
                groups.append((file, own))
        if not groups:
            msg = f"no task {task_id!r} in {self.path}; its root tasks are in Trace.tasks."
            raise LookupError(msg)
        return Trace(groups, path=self.path, problems=self.problems, roots=[task_id])

    def replay(self, **changes: Any) -> Replayed:
        """The trace under other rules; without any the recorded verdicts and cost, to the nano-dollar.

        `budget=` replaces the budget of the root tasks (a mapping: by task name), `model={"gpt-5": "gpt-5-mini"}`
        exchanges models, `prices=` and `on=` price every call anew, `limits=` replaces shared limits, and `mode=` is
        `"enforce"` or `"observe"`. All are described at `agentbudget.replay.policy.Policy`.

        Replay stands above the core and is looked up when it is called for: the core works without it.

        Raises:
            TypeError: an unknown option. ConfigurationError: a value that cannot mean anything.
        """
        whatif: Replayed = import_module("agentbudget.replay.whatif").replay(self, **changes)
        return whatif

    @cached_property
    def _fold(self) -> _Fold:
        fold = _Fold(self._roots)
        for file, events in self._groups:
            fold.add(file, events)
        return fold

    def __len__(self) -> int:
        return sum(len(events) for _, events in self._groups)

    def __repr__(self) -> str:
        return (
            f"<Trace {self.path!r}: {len(self):,} events, {len(self.tasks):,} tasks, {len(self.problems):,} problems>"
        )

    def _repr_html_(self) -> str:
        return rendering.notebook(self, self.report)


class _Fold:
    """Events of many tasks into a tally for each root task."""

    def __init__(self, roots: Sequence[str] | None = None) -> None:
        self.tallies = {root: Tally(root) for root in roots or ()}
        self._fixed = roots is not None
        self._files: dict[str, str] = {}
        self._nested: dict[str, TaskOpened] = {}

    def add(self, file: str, events: Iterable[Event]) -> None:
        for event in events:
            tasks = getattr(event, "tasks", None)
            if tasks is None:
                self._add_to_task(file, event)
            elif tasks:
                if tasks[-1] not in self.tallies:
                    self._open(file, tasks[-1])
                for task in tasks:
                    if (tally := self.tallies.get(task)) is not None:
                        self._files.setdefault(task, file)
                        tally.apply(event)

    def reports(self) -> list[TaskReport]:
        return [tally.report(trace_path=self._files.get(task)) for task, tally in self.tallies.items()]

    def _add_to_task(self, file: str, event: Event) -> None:
        task = getattr(event, "task", None)
        if isinstance(event, TaskOpened) and event.task not in self.tallies:
            if event.parent:
                self._nested[event.task] = event
            else:
                self._open(file, event.task)
        if task in self.tallies:
            self._files.setdefault(task, file)
            self.tallies[task].apply(event)

    def _open(self, file: str, task: str) -> None:
        if self._fixed:
            return
        tally = self.tallies[task] = Tally(task)
        self._files[task] = file
        if task in self._nested:  # its parent pays for none of its calls: it is a root here
            tally.apply(self._nested[task])


_ALL = ""
"""Stands for the task that all calls belong to."""


def _add_all(total: Tally, events: Iterable[Event]) -> None:
    """Each call once, however many root tasks pay for it."""
    for event in events:
        if isinstance(event, CallReserved | CallExtended | CallReleased | CallSettled | CallDenied | ActionTaken):
            total.apply(replace(event, tasks=(_ALL,)))


_OF_CALLS = frozenset({CallReserved, CallSettled, CallDenied})


class Facts:
    """Tells new facts from ones already read; files may be copies, or share the calls of two root tasks."""

    def __init__(self) -> None:
        self._first: dict[Any, dict[str, float]] = {kind: {} for kind in _OF_CALLS}
        """When each call's first fact of a kind was; few calls have more than one."""
        self._seen: set[object] = set()

    def new(self, events: Iterable[Event]) -> list[Event]:
        """Those of *events* that were not read before."""
        first, fresh = self._first, []
        for event in events:
            calls: Any = first.get(type(event))
            if calls is not None and (call := event.call) and call not in calls:  # type: ignore[attr-defined]  # these have one
                calls[call] = event.at
                fresh.append(event)
            elif calls is not None and call and calls[call] == event.at:
                continue
            elif self._is_new(event):
                fresh.append(event)
        return fresh

    def _is_new(self, event: Event) -> bool:
        fact: object
        match event:
            case CallDenied(call=""):
                fact = (event.at, event.tasks, event.kind, event.name, str(event.stop))
            case CallReserved() | CallSettled() | CallDenied():
                fact = (type(event), event.call, event.at)
            case ActionTaken():
                fact = (event.at, event.call, event.tasks, event.action, event.reason)
            case Discrepancy() | LimitRaised() | ThresholdReached():
                fact = event
            case _:
                return True
        if fact in self._seen:
            return False
        self._seen.add(fact)
        return True


class _Problems:
    """Collects problems, a bounded number of them."""

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.count = 0

    def add(self, problem: Problem) -> None:
        self.count += 1
        if len(self.kept) < MAX_PROBLEMS:
            self.kept.append(problem)

    def listed(self, path: str) -> list[Problem]:
        more = self.count - len(self.kept)
        return [*self.kept, Problem(path, 0, f"{more:,} more lines were skipped")] if more else self.kept


def read_files(files: Sequence[Path], on_problem: OnProblem) -> Iterator[tuple[Path, list[Event]]]:
    """Batches of events with their file. Among several files, one that cannot be used is a problem, not an error."""
    failed: list[TraceError] = []
    for file in files:
        try:
            for batch in read_batches(file, on_problem):
                yield file, batch
        except TraceError as refusal:
            failed.append(refusal)
            on_problem(Problem(str(file), 0, str(refusal).removeprefix(f"{file}: ")))
    if len(failed) == len(files):
        raise failed[0]


def _belongs(event: Event, task_id: str, inside: set[str]) -> bool:
    """Whether *event* is about the task or one within it; learns those into *inside* as they open."""
    tasks = getattr(event, "tasks", None)
    if tasks is not None:
        return task_id in tasks
    if isinstance(event, TaskOpened) and event.parent in inside:
        inside.add(event.task)
    return getattr(event, "task", None) in inside


def _name(path: str | PathLike[str]) -> str:
    return Path(path).name or fspath(path)
