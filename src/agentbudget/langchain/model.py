"""`governed`: a chat model whose calls are made to fit the budget, for hand-written nodes and chains."""

# ruff: noqa: SLF001 - it stands in for another model, which has protected methods, too

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import CallbackManagerForLLMRun, Callbacks
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig, RunnableParallel, RunnableSequence
from langchain_core.runnables.config import ensure_config, merge_configs
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, InstanceOf

from agentbudget.domain.budget import Budget
from agentbudget.errors import ConfigurationError
from agentbudget.governor.governor import Governor
from agentbudget.langchain import abilities, identity
from agentbudget.langchain.acting import Prepared, areserve, hand_over, reserve
from agentbudget.langchain.callback import BudgetCallback, budget_of
from agentbudget.langchain.compact import Compacting
from agentbudget.langchain.deadline import before_deadline
from agentbudget.langchain.options import Acting
from agentbudget.langchain.planning import Planning

_RAW = "agentbudget_tools"
"""Where a binding keeps tools as they were given, to be bound anew to a model of another class."""
_OWN = ("downgrade", "model_for", "compact", "governor", "shrink", "min_output_tokens", "wait", "per", "name", "dedupe")
_END = AIMessageChunk(content="")


_TRACING = frozenset({"ls_structured_output_format", "structured_output_format"})
"""Keyword arguments that LangChain takes for its tracers and never sends."""


class GovernedChatModel(BaseChatModel):
    """A chat model in front of another: it plans, reserves, and calls the other one. Made by `governed`.

    The callbacks of a call are those of the model that is called, once; without a task around it and a budget of its
    own, it is the model itself. `stream_events(version="v3")` is metered and gated, not acted for.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    inner: BaseChatModel
    """The model that was governed."""
    options: InstanceOf[Acting] = Field(exclude=True, repr=False)
    own: BudgetCallback | None = Field(default=None, exclude=True, repr=False)
    """Meters its own budget, if it has one; `own.report` is the report of its last closed task."""

    # -- calls ---------------------------------------------------------------------------------------------------

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Each prompt is a call of its own, planned when its turn comes.

        Raises:
            BudgetExceeded: a call does not fit, whatever is done.
        """
        results = []
        for place, prompt in enumerate(messages):
            config = _config(callbacks, tags, metadata, run_name, None if place else run_id)
            results.append(self._call(prompt, stop, config, kwargs))
        return self._merged(results)

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """Each prompt is a call of its own; they run concurrently.

        Raises:
            BudgetExceeded: a call does not fit, whatever is done.
        """
        calls = []
        for place, prompt in enumerate(messages):
            config = _config(callbacks, tags, metadata, run_name, None if place else run_id)
            calls.append(self._acall(prompt, stop, config, kwargs))
        return self._merged([await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls))

    def _call(
        self, prompt: list[BaseMessage], stop: list[str] | None, config: RunnableConfig, kwargs: dict[str, Any]
    ) -> LLMResult:
        with self._planning(config, stop, kwargs) as planning:
            given = planning.told(prompt)
            prepared = planning.answer(reserve(self.inner, given, planning.params, planning.tasks, self.options))
            with hand_over(prepared):
                settings = self._settings(prepared, kwargs)
                return prepared.model.generate([[*prepared.messages]], stop, **planning.config, **settings)

    async def _acall(
        self, prompt: list[BaseMessage], stop: list[str] | None, config: RunnableConfig, kwargs: dict[str, Any]
    ) -> LLMResult:
        with self._planning(config, stop, kwargs) as planning:
            given = planning.told(prompt)
            prepared = planning.answer(await areserve(self.inner, given, planning.params, planning.tasks, self.options))
            async with _in_time(planning, prepared):
                settings = self._settings(prepared, kwargs)
                return await prepared.model.agenerate([[*prepared.messages]], stop, **planning.config, **settings)

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002 - the base class's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Planned when the first chunk is asked for.

        Raises:
            BudgetExceeded: the call does not fit, whatever is done.
        """
        messages = self._convert_input(input).to_messages()
        with self._planning(ensure_config(config), stop, kwargs) as planning:
            messages = planning.told(messages)
            prepared = planning.answer(reserve(self.inner, messages, planning.params, planning.tasks, self.options))
            with hand_over(prepared):
                settings = self._settings(prepared, kwargs)
                chunks = prepared.model.stream([*prepared.messages], planning.config, stop=stop, **settings)
                chunk = next(chunks, _END)
        try:
            if chunk is not _END:
                yield chunk
                yield from chunks
        finally:
            cast("Any", chunks).close()

    async def astream(
        self,
        input: LanguageModelInput,  # noqa: A002 - the base class's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Planned when the first chunk is asked for.

        Raises:
            BudgetExceeded: the call does not fit, whatever is done.
        """
        messages = self._convert_input(input).to_messages()
        with self._planning(ensure_config(config), stop, kwargs) as planning:
            messages = planning.told(messages)
            prepared = planning.answer(
                await areserve(self.inner, messages, planning.params, planning.tasks, self.options)
            )
            async with _in_time(planning, prepared):
                settings = self._settings(prepared, kwargs)
                chunks = prepared.model.astream([*prepared.messages], planning.config, stop=stop, **settings)
                chunk = await anext(chunks, _END)
        try:
            while chunk is not _END:
                yield chunk
                async with before_deadline(planning.tasks, partial(_called, prepared)):
                    chunk = await anext(chunks, _END)
        finally:
            await cast("Any", chunks).aclose()

    # -- what is bound -------------------------------------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The governed model with *tools* bound, as its inner model binds them."""
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        bound = self.inner.bind_tools(tools, **choice, **kwargs)
        if isinstance(bound, BaseChatModel):
            return self.model_copy(update={"inner": bound})
        raw = (tuple(tools), {**choice, **kwargs})
        return cast("Runnable[LanguageModelInput, AIMessage]", self._in_front(bound)).bind(**{_RAW: raw})

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Structured output as the inner model does it; by tool call where the ladder has models of other classes."""
        others = (*self.options.downgrade, *self.options.model_for.values())
        if not kwargs and any(type(other) is not type(self.inner) for other in others):
            return super().with_structured_output(schema, include_raw=include_raw)
        chain = self.inner.with_structured_output(schema, include_raw=include_raw, **kwargs)
        return cast("Runnable[LanguageModelInput, dict[str, Any] | BaseModel]", self._in_front(chain))

    def _in_front(self, made: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """What the inner model made of itself, with the governed model in its place."""
        if made is self.inner:
            return self
        if isinstance(made, RunnableBinding):
            return made.model_copy(update={"bound": self._in_front(made.bound)})
        if isinstance(made, RunnableSequence):
            return RunnableSequence(*[self._in_front(step) for step in made.steps], name=made.name)
        if isinstance(made, RunnableParallel):
            return RunnableParallel({name: self._in_front(step) for name, step in made.steps__.items()})
        return made

    def _settings(self, prepared: Prepared, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments of the call to the model that was chosen; tools are bound anew for one of another class."""
        settings = {name: value for name, value in kwargs.items() if name != _RAW}
        raw = kwargs.get(_RAW)
        if raw is not None and type(prepared.model) is not type(self.inner):
            tools, options = raw
            theirs, mine = (_bound(model.bind_tools(tools, **options)) for model in (prepared.model, self.inner))
            settings = {name: value for name, value in settings.items() if name not in mine} | theirs
        return {**settings, **prepared.settings}

    def _chat_model_stream_v3(
        self,
        input: LanguageModelInput,  # noqa: A002 - the base class's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        return self.inner._chat_model_stream_v3(input, self._with_own(ensure_config(config)), **kwargs)

    async def _achat_model_stream_v3(
        self,
        input: LanguageModelInput,  # noqa: A002 - the base class's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        return await self.inner._achat_model_stream_v3(input, self._with_own(ensure_config(config)), **kwargs)

    # -- planning ------------------------------------------------------------------------------------------------

    def _with_own(self, config: RunnableConfig) -> RunnableConfig:
        if self.own is None:
            return config
        # Only the callbacks: the rest of what the host merges in (a node's configurable) is no argument of `generate`.
        return {**config, "callbacks": merge_configs(config, {"callbacks": [self.own]})["callbacks"]}

    @contextmanager
    def _planning(
        self, config: RunnableConfig, stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> Iterator[Planning]:
        """Who pays for a call that is about to be planned. A call that is then not made leaves no run behind."""
        params = {name: value for name, value in kwargs.items() if name not in _TRACING}
        raw = params.pop(_RAW, None)
        if raw is not None:
            params |= {"tools": raw[0], "tool_choice": raw[1].get("tool_choice")}
        planning = Planning(self._with_own(config), {**params, "stop": stop} if stop else params, self.inner)
        try:
            with planning.telling:
                yield planning
        except BaseException as error:
            planning.withdraw(identity.status_of(error))
            raise

    # -- what the inner model knows ------------------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return self.inner._llm_type

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return self.inner._identifying_params

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self.inner._get_ls_params(stop=stop, **kwargs)

    def _resolve_model_profile(self) -> ModelProfile | None:
        return self.inner.profile

    def get_token_ids(self, text: str) -> list[int]:
        """As the inner model counts."""
        return self.inner.get_token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """As the inner model counts."""
        return self.inner.get_num_tokens(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """As the inner model counts."""
        return self.inner.get_num_tokens_from_messages(messages, tools)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self.inner._generate(messages, stop=stop, run_manager=run_manager, **kwargs)

    def _merged(self, results: Sequence[LLMResult]) -> LLMResult:
        if len(results) == 1:
            return results[0]
        return LLMResult(
            generations=[generation for result in results for generation in result.generations],
            llm_output=self.inner._combine_llm_outputs([result.llm_output for result in results]),
            run=[run for result in results for run in result.run or ()],
        )


def governed(  # noqa: PLR0913 - one keyword per choice is the public face
    model: BaseChatModel,
    budget: Budget | None = None,
    *,
    downgrade: str | BaseChatModel | Sequence[str | BaseChatModel] = (),
    model_for: Mapping[str, str | BaseChatModel] | None = None,
    compact: Compacting = None,
    shrink: bool = True,
    min_output_tokens: int = 256,
    wait: float = 30.0,
    governor: Governor | None = None,
    per: str = "callback",
    name: str = "",
    dedupe: bool = False,
    **limits: Any,
) -> GovernedChatModel:
    """*model*, with every call made to fit the budget of the task it belongs to: by a wait, a cheaper model, or a
    shorter answer. What fits nowhere is refused, as by a `BudgetCallback`.

    Args:
        model: the chat model. Bind tools and structured output on what is returned.
        budget: limits of its own, which hold for everything called through it, whatever else does; or give them as
            keywords (`max_cost="$2"`), not both. By default it has none: the surrounding tasks pay.
        downgrade: cheaper models, as instances or like `"openai:gpt-5-mini"`, in the order in which they are tried. A
            task goes down this ladder and never up.
        model_for: the model to begin with, by the value of a tag of the task, e.g. `{"triage": "openai:gpt-5-nano"}`.
        compact: what makes the context smaller where that is projected to pay: `True` (old tool outputs are cleared) or
            another context edit; the history of the caller stays as it is. Summaries need `BudgetMiddleware`.
        shrink: whether output may be capped at what the budget affords.
        min_output_tokens: a cap below this is no answer.
        wait: longest wait, in seconds, for calls in flight to settle, where only they are in the way.
        governor: where a budget of its own is kept; by default that of the process.
        per: of what a budget of its own is: `"callback"` (everything called through it), `"run"` or `"thread"`.
        name: name of the tasks with a budget of its own.
        dedupe: a request is made once in each execution of a node (outside graphs: in each task): a node that is
            executed again, by a retry, a resume or after a crash, gets the kept answer, which costs nothing; see
            docs/retries.md.
        **limits: the options of `Budget`.

    Raises:
        TypeError: an unknown option, or a budget together with limits. ConfigurationError: a model that is none, an
            option that cannot mean anything; on the first call, a ladder that cannot work.
    """
    _refuse_unless_chat(model)
    own = None
    own_budget = budget_of(budget, limits, where="governed", own=_OWN)
    if budget is not None or limits:
        own = BudgetCallback(own_budget, governor=governor, per=per, name=name)
    options = Acting.of(
        shrink=shrink,
        min_output_tokens=min_output_tokens,
        wait=wait,
        downgrade=downgrade,
        model_for=model_for,
        compact=compact,
    )
    _refuse_summaries(options)
    if dedupe:
        from agentbudget.langchain.reuse import OnceChatModel  # noqa: PLC0415 - it is made of this module

        return OnceChatModel(inner=model, options=options, own=own)
    return GovernedChatModel(inner=model, options=options, own=own)


def _refuse_unless_chat(model: object) -> None:
    if not isinstance(model, BaseChatModel):
        bound = getattr(model, "bound", None)
        hint = "govern the model first, and bind to what that returns" if bound is not None else "make one first"
        msg = f"governed({type(model).__name__}): not a chat model; {hint}."
        raise ConfigurationError(msg)


def _refuse_summaries(options: Acting) -> None:
    if options.compact is not None and options.compact.summariser is not None:
        raise ConfigurationError(
            "compact: a summary replaces messages of the graph's state, which a governed model cannot reach; use "
            "BudgetMiddleware(compact=...), or a context edit such as compact=True."
        )


def _config(
    callbacks: Callbacks,
    tags: list[str] | None,
    metadata: dict[str, Any] | None,
    run_name: str | None,
    run_id: UUID | None,
) -> RunnableConfig:
    return cast(
        "RunnableConfig",
        {"callbacks": callbacks, "tags": tags, "metadata": metadata, "run_name": run_name, "run_id": run_id},
    )


@asynccontextmanager
async def _in_time(planning: Planning, prepared: Prepared) -> AsyncIterator[None]:
    """Within it the handler adopts what was reserved, and what is awaited is cancelled at the deadline."""
    with hand_over(prepared):
        async with before_deadline(planning.tasks, partial(_called, prepared)):
            yield


def _called(prepared: Prepared) -> str:
    return f"model {abilities.name_of(prepared.model)}"


def _bound(made: Runnable[Any, Any]) -> dict[str, Any]:
    """What binding tools adds to a call."""
    return dict(made.kwargs) if isinstance(made, RunnableBinding) else {}
