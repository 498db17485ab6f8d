"""What a replay does about loops, landings and refusals that came from outside: with the rules of live tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import msgspec

from agentbudget.domain.verdict import StopReport
from agentbudget.governor import looping
from agentbudget.governor.looping import Ended
from agentbudget.policies.loops import Step
from agentbudget.replay.stage import Stage
from agentbudget.replay.subjects import Route, Subject
from agentbudget.trace import events
from agentbudget.trace.events import ActionTaken, CallDenied, CallReserved, CallSettled, Event

_LANDINGS = frozenset({"finish", "ask", "end", "call"})
_LANDED = (
    "what a landing would have done is not made up: a last answer of a task that is stopped here and not in the "
    "recording may cost as much as was kept back for it, which the range includes"
)
_NOT_LANDED = "a task that is not stopped here needs no last answer: the recorded one is left out"
_UNSIGNED = "the recording has no signatures of tool calls and results: loop rules saw none of them"


class _Made(NamedTuple):
    """A recorded attempt as it goes on record again."""

    id: str
    kind: str
    name: str


class Watching(Stage):
    """A stage whose tasks are watched for loops, and land."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._signed = self._unsigned = False

    @property
    def assumed(self) -> frozenset[str]:
        """What this replay had to assume."""
        return frozenset(self.notes | ({_UNSIGNED} if self._unsigned and not self._signed else set()))

    # -- loops ---------------------------------------------------------------------------------------------------

    def _watch(self, event: CallSettled, route: Route) -> None:
        """Let the loop rules of the call's tasks see how it ended."""
        if event.unparsable:
            ended = Ended(event.lane, unparsable=True)
        elif event.kind == "tool":
            if not event.signed:
                self._unsigned = self._unsigned or route.looped
                return
            self._signed = True
            failed, name = event.outcome == "error", route.called.name
            steps = [Step(name, signed, failed) for signed in event.signed]
            ended = Ended(event.lane, tuple(steps))
        elif event.outcome == "ok":
            ended = Ended(event.lane)
        else:
            return
        found = looping.judge(route.tasks, ended)
        if found:
            made = _Made(event.call, *route.called)
            for seen in looping.act(route.tasks, found, made, ended, at=event.at, enforced=self._enforcing):
                self._pass(seen)

    def _action_taken(self, event: ActionTaken) -> None:
        """Loops are found anew; what was done for a call that is not made here, or to land what goes on, is not."""
        tasks = [task for name in event.tasks if (task := self._subjects.get(name)) is not None]
        if "rule" in event.numbers and any(task.watch is not None for task in tasks):
            return
        if tasks and tasks[-1].diverged:
            stopped = any(task.stop is not None for task in tasks)
            if stopped is not (event.action in _LANDINGS):
                return
        self._pass(event)

    # -- landings ------------------------------------------------------------------------------------------------

    def _lands_nowhere(self, event: CallReserved | CallDenied) -> bool:
        """Whether *event* is the last answer of a task that, unlike in the recording, was not stopped."""
        ended = self._subjects.get(event.final)
        if ended is None or ended.stop is not None or not ended.root_diverged:
            return False
        self.notes.add(_NOT_LANDED)
        return True

    def _keep_for_landing(self, event: CallReserved | CallDenied, latch: Subject) -> None:
        """*latch* is stopped here: the last answer it may still get is part of the range."""
        kept = event.kept.get(latch.id)
        if kept is not None and not latch.landed:
            latch.landed = True
            self.totals.more += int(latch.kept_of(kept).cost)
            self.notes.add(_LANDED)

    # -- from outside --------------------------------------------------------------------------------------------

    def _stopped_from_outside(self, event: CallDenied) -> None:
        """A task was stopped between its calls: by hand, by a deadline, or for what a tool call wanted."""
        subject = self._subject(event.tasks[0], event.at)
        stop = stop_of(event)
        if stop.limit == "loops" and any(task.watch is not None for task in subject.chain):
            return
        if event.enforced and self.policy.changes_limits and not self._still_holds(stop, subject, event.at):
            self.notes.add("a task was stopped by a limit that is another one here, and goes on")
            return
        if event.enforced and subject.stop is None:
            subject.stop = stop
        self._pass(event)

    @staticmethod
    def _still_holds(stop: StopReport, subject: Subject, at: float) -> bool:
        """Whether a recorded stop by a limit of the task holds under its limits here."""
        if stop.limit == "max_seconds":
            most = subject.budget.max_seconds
            return most is not None and at - subject.offset - subject.opened >= most - stop.kept
        return not stop.limit.startswith(("max_", "tools[")) or subject.pending is not None

    FOLDS: ClassVar[dict[type[Event], Callable[[Any, Any], None]]] = {**Stage.FOLDS, events.ActionTaken: _action_taken}


def stop_of(event: CallDenied) -> StopReport:
    """The recorded refusal."""
    try:
        return msgspec.convert(event.stop, StopReport)
    except msgspec.ValidationError:
        return StopReport(limit="unreadable", call=f"{event.kind} {event.name}")
