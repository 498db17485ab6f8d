"""Loops of live tasks: feeds the rules with what settles, and turns what they find into evidence, nudges and stops."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from agentbudget.domain.accounts import Meter
from agentbudget.domain.loops import OBSERVED
from agentbudget.domain.verdict import StopReport
from agentbudget.governor import record
from agentbudget.governor.hold import Hold
from agentbudget.governor.polling import is_polling
from agentbudget.governor.values import UNSAID, Call, Kind, Outcome, Result
from agentbudget.policies.loops import Finding, LoopWatch, Step
from agentbudget.policies.signatures import Asked, Signer
from agentbudget.trace import events

if TYPE_CHECKING:
    from agentbudget.governor.governor import Governor
    from agentbudget.governor.task import Task

_KEY_BYTES = 16
_ENDED = frozenset({Outcome.OK, Outcome.ERROR})


class Looping:
    """The loop rules of one governor's tasks. A rule that fails is reported and starts afresh; it stops nobody."""

    __slots__ = ("_signer",)

    def __init__(self) -> None:
        self._signer = Signer(secrets.token_bytes(_KEY_BYTES))

    def watch(self, governor: Governor, hold: Hold, result: Result) -> None:
        """Let the rules of every task of *hold* see how its call ended."""
        try:
            if hold.call.kind is Kind.TOOL:
                self._tool(governor, hold, result)
            elif result.outcome == Outcome.OK:
                self._reply(governor, hold, result)
        except Exception as error:  # noqa: BLE001 - watching must never cost the agent its run
            with governor.lock:
                for task in hold.tasks:
                    task.watch = None
            governor.discrepancy(hold.tasks, "loops", f"a loop rule failed: {error!r}", call=hold.call.id)

    def latch(self, governor: Governor, tasks: Sequence[Task], call: Call) -> None:
        """Stop those of *tasks* whose rules found a loop: *call* would be its next step."""
        for task in tasks:
            if task.loop is not None:
                with governor.lock:
                    found, task.loop = task.loop, None
                    if task.stop is None and found is not None:
                        task.stop = replace(found, call=f"{call.kind} {call.name}")

    def _tool(self, governor: Governor, hold: Hold, result: Result) -> None:
        failed = result.outcome == Outcome.ERROR
        if result.outcome not in _ENDED or result.said is UNSAID or is_polling(hold.call.name):
            return
        said = self._signer.result(result.said, failed=failed)
        asked: dict[frozenset[str], Asked] = {}
        with governor.lock:
            found = []
            for task in hold.tasks:
                watch = _watch_of(task)
                hidden = watch.loops.volatile.get(hold.call.name, frozenset())
                if hidden not in asked:
                    asked[hidden] = self._signer.call(hold.call.name, hold.call.arguments, hidden)
                step = Step(hold.call.name, *asked[hidden], *said, failed)
                found.append(watch.step(result.lane, step, task.tally.cost, decided=task.replied))
            _act(governor, hold, result.lane, found)

    @staticmethod
    def _reply(governor: Governor, hold: Hold, result: Result) -> None:
        for task in hold.tasks:
            task.replied = True
        if not result.unparsable and all(task.watch is None for task in hold.tasks):
            return
        with governor.lock:
            found = [
                _watch_of(task).reply(result.lane, unparsable=result.unparsable, spent=task.tally.cost)
                for task in hold.tasks
            ]
            _act(governor, hold, result.lane, found)


def _watch_of(task: Task) -> LoopWatch:
    loops = task.budget.loops or OBSERVED
    if task.watch is None or task.watch.loops is not loops:
        task.watch = LoopWatch(loops)
    return task.watch


def _act(governor: Governor, hold: Hold, lane: str, found: Sequence[Finding | None]) -> None:
    """Put what was *found* on record, once, and let the innermost task whose budget has loop rules act on it."""
    pairs = [(task, finding) for task, finding in zip(hold.tasks, found, strict=True) if finding is not None]
    if not pairs:
        return
    acting = next(((task, finding) for task, finding in pairs if task.budget.loops is not None), None)
    task, finding = acting or pairs[0]
    taken = events.ActionTaken(
        at=governor.clock.now(),
        tasks=record.ids(hold.tasks),
        action="halt" if finding.halt else "nudge",
        reason=finding.sentence,
        call=hold.call.id,
        numbers={
            "rule": finding.rule.value,
            "times": finding.times,
            "steps": list(finding.steps),
            "last": finding.last,
            "cost": finding.cost,
            "lane": lane,
            "task": task.id,
            "acted": acting is not None and governor.mode == "enforce",
        },
    )
    governor.recorder.emit(hold.tasks, taken)
    if acting is None:
        return
    if not finding.halt:
        task.nudge(lane, finding.advice)
    elif governor.mode == "enforce":
        task.loop = stop_for(task, finding)
    else:
        _would_stop(governor, hold, task, finding)


def stop_for(task: Task, finding: Finding) -> StopReport:
    """Why *task* may not go on after *finding*; what it refuses is not known yet."""
    return StopReport(
        limit="loops",
        scope=f"task {task.id}",
        meter=Meter.COST.value,
        settled=finding.cost,
        detail=finding.sentence,
        last_calls=tuple(f"{kind} {name} {Meter.COST.show(cost)}" for kind, name, cost in task.last),
        remedy=(
            f"if this is no loop, raise Loops(halt=Thresholds({finding.rule.value}=...)), or exempt the tool with "
            f"Loops(polling={{{finding.tool!r}}}); resuming the task gives it a fresh start"
        ),
        task_id=task.id,
        task=task.name,
    )


def _would_stop(governor: Governor, hold: Hold, task: Task, finding: Finding) -> None:
    call = hold.call
    stop = replace(stop_for(task, finding), call=f"what follows {call.kind} {call.name}")
    denied = events.CallDenied(
        at=governor.clock.now(),
        call="",
        tasks=record.ids(hold.tasks),
        kind=call.kind,
        name=call.name,
        stop=stop.to_dict(),
        enforced=False,
    )
    governor.recorder.emit(hold.tasks, denied)
