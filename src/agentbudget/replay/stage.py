"""The stage of a replay: its tasks and their limits, as the recording opened, resumed and closed them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar

from msgspec.structs import replace

from agentbudget.domain.budget import Budget, Limit
from agentbudget.domain.loops import OBSERVED
from agentbudget.domain.money import dollars
from agentbudget.errors import ConfigurationError
from agentbudget.governor import plan
from agentbudget.governor.final import leaving
from agentbudget.governor.plan import Line
from agentbudget.governor.stopping import unlatch
from agentbudget.governor.values import Estimate
from agentbudget.replay.book import Book
from agentbudget.replay.policy import Policy
from agentbudget.replay.prices import Repricer
from agentbudget.replay.subjects import KINDS, Named, Route, Subject, budget_from
from agentbudget.trace import events
from agentbudget.trace.events import CallDenied, CallReserved, CallSettled, Event

_CLOSED_KEPT = 1024
"""Closed tasks that may still be resumed or settled late, as many as a governor remembers."""
_ANY = Estimate(1, 1, 1)
"""Stands for the estimate of any call: what it touches shows which limits a call of its kind can meet."""


class Totals:
    """What a replay adds up. Money in nano-dollars."""

    __slots__ = (
        "calls",
        "cost",
        "diverged",
        "less",
        "more",
        "recorded",
        "skipped",
        "stopped",
        "tasks",
        "unpriced",
        "wasted",
    )

    def __init__(self) -> None:
        self.recorded = self.cost = 0
        self.less = self.more = 0
        """How far another tokenizer may take `cost` down and up."""
        self.calls = 0
        """Recorded attempts that ran."""
        self.skipped = 0
        """Of those, how many the replay refuses."""
        self.unpriced = 0
        """Model calls that have no price, neither in the recording nor here."""
        self.wasted = 0
        """Nano-dollars that those cost whose result was thrown away: retries of what failed, mostly."""
        self.tasks = self.stopped = self.diverged = 0


class Stage:
    """Tasks, accounts and limits of one replay, moved by the events that are about tasks."""

    def __init__(self, policy: Policy, *, sink: Callable[[Event], None] | None = None) -> None:
        self.policy = policy
        self.totals = Totals()
        self.notes: set[str] = set()
        """Assumptions that this replay had to make."""
        self._repricer = Repricer(policy) if policy.reprices or policy.model or policy.downgrade else None
        self._sink = sink
        self._book = Book()
        self._subjects: dict[str, Subject] = {}
        self._closed: OrderedDict[str, None] = OrderedDict()
        self._limits: tuple[Limit, ...] = policy.limits or ()
        self._recorded_limits: list[dict[str, Any]] = []
        self._enforcing = policy.mode != "observe"
        self._budget: tuple[dict[str, Any], Budget] = ({}, Budget())

    # -- tasks ---------------------------------------------------------------------------------------------------

    def _trace_opened(self, event: events.TraceOpened) -> None:
        if self.policy.mode is None:
            self._enforcing = event.mode != "observe" or self.policy.changes_limits
        self._pass(event)

    def _task_opened(self, event: events.TaskOpened) -> None:
        parent = self._subjects.get(event.parent) if event.parent else None
        if self.policy.limits is None and event.limits != self._recorded_limits:
            self._recorded_limits = event.limits
            self._limits = tuple(limit for stored in event.limits if (limit := _limit(stored)) is not None)
        known = self._subjects.get(event.task)
        budget, recorded = self._declared(event.budget, event.name, root=parent is None)
        subject = Subject.of(event, parent=parent, budget=budget, recorded=recorded)
        if known is not None:
            self._reroute()
        self._subjects[event.task] = subject
        self._closed.pop(event.task, None)
        self.totals.tasks += parent is None
        self._pass(event)

    def _task_resumed(self, event: events.TaskResumed) -> None:
        subject = self._subject(event.task, event.at)
        if event.redeclared or event.budget:
            budget, subject.recorded = self._declared(event.budget, subject.name, root=subject.parent is None)
            subject.declare(budget)
            self._reroute()
        if event.lifted:
            unlatch(subject, self._subjects.values())
            subject.pending = None
        if not subject.is_open:
            subject.status = "open"
            paused = event.at - subject.closed_at
            subject.opened = event.clock if event.clock is not None else subject.opened + paused
            self._closed.pop(event.task, None)
        self._pass(event)

    def _limit_raised(self, event: events.LimitRaised) -> None:
        subject = self._subject(event.task, event.at)
        self._book.top_up(event.grant, subject.lines[0].account, event.amount)
        unlatch(subject, self._subjects.values())
        subject.pending = None
        self._pass(event)

    def _task_closed(self, event: events.TaskClosed) -> None:
        subject = self._subject(event.task, event.at)
        subject.status, subject.loop = _status(event, subject), None
        subject.closed_at = event.at
        self.totals.stopped += subject.parent is None and subject.status == "stopped"
        self._closed[event.task] = None
        self._closed.move_to_end(event.task)
        if len(self._closed) > _CLOSED_KEPT:
            self._forget(self._closed.popitem(last=False)[0])
        if self._sink is not None:
            self._sink(replace(event, cost=subject.spent, status=subject.status))

    def _forget(self, task: str) -> None:
        subject = self._subjects.pop(task)
        subject.routes.clear()  # they refer to the task: let go of it now, not when cycles are looked for
        if subject.scope[0] == "task":
            self._book.forget(subject.accounts())

    def _subject(self, task: str, at: float) -> Subject:
        """The task; one whose opening is not in the trace has no limits."""
        subject = self._subjects.get(task)
        if subject is None:
            opened = events.TaskOpened(at=at, task=task)
            budget, recorded = self._declared({}, "", root=True)
            subject = self._subjects[task] = Subject.of(opened, parent=None, budget=budget, recorded=recorded)
            self.totals.tasks += 1
        return subject

    def _declared(self, stored: dict[str, Any], name: str, *, root: bool) -> tuple[Budget, Budget]:
        """The budget of a task here, and its recorded one."""
        if stored != self._budget[0]:
            read = budget_from(stored)
            if read is None:
                self.notes.add("a recorded budget could not be read: its task was replayed without limits")
            self._budget = (stored, read or Budget())
        recorded = self._budget[1]
        other = self.policy.budget_of(name) if root else None
        if other is None:
            return recorded, recorded
        if other.loops is not None and other.loops.volatile != (recorded.loops or OBSERVED).volatile:
            self.notes.add("arguments that the new loop rules leave out were compared as the recorded rules did")
        return other, recorded

    # -- routes --------------------------------------------------------------------------------------------------

    def _route(self, event: CallReserved | CallDenied | CallSettled) -> Route:
        subject = self._subjects.get(event.tasks[0]) or self._subject(event.tasks[0], event.at)
        name = event.name if self._repricer is None else self._repricer.name(event)
        key = (event.tasks, event.kind, name)
        route = subject.routes.get(key)
        if route is None:
            tasks = tuple([self._subject(task, event.at) for task in event.tasks])
            called = Named(KINDS.get(event.kind, event.kind), name)
            touched = plan.estimated_amounts(called, _ANY, retry=True)
            lines = [line for line in plan.lines_for(tasks, called) if touched[line.place]]
            looped = any(task.budget.loops is not None or task.loop is not None for task in tasks)
            route = subject.routes[key] = Route(tasks, called, lines, self._book.entries(lines), looped)
        return route

    def _lines(self, event: CallReserved | CallDenied, route: Route) -> list[Line]:
        """The lines of a call that must leave something for last answers, or has shared limits to pass."""
        lines = [*route.lines, *plan.shared_lines(self._limits, route.tasks, route.called, at=event.at)]
        for task in route.tasks:
            kept = event.kept.get(task.id)
            if kept is not None:
                lines = leaving(lines, task, task.kept_of(kept))
        return plan.tightest(lines)

    def _reroute(self) -> None:
        """Limits were declared anew: no route is what it was."""
        for subject in self._subjects.values():
            subject.routes.clear()

    def _pass(self, event: Event) -> None:
        if self._sink is not None:
            self._sink(event)

    FOLDS: ClassVar[dict[type[Event], Callable[[Any, Any], None]]] = {
        events.TraceOpened: _trace_opened,
        events.TaskOpened: _task_opened,
        events.TaskResumed: _task_resumed,
        events.LimitRaised: _limit_raised,
        events.TaskClosed: _task_closed,
    }
    """What each event about tasks does."""


def _status(event: events.TaskClosed, subject: Subject) -> str:
    """How the task closes here. One that was stopped in the recording and is not here would have gone on: `open`."""
    if subject.stop is not None and event.status != "interrupted":
        return "stopped"
    return "open" if event.status == "stopped" and subject.root_diverged else event.status


def _limit(stored: dict[str, Any]) -> Limit | None:
    """A recorded shared limit; None where it cannot be read."""
    try:
        amount: int | Decimal = dollars(stored["amount"]) if stored["meter"] == "cost" else stored["amount"]
        return Limit(
            stored["meter"],
            amount,
            scope=tuple(stored["scope"]),
            window=stored.get("window", "never"),
            timezone=stored.get("timezone", "UTC"),
            where=stored.get("where"),
        )
    except (KeyError, TypeError, ConfigurationError):
        return None
