"""`BudgetMiddleware`: an agent within a budget, which lands instead of crashing when the budget is at its end."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NotRequired, cast

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ContextT,
    ModelRequest,
    PrivateStateAttr,
    ResponseT,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.runtime import Runtime

from agentbudget.domain.accounts import check_name
from agentbudget.domain.budget import Budget
from agentbudget.domain.money import Money, nanos
from agentbudget.errors import ConfigurationError
from agentbudget.governor.final import Keep
from agentbudget.governor.governor import Governor
from agentbudget.governor.hold import Refusal
from agentbudget.governor.reports import Reports
from agentbudget.governor.task import Task
from agentbudget.langchain import abilities, acting, ambient, landing, summaries, work
from agentbudget.langchain.acting import Prepared
from agentbudget.langchain.callback import budget_of, checked_tags, governor_of
from agentbudget.langchain.compact import Compacting
from agentbudget.langchain.deadline import before_deadline
from agentbudget.langchain.errors import BudgetExceeded
from agentbudget.langchain.landing import FINAL_NOTE
from agentbudget.langchain.listening import LISTENING
from agentbudget.langchain.options import Acting, model_named
from agentbudget.langchain.pilot import ON_LIMIT, Free, OnLimit, Pilot, Step
from agentbudget.langchain.runs import RUNS, cancelled
from agentbudget.langchain.summaries import Planned
from agentbudget.langchain.work import Opener, Place
from agentbudget.trace.report import TaskReport

_OWN = (
    "governor",
    "on_limit",
    "downgrade",
    "model_for",
    "compact",
    "shrink",
    "min_output_tokens",
    "wait",
    "name",
    "tags",
    "final_note",
    "finish_reserve",
    "ask_models",
)


def _merged(before: dict[str, str] | None, new: dict[str, str] | None) -> dict[str, str]:
    return {**(before or {}), **(new or {})}


class BudgetState(AgentState[ResponseT]):
    """The private part of an agent's state: which task each budget middleware works for. No money is kept here."""

    agentbudget_tasks: NotRequired[Annotated[dict[str, str], PrivateStateAttr, _merged]]


class BudgetMiddleware(AgentMiddleware[AgentState[ResponseT], ContextT, ResponseT]):
    """Keeps an agent made by `create_agent` within a budget, and lands it when the budget is at its end.

    Each run of the agent is a task, which a run that goes on with a thread (an answered interrupt, `invoke(None)`)
    continues. All model and tool calls beneath it count once, those of summarisers and sub-agents too. Put it first in
    the list of middleware, so that it lands what any other does; last works too.

    Args:
        budget: the limits of a task; or give them as keywords (`max_cost="$0.50"`), not both.
        governor: where things are kept and shared; by default that of the surrounding task, else one per process.
        on_limit: what happens at the limit. `"finish"` (default): one last answer, without tools, from what was kept
            back for it; `"ask"`: a person decides (`interrupt`, needs a checkpointer); `"end"`: the agent ends with a
            message that says why; `"raise"`: `BudgetExceeded`; or a callable `(stop, request)` that returns the last
            answer (text or an `AIMessage`; may be async under `ainvoke`).
        downgrade: cheaper models, dear to cheap, that take over when the budget runs short.
        model_for: the model to begin with, by the value of a tag: `{"triage": "openai:gpt-5-nano"}`.
        compact: what makes the context smaller where that is projected to pay: `True` (old tool outputs are cleared, as
            by `ClearToolUsesEdit`), another context edit, a `SummarizationMiddleware`, or the model that writes a
            summary, e.g. `"openai:gpt-5-nano"`. The budget says when, in place of their token thresholds.
        shrink: cap the output of a call at what the budget affords, instead of refusing the call.
        min_output_tokens: an output cap below this is no answer: the next step is taken.
        wait: longest wait, in seconds, for calls in flight whose reservations alone are in the way; 0 never waits.
        name: name of the tasks in reports; it tells several budgets of one agent apart.
        tags: feature, team, user … of the tasks.
        final_note: what the model is told when it is asked for its last answer.
        finish_reserve: dollars of `max_cost` that are kept for the last answer, by default a tenth; in any case what
            it takes to answer once more from the context at hand. Of other limits a tenth is kept, and one model call.
        ask_models: with `on_limit="ask"`, the models that a person may have the agent go on with.
        **limits: the options of `Budget`.

    Raises:
        TypeError: an unknown option, or a budget together with limits. ConfigurationError: a value that cannot mean
            anything, a reserve that is not below `max_cost`; at the first run, `"ask"` without a checkpointer.
    """

    state_schema = cast("type[AgentState[ResponseT]]", BudgetState)

    def __init__(  # noqa: PLR0913 - one keyword per choice is the public face
        self,
        budget: Budget | None = None,
        *,
        governor: Governor | None = None,
        on_limit: OnLimit = "finish",
        downgrade: Sequence[str | BaseChatModel] = (),
        model_for: Mapping[str, str | BaseChatModel] | None = None,
        compact: Compacting = None,
        shrink: bool = True,
        min_output_tokens: int = 256,
        wait: float = 30.0,
        name: str = "",
        tags: Mapping[str, str] | None = None,
        final_note: str = FINAL_NOTE,
        finish_reserve: Money | None = None,
        ask_models: Sequence[str | BaseChatModel] = (),
        **limits: Any,
    ) -> None:
        super().__init__()
        self.budget = budget_of(budget, limits, where="BudgetMiddleware", own=_OWN)
        if not callable(on_limit) and on_limit not in ON_LIMIT:
            msg = f"on_limit={on_limit!r}: {', '.join(map(repr, ON_LIMIT))} or a callable (stop, request)."
            raise ConfigurationError(msg)
        self.on_limit = on_limit
        self.reports = Reports()
        """Reports of the last closed tasks, oldest first."""
        self._name = check_name(name, what="name") if name else ""
        reserve = None if finish_reserve is None else nanos(finish_reserve, what="finish_reserve")
        Keep.of(self.budget, reserve)
        self._acting = Acting.of(
            shrink=shrink,
            min_output_tokens=min_output_tokens,
            wait=wait,
            downgrade=downgrade,
            model_for=model_for,
            compact=compact,
        )
        self._tasks = Opener(
            budget=self.budget,
            governor=governor_of(governor, where="BudgetMiddleware"),
            reports=self.reports,
            name=self._name,
            tags=checked_tags(tags or {}),
            reserve=reserve,
            lands=on_limit != "raise",
            answers=on_limit in {"finish", "ask"},
            patient=on_limit == "ask",
        )
        self._models = _named(ask_models, on_limit)
        self._pilot = Pilot(on_limit, final_note, self._acting, self._models)
        LISTENING.listen(self)

    @property
    def name(self) -> str:
        """The name of this middleware within the agent."""
        safe = self._name.replace("|", "_").replace(":", "_")
        return f"BudgetMiddleware[{safe}]" if safe else "BudgetMiddleware"

    @property
    def report(self) -> TaskReport | None:
        """The report of the last closed task."""
        return self.reports[-1] if self.reports else None

    # -- hooks of the host ---------------------------------------------------------------------------------------

    def before_agent(self, state: Any, runtime: Runtime[Any]) -> dict[str, Any]:
        """Open the task of this run."""
        if self.on_limit == "ask" and work.configurable().get("__pregel_checkpointer") is None:
            raise ConfigurationError(
                "on_limit='ask' pauses the agent until a person answers, which needs a checkpointer: "
                "create_agent(..., checkpointer=InMemorySaver()), and a thread_id in the config of each invoke."
            )
        return {"agentbudget_tasks": {self.name: self._tasks.task(Place.here(), "").id}}

    async def abefore_agent(self, state: Any, runtime: Runtime[Any]) -> dict[str, Any]:
        """As `before_agent`."""
        return self.before_agent(state, runtime)

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> Any:
        """Make the call, or land."""
        return self._drive(lambda task: self._model_call(task, request), request.state, handler)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """Make the call, or land."""
        return await self._adrive(lambda task: self._model_call(task, request), request.state, handler)

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        """Run the tool, or answer for it why it was not run."""
        return self._drive(lambda task: self._pilot.tool(task, request), request.state, handler)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """Run the tool, or answer for it why it was not run."""
        return await self._adrive(lambda task: self._pilot.tool(task, request), request.state, handler)

    # -- inside: the pilot decides, these carry out -----------------------------------------------------------------

    def _model_call(self, task: Task, request: ModelRequest[Any]) -> Generator[Step | Free, Any, Any]:
        if not self._models:
            return summaries.kept((yield from self._pilot.model(task, request)), request, self._acting)
        known: Mapping[str, str] = cast("Any", request.state).get("agentbudget_tasks") or {}
        slot, progress = f"{self.name}|model|{task.id}", self._acting.of_task(acting.current_tasks()[0])
        if progress.model is None and known.get(slot) in self._models:  # chosen before a restart of the process
            progress.change_to(self._models[known[slot]])
        answer = summaries.kept((yield from self._pilot.model(task, request)), request, self._acting)
        if progress.model is None or slot in known:
            return answer
        return landing.with_update(answer, {"agentbudget_tasks": {slot: abilities.name_of(progress.model)}})

    def _drive(
        self, plan: Callable[[Task], Generator[Step | Free, Any, Any]], state: Any, handler: Callable[[Any], Any]
    ) -> Any:
        place = Place.here()
        task = self._tasks.task(place, self._known(state))
        steps = plan(task)
        try:
            step = next(steps)
            while True:
                try:
                    result = self._carry_out(step, task, place, handler)
                except Exception as error:  # noqa: BLE001 - what it means is the pilot's to say; most are raised again
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            return end.value

    async def _adrive(
        self,
        plan: Callable[[Task], Generator[Step | Free, Any, Any]],
        state: Any,
        handler: Callable[[Any], Awaitable[Any]],
    ) -> Any:
        place = Place.here()
        task = self._tasks.task(place, self._known(state))
        steps = plan(task)
        try:
            step = next(steps)
            while True:
                try:
                    result = await self._acarry_out(step, task, place, handler)
                except Exception as error:  # noqa: BLE001 - as in `_drive`
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration as end:
            return end.value

    def _known(self, state: Any) -> str:
        tasks = state.get("agentbudget_tasks") if isinstance(state, Mapping) else None
        return tasks.get(self.name, "") if tasks else ""

    def _carry_out(self, step: Step | Free, task: Task, place: Place, handler: Callable[[Any], Any]) -> Any:
        if isinstance(step, Free):
            result = step.work()
            if inspect.isawaitable(result):
                raise ConfigurationError("an async on_limit= needs the agent to be called with ainvoke or astream.")
            return result
        with _Caught(task, last=step.last):
            if isinstance(step.request, ToolCallRequest):
                return handler(step.request)
            planned = _planned(step.request)
            if (summary := summaries.due(step.request, planned, self._acting)) is not None:
                summary.write()
            prepared = _fitting(acting.reserve(*planned, acting.current_tasks(place.within[0]), self._acting))
            with acting.hand_over(prepared):
                return handler(_as_prepared(step.request, planned, prepared))

    async def _acarry_out(
        self, step: Step | Free, task: Task, place: Place, handler: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        if isinstance(step, Free):
            result = step.work()
            return await result if inspect.isawaitable(result) else result
        with _Caught(task, last=step.last):
            lost = partial(RUNS.finish_under, place.within[0], cancelled("deadline"))
            async with before_deadline(task.chain, lambda: step.call, lost=lost):
                return await self._acall(step.request, place, handler)

    async def _acall(self, request: Any, place: Place, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        if isinstance(request, ToolCallRequest):
            return await handler(request)
        planned = _planned(request)
        if (summary := summaries.due(request, planned, self._acting)) is not None:
            await summary.awrite()
        prepared = _fitting(await acting.areserve(*planned, acting.current_tasks(place.within[0]), self._acting))
        with acting.hand_over(prepared):
            return await handler(_as_prepared(request, planned, prepared))


def _named(models: Sequence[str | BaseChatModel], on_limit: OnLimit) -> dict[str, BaseChatModel]:
    """The models that a person may choose, by name."""
    if models and on_limit != "ask":
        msg = f"ask_models: with on_limit={on_limit!r} nobody is asked; use on_limit='ask', or downgrade=."
        raise ConfigurationError(msg)
    made = [model_named(each, "ask_models") for each in models]
    return {abilities.name_of(model): model for model in made}


def _planned(request: ModelRequest[Any]) -> Planned:
    system = [request.system_message] if request.system_message is not None else []
    params = {**request.model_settings, "tools": [*request.tools, *landing.answer_tools(request.response_format)]}
    if request.tool_choice is not None:
        params["tool_choice"] = request.tool_choice
    return request.model, [*system, *request.messages], params


def _fitting(answer: Prepared | Refusal) -> Prepared:
    """What was prepared; a refusal goes on record, and is raised."""
    if isinstance(answer, Prepared):
        return answer
    answer.latch.governor.refuse(answer)
    raise BudgetExceeded(answer.stop, answer.latch)


def _as_prepared(request: ModelRequest[Any], planned: Planned, prepared: Prepared) -> ModelRequest[Any]:
    if prepared.messages is not planned[1]:
        system = request.system_message is not None
        request = request.override(messages=cast("list[AnyMessage]", list(prepared.messages[system:])))
    if not prepared.settings and prepared.model is request.model:
        return request
    return request.override(model=prepared.model, model_settings={**request.model_settings, **prepared.settings})


class _Caught:
    """Calls made within are landed by this middleware if they are refused."""

    __slots__ = ("_answer", "_caught", "_last", "_task")

    def __init__(self, task: Task, *, last: bool) -> None:
        self._task, self._last = task, last

    def __enter__(self) -> None:
        self._caught = ambient.CAUGHT.set((self._task.id, *ambient.CAUGHT.get()))
        self._answer = ambient.LAST_ANSWER.set(self._task.id) if self._last else None

    def __exit__(self, *error: object) -> None:
        ambient.CAUGHT.reset(self._caught)
        if self._answer is not None:
            ambient.LAST_ANSWER.reset(self._answer)
