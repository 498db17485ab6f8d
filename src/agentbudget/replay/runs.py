"""A recorded run as calibration sees it: what it would have needed of each meter, call by call."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agentbudget.domain.loops import Loops
from agentbudget.policies.loops import LoopWatch, Step
from agentbudget.trace.events import (
    CallDenied,
    CallReserved,
    CallSettled,
    Event,
    OutcomeRecorded,
    TaskClosed,
    TaskOpened,
    TaskResumed,
)

METERS = ("max_cost", "max_model_calls", "max_tool_calls")
"""The limits that are calibrated. `max_cost` is in nano-dollars."""
_RULES = Loops(nudge=None)
MAX_OPEN = 4096
"""Runs that may be open at once; the oldest is taken as it is beyond that."""

Success = str | Mapping[str, bool] | Callable[["Run"], bool | None] | None
"""How success is known: None (the recorded outcome), the name of a tag, a mapping of task ids, or a function."""

_TRUE, _FALSE = frozenset({"true", "1", "yes", "ok"}), frozenset({"false", "0", "no", "failed"})


class Curve:
    """How a run used one meter: `needed[i]` is what the limit had to be to admit call i (spent, held by calls in flight
    and its own estimate), `before[i]` what was spent until then. Only calls that needed more than all before them are
    kept: no other call can be the one that a limit stops."""

    __slots__ = ("before", "needed")

    def __init__(self) -> None:
        self.needed = array("q")
        self.before = array("q")

    def add(self, needed: int, before: int) -> None:
        """One more call."""
        if not self.needed or needed > self.needed[-1]:
            self.needed.append(needed)
            self.before.append(before)

    @property
    def most(self) -> int:
        """The smallest limit that halts nothing."""
        return self.needed[-1] if self.needed else 0

    def halted_at(self, limit: int) -> int | None:
        """What was spent when *limit* stopped the run; None where it would not have."""
        for needed, before in zip(self.needed, self.before, strict=True):
            if needed > limit:
                return before
        return None


@dataclass(slots=True)
class Run:
    """One root task."""

    id: str
    name: str
    tags: Mapping[str, str]
    ok: bool | None = None
    """Whether it succeeded; None: nobody said."""
    cost: int = 0
    """Nano-dollars."""
    calls: int = 0
    curves: dict[str, Curve] = field(default_factory=lambda: {meter: Curve() for meter in METERS})
    held: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Calls in flight: nano-dollars reserved, and kind."""
    counts: dict[str, int] = field(default_factory=lambda: {"model": 0, "tool": 0})
    in_flight: int = 0
    watch: LoopWatch = field(default_factory=lambda: LoopWatch(_RULES))
    signed: bool = False
    """Whether the loop rules could see its tool calls."""
    looped: tuple[int, int] | None = None
    """Nano-dollars spent and calls made when the default loop rules would have halted it."""
    stopped: bool = False
    """Whether a limit ended it: what it would have needed is not known."""

    def reserve(self, event: CallReserved) -> None:
        """A call was admitted."""
        self.calls += 1
        self.curves["max_cost"].add(self.cost + self.in_flight + event.cost, self.cost)
        self.held[event.call] = (event.cost, event.kind)
        self.in_flight += event.cost
        if event.kind in self.counts:
            self.counts[event.kind] += 1
            self.curves[f"max_{event.kind}_calls"].add(self.counts[event.kind], self.cost)

    def settle(self, event: CallSettled) -> None:
        """It ended."""
        held, _ = self.held.pop(event.call, (0, ""))
        self.in_flight -= held
        self.cost += event.cost
        if self.looped is None:
            self._look(event)

    def _look(self, event: CallSettled) -> None:
        """Let the default loop rules see how a call ended."""
        finding = None
        if event.signed:
            self.signed = True
            step = Step(event.name, event.signed[0], event.outcome == "error")
            finding = self.watch.step(event.lane, step, self.cost, decided=self.counts["model"] > 0)
        elif event.unparsable or (event.kind == "model" and event.outcome == "ok"):
            finding = self.watch.reply(event.lane, unparsable=event.unparsable, spent=self.cost)
        if finding is not None and finding.halt:
            self.looped = (self.cost, self.calls)


def runs(events: Iterable[Event], success: Success = None) -> Iterator[Run]:
    """The root tasks of *events*, each as it closes, those never closed at the end. Memory holds the open ones."""
    judge = judge_of(success)
    open_runs: dict[str, Run] = {}
    for event in events:
        if isinstance(event, TaskOpened) and not event.parent:
            if len(open_runs) >= MAX_OPEN:
                yield judge(open_runs.pop(next(iter(open_runs))))
            open_runs[event.task] = Run(event.task, event.name, event.tags)
            continue
        run = open_runs.get(_root(event))
        if run is None:
            continue
        _take(run, event)
        # An outcome may be recorded after the closing: without one the run stays open.
        if isinstance(event, TaskClosed) and event.status != "interrupted" and (run.ok is not None or success):
            yield judge(open_runs.pop(run.id))
    for run in open_runs.values():
        yield judge(run)


def _root(event: Event) -> str:
    """The root task *event* is about."""
    tasks: tuple[str, ...] = getattr(event, "tasks", ())
    return tasks[-1] if tasks else getattr(event, "task", "")


def judge_of(success: Success) -> Callable[[Run], Run]:
    """A function that fills in `ok`."""

    def judge(run: Run) -> Run:
        if isinstance(success, str):
            run.ok = _flag(run.tags.get(success, ""))
        elif isinstance(success, Mapping):
            run.ok = success.get(run.id)
        elif success is not None:
            run.ok = success(run)
        return run

    return judge


def _take(run: Run, event: Event) -> None:
    if isinstance(event, CallReserved):
        run.reserve(event)
    elif isinstance(event, CallSettled):
        run.settle(event)
    elif isinstance(event, CallDenied):
        run.stopped = run.stopped or event.enforced
    elif isinstance(event, OutcomeRecorded):
        run.ok = event.ok
    elif isinstance(event, TaskResumed):
        run.stopped = False


def _flag(value: str) -> bool | None:
    text = value.strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None
