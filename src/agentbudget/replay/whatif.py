"""What a recorded trace would have cost under other rules, and how far that can be known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from decimal import Decimal
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Never

from agentbudget.domain.budget import Budget, Limit
from agentbudget.domain.money import dollars
from agentbudget.domain.options import refuse_unknown
from agentbudget.domain.verdict import StopReport
from agentbudget.replay.engine import Engine
from agentbudget.replay.importers import read_any
from agentbudget.replay.policy import Policy
from agentbudget.replay.verdicts import Divergence, Verdict
from agentbudget.trace.events import Event, TaskOpened
from agentbudget.trace.files import OnProblem, Problem
from agentbudget.trace.reader import Trace
from agentbudget.trace.rendering import notebook
from agentbudget.trace.report import TaskReport

OPTIONS = ("budget", "limits", "model", "downgrade", "prices", "on", "mode")
"""What a replay can change; see `Policy`."""

Progress = Callable[[int], None]
"""Told how many events have been replayed so far, now and then."""

_TOLD_EVERY = 50_000


class WhatIf:
    """The outcome of a replay. Money is in exact dollars.

    `cost` is exact while `diverged_at` is None: the recorded decisions, at the recorded or the new prices. From the
    first decision that is not the recorded one, what follows is an estimate; `assumptions` says what it rests on.
    """

    def __init__(
        self, source: Callable[[], Iterable[Event]], policy: Policy, engine: Engine, *, path: str, file: str
    ) -> None:
        self._source = source
        self._engine = engine
        self.policy = policy
        self.path = path
        """What was replayed."""
        self._file = file

    @property
    def cost(self) -> Decimal:
        """What would have been settled."""
        return dollars(self._engine.totals.cost)

    @property
    def recorded(self) -> Decimal:
        """What was settled."""
        return dollars(self._engine.totals.recorded)

    @property
    def saved(self) -> Decimal:
        """`recorded` less `cost`: negative where the change costs more."""
        return self.recorded - self.cost

    @property
    def unpriced_calls(self) -> int:
        """Model calls without a price, neither recorded nor new: what they cost is in no number here."""
        return self._engine.totals.unpriced

    @property
    def saved_waste(self) -> Decimal:
        """The part of what refused calls cost in the recording that bought nothing: their results were thrown away."""
        return dollars(self._engine.totals.wasted)

    @property
    def downgraded(self) -> int:
        """Calls that the ladder sent to another model, or gave a shorter answer."""
        return self._engine.moved

    @property
    def cost_range(self) -> tuple[Decimal, Decimal]:
        """`cost` at the fewest and the most tokens that other tokenizers may count, and with the last answers that
        landings may still pay for; `cost` twice without either."""
        totals = self._engine.totals
        return dollars(totals.cost - totals.less), dollars(totals.cost + totals.more)

    @property
    def diverged_at(self) -> Divergence | None:
        """The first decision that is not the recorded one; None: the replay is exact."""
        return self._engine.divergences[0] if self._engine.divergences else None

    @property
    def divergences(self) -> tuple[Divergence, ...]:
        """The first one of each root task; at most a thousand are kept, `diverged` counts all."""
        return tuple(self._engine.divergences)

    @property
    def diverged(self) -> int:
        """Root tasks whose replay left the recording."""
        return self._engine.totals.diverged

    @property
    def stopped_by(self) -> StopReport | None:
        """The first refusal that would have stopped a task."""
        return self._engine.stop

    @property
    def stopped(self) -> int:
        """Root tasks that would have ended stopped."""
        return self._engine.totals.stopped

    @property
    def tasks(self) -> int:
        """Root tasks replayed."""
        return self._engine.totals.tasks

    @property
    def calls(self) -> int:
        """Recorded attempts that ran."""
        return self._engine.totals.calls

    @property
    def skipped(self) -> int:
        """Of those, how many would have been refused."""
        return self._engine.totals.skipped

    @property
    def unpriced(self) -> frozenset[str]:
        """Models and tools that the new prices do not know; their calls keep the recorded cost."""
        return self._engine.unpriced

    @property
    def exact(self) -> bool:
        """Whether `cost` is what it would have been, and no estimate."""
        return not self.diverged and not self.unpriced

    @property
    def label(self) -> str:
        """`"exact"`, `"lower bound"` or `"estimate"`: what may be claimed of `cost`."""
        if self.exact:
            return "exact"
        whys = {divergence.why for divergence in self.divergences}
        return "lower bound" if whys == {"admitted"} and not self.unpriced else "estimate"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the estimate rests on; empty where it is exact."""
        notes = sorted(self._engine.assumed)
        if self.unpriced:
            notes.append(f"no new price for {', '.join(sorted(self.unpriced))}: those calls keep their recorded cost")
        if self.unpriced_calls:
            notes.append(f"{self.unpriced_calls:,} model calls have no price: what they cost is in no number here")
        return tuple(notes)

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Every decision, in order. Replays once more."""
        found: list[Verdict] = []
        Engine(self.policy, on_verdict=found.append).feed(self._source())
        return found

    @cached_property
    def trace(self) -> Trace:
        """The trajectory as it would have been, as a trace. Replays once more."""
        replayed: list[Event] = []
        Engine(self.policy, sink=replayed.append).feed(self._source())
        return Trace([(self._file, replayed)], path=self.path)

    @cached_property
    def report(self) -> TaskReport:
        """The numbers of that trajectory."""
        return self.trace.report

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars."""
        low, high = self.cost_range
        return {
            "path": self.path,
            "label": self.label,
            "recorded": f"{self.recorded:f}",
            "cost": f"{self.cost:f}",
            "saved": f"{self.saved:f}",
            "saved_waste": f"{self.saved_waste:f}",
            "cost_range": [f"{low:f}", f"{high:f}"],
            "tasks": self.tasks,
            "stopped": self.stopped,
            "calls": self.calls,
            "skipped": self.skipped,
            "downgraded": self.downgraded,
            "unpriced_calls": self.unpriced_calls,
            "diverged": self.diverged,
            "diverged_at": self.diverged_at.to_dict() if self.diverged_at else None,
            "stopped_by": self.stopped_by.to_dict() if self.stopped_by else None,
            "assumptions": list(self.assumptions),
        }

    def __str__(self) -> str:
        low, high = self.cost_range
        between = f", from ${low:f} to ${high:f}" if low != high else ""
        lines = [
            f"{self.path}: ${self.cost:f} ({self.label}{between}) instead of ${self.recorded:f}, saved ${self.saved:f}",
            f"  {self.skipped:,} of {self.calls:,} calls refused, {self.stopped:,} of {self.tasks:,} tasks stopped",
        ]
        if self.diverged_at is not None:
            lines.append(f"  diverged: {self.diverged_at}")
        if self.stopped_by is not None:
            lines.append(f"  stopped by: {self.stopped_by.reason}")
        return "\n".join([*lines, *(f"  assumed: {note}" for note in self.assumptions)])

    def __repr__(self) -> str:
        return f"<WhatIf {self.path!r}: {self.cost} instead of {self.recorded}, {self.label}>"

    def _repr_html_(self) -> str:
        return notebook(self, self.report)


def replay(  # noqa: PLR0913 - one keyword per thing that can be changed
    trace: Trace | str | PathLike[str],
    *,
    budget: Budget | Mapping[str, Budget] | None = None,
    limits: Iterable[Limit] | None = None,
    model: Mapping[str, str] | None = None,
    downgrade: str | Iterable[str] = (),
    prices: Mapping[str, Any] | str | Path | None = None,
    on: date | None = None,
    mode: str | None = None,
    progress: Progress | None = None,
    on_problem: OnProblem | None = None,
    **unknown: Never,
) -> WhatIf:
    """Run a recorded trace, or all those in a file, folder or glob, through other rules; see `Policy` for the options.

    Files may be of any format that `importers.read_any` knows. What is skipped goes to *on_problem*; without it one
    `BudgetWarning` counts it.

    Without any option the recorded rules are replayed: the same verdicts and the same cost to the nano-dollar. A path
    is read as it is replayed, in memory that does not grow with it; only where shared limits tie several files
    together are their events loaded and put in order of time first.

    Raises:
        TypeError: an unknown option. ConfigurationError: a value that cannot mean anything. TraceError: nothing
            usable at the path.
    """
    refuse_unknown(unknown, (*OPTIONS, "progress", "on_problem"), where="replay")
    policy = Policy.of(budget=budget, limits=limits, model=model, downgrade=downgrade, prices=prices, on=on, mode=mode)
    if not isinstance(trace, Trace) and _tied(read_any(trace, on_problem=_ignore), policy):
        trace = Trace.load(trace)
        if on_problem is not None:
            for problem in trace.problems:
                on_problem(problem)
    path = trace.path if isinstance(trace, Trace) else fspath(trace)
    events = _of_trace(trace, policy) if isinstance(trace, Trace) else _of_path(trace, on_problem)
    engine = Engine(policy)
    engine.feed(events() if progress is None else _told(events(), progress))
    file = trace.paths[0] if isinstance(trace, Trace) and len(trace.paths) == 1 else path
    return WhatIf(events, policy, engine, path=path, file=file)


def _of_path(path: str | PathLike[str], on_problem: OnProblem | None) -> Callable[[], Iterable[Event]]:
    told: list[bool] = []

    def events() -> Iterable[Event]:
        """The same events each time; what was skipped is told the first time."""
        again = bool(told)
        told.append(True)
        return read_any(path, on_problem=_ignore if again else on_problem)

    return events


def _ignore(problem: Problem) -> None:
    """It was told, or will be."""


def _of_trace(trace: Trace, policy: Policy) -> Callable[[], Iterable[Event]]:
    if len(trace.paths) > 1:
        opened = [event for event in trace.events if type(event) is TaskOpened]
        if any(_shares(event, policy) for event in opened):
            return lambda: sorted(trace.events, key=_time)
    return lambda: trace.events


def _tied(events: Iterable[Event], policy: Policy) -> bool:
    """Whether the first task shares limits or accounts with others."""
    first = next((event for event in events if isinstance(event, TaskOpened)), None)
    return first is not None and _shares(first, policy)


def _shares(event: TaskOpened, policy: Policy) -> bool:
    limits = policy.limits
    return bool(limits or (limits is None and event.limits) or event.scope)


def _told(events: Iterable[Event], progress: Progress) -> Iterable[Event]:
    number = 0
    for event in events:
        yield event
        number += 1
        if number % _TOLD_EVERY == 0:
            progress(number)
    progress(number)


def _time(event: Event) -> float:
    return event.at
