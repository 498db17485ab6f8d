"""What a page or a picture is made of: the numbers, the story of a single task, and the replay they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike

from msgspec.structs import replace

from agentbudget.replay.whatif import WhatIf
from agentbudget.reports.story import Story, tell
from agentbudget.trace.events import Event, TaskOpened, TaskResumed
from agentbudget.trace.files import Problem
from agentbudget.trace.reader import Trace, summarize
from agentbudget.trace.replayed import Replayed
from agentbudget.trace.report import TaskReport

Source = Trace | TaskReport | Replayed | str | PathLike[str]
"""What can be shown: a trace, a report, a replay, or the path of traces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """One source, read."""

    report: TaskReport
    """The numbers of everything together."""
    reports: Sequence[TaskReport] = ()
    """Each root task's, where there are several."""
    story: Story | None = None
    """None for several root tasks, and where there are only numbers."""
    replay: WhatIf | None = None
    problems: list[Problem] = field(default_factory=list)
    """Lines and files that could not be read."""


def gathered(source: Source) -> Material:
    """Read *source*.

    A path is read in memory that grows with the number of tasks, not with the size of the trace, unless it holds one
    task alone.

    Raises:
        TraceError: nothing usable at the path.
        TypeError: nothing that can be shown.
    """
    match source:
        case TaskReport():
            return Material(report=source)
        case Trace():
            return _of_trace(source)
        case WhatIf():
            return _of_replay(source)
        case str() | PathLike():
            return _of_path(source)
    msg = f"{source!r}: a Trace, a TaskReport, a replay or the path of traces can be shown."
    raise TypeError(msg)


def _of_trace(trace: Trace) -> Material:
    several = len(trace.tasks) > 1
    return Material(
        report=trace.report,
        reports=trace.reports if several else (),
        story=None if several else tell(trace.events),
        problems=trace.problems,
    )


def _of_path(path: str | PathLike[str]) -> Material:
    problems: list[Problem] = []
    reports, total = summarize(path, on_problem=problems.append)
    if len(reports) == 1:
        return _of_trace(Trace.load(path))
    return Material(report=total, reports=reports, problems=problems)


def _of_replay(replay: WhatIf) -> Material:
    trace = Trace([(replay.path, list(_under(replay)))], path=replay.path)
    parted = {divergence.call: "parts from the recording here" for divergence in replay.divergences}
    several = len(trace.tasks) > 1
    return Material(
        report=trace.report,
        reports=trace.reports if several else (),
        story=None if several else tell(trace.events, parted=parted),
        replay=replay,
    )


def _under(replay: WhatIf) -> Iterator[Event]:
    """The events of *replay*, whose tasks keep their recorded budgets, with those that decided here."""
    names: dict[str, str] = {}
    for event in replay.trace.events:
        if isinstance(event, TaskOpened) and not event.parent:
            names[event.task] = event.name
        budget = None
        if isinstance(event, TaskOpened | TaskResumed) and event.task in names:
            budget = replay.policy.budget_of(names[event.task])
        yield event if budget is None else replace(event, budget=budget.to_dict())
