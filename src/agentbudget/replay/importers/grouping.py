"""Spans that arrive in any order, gathered by trace in bounded memory, and written in the order of time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from agentbudget.replay.importers import build
from agentbudget.replay.importers.build import Attempt, Prices
from agentbudget.replay.importers.protocol import Record, Tell
from agentbudget.trace.events import Event

MAX_SPANS = 100_000
"""Spans kept at once. Beyond it the trace that has waited longest is taken as complete."""
_REMEMBERED = 100_000


class Whole(NamedTuple):
    """What is known of a whole foreign run, normally from its root span. Times in seconds since 1970 UTC."""

    name: str = ""
    start: float | None = None
    end: float | None = None
    failed: bool = False
    ok: bool | None = None
    tags: Mapping[str, str] = {}


class Span(NamedTuple):
    """One node of a foreign run, whatever its format calls it."""

    trace: str
    id: str
    attempt: Attempt | None
    """Of work that counts."""
    whole: Whole | None
    """Of a root."""


def gathered(
    records: Iterator[Record],
    tell: Tell,
    *,
    parts: Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]],
    read: Callable[[Mapping[str, Any], Prices], Span],
    called: str,
) -> Iterator[Event]:
    """The events of a task for each trace: *parts* takes the spans out of a record, *read* understands one.

    What *read* refuses with a KeyError, TypeError or ValueError is told, and skipped; *called*: what to name it.
    """
    groups, prices = _Groups(tell), Prices()
    for line, record in records:
        for part in parts(record):
            try:
                span = read(part, prices)
            except (KeyError, TypeError, ValueError) as problem:
                tell(line, f"a {called} that cannot be read: {problem!r}")
                continue
            groups.add(line, span)
        for trace, spans in groups.overdue():
            yield from _task(trace, spans)
    for trace, spans in groups.rest():
        yield from _task(trace, spans)


class _Groups:
    """Spans by trace id. A span with an id that the trace has already replaces it: exports repeat updated runs."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._groups: OrderedDict[str, dict[str, Span]] = OrderedDict()
        self._count = 0
        self._taken: OrderedDict[str, int] = OrderedDict()

    def add(self, line: int, span: Span) -> None:
        """Take *span* in."""
        trace = span.trace
        if trace in self._taken and trace not in self._groups:
            self._tell(line, f"of trace {trace}, which was taken as complete before: kept as another task")
        group = self._groups.setdefault(trace, {})
        self._count += span.id not in group
        group[span.id] = span

    def overdue(self) -> Iterator[tuple[str, list[Span]]]:
        """Traces that must go to make room."""
        while self._count > MAX_SPANS and self._groups:
            yield self._take()

    def rest(self) -> Iterator[tuple[str, list[Span]]]:
        """All that is left."""
        while self._groups:
            yield self._take()

    def _take(self) -> tuple[str, list[Span]]:
        trace, group = self._groups.popitem(last=False)
        self._count -= len(group)
        times = self._taken[trace] = self._taken.pop(trace, 0) + 1
        if len(self._taken) > _REMEMBERED:
            self._taken.popitem(last=False)
        return (trace if times == 1 else f"{trace}#{times}"), list(group.values())


def _task(task: str, spans: list[Span]) -> Iterator[Event]:
    """The events of one foreign run, in the order of time; calls that overlapped overlap. None where no work counts."""
    attempts = [span.attempt for span in spans if span.attempt is not None]
    if not attempts:
        return
    whole = next((span.whole for span in spans if span.whole is not None), Whole())
    starts = [attempt.at for attempt in attempts]
    start = min(starts if whole.start is None else [whole.start, *starts])
    end = max([whole.end or start, start, *(attempt.at + attempt.seconds for attempt in attempts)])
    timed = [event for attempt in attempts for event in _owned(attempt, task)]
    yield build.opened(task, whole.name, start, whole.tags)
    yield from sorted(timed, key=_time)
    cost = sum(attempt.cost or 0 for attempt in attempts)
    yield from build.closed(task, end, cost=cost, seconds=end - start, ok=whole.ok, failed=whole.failed)


def _owned(attempt: Attempt, task: str) -> Iterator[Event]:
    attempt.task = task
    return attempt.events()


def _time(event: Event) -> float:
    return event.at


def text(value: Any) -> str:
    """*value* if it is a string, else nothing."""
    return value if isinstance(value, str) else ""


def mapping(value: Any) -> Mapping[str, Any]:
    """*value* if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}
