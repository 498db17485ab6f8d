"""`governed(model, dedupe=True)`: a node that is executed again gets the answers it paid for before."""

# ruff: noqa: SLF001 - it stands in for another model, as `agentbudget.langchain.model` does

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig

from agentbudget.errors import BudgetWarning
from agentbudget.governor.default import default_governor
from agentbudget.governor.hold import Hold, Refusal
from agentbudget.governor.task import Task
from agentbudget.langchain import abilities
from agentbudget.langchain.acting import Prepared, hand_over
from agentbudget.langchain.handover import Offered
from agentbudget.langchain.model import _RAW, _TRACING, GovernedChatModel
from agentbudget.langchain.repeats import CODEC, Place, node_here
from agentbudget.langchain.runs import by_governor
from agentbudget.retries.once import Claim, Once
from agentbudget.retries.sameness import digest

_SENT = ("type", "content", "name", "tool_calls", "invalid_tool_calls", "tool_call_id", "status", "additional_kwargs")
"""What of a message reaches the provider."""
_NOT_SENT = frozenset({_RAW, *_TRACING})


class OnceChatModel(GovernedChatModel):
    """A governed model that is asked the same once in each execution of a node; see `governed`.

    An answer that is kept is given through LangChain's cache: callbacks hear of the call, it is admitted as a call that
    costs nothing, and settles as avoided.
    """

    def _call(
        self, prompt: list[BaseMessage], stop: list[str] | None, config: RunnableConfig, kwargs: dict[str, Any]
    ) -> LLMResult:
        asked = self._asked(prompt, stop, kwargs)
        found = asked.once.claim(asked.key, repeatable=True) if asked is not None else None
        if isinstance(found, bytes):
            with self._answering(found, prompt, stop, config, kwargs) as (model, options):
                return model.generate([prompt], stop, **options)
        with _keeping(found) as answers:
            result = super()._call(prompt, stop, config, kwargs)
            answers.extend(_messages(result))
        return result

    async def _acall(
        self, prompt: list[BaseMessage], stop: list[str] | None, config: RunnableConfig, kwargs: dict[str, Any]
    ) -> LLMResult:
        asked = self._asked(prompt, stop, kwargs)
        found = await asked.once.aclaim(asked.key, repeatable=True) if asked is not None else None
        if isinstance(found, bytes):
            with self._answering(found, prompt, stop, config, kwargs) as (model, options):
                return await model.agenerate([prompt], stop, **options)
        with _keeping(found) as answers:
            result = await super()._acall(prompt, stop, config, kwargs)
            answers.extend(_messages(result))
        return result

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002 - the base class's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """As a governed model; an answer that is kept comes in one chunk. A stream left early keeps nothing."""
        asked = self._asked(self._convert_input(input).to_messages(), stop, kwargs)
        found = asked.once.claim(asked.key, repeatable=True) if asked is not None else None
        if isinstance(found, bytes):
            yield _chunk(self.invoke(input, config, stop=stop, **kwargs))
            return
        with _keeping(found) as answers:
            whole: AIMessageChunk | None = None
            for chunk in super().stream(input, config, stop=stop, **kwargs):
                whole = chunk if whole is None else whole + chunk
                yield chunk
            answers.extend(_whole(whole))

    async def astream(
        self,
        input: LanguageModelInput,  # noqa: A002 - the base class's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """As a governed model; an answer that is kept comes in one chunk. A stream left early keeps nothing."""
        asked = self._asked(self._convert_input(input).to_messages(), stop, kwargs)
        found = await asked.once.aclaim(asked.key, repeatable=True) if asked is not None else None
        if isinstance(found, bytes):
            yield _chunk(await self.ainvoke(input, config, stop=stop, **kwargs))
            return
        with _keeping(found) as answers:
            whole: AIMessageChunk | None = None
            async for chunk in super().astream(input, config, stop=stop, **kwargs):
                whole = chunk if whole is None else whole + chunk
                yield chunk
            answers.extend(_whole(whole))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _asked(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> _Asked | None:
        """The call with these messages; None where it is just made: nobody would know it again."""
        place, node = Place.here(), node_here()
        scope = node or (place.scope if place is not None else "")
        if not scope:
            return None
        params = {name: value for name, value in kwargs.items() if name not in _NOT_SENT}
        request = [
            type(self.inner).__qualname__,
            self.inner._get_llm_string() if self.inner.is_lc_serializable() else None,  # which server, too
            dict(self.inner._identifying_params),
            [{name: getattr(message, name, None) for name in _SENT} for message in messages],
            stop,
            params,
        ]
        try:
            said = digest(request)
        except TypeError as error:
            warnings.warn(f"governed(dedupe=True): the request {error}; it is made.", BudgetWarning, stacklevel=4)
            return None
        own = self.own.governor if self.own is not None else default_governor()
        governor = place.task.governor if place is not None else own
        return _Asked(governor.results, f"{scope}/model:{type(self.inner).__name__}/{said}")

    @contextmanager
    def _answering(
        self,
        kept: bytes,
        prompt: list[BaseMessage],
        stop: list[str] | None,
        config: RunnableConfig,
        kwargs: dict[str, Any],
    ) -> Iterator[tuple[BaseChatModel, dict[str, Any]]]:
        """The model that gives the kept answer, as a call that costs nothing, and what to call it with."""
        with self._planning(config, stop, kwargs) as planning:
            prepared = planning.answer(_free(self.inner, prompt, planning.params, planning.tasks, kept))
            with hand_over(prepared):
                yield prepared.model, {**planning.config, **self._settings(prepared, kwargs)}


class _Asked(NamedTuple):
    """A call that is made once."""

    once: Once
    key: str


class _Kept(BaseCache):
    """A cache that holds one answer, whatever is asked."""

    def __init__(self, answers: list[AIMessage]) -> None:
        self._answers = answers

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The answer."""
        return [ChatGeneration(message=answer) for answer in self._answers]

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The answer."""
        return self.lookup(prompt, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Nothing is asked, so nothing comes."""

    def clear(self, **kwargs: Any) -> None:
        """There is nothing to clear."""


def _free(
    model: BaseChatModel, messages: list[BaseMessage], params: Mapping[str, Any], tasks: tuple[Task, ...], kept: bytes
) -> Prepared | Refusal:
    """A call that gets the *kept* answer: it counts as a call, and reserves no money and no tokens."""
    model = model.model_copy(update={"cache": _Kept(CODEC.decode(kept))})
    if not tasks or any(task.governor.mode == "observe" for task in tasks):
        return Prepared(model=model, messages=messages, settings={})
    planned = msgspec.structs.replace(
        abilities.planned_call(model, messages, params), size=None, texts=None, cap=0, web_searches=0
    )
    holds: list[Hold] = []
    for payers in by_governor(tasks):
        answer = payers[0].governor.offer(payers, planned)
        if isinstance(answer, Refusal):
            for hold in holds:
                hold.tasks[0].governor.release(hold)
            return answer
        holds.append(answer)
    return Prepared(model=model, messages=messages, settings={}, offered=Offered(holds, lambda *_: None))


@contextmanager
def _keeping(claim: Claim | None) -> Iterator[list[AIMessage]]:
    """Within it the call is made; the answers put into what it gives are kept. A call that failed keeps nothing."""
    answers: list[AIMessage] = []
    try:
        yield answers
    except BaseException:
        if claim is not None:
            claim.failed()
        raise
    if claim is not None:
        if answers:
            claim.done(CODEC.encode(answers))
        else:
            claim.failed()


def _messages(result: LLMResult) -> list[AIMessage]:
    """The answers of a result, as far as all of them are messages."""
    found = [getattr(generation, "message", None) for generation in result.generations[0]]
    return [message for message in found if isinstance(message, AIMessage)]


def _whole(chunks: AIMessageChunk | None) -> list[AIMessage]:
    message = message_chunk_to_message(chunks) if chunks is not None else None
    return [message] if isinstance(message, AIMessage) else []


def _chunk(message: AIMessage) -> AIMessageChunk:
    """*message* as a stream of one chunk."""
    calls = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=place)
        for place, call in enumerate(message.tool_calls)
    ]
    return AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        id=message.id,
        tool_call_chunks=calls,
        chunk_position="last",
    )
