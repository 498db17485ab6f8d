"""The shape of a task: how deep agents may call agents, how many at once, how many tools in one turn.

An agent is a graph run. The agent a task was opened for is at depth 0; a graph that runs within it (a sub-agent in a
tool, a deep agent's sub-agent, a subgraph) is its child, at depth 1, and so on. What is refused here is one call, not
the task: where somebody lands the task, the tool call around it is answered, and the others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID
from weakref import WeakKeyDictionary

from agentbudget.domain.verdict import StopReport
from agentbudget.governor.values import Call, Kind
from agentbudget.langchain.runs import RUNS, Run

if TYPE_CHECKING:
    from agentbudget.governor.task import Task

CALL_ONLY = ("max_depth", "max_children", "max_tools_per_turn")
"""`StopReport.limit` of refusals of one call, which leave the task as it is."""


class _Shape:
    """What is going on in one task. Guarded by its governor's lock."""

    __slots__ = ("children", "turns")

    def __init__(self) -> None:
        self.children: dict[UUID, None] = {}
        """Graph runs directly within the agent of the task that have made a call, as long as they run."""
        self.turns: dict[str, set[object]] = {}
        """Tool calls since the last model call, by agent."""


_SHAPES: WeakKeyDictionary[Task, _Shape] = WeakKeyDictionary()


def refused(run: Run, call: Call) -> StopReport | None:
    """Why *call* of *run* does not fit the shape of its tasks; on record, and latched where nobody would land it."""
    for task in run.tasks:
        if not task.budget.has_shape or task.governor.mode == "observe":
            continue
        with task.governor.lock:
            stop = _misfit(task, run, call)
            if stop is None:
                continue
            if task.lenient and task.id in call.caught:
                task.governor.acted((task,), "refuse", stop.reason, call=call.id)
            else:
                task.governor.stop_task(task, stop)
        return stop
    return None


def _misfit(task: Task, run: Run, call: Call) -> StopReport | None:
    budget, shape = task.budget, _SHAPES.setdefault(task, _Shape())
    if call.kind is Kind.TOOL:
        return _turn(task, shape, run, call)
    shape.turns.pop(run.lane, None)
    agents = _agents(task, run)
    depth = len(agents) - 1
    if budget.max_depth is not None and depth > budget.max_depth:
        why = f"it is made by an agent {depth} deep, and max_depth is {budget.max_depth}"
        return _stop(task, call, "max_depth", why, f"raise max_depth to {depth}, or have its caller do the work")
    if budget.max_children is not None and depth > 0:
        return _child(task, shape, agents[1], call, budget.max_children)
    return None


def _child(task: Task, shape: _Shape, child: Run, call: Call, most: int) -> StopReport | None:
    for known in [each for each in shape.children if RUNS.get(each) is None]:
        del shape.children[known]
    if child.id not in shape.children and len(shape.children) >= most:
        why = f"max_children is {most}, and as many agents are at work within the task"
        return _stop(task, call, "max_children", why, "wait for one to end, or raise max_children")
    shape.children[child.id] = None
    return None


def _turn(task: Task, shape: _Shape, run: Run, call: Call) -> StopReport | None:
    most = task.budget.max_tools_per_turn
    if most is None:
        return None
    turn = shape.turns.setdefault(run.lane, set())
    if call.fingerprint in turn or len(turn) < most:
        turn.add(call.fingerprint)
        return None
    why = f"max_tools_per_turn is {most}, and as many tool calls of this turn were made"
    remedy = "ask for the rest in the next turn, or raise max_tools_per_turn"
    return _stop(task, call, "max_tools_per_turn", why, remedy)


def _agents(task: Task, run: Run) -> list[Run]:
    """The graph runs of *task* around *run*, outermost first."""
    found: list[Run] = []
    step: Run | None = run
    while step is not None and task in step.tasks:
        if step.node and step.parent is not None and task in step.parent.tasks:
            found.append(step.parent)
        step = step.parent
    return found[::-1]


def _stop(task: Task, call: Call, limit: str, why: str, remedy: str) -> StopReport:
    return StopReport(
        limit=limit, call=f"{call.kind} {call.name}", detail=why, remedy=remedy, task_id=task.id, task=task.name
    )
