"""Loops of tasks: feeds the rules with what settles, and turns what they find into evidence, nudges and stops.

`judge`, `act` and `latch` are the decisions; they are the same for live tasks and for recorded ones.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from agentbudget.domain.accounts import Meter
from agentbudget.domain.loops import OBSERVED, Loops
from agentbudget.domain.verdict import StopReport
from agentbudget.governor.hold import Hold
from agentbudget.governor.polling import is_polling
from agentbudget.governor.values import UNSAID, Called, Kind, Outcome, Result
from agentbudget.policies.loops import Finding, LoopWatch, Step
from agentbudget.policies.signatures import Signer
from agentbudget.trace import events

if TYPE_CHECKING:
    from agentbudget.governor.calls import Calls
    from agentbudget.governor.task import Task

_KEY_BYTES = 16
_REPLIED = frozenset({Outcome.OK, Outcome.CACHED})
_ENDED = _REPLIED | {Outcome.ERROR}
_NOTHING_HIDDEN: frozenset[str] = frozenset()

Found = tuple["Task", Finding]
"""A task, and what its rules found."""


class Attempted(Called, Protocol):
    """What goes on record of a call: a live one, or one recorded in a trace."""

    @property
    def id(self) -> str:
        """Of the attempt."""


class Ended(msgspec.Struct, frozen=True, gc=False):
    """How a call ended, as far as the loop rules look at it."""

    lane: str
    """The agent, as a graph run, that made it."""
    steps: tuple[Step, ...] = ()
    """A tool call: one for all tasks that pay, or, where their rules hide different arguments, one for each. Empty for
    a reply of a model."""
    unparsable: bool = False
    """Whether the reply asked for tools only in a form that cannot be read."""


class Looping:
    """The loop rules of one governor's tasks. A rule that fails is reported and starts afresh; it stops nobody."""

    __slots__ = ("_signer",)

    def __init__(self) -> None:
        self._signer = Signer(secrets.token_bytes(_KEY_BYTES))

    def look(self, hold: Hold, result: Result) -> Ended | None:
        """What the rules can see of how the call of *hold* ended; None: nothing."""
        call, outcome = hold.call, result.outcome
        if call.kind is not Kind.TOOL:
            return Ended(result.lane, (), result.unparsable) if outcome in _REPLIED else None
        name = call.name
        if result.said is UNSAID or outcome not in _ENDED or is_polling(name):
            return None
        signer, failed = self._signer, outcome == Outcome.ERROR
        answered = signer.result(result.said, failed=failed)
        known: dict[frozenset[str], Step] = {}
        steps = []
        for task in hold.tasks:
            hidden = rules_of(task).volatile.get(name, _NOTHING_HIDDEN)
            step = known.get(hidden)
            if step is None:
                asked = signer.call(name, call.arguments, hidden)
                signed = events.Signed(asked.call, asked.target, answered.result, answered.brief)
                step = known[hidden] = Step(name, signed, failed)
            steps.append(step)
        return Ended(result.lane, tuple(steps if len(known) > 1 else steps[:1]))

    @staticmethod
    def watch(governor: Calls, hold: Hold, ended: Ended, *, at: float) -> None:
        """Let the rules of every task of *hold* see how its call ended, under the lock of *governor*."""
        tasks = hold.tasks
        try:
            found = judge(tasks, ended)
            if not found:
                return
            seen = act(tasks, found, hold.call, ended, at=at, enforced=governor.mode == "enforce")
        except Exception as error:  # noqa: BLE001 - watching must never cost the agent its run
            for task in tasks:
                task.watch = None
            governor.discrepancy(tasks, "loops", f"a loop rule failed: {error!r}", call=hold.call.id)
            return
        for event in seen:
            governor.recorder.emit(tasks, event)


def rules_of(task: Task) -> Loops:
    """The loop rules of *task*; those of a budget without any only report."""
    return task.budget.loops or OBSERVED


def found_in(tasks: Iterable[Task]) -> bool:
    """Whether a loop was found in any of *tasks*, for which nothing was refused yet."""
    for task in tasks:  # noqa: SIM110 - asked before every call, where a generator would cost
        if task.loop is not None:
            return True
    return False


def latch(tasks: Iterable[Task], call: Called) -> None:
    """Stop those of *tasks* whose rules found a loop: *call* would be its next step."""
    for task in tasks:
        if task.loop is not None:
            found, task.loop = task.loop, None
            if task.stop is None:
                task.stop = replace(found, call=f"{call.kind} {call.name}")


def judge(tasks: Sequence[Task], ended: Ended) -> list[Found]:
    """What the rules of each of *tasks* say to how a call of theirs *ended*; mostly nothing."""
    lane, steps, unparsable = ended.lane, ended.steps, ended.unparsable
    found: list[Found] = []
    for number, task in enumerate(tasks):
        if steps:
            step = steps[number] if len(steps) == len(tasks) else steps[0]
            finding = _watch_of(task).step(lane, step, task.spent, decided=task.replied)
        else:
            task.replied = True
            if unparsable:
                finding = _watch_of(task).reply(lane, unparsable=True, spent=task.spent)
            elif task.watch is not None:
                finding = _watch_of(task).reply(lane, unparsable=False)
            else:
                continue
        if finding is not None:
            found.append((task, finding))
    return found


def _watch_of(task: Task) -> LoopWatch:
    loops, watch = rules_of(task), task.watch
    if watch is None or (watch.loops is not loops and watch.loops != loops):
        watch = task.watch = LoopWatch(loops)
    return watch


def act(
    tasks: Sequence[Task], found: Sequence[Found], call: Attempted, ended: Ended, *, at: float, enforced: bool
) -> list[events.Event]:
    """Let the innermost of *tasks* whose budget has loop rules act on what was *found*; what goes on record."""
    acting = next((each for each in found if each[0].budget.loops is not None), None)
    task, finding = acting or found[0]
    seen: list[events.Event] = [
        events.ActionTaken(
            at=at,
            tasks=tuple([each.id for each in tasks]),
            action="halt" if finding.halt else "nudge",
            reason=finding.sentence,
            call=call.id,
            numbers={
                "rule": finding.rule.value,
                "times": finding.times,
                "steps": list(finding.steps),
                "last": finding.last,
                "cost": finding.cost,
                "lane": ended.lane,
                "task": task.id,
                "acted": acting is not None and enforced,
            },
        )
    ]
    if acting is None:
        return seen
    if not finding.halt:
        task.nudge(ended.lane, finding.advice)
    elif enforced:
        task.loop = stop_for(task, finding)
    else:
        seen.append(_would_stop(tasks, call, stop_for(task, finding), at=at))
    return seen


def stop_for(task: Task, finding: Finding) -> StopReport:
    """Why *task* may not go on after *finding*; what it refuses is not known yet."""
    return StopReport(
        limit="loops",
        scope=f"task {task.id}",
        meter=Meter.COST.value,
        settled=finding.cost,
        detail=finding.sentence,
        last_calls=tuple(f"{kind} {name} {Meter.COST.show(cost)}" for kind, name, cost in task.recent),
        remedy=(
            f"if this is no loop, raise Loops(halt=Thresholds({finding.rule.value}=...)), or exempt the tool with "
            f"Loops(polling={{{finding.tool!r}}}); resuming the task gives it a fresh start"
        ),
        task_id=task.id,
        task=task.name,
    )


def _would_stop(tasks: Sequence[Task], call: Attempted, stop: StopReport, *, at: float) -> events.CallDenied:
    return events.CallDenied(
        at=at,
        call="",
        tasks=tuple([task.id for task in tasks]),
        kind=call.kind,
        name=call.name,
        stop=replace(stop, call=f"what follows {call.kind} {call.name}").to_dict(),
        enforced=False,
    )
