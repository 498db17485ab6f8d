"""`Loops(repeats="answer")`: a call that an agent repeats gets its last result, and the tool does not run."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from langchain_core.messages import ToolMessage
from langgraph.prebuilt.tool_node import ToolCallRequest
from msgspec.structs import replace

from agentbudget.domain.loops import Loops
from agentbudget.governor.polling import is_polling
from agentbudget.governor.task import Task
from agentbudget.governor.values import Outcome, Result
from agentbudget.langchain import ambient, content, identity, work
from agentbudget.langchain.acting import current_tasks
from agentbudget.langchain.errors import BudgetExceeded
from agentbudget.langchain.request import tool_call
from agentbudget.langchain.runs import Attempt, Run, reserve
from agentbudget.policies.loops import MOST_LANES
from agentbudget.retries.sameness import digest


@dataclass(slots=True)
class _Row:
    """The last call of an agent, and how many turns in a row it was made with the same result."""

    asked: str
    said: str | list[Any]
    turns: int
    turn: str
    """The reply of the model that asked for it last: calls side by side are one decision."""


class Repeats:
    """What the agents of each task did last."""

    def __init__(self) -> None:
        self._tasks: WeakKeyDictionary[Task, OrderedDict[str, _Row]] = WeakKeyDictionary()

    def answer(self, task: Task, request: ToolCallRequest) -> ToolMessage | None:
        """The last result of the call of *request*, where it need not run; None where it runs.

        It is a call like any other: admitted, on record as one whose result was kept, and seen by the loop rules.

        Raises:
            BudgetExceeded: the call is refused.
        """
        loops, call = _rules(task, str(request.tool_call["name"])), request.tool_call
        if loops is None or loops.nudge is None or loops.nudge.in_a_row is None:
            return None
        rows, run = self._tasks.get(task), identity.surrounding_run()
        row = rows.get(_lane(run)) if rows is not None else None
        if row is None or row.turns < loops.nudge.in_a_row or row.asked != _asked(request):
            return None
        _on_record(task, run, request, row.said)
        times = row.turns
        note = f"(Not run again: it was called {times} times in a row with this result, which is repeated here.)"
        said = f"{row.said}\n\n{note}" if isinstance(row.said, str) else [*row.said, {"type": "text", "text": note}]
        return ToolMessage(said, tool_call_id=call["id"] or "", name=call["name"])

    def ran(self, task: Task, request: ToolCallRequest, result: object) -> None:
        """The call of *request* ran, and returned *result*."""
        if _rules(task, str(request.tool_call["name"])) is None:
            return
        rows = self._tasks.setdefault(task, OrderedDict())
        lane, asked, turn = _lane(identity.surrounding_run()), _asked(request), _turn(request)
        before = rows.pop(lane, None)
        if not isinstance(result, ToolMessage) or result.status == "error" or not asked:
            return
        same = before is not None and (before.asked, before.said) == (asked, result.content)
        turns = 1 if before is None or not same else before.turns + (before.turn != turn)
        rows[lane] = _Row(asked, result.content, turns, turn)
        if len(rows) > MOST_LANES:
            rows.popitem(last=False)


def _rules(task: Task, tool: str) -> Loops | None:
    """The loop rules by which a call of *tool* may be answered without running it."""
    loops = task.budget.loops
    exempt = loops is None or loops.repeats != "answer" or tool in loops.polling or is_polling(tool)
    return None if exempt or task.governor.mode != "enforce" else loops


def _on_record(task: Task, run: Run | None, request: ToolCallRequest, said: object) -> None:
    tasks, call = current_tasks(run), request.tool_call
    planned = tool_call(
        uuid4().hex,
        call["name"],
        call["args"],
        parent="",
        tags=None,
        metadata=work.metadata(),
        tool_call_id=call["id"],
        told=content.of_arguments(tasks, call["args"]),
    )
    attempt = Attempt(replace(planned, caught=(task.id, *ambient.CAUGHT.get())), heard_by=None)
    stop = reserve(attempt, tasks)
    if stop is not None:
        raise BudgetExceeded(stop, next((each for each in tasks if each.id == stop.task_id), task))
    told = content.of_output(tasks, said)
    attempt.settle(
        Result(
            outcome=Outcome.CACHED,
            value=said,
            said=said,
            lane=_lane(run),
            result=told.hashed,
            content=told.content,
        )
    )


def _asked(request: ToolCallRequest) -> str:
    """What is asked; empty where it cannot be compared."""
    try:
        return digest([request.tool_call["name"], request.tool_call["args"]])
    except TypeError:
        return ""


def _turn(request: ToolCallRequest) -> str:
    """The reply of the model that asked for the call, as far as it can be told."""
    messages = request.state.get("messages", []) if isinstance(request.state, dict) else []
    return str(getattr(messages[-1], "id", "")) if messages else ""


def _lane(run: Run | None) -> str:
    return run.lane if run is not None else ""
