"""What of a call's content enters a trace: a keyed hash of what was asked and answered, or all of it on request.

Hashes look at the last message, the arguments or the result alone, so their cost does not grow with the conversation.
Full content is `{"messages": [...], "tools": [...]}` for a request to a model, each message as LangChain's own
`message_to_dict` writes it without its empty fields; the message for its answer; the arguments of a tool; the result of
a tool, a message in the same form; `{"error": text}` for a tool or model that failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, message_to_dict
from langchain_core.outputs import LLMResult
from msgspec.structs import replace

from agentbudget.governor.values import Call, Result
from agentbudget.trace.redaction import jsonable

if TYPE_CHECKING:
    from agentbudget.governor.record import Recorder
    from agentbudget.governor.task import Task

_Told = TypeVar("_Told", Call, Result)


def with_request(call: Call, tasks: Iterable[Task], messages: Sequence[BaseMessage], params: Mapping[str, Any]) -> Call:
    """*call* of a model with what was asked, as far as a trace or sink of *tasks* wants to know."""
    recorder = _recorder(tasks)
    if recorder is None or _is_told(call, recorder):
        return call
    asked = _said(messages[-1]) if messages else None
    content = request_content(messages, params) if recorder.full else None
    return replace(call, request=recorder.hasher.hash(asked), content=content)


def with_arguments(call: Call, tasks: Iterable[Task]) -> Call:
    """*call* of a tool with its arguments."""
    recorder = _recorder(tasks)
    if recorder is None or _is_told(call, recorder):
        return call
    content = jsonable(call.arguments) if recorder.full else None
    return replace(call, request=recorder.hasher.hash(call.arguments), content=content)


def with_answer(result: Result, tasks: Iterable[Task], response: LLMResult) -> Result:
    """*result* of a model with its answer; the first one, where there are several."""
    recorder = _recorder(tasks)
    if recorder is None or not response.generations or not response.generations[0]:
        return result
    answer = response.generations[0][0]
    message: BaseMessage | None = getattr(answer, "message", None)
    hashed = recorder.hasher.hash(answer.text if message is None else _said(message))
    content = None
    if recorder.full:
        content = answer.text if message is None else message_content(message)
    return replace(result, result=hashed, content=content)


def with_output(result: Result, tasks: Iterable[Task], output: object) -> Result:
    """*result* of a tool with what it returned."""
    recorder = _recorder(tasks)
    if recorder is None:
        return result
    if isinstance(output, BaseMessage):
        content = message_content(output) if recorder.full else None
        return replace(result, result=recorder.hasher.hash(_said(output)), content=content)
    content = jsonable(output) if recorder.full else None
    return replace(result, result=recorder.hasher.hash(output), content=content)


def with_error(result: Result, tasks: Iterable[Task], error: BaseException) -> Result:
    """*result* of a call that raised *error*: equal errors have equal hashes."""
    recorder = _recorder(tasks)
    if recorder is None:
        return result
    text = str(error)
    content = {"error": text} if recorder.full else None
    return replace(result, result=recorder.hasher.hash([type(error).__name__, text]), content=content)


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


def _is_told(call: Call, recorder: Recorder) -> bool:
    """Whether an earlier handler of the same attempt has done this already."""
    return bool(call.request) and (call.content is not None or not recorder.full)


def _recorder(tasks: Iterable[Task]) -> Recorder | None:
    """The recorder whose trace or sinks want content; of several that of the innermost task, unless one wants all."""
    wanting = [recorder for task in tasks if (recorder := task.governor.recorder).wants_content]
    return next((recorder for recorder in wanting if recorder.full), wanting[0] if wanting else None)


def _said(message: BaseMessage) -> str | list[Any]:
    """What *message* says, without its ids and numbers; a text where it says nothing but text."""
    calls = message.tool_calls if isinstance(message, AIMessage) else ()
    if not calls and isinstance(message.content, str):
        return f"{message.type}: {message.content}"
    return [message.type, message.content, [(call["name"], call["args"]) for call in calls]]
