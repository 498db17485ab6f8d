"""Recorded events in the forms that the rules want, and the words for what a replay assumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentbudget.domain.verdict import StopReport
from agentbudget.replay.subjects import Counts, Held, Route, Subject
from agentbudget.trace import events
from agentbudget.trace.events import ActionTaken, CallDenied, CallReserved

NOTES = {
    "refused": "after a refusal the task makes no further call, and calls already in flight end as recorded",
    "admitted": "a call that was refused in the recording is admitted here: what it and the calls after it would have "
    "cost is not in the trace, so the cost is a lower bound",
    "shrunk": "an answer that is capped here ends at its cap, and the agent goes on all the same",
    "model": "another model would have answered with as many tokens, and the agent would have gone on as recorded",
    "downgrade": "the middleware would have gone down its ladder, each model of which could have taken the call",
    "shrink": "an answer that is capped here ends at its cap, and the agent goes on all the same",
    "tokenizer": "another tokenizer counts the same text differently: the range says by how much",
}


def answered_by(event: CallReserved | CallDenied, tasks: Sequence[Subject]) -> Subject | None:
    """The stopped task whose one last answer the call is."""
    for task in tasks:
        if task.id == event.final and task.last_answer != "used":
            task.last_answer = "used"
            return task
    return None


NO_COUNTS = Counts()


def counts_of(usage: dict[str, int]) -> Counts:
    """What limits count of *usage*."""
    get = usage.get
    return Counts(get("input_tokens", 0), get("output_tokens", 0), get("cache_read_tokens", 0))


def refused_leniently(event: CallReserved, held: Held, stop: StopReport) -> ActionTaken:
    """A tool call is refused that its task does without."""
    numbers: dict[str, Any] = {"tool": event.name, "cost": held.estimate.cost, "attempt": event.attempt}
    if event.kept:
        numbers["kept"] = event.kept
    if event.clock is not None:
        numbers["clock"] = event.clock
    return ActionTaken(
        at=event.at, tasks=event.tasks, action="refuse", reason=stop.reason, call=event.call, numbers=numbers
    )


def asked_in_vain(event: ActionTaken) -> CallReserved:
    """The tool call that a limit refused and its task did without."""
    numbers = event.numbers
    return CallReserved(
        at=event.at,
        call=event.call,
        tasks=event.tasks,
        kind="tool",
        name=str(numbers["tool"]),
        cost=int(numbers.get("cost", 0)),
        attempt=int(numbers.get("attempt", 1)),
        kept=numbers.get("kept", {}),
        clock=numbers.get("clock"),
        lenient=event.tasks,
    )


def asked(event: events.CallExtended, route: Route) -> CallDenied:
    """A stream's growth as the call it belongs to."""
    kind, name = route.called
    return CallDenied(at=event.at, call=event.call, tasks=event.tasks, kind=kind, name=name, stop={})
