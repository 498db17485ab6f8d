"""What a page or a picture is made of: the numbers, the story of a single task, and the replay they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from os import PathLike

from msgspec.structs import replace

from agentbudget.replay.whatif import WhatIf
from agentbudget.reports.story import Story, tell
from agentbudget.trace.events import Event, TaskOpened, TaskResumed
from agentbudget.trace.files import Problem
from agentbudget.trace.reader import Trace
from agentbudget.trace.replayed import Replayed
from agentbudget.trace.report import TaskReport
from agentbudget.trace.survey import Survey

Source = Trace | TaskReport | Replayed | str | PathLike[str]
"""What can be shown: a trace, a report, a replay, or the path of traces."""

MAX_TASKS = 3000
MAX_PROBLEMS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """One source, read."""

    report: TaskReport
    """The numbers of everything together."""
    reports: Sequence[TaskReport] = ()
    """Those of the dearest root tasks, where there are several."""
    story: Story | None = None
    """None for several root tasks, and where there are only numbers."""
    replay: WhatIf | None = None
    problems: list[Problem] = field(default_factory=list)
    """Lines and files that could not be read."""
    more_problems: int = 0
    """Further ones, which were only counted."""


def gathered(source: Source) -> Material:
    """Read *source*.

    A path of many tasks is read in memory that they do not fill.

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
        reports=_dearest(trace.reports) if several else (),
        story=None if several else tell(trace.events),
        problems=trace.problems,
    )


def _of_path(path: str | PathLike[str]) -> Material:
    problems: list[Problem] = []
    more = 0

    def note(problem: Problem) -> None:
        nonlocal more
        if len(problems) < MAX_PROBLEMS:
            problems.append(problem)
        else:
            more += 1

    survey = Survey(path, on_problem=note)
    dearest = _dearest(survey)
    if len(dearest) == 1:
        return _of_trace(Trace.load(path))
    return Material(report=survey.total, reports=dearest, problems=problems, more_problems=more)


def _dearest(reports: Iterable[TaskReport]) -> list[TaskReport]:
    return nlargest(MAX_TASKS, reports, key=lambda report: report.cost)


def _of_replay(replay: WhatIf) -> Material:
    trace = Trace([(replay.path, list(_under(replay)))], path=replay.path)
    parted = {divergence.call: "parts from the recording here" for divergence in replay.divergences}
    several = len(trace.tasks) > 1
    return Material(
        report=trace.report,
        reports=_dearest(trace.reports) if several else (),
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
