"""A fold of events into the numbers of one task: the same code live and over a loaded trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import msgspec

from agentbudget.domain.accounts import Meter
from agentbudget.domain.money import dollars, format_dollars
from agentbudget.domain.usage import MAX_TOKENS, Usage
from agentbudget.domain.verdict import StopReport
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
    OutcomeRecorded,
    TaskClosed,
    TaskOpened,
    TaskResumed,
)
from agentbudget.trace.report import Spend, TaskReport, merge

MAX_KEPT = 100
"""Actions and discrepancies kept one by one; further ones are only counted."""

UNKNOWN_LAYER = "unknown"
"""What repeated an attempt, where nobody said."""

_Row = list[int]
"""Nano-dollars, settled attempts, input tokens, output tokens."""


class _Open(NamedTuple):
    """An attempt in flight."""

    cost: int
    kind: str
    retry: bool
    layer: str = ""


class Tally(msgspec.Struct, eq=False):
    """The numbers of the task *task_id*, from events in their order; events of other tasks are passed over.

    A call counts if the task is one of those that pay for it, so that a task includes the tasks within it.
    Not thread-safe: the caller holds the lock under which it writes the events.
    """

    task_id: str
    _rows: dict[tuple[str, str, str, str], _Row] = {}
    """By kind, name, agent and node."""
    _layers: dict[str, _Row] | None = None
    """Attempts beyond the first, by what repeated."""
    _usage: dict[str, int] = {}
    _open: dict[str, _Open] | None = None
    _opened: TaskOpened | None = None
    _limits: dict[str, Any] = {}
    _closed: TaskClosed | None = None
    _outcome: OutcomeRecorded | None = None
    _grants: dict[tuple[str, str], int] | None = None
    _stop: CallDenied | None = None
    _would_stop: CallDenied | None = None
    _actions: list[ActionTaken] | None = None
    _discrepancies: list[Discrepancy] | None = None
    _notes: int = 0
    """Actions and discrepancies beyond those kept."""
    _first_at: float | None = None
    _last_at: float = 0.0
    _denied: int = 0
    _would_deny: int = 0
    _unpriced: int = 0
    _retries: int = 0
    _estimated: int = 0
    _overrun: int = 0
    _wasted: int = 0
    _avoided: int = 0
    _late: int = 0
    noted: list[Event] = []
    """Events that the next reading takes into account: whoever notes them need not wait, and many are never read."""

    def fold(self) -> None:
        """Take into account what was noted."""
        if noted := self.noted:
            self.noted = []
            for event in noted:
                self.apply(event)

    def apply(self, event: Event) -> None:
        """Take *event* into account. Constant time, about two microseconds for a settled call."""
        if self.noted:
            self.fold()
        fold = self._FOLDS.get(type(event))
        if fold is not None and fold(self, event):
            at = event.at
            if self._first_at is None:
                self._first_at = self._last_at = at
            elif at > self._last_at:
                self._last_at = at

    # Each fold returns whether the event is of this task.

    def _task_opened(self, event: TaskOpened) -> bool:
        if event.task != self.task_id:
            return False
        self._opened = event
        self._limits = event.budget
        return True

    def _task_resumed(self, event: TaskResumed) -> bool:
        if event.task != self.task_id:
            return False
        self._closed = None
        if event.lifted:
            self._stop = None
        if event.budget:
            self._limits = event.budget
        return True

    def _call_reserved(self, event: CallReserved) -> bool:
        if self.task_id not in event.tasks:
            return False
        if self._open is None:
            self._open = {}
        retry = event.attempt > 1
        self._wasted += event.thrown
        self._open[event.call] = _Open(event.cost, event.kind, retry, event.layer if retry else "")
        return True

    def _call_extended(self, event: CallExtended) -> bool:
        if self.task_id not in event.tasks:
            return False
        if self._open is not None and (held := self._open.get(event.call)) is not None:
            self._open[event.call] = held._replace(cost=event.cost)
        return True

    def _call_released(self, event: CallReleased) -> bool:
        if self.task_id not in event.tasks:
            return False
        self._resolve(event.call)
        return True

    def _call_settled(self, event: CallSettled) -> bool:
        if self.task_id not in event.tasks:
            return False
        cost = event.cost
        key = (event.kind, event.name, event.agent, event.node)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = [0, 0, 0, 0]
        row[0] += cost
        row[1] += 1
        usage = event.usage
        if usage:
            total = self._usage
            for name, count in usage.items():
                total[name] = total.get(name, 0) + count
            row[2] += usage.get("input_tokens", 0)
            row[3] += usage.get("output_tokens", 0)
        if event.retry:
            self._count_layer(event)
        if self._open is not None:
            self._resolve(event.call)
        if event.source != "reported":
            self._estimated += cost if event.source != "none" else 0
        if not event.priced and event.kind == "model":
            self._unpriced += 1
        if event.retry or event.wasted or event.late:
            self._retries += event.retry
            self._wasted += cost if event.wasted else 0
            self._late += cost if event.late else 0
        self._overrun += event.overrun
        self._avoided += event.avoided
        return True

    def _call_denied(self, event: CallDenied) -> bool:
        if self.task_id not in event.tasks:
            return False
        if not event.enforced:
            self._would_deny += 1
            self._would_stop = self._would_stop or event
            return True
        self._denied += 1
        if self._stop is None or (self._inner(self._stop) and not self._inner(event)):
            self._stop = event
        return True

    def _action_taken(self, event: ActionTaken) -> bool:
        if self.task_id not in event.tasks:
            return False
        self._actions = self._actions or []
        self._keep(self._actions, event)
        return True

    def _discrepancy(self, event: Discrepancy) -> bool:
        if self.task_id not in event.tasks:
            return False
        self._discrepancies = self._discrepancies or []
        self._keep(self._discrepancies, event)
        return True

    def _outcome_recorded(self, event: OutcomeRecorded) -> bool:
        if event.task != self.task_id:
            return False
        self._outcome = event
        return True

    def _limit_raised(self, event: LimitRaised) -> bool:
        if event.task != self.task_id:
            return False
        self._grants = self._grants or {}
        self._grants[event.meter, event.grant] = event.amount  # the ledger counts each grant once
        self._stop = None
        return True

    def _task_closed(self, event: TaskClosed) -> bool:
        if event.task != self.task_id:
            return False
        self._closed = event
        return True

    _FOLDS: ClassVar[dict[type[Event], Callable[[Tally, Any], bool]]] = {
        TaskOpened: _task_opened,
        TaskResumed: _task_resumed,
        CallReserved: _call_reserved,
        CallExtended: _call_extended,
        CallReleased: _call_released,
        CallSettled: _call_settled,
        CallDenied: _call_denied,
        ActionTaken: _action_taken,
        Discrepancy: _discrepancy,
        OutcomeRecorded: _outcome_recorded,
        LimitRaised: _limit_raised,
        TaskClosed: _task_closed,
    }

    def _count_layer(self, event: CallSettled) -> None:
        held = (self._open or {}).get(event.call)
        layer = (held.layer if held is not None else "") or UNKNOWN_LAYER
        self._layers = self._layers or {}
        row = self._layers.setdefault(layer, [0, 0, 0, 0])
        row[0] += event.cost
        row[1] += 1
        row[2] += event.usage.get("input_tokens", 0)
        row[3] += event.usage.get("output_tokens", 0)

    def _resolve(self, call: str) -> None:
        if self._open is not None:
            self._open.pop(call, None)
            self._open = self._open or None  # an empty dict keeps its memory

    def _keep(self, kept: list[Any], event: Event) -> None:
        if len(kept) < MAX_KEPT:
            kept.append(event)
        else:
            self._notes += 1

    def _inner(self, denied: CallDenied) -> bool:
        """Whether a limit of a task within this one refused: that task is stopped, this one may go on."""
        return denied.stop.get("task_id") in denied.tasks[: denied.tasks.index(self.task_id)]

    def report(
        self,
        *,
        reserved: int | None = None,
        presumed: int | None = None,
        seconds: float | None = None,
        trace_path: str | None = None,
    ) -> TaskReport:
        """The numbers so far.

        Args:
            reserved: nano-dollars held by the ledger. None: what the calls in flight hold by the events.
            presumed: nano-dollars the ledger presumes spent. None: what the calls hold of which no end was seen
                although the task is closed.
            seconds: how long the task has taken by the caller's clock. What its closing says wins; without either
                the time between its first and its last event counts.
            trace_path: the file of its events.
        """
        self.fold()
        opened, closed, open_calls = self._opened, self._closed, (self._open or {}).values()
        held = sum(call.cost for call in open_calls)
        if reserved is None:
            reserved = held if closed is None else 0
        if presumed is None:
            presumed = 0 if closed is None else held
        if closed is not None:
            seconds = closed.seconds
        elif seconds is None:
            seconds = self._last_at - (self._first_at or 0.0)
        usage, notes = self._checked_usage()
        stop = self._stop
        if stop is not None and self._inner(stop) and (closed is None or closed.status != "stopped"):
            stop = None
        return TaskReport(
            task_id=self.task_id,
            name=opened.name if opened else "",
            status=closed.status if closed else "open",
            cost=dollars(self.cost),
            reserved=dollars(reserved),
            presumed=dollars(presumed),
            overrun=dollars(self._overrun),
            estimated=dollars(self._estimated),
            limits=_limits(self._limits, self._grants or {}),
            usage=usage,
            model_calls=self._calls("model"),
            tool_calls=self._calls("tool"),
            retries=self._retries + sum(call.retry for call in open_calls),
            denied=self._denied,
            would_deny=self._would_deny,
            unpriced_calls=self._unpriced,
            wasted=dollars(self._wasted),
            avoided=dollars(self._avoided),
            started=opened.at if opened else self._first_at,
            seconds=seconds,
            by_model=self._table(_KIND, "model", _NAME),
            by_tool=self._table(_KIND, "tool", _NAME),
            by_agent=self._table(_AGENT, None, _AGENT),
            by_node=self._table(_NODE, None, _NODE),
            by_layer={layer: _spend(row) for layer, row in (self._layers or {}).items()},
            tags=dict(opened.tags) if opened else {},
            outcome=self._outcome.outcome if self._outcome else None,
            ok=self._outcome.ok if self._outcome else None,
            stopped_by=_stop(stop),
            would_stop=_stop(self._would_stop),
            actions=[_said(event, "action", "reason", "call", "numbers", "at") for event in self._actions or ()],
            discrepancies=[*self._seen_discrepancies(), *self._closing_difference(), *notes],
            trace_path=trace_path,
        )

    @property
    def cost(self) -> int:
        """Nano-dollars settled."""
        self.fold()
        total = 0
        for row in self._rows.values():
            total += row[0]
        return total

    def _calls(self, kind: str) -> int:
        settled = sum(row[1] for key, row in self._rows.items() if key[_KIND] == kind)
        return settled + sum(call.kind == kind for call in (self._open or {}).values())

    def _table(self, where: int, value: str | None, by: int) -> dict[str, Spend]:
        """Spend by part *by* of the rows whose part *where* is *value* (None: is known)."""
        return merge(
            {key[by]: _spend(row)}
            for key, row in self._rows.items()
            if (key[where] == value if value is not None else key[where])
        )

    def _seen_discrepancies(self) -> list[dict[str, Any]]:
        seen = [_said(event, "kind", "detail", "call", "at") for event in self._discrepancies or ()]
        if self._notes:
            seen.append(_note("more", f"{self._notes} further actions and discrepancies were only counted."))
        return seen

    def _closing_difference(self) -> list[dict[str, Any]]:
        """A task that closed at another cost than its settlements add up to: events are missing.

        Late calls settle after the closing was reckoned, but may be written before it.
        """
        if self._closed is None or self.cost - self._late <= self._closed.cost <= self.cost:
            return []
        missing = self._closed.cost - self.cost
        how = f"{format_dollars(abs(missing))} {'less' if missing > 0 else 'more'}"
        closed = format_dollars(self._closed.cost)
        return [_note("incomplete", f"The task closed at {closed}, its calls add up to {how}: events are missing.")]

    def _checked_usage(self) -> tuple[Usage, list[dict[str, Any]]]:
        """The sum of usage, and a discrepancy where a damaged trace makes it one that cannot be."""
        try:
            return Usage(**self._usage), []
        except (TypeError, ValueError) as problem:
            whole = {name: min(self._usage.get(name, 0), MAX_TOKENS) for name in ("input_tokens", "output_tokens")}
            return Usage(**whole), [_note("usage", f"The usage cannot be right, its parts are left out: {problem}")]


_KIND, _NAME, _AGENT, _NODE = range(4)


def _spend(row: _Row) -> Spend:
    return Spend(cost=dollars(row[0]), calls=row[1], input_tokens=row[2], output_tokens=row[3])


def _limits(budget: dict[str, Any], grants: dict[tuple[str, str], int]) -> dict[str, Any]:
    limits = {**budget, "max_cost": budget["max_cost_nanos"]} if "max_cost_nanos" in budget else dict(budget)
    limits.pop("max_cost_nanos", None)
    for (meter, _), amount in grants.items():
        if isinstance(before := limits.get(f"max_{meter}"), int | float):
            limits[f"max_{meter}"] = before + amount
    if isinstance(cost := limits.get("max_cost"), int):
        limits["max_cost"] = dollars(cost)
    return limits


def _stop(denied: CallDenied | None) -> StopReport | None:
    if denied is None:
        return None
    try:
        stop = msgspec.convert(denied.stop, StopReport)
        if stop.meter:
            Meter(stop.meter)
    except (msgspec.ValidationError, ValueError):  # a damaged or foreign trace: the refusal itself is certain
        return StopReport(limit="unreadable", call=f"{denied.kind} {denied.name}")
    return stop


def _said(event: Event, *names: str) -> dict[str, Any]:
    return {name: getattr(event, name) for name in names}


def _note(kind: str, detail: str) -> dict[str, Any]:
    return {"kind": kind, "detail": detail, "call": "", "at": None}
