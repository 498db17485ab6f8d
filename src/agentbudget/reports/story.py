"""A recorded task as a reader wants it: its calls one by one as a tree, and its budget as it was used up.

A fold of events that decides nothing and asks nothing: everything shown is in the trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentbudget.domain.money import format_dollars
from agentbudget.reports.tree import arranged
from agentbudget.trace.events import (
    ActionTaken,
    CallDenied,
    CallExtended,
    CallReleased,
    CallReserved,
    CallSettled,
    Event,
    LimitRaised,
    TaskClosed,
    TaskOpened,
    TaskResumed,
)

DENIED = "denied"
IN_FLIGHT = "in flight"
NEVER_RAN = "never ran"
WOULD_BE_DENIED = "would be denied"
_LONGEST = 1e10
"""Seconds: what is further away is no time."""


@dataclass(slots=True, kw_only=True)
class CallLine:
    """One attempt. Times are in seconds since the story began, money in nano-dollars."""

    call: str
    kind: str
    """`model` or `tool`."""
    name: str
    begin: float
    end: float
    state: str
    """How it ended: an outcome of `CallSettled`, or `denied`, `in flight`, `never ran`."""
    cost: int = 0
    reserved: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Part of `input_tokens`."""
    task: str = ""
    """The innermost task that pays."""
    agent: str = ""
    node: str = ""
    inside: str = ""
    """Id of the call it ran in, where the trace says so."""
    marks: list[str] = field(default_factory=list)
    """What is to be seen beside `state`, in words: `wasted`, `estimated`, `retry 2` ..."""
    detail: str = ""
    """Why it was denied or failed."""
    number: int = 0
    """From 1, in the order of the tree."""
    depth: int = 0
    parallel: bool = False
    """Whether it overlapped a call of the same parent."""

    def mark(self, word: str) -> None:
        """Add *word* once."""
        if word not in self.marks:
            self.marks.append(word)

    @property
    def words(self) -> list[str]:
        """`state`, where it is not the good one, and the marks."""
        return list(dict.fromkeys([*([] if self.state == "ok" else [self.state]), *self.marks]))


class Point(NamedTuple):
    """The budget at one moment: seconds since the story began, then nano-dollars."""

    at: float
    settled: int
    held: int
    limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The calls of a trace, in the order of the tree, and how its budget was used up."""

    calls: list[CallLine]
    points: list[Point]
    seconds: float
    """From the first to the last event."""
    timed: bool
    """Whether the trace has times; without, calls follow each other at one a second."""
    shared: list[str]
    """The limits that its tasks shared with others, in words."""


def tell(events: Iterable[Event], *, parted: Mapping[str, str] | None = None) -> Story:
    """The story of *events*.

    Args:
        parted: of a replay, by call: the words that mark where it left the recording.
    """
    teller = _Teller()
    for event in events:
        teller.take(event)
    story = teller.finished()
    for line in story.calls:
        if parted and line.call in parted:
            line.mark(parted[line.call])
    return story


class _Teller:
    """Reads events in order."""

    def __init__(self) -> None:
        self.lines: dict[str, CallLine] = {}
        self.done: list[CallLine] = []
        self.points: list[Point] = []
        self.shared: list[str] = []
        self.settled = self.held = 0
        self.limits: dict[str, int | None] = {}
        """Cost limits of the root tasks."""
        self.closed: set[str] = set()
        self.begun: float | None = None
        self.last = 0.0

    def take(self, event: Event) -> None:
        match event:
            case TaskOpened() | TaskResumed() | LimitRaised():
                self._budget(event)
            case TaskClosed():
                self.closed.add(event.task)
            case CallReserved():
                self._reserved(event)
            case CallExtended() if (line := self.lines.get(event.call)) is not None:
                self.held += event.cost - line.reserved
                line.reserved = event.cost
            case CallReleased() if (line := self.lines.get(event.call)) is not None:
                self.held -= line.reserved
                line.state, line.end = NEVER_RAN, self._seconds(event)
                self._finish(line)
            case CallSettled():
                self._settled(event)
            case CallDenied():
                self._denied(event)
            case ActionTaken():
                self._action(event)
            case _:
                return
        self._note(event)

    def finished(self) -> Story:
        for line in list(self.lines.values()):
            line.end = self.last
            if line.task in self.closed:
                line.mark("presumed spent")
            self._finish(line)
        timed = self.last > 0
        if not timed:
            _in_sequence(self.done)
            self.points = [point._replace(at=float(number)) for number, point in enumerate(self.points)]
        seconds = self.last if timed else float(max(len(self.done), len(self.points) - 1, 0))
        calls = arranged(self.done)
        return Story(calls=calls, points=self.points, seconds=seconds, timed=timed, shared=self.shared)

    def _seconds(self, event: Event) -> float:
        if self.begun is None:
            self.begun = event.at
        now = min(max(0.0, event.at - self.begun), _LONGEST)
        self.last = max(self.last, now)
        return now

    def _note(self, event: Event) -> None:
        """One point of the budget's course; of the same moment and amounts only one."""
        limits = list(self.limits.values())
        limit = limits[0] if len(limits) == 1 else None
        point = Point(self._seconds(event), self.settled, self.held, limit)
        if not self.points or self.points[-1] != point:
            self.points.append(point)

    def _budget(self, event: TaskOpened | TaskResumed | LimitRaised) -> None:
        self._seconds(event)
        self.closed.discard(event.task)
        if isinstance(event, TaskOpened):
            self.shared += [said for limit in event.limits if (said := _limit(limit)) not in self.shared]
            if not event.parent:
                self.limits[event.task] = _cost_limit(event.budget)
        elif isinstance(event, TaskResumed):
            if event.task in self.limits and (event.budget or event.redeclared):
                self.limits[event.task] = _cost_limit(event.budget)
        elif event.meter == "cost" and (limit := self.limits.get(event.task)) is not None:
            self.limits[event.task] = limit + event.amount

    def _reserved(self, event: CallReserved) -> None:
        now = self._seconds(event)
        line = self._line(event, begin=now, end=now, state=IN_FLIGHT)
        line.inside, line.reserved = event.within or event.parent, event.cost
        if event.attempt > 1:
            line.mark(f"retry {event.attempt - 1}" + (f" by {event.layer}" if event.layer else ""))
        if event.final:
            line.mark("last answer")
        before = self.lines.get(event.call)
        if before is not None and before.state == WOULD_BE_DENIED:  # nothing was enforced: it runs all the same
            line.marks, line.detail = [*before.marks, *line.marks], before.detail
        elif before is not None:
            self._finish(before)
        self.lines[event.call] = line
        self.held += event.cost

    def _settled(self, event: CallSettled) -> None:
        now = self._seconds(event)
        line = self.lines.get(event.call)
        if line is None:
            line = self._line(event, begin=min(now, max(0.0, now - event.seconds)), end=now, state=event.outcome)
        self.held -= line.reserved
        self.settled += event.cost
        line.state, line.end, line.cost, line.name = event.outcome, now, event.cost, event.name
        line.input_tokens = event.usage.get("input_tokens", 0)
        line.output_tokens = event.usage.get("output_tokens", 0)
        line.cached_tokens = event.usage.get("cache_read_tokens", 0)
        line.detail = line.detail or event.error
        if event.retry and not any(word.startswith("retry") for word in line.marks):
            line.mark("retry")
        for word in _settled_marks(event):
            line.mark(word)
        self._finish(line)

    def _denied(self, event: CallDenied) -> None:
        now = self._seconds(event)
        reason = str(event.stop.get("reason") or event.stop.get("limit") or "")
        line = self.lines.get(event.call)
        if line is not None:  # the growth of a stream, or the call that only ran because nothing was enforced
            line.mark("denied more output" if event.enforced else WOULD_BE_DENIED)
            line.detail = reason
            return
        line = self._line(event, begin=now, end=now, state=DENIED if event.enforced else WOULD_BE_DENIED)
        line.detail = reason
        if event.enforced:
            self._finish(line)
        else:
            line.mark(WOULD_BE_DENIED)
            self.lines[event.call] = line

    def _action(self, event: ActionTaken) -> None:
        """What was done to a call; or a tool call that was refused while its task went on."""
        line = self.lines.get(event.call)
        if line is not None:
            line.mark(event.action)
        elif event.action == "refuse" and isinstance(name := event.numbers.get("tool"), str):
            now = self._seconds(event)
            task = event.tasks[0] if event.tasks else ""
            line = CallLine(call=event.call, kind="tool", name=name, begin=now, end=now, state=DENIED, task=task)
            line.detail = event.reason
            line.mark("the task went on")
            self._finish(line)

    def _line(
        self, event: CallReserved | CallSettled | CallDenied, *, begin: float, end: float, state: str
    ) -> CallLine:
        return CallLine(
            call=event.call,
            kind=event.kind,
            name=event.name,
            begin=begin,
            end=end,
            state=state,
            task=event.tasks[0] if event.tasks else "",
            agent=event.agent,
            node=event.node,
            inside="" if isinstance(event, CallSettled) else event.within,
        )

    def _finish(self, line: CallLine) -> None:
        self.lines.pop(line.call, None)
        line.end = max(line.begin, line.end)  # clocks of several threads or machines may run backwards
        self.done.append(line)


def _settled_marks(event: CallSettled) -> Iterable[str]:
    if event.wasted:
        yield "wasted"
    if event.source not in {"reported", "none"}:
        yield "estimated"
    if not event.priced and event.kind == "model":
        yield "no price"
    if event.overrun:
        yield "overrun"
    if event.late:
        yield "late"


def _in_sequence(lines: list[CallLine]) -> None:
    for number, line in enumerate(lines):
        line.begin, line.end = float(number), number + 1.0


def _cost_limit(budget: Mapping[str, Any]) -> int | None:
    limit = budget.get("max_cost_nanos")
    return limit if isinstance(limit, int) else None


def _limit(limit: Mapping[str, Any]) -> str:
    amount = limit.get("amount")
    shown = format_dollars(amount) if limit.get("meter") == "cost" and isinstance(amount, int) else f"{amount}"
    window = f" a {limit['window']}" if limit.get("window") else ""
    return f"{shown} {limit.get('meter', '')} per {limit.get('scope', '')}{window}"
