"""Events of one trace file into rows of the two tables. Pure: no files, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec

from agentbudget.finops.schema import CALLS, KNOWN_TAGS, TASKS, USAGE_COLUMNS
from agentbudget.trace.events import (
    CallDenied,
    CallReleased,
    CallReserved,
    CallSettled,
    Event,
    OutcomeRecorded,
    TaskClosed,
    TaskOpened,
    TaskResumed,
)

Row = dict[str, Any]

_PRICES = msgspec.json.Encoder(order="sorted")
_NO_TAGS: Row = {**dict.fromkeys(KNOWN_TAGS), "tags": []}
_CALL: Row = dict.fromkeys(CALLS.names)
_TASK: Row = dict.fromkeys(TASKS.names)


class Flattener:
    """The rows of one file, from its events in order. Memory grows with its tasks and its calls in flight."""

    def __init__(self) -> None:
        self._tasks: dict[str, Row] = {}
        self._tags: dict[str, Row] = {}
        self._open: dict[str, CallReserved] = {}
        self._prices: dict[str, str] = {}

    def calls(self, events: Iterable[Event]) -> Iterator[Row]:
        """One row for each call that *events* settle or deny."""
        for event in events:
            match event:
                case CallSettled():
                    yield self._settled(event)
                case CallReserved():
                    self._open[event.call] = event
                case CallDenied() if event.enforced:
                    yield self._denied(event)
                case CallReleased():
                    self._open.pop(event.call, None)
                case TaskOpened():
                    self._opened(event)
                case TaskClosed() | TaskResumed() | OutcomeRecorded():
                    self._changed(event)
                case _:
                    pass

    def tasks(self) -> list[Row]:
        """The tasks of the file as they stand after the events so far."""
        return list(self._tasks.values())

    def _opened(self, event: TaskOpened) -> None:
        known = {name: event.tags.get(name) for name in KNOWN_TAGS}
        free = [(key, value) for key, value in event.tags.items() if key not in known]
        self._tags[event.task] = {**known, "tags": free}
        self._tasks[event.task] = {
            **_TASK,
            "task": event.task,
            "parent": event.parent,
            "name": event.name,
            "thread": event.thread,
            "opened": moment(event.at),
            "status": "open",
            "max_cost": event.budget.get("max_cost_nanos"),
            **self._tags[event.task],
        }

    def _changed(self, event: TaskClosed | TaskResumed | OutcomeRecorded) -> None:
        row = self._tasks.get(event.task)
        if row is None:
            return
        match event:
            case TaskClosed():
                row.update(status=event.status, closed=moment(event.at), cost=event.cost)
            case TaskResumed():
                row.update(status="open", closed=None)
                if event.budget:
                    row.update(max_cost=event.budget.get("max_cost_nanos"))
                if event.lifted:
                    row.update(stopped_by=None)
            case OutcomeRecorded():
                row.update(outcome=event.outcome, ok=event.ok)

    def _settled(self, event: CallSettled) -> Row:
        began = self._open.pop(event.call, None)
        price = event.price or {}
        row = self._common(event, began)
        row.update(event.usage)
        row.update(
            model=(event.model or event.name) if event.kind == "model" else "",
            provider=price.get("provider") or row["provider"],
            tier=event.tier or row["tier"],
            outcome=event.outcome,
            cost=event.cost,
            avoided=event.avoided,
            overrun=event.overrun,
            seconds=event.seconds,
            priced=event.priced,
            estimated=event.source not in {"reported", "none"},
            retry=event.retry,
            wasted=event.wasted,
            late=event.late,
            result=event.result,
            result_size=event.result_size,
            price=self._price(price),
        )
        return row

    def _denied(self, event: CallDenied) -> Row:
        stopped = self._tasks.get(event.stop.get("task_id", event.tasks[0]) if event.tasks else "")
        if stopped is not None:
            stopped.update(stopped_by=stopped["stopped_by"] or event.stop.get("limit"))
        row = self._common(event, None)
        row.update(
            attempt=event.attempt,
            model=event.name if event.kind == "model" else "",
            outcome="denied",
            refused=event.cost,
            retry=event.attempt > 1,
            priced=True,
        )
        return row

    def _common(self, event: CallSettled | CallDenied, began: CallReserved | None) -> Row:
        tasks = event.tasks or ("",)
        task = self._tasks.get(tasks[0], _TASK)
        row = {
            **_BLANK,
            **self._tags.get(tasks[0], _NO_TAGS),
            "ended": moment(event.at),
            "call": event.call,
            "operation": event.call,
            "task": tasks[0],
            "root": tasks[-1],
            "task_name": task["name"] or "",
            "thread": task["thread"] or "",
            "kind": event.kind,
            "name": event.name,
            "agent": event.agent,
            "node": event.node,
            "shared": self._is_shared(tasks),
        }
        if began is not None:
            row.update(
                operation=began.operation or event.call,
                attempt=began.attempt,
                provider=began.provider,
                tier=began.tier,
                layer=began.layer if began.attempt > 1 else "",
                messages=began.messages,
                appended=began.size,
                request=began.request,
            )
        return row

    def _is_shared(self, tasks: tuple[str, ...]) -> bool:
        """Whether the tasks are more than one task and its ancestors."""
        known = self._tasks
        return any(known.get(inner, _TASK)["parent"] != outer for inner, outer in pairwise(tasks))

    def _price(self, price: dict[str, Any]) -> str:
        if not price:
            return ""
        text = _PRICES.encode(price).decode()
        return self._prices.setdefault(text, text)


_BLANK: Row = {
    **_CALL,
    **dict.fromkeys(USAGE_COLUMNS, 0),
    **dict.fromkeys(("cost", "avoided", "refused", "overrun", "appended", "result_size", "messages"), 0),
    **dict.fromkeys(("priced", "estimated", "retry", "wasted", "late", "shared"), False),
    **dict.fromkeys(("provider", "tier", "layer", "model", "request", "result", "price"), ""),
    "attempt": 1,
    "seconds": 0.0,
}


_FIRST = 0.0
_LAST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""Times that every time zone can show."""


def moment(at: float) -> datetime:
    """Seconds since 1970 as a time in UTC, to the microsecond; a clock gone wild gives the nearest time there is."""
    return datetime.fromtimestamp(min(max(at, _FIRST), _LAST), UTC)
