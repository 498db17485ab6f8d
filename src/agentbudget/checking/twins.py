"""Models and tools that answer in place of the user's: copies, made for one call, of which only the far end differs."""

from __future__ import annotations

import copy
import functools
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import AIMessage, AIMessageChunk, ToolCall, convert_to_openai_messages
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    Generation,
    GenerationChunk,
    LLMResult,
)
from langchain_core.tools import BaseTool

from agentbudget.checking.script import Turn, called_in, next_turn
from agentbudget.checking.stage import SEEN, TICKET, Seen, Stage, Ticket, set_to
from agentbudget.langchain.transport import http_clients

_TWIN: Final = "_agentbudget_twin"
_CALLS: Final = ("generate", "agenerate", "stream", "astream", "stream_events", "astream_events")
_WAYS: Final = ("invoke", "ainvoke", "run", "arun")
_USAGE: Final = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
_END: Final = object()


@contextmanager
def standing_in(stage: Stage) -> Iterator[None]:
    """Within the block every LangChain model of the process answers from the stand-in; tools, too, but those to run."""
    with ExitStack() as patches:
        for kind, twin in ((BaseChatModel, _chat_twin), (BaseLLM, _text_twin)):
            for name in _CALLS:
                if name in vars(kind):
                    patches.enter_context(patch.object(kind, name, _swapped(getattr(kind, name), stage, twin)))
        for name in ("run", "arun"):
            patches.enter_context(patch.object(BaseTool, name, _swapped(getattr(BaseTool, name), stage, _tool_twin)))
        for tool, name in _own_ways(BaseTool):  # type: ignore[type-abstract]  # subclasses are looked for, nothing is made
            patches.enter_context(patch.object(tool, name, _plainly(vars(tool)[name], name, stage)))
        yield


def _swapped(original: Callable[..., Any], stage: Stage, twin: Callable[[Any, Stage], Any]) -> Callable[..., Any]:
    """*original*, called on the twin of its first argument, with a ticket in its context."""

    @functools.wraps(original)
    def call(target: Any, *args: Any, **kwargs: Any) -> Any:
        with set_to(TICKET, Ticket(target=target)):
            return original(_twin_of(target, twin, stage), *args, **kwargs)

    @functools.wraps(original)
    async def acall(target: Any, *args: Any, **kwargs: Any) -> Any:
        with set_to(TICKET, Ticket(target=target)):
            return await original(_twin_of(target, twin, stage), *args, **kwargs)

    @functools.wraps(original)
    def stream(target: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        ticket, chunks = Ticket(target=target), original(_twin_of(target, twin, stage), *args, **kwargs)
        while (chunk := _next(chunks, TICKET, ticket)) is not _END:
            yield chunk

    @functools.wraps(original)
    async def astream(target: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        ticket, chunks = Ticket(target=target), original(_twin_of(target, twin, stage), *args, **kwargs)
        while (chunk := await _anext(chunks, TICKET, ticket)) is not _END:
            yield chunk

    shapes = (
        (inspect.isasyncgenfunction, astream),
        (inspect.isgeneratorfunction, stream),
        (inspect.iscoroutinefunction, acall),
    )
    return next((shape for fits, shape in shapes if fits(original)), call)


def _twin_of(target: Any, twin: Callable[[Any, Stage], Any], stage: Stage) -> Any:
    return target if vars(target).get(_TWIN) else twin(target, stage)


def _next(chunks: Iterator[Any], variable: Any, value: Any) -> Any:
    with set_to(variable, value):
        return next(chunks, _END)


async def _anext(chunks: AsyncIterator[Any], variable: Any, value: Any) -> Any:
    with set_to(variable, value):
        return await anext(chunks, _END)


# -- models ------------------------------------------------------------------------------------------------------------


def speaks_http(model: Any) -> bool:
    """Whether the model's own client is used, its requests answered below it."""
    return any(True for _ in http_clients(model))


def _chat_twin(model: BaseChatModel, stage: Stage) -> BaseChatModel:
    twin = copy.copy(model)
    far = _Wire(type(model), twin) if speaks_http(model) else _Canned(model, stage)

    def generate(messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        if SEEN.get() is not None:  # one of the client's methods uses another
            return far.generate(messages, stop=stop, run_manager=run_manager, **kwargs)
        with set_to(SEEN, stage.arrive(model, messages, kwargs)):
            return far.generate(messages, stop=stop, run_manager=run_manager, **kwargs)

    async def agenerate(messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        if SEEN.get() is not None:
            return await far.agenerate(messages, stop=stop, run_manager=run_manager, **kwargs)
        with set_to(SEEN, stage.arrive(model, messages, kwargs)):
            return await far.agenerate(messages, stop=stop, run_manager=run_manager, **kwargs)

    def stream(messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        seen = SEEN.get() or stage.arrive(model, messages, kwargs)
        chunks = far.stream(messages, stop=stop, run_manager=run_manager, **kwargs)
        while (chunk := _next(chunks, SEEN, seen)) is not _END:
            yield chunk

    async def astream(messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        seen = SEEN.get() or stage.arrive(model, messages, kwargs)
        chunks = far.astream(messages, stop=stop, run_manager=run_manager, **kwargs)
        while (chunk := await _anext(chunks, SEEN, seen)) is not _END:
            yield chunk

    vars(twin).update({_TWIN: True, "_generate": generate, "_agenerate": agenerate, "_stream": stream,
                       "_astream": astream})  # fmt: skip
    return twin


class _Wire:
    """The model's own client, on a copy of it; the requests are answered below."""

    def __init__(self, kind: Any, twin: Any) -> None:
        self.generate = functools.partial(kind._generate, twin)  # noqa: SLF001 - what the host itself calls
        self.agenerate = functools.partial(kind._agenerate, twin)  # noqa: SLF001 - the same
        self.stream = functools.partial(kind._stream, twin)  # noqa: SLF001 - the same
        self.astream = functools.partial(kind._astream, twin)  # noqa: SLF001 - the same


class _Canned:
    """Answers without the model's own client, which is of a kind that cannot be answered below."""

    def __init__(self, model: BaseChatModel, stage: Stage) -> None:
        self._name = str(getattr(model, "model_name", None) or getattr(model, "model", ""))
        self._stage = stage

    def generate(self, messages: Any, stop: Any, run_manager: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._message(messages, kwargs))])

    async def agenerate(self, messages: Any, stop: Any, run_manager: Any, **kwargs: Any) -> ChatResult:
        return self.generate(messages, stop, run_manager, **kwargs)

    def stream(self, messages: Any, stop: Any, run_manager: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        message = self._message(messages, kwargs)
        calls = [
            tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
            for index, call in enumerate(message.tool_calls)
        ]
        chunk = AIMessageChunk(
            content=message.content,
            tool_call_chunks=calls,
            usage_metadata=message.usage_metadata,
            response_metadata=message.response_metadata,
        )
        yield ChatGenerationChunk(message=chunk)

    async def astream(
        self, messages: Any, stop: Any, run_manager: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self.stream(messages, stop, run_manager, **kwargs):
            yield chunk

    def _message(self, messages: Any, params: Mapping[str, Any]) -> AIMessage:
        stage, seen = self._stage, SEEN.get()
        stage.attempt(seen)
        if stage.failing:
            msg = "the stand-in fails on purpose, to see who repeats the call"
            raise ConnectionError(msg)
        turn = next_turn(params, called_in(convert_to_openai_messages(messages)), stage.answer)
        return _message(turn, self._name, seen)


def _message(turn: Turn, model: str, seen: Seen | None) -> AIMessage:
    calls = [
        ToolCall(name=name, args=args, id=f"call_{id(seen)}_{number}") for number, (name, args) in enumerate(turn.calls)
    ]
    return AIMessage(
        content=turn.text,
        tool_calls=calls,
        usage_metadata=dict(_USAGE),
        response_metadata={"model_name": model} if model else {},
    )


def _text_twin(model: BaseLLM, stage: Stage) -> BaseLLM:
    twin = copy.copy(model)

    def generate(prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        for prompt in prompts:
            stage.attempt(stage.arrive(model, [prompt], {}))
        if stage.failing:
            msg = "the stand-in fails on purpose, to see who repeats the call"
            raise ConnectionError(msg)
        return LLMResult(generations=[[Generation(text=stage.answer)] for _ in prompts])

    async def agenerate(prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        return generate(prompts)

    def stream(prompt: str, *args: Any, **kwargs: Any) -> Iterator[GenerationChunk]:
        yield GenerationChunk(text=generate([prompt]).generations[0][0].text)

    async def astream(prompt: str, *args: Any, **kwargs: Any) -> AsyncIterator[GenerationChunk]:
        yield GenerationChunk(text=generate([prompt]).generations[0][0].text)

    vars(twin).update({_TWIN: True, "_generate": generate, "_agenerate": agenerate, "_stream": stream,
                       "_astream": astream})  # fmt: skip
    return twin


# -- tools -------------------------------------------------------------------------------------------------------------


def _own_ways(kind: type[BaseTool]) -> Iterator[tuple[type[BaseTool], str]]:
    """Methods by which kinds of tools run in a way of their own, before anything that stands in is asked."""
    for each in kind.__subclasses__():
        if not each.__module__.startswith("langchain_core."):
            yield from ((each, name) for name in _WAYS if name in vars(each))
        yield from _own_ways(each)


def _plainly(own: Callable[..., Any], name: str, stage: Stage) -> Callable[..., Any]:
    """The method *name*, in its *own* way only for tools that are run for real."""

    @functools.wraps(own)
    def call(tool: BaseTool, *args: Any, **kwargs: Any) -> Any:
        return (own if stage.is_real(tool) else getattr(BaseTool, name))(tool, *args, **kwargs)

    return call


def _tool_twin(tool: BaseTool, stage: Stage) -> BaseTool:
    if stage.runs(tool):
        return tool
    twin = copy.copy(tool)
    answer = (stage.answer, None) if tool.response_format == "content_and_artifact" else stage.answer

    def run(*args: Any, **kwargs: Any) -> Any:
        return answer

    async def arun(*args: Any, **kwargs: Any) -> Any:
        return answer

    vars(twin).update({_TWIN: True, "_run": run, "_arun": arun})
    return twin
