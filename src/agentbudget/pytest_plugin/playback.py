"""A recorded trajectory, played by a chat model and tools: a budget test of a real agent, offline and exact."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, messages_from_dict
from langchain_core.tools import BaseTool, StructuredTool, ToolException

from agentbudget.langchain.content import message_content
from agentbudget.pytest_plugin.recording import Recorded, Recording, differing, read_recording, spoken
from agentbudget.testing.models import ScriptedChatModel


class PlaybackDivergedError(AssertionError):
    """The agent did something else than it did when it was recorded."""


class Playback:
    """What was recorded at a path, ready to be played: `model, tools = budget.playback("trace.jsonl")`.

    A call is answered by the first recorded call of the same model (tool) that was asked the same and has not been
    played: messages count by their kind, text, tool calls and the call they answer, not by ids and numbers; tools by
    their arguments. A call that was not recorded raises `PlaybackDivergedError`, and fails the test at its end even if
    something caught it. Models have the recorded name, provider and output cap, so that prices and estimates are those
    of the recording; recorded failures are raised again.
    """

    def __init__(self, recording: Recording, *, path: str, whole: bool) -> None:
        self.path = path
        self.models = {name: self._model(name, calls) for name, calls in recording.models.items()}
        """A chat model for each model that was recorded, by name."""
        self.tools = [
            self._tool(name, schema, recording.tools.get(name, ())) for name, schema in recording.schemas.items()
        ]
        """A tool for each tool that was offered to a model or called."""
        self._whole = whole
        self._lock = threading.Lock()
        self._played: set[int] = set()
        self._expected = [call for calls in recording.models.values() for call in calls]
        self._diverged = ""

    @classmethod
    def load(cls, path: str | PathLike[str], *, whole: bool = True) -> Playback:
        """The recording in the trace at *path*.

        Raises:
            TraceError: nothing is there, or it was recorded without content. LookupError: it has no model call.
        """
        return cls(read_recording(path), path=fspath(path), whole=whole)

    @property
    def model(self) -> ScriptedChatModel:
        """The chat model, where one was recorded.

        Raises:
            LookupError: several were; take each from `models`.
        """
        if len(self.models) > 1:
            msg = f"{self.path} has {len(self.models)} models: take each from .models by name, {sorted(self.models)}."
            raise LookupError(msg)
        return next(iter(self.models.values()))

    @property
    def problem(self) -> str:
        """How the test departed from the recording; empty if it did not."""
        if self._diverged:
            return self._diverged
        left = [call for call in self._expected if call.number not in self._played]
        if not left or not self._whole:
            return ""
        return (
            f"{self.path}: the recording goes on with {left[0].title}, but the test ended; "
            f"{len(left)} recorded model calls were not made. playback(path, whole=False) allows that."
        )

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.tools))

    def __repr__(self) -> str:
        return f"<Playback {self.path!r}: models {sorted(self.models)}, tools {[tool.name for tool in self.tools]}>"

    def _model(self, name: str, calls: Sequence[Recorded]) -> ScriptedChatModel:
        def answer(messages: list[BaseMessage]) -> AIMessage:
            asked = spoken([message_content(message) for message in messages])
            return _message(self._take(calls, asked, f"model {name}"))

        return ScriptedChatModel(
            script=[answer], repeat_last=True, model_name=name, provider=calls[0].provider, max_tokens=calls[0].cap
        )

    def _tool(self, name: str, schema: Mapping[str, Any], calls: Sequence[Recorded]) -> BaseTool:
        def run(**arguments: Any) -> Any:
            return _output(self._take(calls, arguments, f"tool {name}"))

        return StructuredTool(
            name=name,
            description=str(schema.get("description") or name),
            args_schema=dict(schema.get("parameters") or {"type": "object", "properties": {}}),
            func=_named(run, name),
            handle_tool_error=True,
        )

    def _take(self, calls: Sequence[Recorded], asked: Any, what: str) -> Recorded:
        """The first call that was asked this and has not been played."""
        with self._lock:
            left = [call for call in calls if call.number not in self._played]
            for call in left:
                if not differing(call.asked, asked):
                    self._played.add(call.number)
                    return call
            self._diverged = self._diverged or self._difference(left, asked, what)
            raise PlaybackDivergedError(self._diverged)

    def _difference(self, left: Sequence[Recorded], asked: Any, what: str) -> str:
        if not left:
            return f"{self.path}: a call of {what} that was not recorded: all recorded ones were played."
        return f"{self.path}: the test departs from the recording at {left[0].title}: {differing(left[0].asked, asked)}"


def _message(call: Recorded) -> AIMessage:
    _raise_failure(call)
    data = {**call.answer["data"], "id": None, "type": "ai"}
    (message,) = messages_from_dict([{"type": "ai", "data": data}])
    if not isinstance(message, AIMessage):
        msg = f"{call.title}: the recorded answer is no message of a model."
        raise TypeError(msg)
    return message


def _output(call: Recorded) -> Any:
    _raise_failure(call)
    answer = call.answer
    if not isinstance(answer, Mapping) or answer.get("type") != "tool" or "data" not in answer:
        return answer
    content = answer["data"].get("content", "")
    if answer["data"].get("status") == "error":
        raise ToolException(str(content))
    return content


def _raise_failure(call: Recorded) -> None:
    """Fail as the call failed: with the same class if Python has it."""
    if not call.error:
        return
    kind = getattr(builtins, call.error, None)
    text = str(call.answer.get("error", "")) if isinstance(call.answer, Mapping) else ""
    if isinstance(kind, type) and issubclass(kind, Exception):
        raise kind(text)
    raise RuntimeError(f"{call.error}: {text}")


def _named(run: Callable[..., Any], name: str) -> Callable[..., Any]:
    run.__name__ = name
    return run
