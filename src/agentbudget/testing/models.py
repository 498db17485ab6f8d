"""A chat model that plays a script, for tests that need no wire."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

Turn = AIMessage | BaseException | Callable[[list[BaseMessage]], AIMessage]
"""What one call does: answer, raise, or ask a function of the messages (which may raise)."""

_POLL_SECONDS = 0.002
_PIECE = 8
_CALL_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedCall:
    """One call that reached the model: the messages and the keyword arguments it was bound or called with."""

    messages: tuple[BaseMessage, ...]
    kwargs: dict[str, Any]


class CallRecord:
    """The calls that reached a model, shared by all its copies. Thread-safe; a copy of it is itself."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: list[ScriptedCall] = []

    def add(self, call: ScriptedCall) -> int:
        """Record *call*; its number, from 0."""
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()
            return len(self._calls) - 1

    @property
    def calls(self) -> tuple[ScriptedCall, ...]:
        """All calls so far, in order of arrival."""
        with self._changed:
            return tuple(self._calls)

    def wait_for(self, count: int, *, timeout_seconds: float = 20) -> None:
        """Return when *count* calls have arrived.

        Raises:
            TimeoutError: they did not, within *timeout_seconds*.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._calls) >= count, timeout_seconds):
                msg = f"{len(self._calls)} of {count} calls arrived within {timeout_seconds} seconds."
                raise TimeoutError(msg)

    def __deepcopy__(self, memo: dict[int, Any]) -> CallRecord:
        return self


class ScriptedChatModel(BaseChatModel):
    """Plays `script`, one turn a call, in the order in which calls arrive.

    Streams its text in small chunks with the usage on the last one. `with_config`, `bind`, `bind_tools`, shallow and
    deep copies share one script position and one record of calls. A call beyond the script raises `IndexError`, unless
    `repeat_last`. With a `gate`, each call is recorded and then waits until the event is set.

    `max_tokens` is declared to callbacks as `ls_max_tokens` and `max_tokens`, as a provider's model would; the script
    is not cut at it.
    """

    script: Sequence[Any]
    model_name: str = "gpt-4o"
    provider: str = "openai"
    max_tokens: int | None = None
    repeat_last: bool = False
    gate: threading.Event | None = Field(default=None, exclude=True)
    record: CallRecord = Field(default_factory=CallRecord, exclude=True)

    @property
    def calls(self) -> tuple[ScriptedCall, ...]:
        """Every call that reached this model or a copy of it."""
        return self.record.calls

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        cap = {} if self.max_tokens is None else {"max_tokens": self.max_tokens}
        return {"model": self.model_name, "model_name": self.model_name, **cap}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(ls_provider=self.provider, ls_model_name=self.model_name, ls_model_type="chat")
        cap = kwargs.get("max_tokens", self.max_tokens)
        if cap is not None:
            params["ls_max_tokens"] = cap
        return params

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **choice, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        number = self._arrive(messages, kwargs)
        self._wait()
        return self._result(self._play(number, messages))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        number = self._arrive(messages, kwargs)
        await self._await()
        return self._result(self._play(number, messages))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        number = self._arrive(messages, kwargs)
        self._wait()
        for chunk in _chunks(self._play(number, messages)):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        number = self._arrive(messages, kwargs)
        await self._await()
        for chunk in _chunks(self._play(number, messages)):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _arrive(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> int:
        return self.record.add(ScriptedCall(messages=tuple(messages), kwargs=dict(kwargs)))

    def _wait(self) -> None:
        if self.gate is not None:
            self.gate.wait()

    async def _await(self) -> None:
        # Polled, so that a cancelled call leaves no thread behind.
        while self.gate is not None and not self.gate.is_set():  # noqa: ASYNC110 - the setter is another thread
            await asyncio.sleep(_POLL_SECONDS)

    def _play(self, number: int, messages: list[BaseMessage]) -> AIMessage:
        if number >= len(self.script) and not (self.repeat_last and self.script):
            msg = f"call {number + 1} came, but the script has {len(self.script)} turns; repeat_last=True goes on."
            raise IndexError(msg)
        turn: Turn = self.script[min(number, len(self.script) - 1)]
        if isinstance(turn, BaseException):
            raise turn
        # A copy: LangChain writes the run's id into the message it is given.
        message = (turn if isinstance(turn, AIMessage) else turn(messages)).model_copy(deep=True)
        message.response_metadata = {"model_name": self.model_name, **message.response_metadata}
        return message

    def _result(self, message: AIMessage) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=message)], llm_output={"model_name": self.model_name})


def scripted_reply(
    text: str = "",
    *,
    calls: Sequence[tuple[str, dict[str, Any]]] = (),
    input_tokens: int | None = None,
    output_tokens: int | None = None,
) -> AIMessage:
    """A turn for `ScriptedChatModel`: text, tool calls as (name, arguments), usage unless both counts are None.

    Each tool call gets an id that no other in this process has, so a repeated turn needs a fresh reply.
    """
    usage = None
    if input_tokens is not None or output_tokens is not None:
        read, written = input_tokens or 0, output_tokens or 0
        usage = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
    tool_calls = [ToolCall(name=name, args=args, id=f"call_{next(_CALL_NUMBERS)}") for name, args in calls]
    return AIMessage(content=text, tool_calls=tool_calls, usage_metadata=usage)


def _chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    """*message* in pieces of text; tool calls, usage and metadata on the last one."""
    if isinstance(message.content, str):
        for start in range(0, len(message.content), _PIECE):
            piece = message.content[start : start + _PIECE]
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece, id=message.id))
    last = AIMessageChunk(
        content="" if isinstance(message.content, str) else message.content,
        id=message.id,
        tool_call_chunks=_call_chunks(message),
        usage_metadata=message.usage_metadata,
        response_metadata=message.response_metadata,
    )
    yield ChatGenerationChunk(message=last)


def _call_chunks(message: AIMessage) -> list[Any]:
    return [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
        for index, call in enumerate(message.tool_calls)
    ]
