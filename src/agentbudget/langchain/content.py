"""What of a call's content enters a trace: a keyed hash of what was asked and answered, or all of it on request.

Hashes look at the last message, the arguments or the result alone, so their cost does not grow with the conversation.
Full content is `{"messages": [...], "tools": [...]}` for a request to a model, each message as LangChain's own
`message_to_dict` writes it without its empty fields; the message for its answer; the arguments of a tool; the result of
a tool, a message in the same form; `{"error": text}` for a tool or model that failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from langchain_core.messages import AIMessage, BaseMessage, message_to_dict
from msgspec.structs import replace

from agentbudget.governor.values import Call, Result
from agentbudget.trace.redaction import MAX_TEXT, jsonable

if TYPE_CHECKING:
    from agentbudget.governor.record import Recorder
    from agentbudget.governor.task import Task

_Told = TypeVar("_Told", Call, Result)
_CANONICAL = msgspec.json.Encoder(order="deterministic")
_CALLS = "\x1d"
"""Between the text of an answer and the tools that it asks for."""


class Told(msgspec.Struct, frozen=True, gc=False):
    """What enters a trace of one side of a call; nothing where nobody listens."""

    hashed: str = ""
    content: Any = None


NOTHING = Told()


def of_request(tasks: tuple[Task, ...], messages: Sequence[BaseMessage], params: Mapping[str, Any]) -> Told:
    """What a model is asked, as far as a trace or sink of *tasks* wants to know."""
    recorder = _recorder(tasks)
    if recorder is None:
        return NOTHING
    asked = _said(messages[-1]) if messages else None
    return Told(recorder.hasher.hash(asked), request_content(messages, params) if recorder.full else None)


def of_arguments(tasks: tuple[Task, ...], arguments: Mapping[str, Any]) -> Told:
    """The arguments of a tool."""
    recorder = _recorder(tasks)
    if recorder is None:
        return NOTHING
    return Told(recorder.hasher.hash(arguments), jsonable(arguments) if recorder.full else None)


def of_answer(tasks: tuple[Task, ...], answer: BaseMessage | str | None) -> Told:
    """The answer of a model: a message, or the text of a completion model; the first one, where there are several."""
    recorder = _recorder(tasks)
    if recorder is None or answer is None:
        return NOTHING
    if isinstance(answer, str):
        return Told(recorder.hasher.hash(answer), answer if recorder.full else None)
    return Told(recorder.hasher.hash(_said(answer)), message_content(answer) if recorder.full else None)


def of_output(tasks: tuple[Task, ...], output: object) -> Told:
    """What a tool returned."""
    recorder = _recorder(tasks)
    if recorder is None:
        return NOTHING
    if isinstance(output, BaseMessage):
        return Told(recorder.hasher.hash(_said(output)), message_content(output) if recorder.full else None)
    return Told(recorder.hasher.hash(output), jsonable(output) if recorder.full else None)


def of_error(tasks: tuple[Task, ...], error: BaseException) -> Told:
    """The error a call raised: equal errors have equal hashes."""
    recorder = _recorder(tasks)
    if recorder is None:
        return NOTHING
    text = str(error)
    return Told(recorder.hasher.hash([type(error).__name__, text]), {"error": text} if recorder.full else None)


def retold(call: Call, told: Told) -> Call:
    """*call*, which another handler announced, with what the tasks of this one want of it as well."""
    if not told.hashed or (call.request and (call.content is not None or told.content is None)):
        return call
    return replace(call, request=told.hashed, content=told.content)


def for_recorder(told: _Told, recorder: Recorder) -> _Told:
    """*told* as *recorder* may have it: content only where it records in full, whatever other payers do."""
    return told if told.content is None or recorder.full else replace(told, content=None)


def request_content(messages: Sequence[BaseMessage], params: Mapping[str, Any]) -> dict[str, Any]:
    """All that a model is asked: the messages and the tools it may call."""
    return {
        "messages": [message_content(message) for message in messages],
        "tools": jsonable(params.get("tools") or []),
    }


def message_content(message: BaseMessage) -> dict[str, Any]:
    """*message* in LangChain's own form without its empty fields; `messages_from_dict` reads it back."""
    written = message_to_dict(message)
    data = {name: value for name, value in written["data"].items() if name == "content" or value not in (None, [], {})}
    return {"type": written["type"], "data": data}


def _recorder(tasks: tuple[Task, ...]) -> Recorder | None:
    """The recorder whose trace or sinks want content; of several that of the innermost task, unless one wants all."""
    if len(tasks) == 1:
        recorder = tasks[0].governor.recorder
        return recorder if recorder.wants_content else None
    found = None
    for task in tasks:
        recorder = task.governor.recorder
        if recorder.wants_content:
            if recorder.full:
                return recorder
            found = found or recorder
    return found


def _said(message: BaseMessage) -> str | list[Any]:
    """What *message* says, without its ids and numbers; as one text wherever it can be written as one."""
    content = message.content
    calls = message.tool_calls if isinstance(message, AIMessage) else ()
    if type(content) is str:
        if not calls:
            return f"{message.type}: {content}"
        with suppress(Exception):  # arguments that are no JSON
            asked = _CANONICAL.encode([(call["name"], call["args"]) for call in calls])
            if len(asked) <= MAX_TEXT:
                return f"{message.type}: {content}{_CALLS}{asked.decode()}"
    return [message.type, content, [(call["name"], call["args"]) for call in calls]]
