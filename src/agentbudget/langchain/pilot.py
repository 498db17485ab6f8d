"""The pilot: what becomes of a model or tool call that the budget refuses. One plan behind sync and async.

Its plans are generators: they yield what is to be done, get the result or the error, and return the answer.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import msgspec
from langchain.agents.middleware.types import ModelRequest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.errors import GraphBubbleUp
from langgraph.prebuilt.tool_node import ToolCallRequest

from agentbudget.domain.accounts import Meter
from agentbudget.domain.verdict import StopReport
from agentbudget.errors import ReservationConflictError
from agentbudget.governor.plan import STOPPED
from agentbudget.governor.task import Task
from agentbudget.langchain import abilities, acting, answered, ask, identity, landing, nudges, work
from agentbudget.langchain.errors import BudgetExceeded
from agentbudget.langchain.nesting import CALL_ONLY
from agentbudget.langchain.options import Acting

ON_LIMIT = ("finish", "ask", "end", "raise")
OnLimit = Literal["finish", "ask", "end", "raise"] | Callable[[StopReport, ModelRequest[Any]], Any]
_PENDING_MOST = 1024
_Key = tuple[str, str]


class Step(msgspec.Struct, frozen=True):
    """Hand *request* on. The last answer of a stopped task if *last*."""

    request: Any
    call: str
    """What it is, for people: `"model gpt-4o"`."""
    last: bool = False


class Free(msgspec.Struct, frozen=True):
    """Work that is not the agent's own: the user's callable."""

    work: Callable[[], Any]


Plan = Generator[Step | Free, Any, Any]


class Pilot:
    """Decides for one middleware. Holds what must be remembered between the calls of a task."""

    def __init__(
        self, on_limit: OnLimit, final_note: str, options: Acting, models: Mapping[str, BaseChatModel]
    ) -> None:
        self._on_limit = on_limit
        self._note = final_note
        self._acting = options
        self._models = models
        """What a person may choose to go on with, by name."""
        self._repeats = answered.Repeats()
        self._ended: WeakKeyDictionary[Task, StopReport] = WeakKeyDictionary()
        """Tasks whose agent was told to end."""
        self._refused: WeakKeyDictionary[Task, StopReport] = WeakKeyDictionary()
        """Tasks of which a tool call was refused for want of room that other calls may want too."""
        self._spent_tools: WeakKeyDictionary[Task, set[str]] = WeakKeyDictionary()
        """Tools that have no calls left, by task."""
        self._asked: OrderedDict[_Key, StopReport] = OrderedDict()
        """Questions that wait for an answer: the node that asked is run anew to get it, and must ask again."""

    # -- model calls ---------------------------------------------------------------------------------------------

    def model(self, task: Task, request: ModelRequest[Any]) -> Plan:
        """Make the call of *request*, or land."""
        asked = 0
        key = self._key(task)
        while True:
            self._stop_for_tools(task)
            stop = self._standing(task, key)
            if stop is None:
                try:
                    run = identity.surrounding_run()
                    tasks = acting.current_tasks(run)
                    if not any(each.nudges for each in tasks):
                        return (yield Step(self._offered(task, request), _called(request)))
                    with nudges.delivering(tasks, run) as texts:
                        return (yield Step(_told(self._offered(task, request), texts), _called(request)))
                except BudgetExceeded as error:
                    stop = _own(task, error)
            way = self._on_limit if stop.limit != STOPPED or self._on_limit == "raise" else "end"
            if way == "ask":
                decision = self._ask(task, key, stop, asked, self._usable(request))
                asked += 1
                if decision in {"grant", "model", "retry"}:
                    continue
                way = "finish" if decision == "finish" else "end"
            return (yield from self._land(way, task, stop, request))

    def _land(self, way: OnLimit, task: Task, stop: StopReport, request: ModelRequest[Any]) -> Plan:
        if way == "raise" or task in self._ended:
            raise BudgetExceeded(stop, task)
        if way == "finish":
            return (yield from self._finish(task, stop, request))
        if callable(way):
            return (yield from self._call_on(way, task, stop, request))
        return self._end(task, stop, request)

    def _finish(self, task: Task, stop: StopReport, request: ModelRequest[Any]) -> Plan:
        if not task.governor.allow_last_answer(task):
            return self._end(task, stop, request)
        task.governor.acted((task,), "finish", stop.reason)
        try:
            answer = yield Step(landing.last_request(request, self._note), _called(request), last=True)
        except BudgetExceeded as error:
            return self._end(task, stop, request, more=f"A last answer could not be paid: {_own(task, error).reason}.")
        except GraphBubbleUp:
            raise
        except Exception as error:  # noqa: BLE001 - the agent ends here, and says what went wrong
            return self._end(task, stop, request, more=f"A last answer failed: {error!r}.")
        return landing.without_calls(answer, stop)

    def _call_on(
        self, way: Callable[[StopReport, ModelRequest[Any]], Any], task: Task, stop: StopReport, request: Any
    ) -> Plan:
        task.governor.acted((task,), "call", stop.reason)
        try:
            answer = yield Free(lambda: way(stop, request))
        except BudgetExceeded as error:
            return self._end(
                task, stop, request, more=f"The on_limit callable was refused: {_own(task, error).reason}."
            )
        self._ended[task] = stop
        if isinstance(answer, str):
            answer = AIMessage(answer)
        if isinstance(answer, AIMessage):
            answer = landing.ending(request, answer)
        return landing.without_calls(answer, stop)

    def _end(self, task: Task, stop: StopReport, request: ModelRequest[Any], *, more: str = "") -> Any:
        self._ended[task] = stop
        task.governor.acted((task,), "end", more or stop.reason)
        return landing.ending(request, AIMessage(landing.said(stop, more)))

    def _offered(self, task: Task, request: ModelRequest[Any]) -> ModelRequest[Any]:
        """*request* without the tools that have no calls left."""
        spent = self._spent_tools.get(task)
        if not spent:
            return request
        left = [tool for tool in request.tools if isinstance(tool, dict) or tool.name not in spent]
        return request if len(left) == len(request.tools) else request.override(tools=left)

    # -- tool calls ----------------------------------------------------------------------------------------------

    def tool(self, task: Task, request: ToolCallRequest) -> Plan:
        """Run the tool of *request*, or answer the call without running it."""
        asked = 0
        call = request.tool_call
        key = self._key(task, str(call["id"]))
        while True:
            stop = self._standing(task, key)
            if stop is None:
                try:
                    return (yield from self._run(task, request))
                except BudgetExceeded as error:
                    stop = _own(task, error)
                    if task.stop is None:
                        return self._without(task, stop, call)
            if self._on_limit == "raise":
                raise BudgetExceeded(stop, task)
            if self._on_limit == "ask" and stop.limit != STOPPED:
                decision = self._ask(task, key, stop, asked)
                asked += 1
                if decision in {"grant", "retry"}:
                    continue
            return landing.not_run(call, stop, over=True)

    def _run(self, task: Task, request: ToolCallRequest) -> Plan:
        known = self._repeats.answer(task, request)
        if known is not None:
            return known
        result = yield Step(request, f"tool {request.tool_call['name']}")
        self._repeats.ran(task, request, result)
        return result

    def _without(self, task: Task, stop: StopReport, call: Any) -> ToolMessage:
        """Only this call was refused. Where the limit is not the tool's own, the next model call lands the task."""
        if stop.limit in CALL_ONLY:
            return landing.not_run(call, stop, over=False, again=stop.limit != "max_depth")
        own = stop.limit.startswith("tools[")
        if own:
            self._spent_tools.setdefault(task, set()).add(call["name"])
        else:
            self._refused.setdefault(task, stop)
        return landing.not_run(call, stop, over=not own)

    # -- stops ---------------------------------------------------------------------------------------------------

    def _stop_for_tools(self, task: Task) -> None:
        """A tool call of the last turn had no room: now that the others of its turn have run, the task ends."""
        stop = self._refused.pop(task, None)
        if stop is not None:
            task.governor.stop_task(task, stop)

    def _standing(self, task: Task, key: _Key) -> StopReport | None:
        """The stop that holds for *task*; one of a task it draws on is for somebody further out."""
        if key in self._asked:
            return self._asked[key]
        if task.stop is None:
            self._ended.pop(task, None)
            return None
        if task.stop.task_id != task.id:
            raise BudgetExceeded(task.stop, task)
        return task.stop

    def _key(self, task: Task, tool_call: str = "") -> _Key:
        """What tells one question from another: the task, and the place in the graph that asks."""
        return (task.id, f"{work.configurable().get('checkpoint_ns', '')}{tool_call}")

    def _usable(self, request: ModelRequest[Any]) -> list[str]:
        """The models that can take over from that of *request*."""
        able = abilities.binds_tools
        return [name for name, model in self._models.items() if not request.tools or able(model)]

    def _ask(self, task: Task, key: _Key, stop: StopReport, asked: int, models: Sequence[str] = ()) -> str:
        """Pause until a person decides; what was decided. A question that was answered gets the same answer again."""
        problem = ""
        while True:
            self._remember(key, stop)
            answer = work.pause(ask.question(stop, problem=problem, models=models))
            decision = ask.understand(answer, stop, models)
            if isinstance(decision, str):
                problem = decision
                continue
            try:
                self._carry_out(task, key, decision, stop, asked)
            except ReservationConflictError:
                problem = "this question was answered before, with another amount"
                continue
            self._asked.pop(key, None)
            return decision.what

    def _carry_out(self, task: Task, key: _Key, decision: ask.Decision, stop: StopReport, asked: int) -> None:
        governor = task.governor
        if decision.what == "grant":
            place = hashlib.blake2b(f"{key[1]}#{asked}".encode(), digest_size=12).hexdigest()
            grant = f"{task.id}-{place}"
            meter = Meter(stop.meter)
            governor.top_up(task, decision.amount, meter=meter, grant=grant, approver=decision.approver)
        elif decision.what in {"model", "retry"}:
            governor.lift(task)
        if decision.model:
            self._acting.of_task(acting.current_tasks()[0]).change_to(self._models[decision.model])
        what = f"{decision.what} {decision.model}".rstrip()
        governor.acted((task,), "ask", f"{what}: {stop.reason}", approver=decision.approver)

    def _remember(self, key: _Key, stop: StopReport) -> None:
        self._asked[key] = stop
        if len(self._asked) > _PENDING_MOST:
            self._asked.popitem(last=False)


def _own(task: Task, error: BudgetExceeded) -> StopReport:
    """The stop of *task* in *error*; that of another task is raised on: whoever it belongs to may land it."""
    if error.stop.task_id != task.id:
        raise error
    return error.stop


def _told(request: ModelRequest[Any], texts: Sequence[str]) -> ModelRequest[Any]:
    """*request* with what the model should be told about a loop."""
    return request.override(messages=nudges.appended(request.messages, texts)) if texts else request


def _called(request: ModelRequest[Any]) -> str:
    model = request.model
    name = getattr(model, "model_name", None) or getattr(model, "model", None) or type(model).__name__
    return f"model {name}"
