"""The calls of a trace that was recorded with full content, in the form in which they can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

from agentbudget.errors import TraceError
from agentbudget.trace.events import CallReserved, CallSettled
from agentbudget.trace.reader import Trace

_FAILED = frozenset({"error", "refused", "timeout", "cancelled"})
_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One recorded call of a model or tool."""

    number: int
    """Its place among all calls of the recording, from 1."""
    kind: str
    name: str
    provider: str
    cap: int | None
    """The output cap that was declared, in tokens."""
    asked: Any
    """What it was asked: messages as `spoken` gives them, or the arguments of a tool."""
    answer: Any
    error: str
    """Name of the exception it failed with."""

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"call {self.number} ({self.kind} {self.name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The calls of a trace by model and tool, and what the models knew of the tools."""

    models: Mapping[str, Sequence[Recorded]]
    tools: Mapping[str, Sequence[Recorded]]
    schemas: Mapping[str, Mapping[str, Any]]
    """Description and parameters of each tool that was offered or called."""


def read_recording(path: str | PathLike[str]) -> Recording:
    """The recording in the trace at *path*.

    Raises:
        TraceError: nothing is there, or it was recorded without content. LookupError: it has no model call.
    """
    events = Trace.load(path).events
    done = {event.call: event for event in events if isinstance(event, CallSettled)}
    asked = [event for event in events if isinstance(event, CallReserved) and event.call in done]
    if not any(event.kind == "model" for event in asked):
        msg = f"{fspath(path)}: no model call is recorded there, so there is nothing to play."
        raise LookupError(msg)
    models: dict[str, list[Recorded]] = {}
    tools: dict[str, list[Recorded]] = {}
    schemas: dict[str, Mapping[str, Any]] = {}
    for number, event in enumerate(asked, 1):
        call = _recorded(number, event, done[event.call], fspath(path))
        (models if call.kind == "model" else tools).setdefault(call.name, []).append(call)
        if call.kind == "model":
            schemas |= _schemas(event.content.get("tools") or ())
    return Recording(models=models, tools=tools, schemas={name: {} for name in tools} | schemas)


def spoken(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What of *messages* must be equal for two requests to be the same: ids and numbers do not count."""
    return [_spoken(message) for message in messages]


def differing(recorded: Any, now: Any) -> str:
    """The first difference between what was recorded and what is asked now; empty if there is none."""
    if not isinstance(recorded, list) or not isinstance(now, list):
        return "" if _same(recorded, now) else _both(recorded, now)
    for place, (before, after) in enumerate(zip(recorded, now, strict=False), 1):
        if not _same(before, after):
            return f"message {place} is another." + _both(before, after)
    if len(recorded) != len(now):
        return f"{len(recorded)} messages were recorded, now there are {len(now)}."
    return ""


def _recorded(number: int, asked: CallReserved, done: CallSettled, path: str) -> Recorded:
    if asked.content is None:
        msg = (
            f"{path}: recorded without content, so it cannot be played. Record it with Governor(trace=..., "
            "trace_content='full'), or with pytest --budget-trace=FOLDER --budget-trace-content=full."
        )
        raise TraceError(msg)
    model = asked.kind == "model"
    failed = done.outcome in _FAILED and (model or bool(done.error))
    return Recorded(
        number=number,
        kind=asked.kind,
        name=asked.name,
        provider=asked.provider,
        cap=asked.estimate_output if asked.capped else None,
        asked=spoken(asked.content["messages"]) if model else asked.content,
        answer=done.content,
        error=(done.error or "RuntimeError") if failed else "",
    )


def _spoken(message: Mapping[str, Any]) -> dict[str, Any]:
    data = message["data"]
    kind = str(message["type"]).removesuffix("MessageChunk").lower()
    calls = [[call["name"], call["args"]] for call in data.get("tool_calls") or ()]
    parts = {"type": kind, "content": data.get("content"), "calls": calls, "answers": data.get("tool_call_id")}
    return {name: value for name, value in parts.items() if value or name == "content"}


def _schemas(tools: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    """Description and parameters of the tools a model was offered, in the dialects of OpenAI and Anthropic."""
    known: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        if not isinstance(tool, Mapping):
            continue
        inner: Any = tool.get("function")
        told: Mapping[str, Any] = inner if isinstance(inner, Mapping) else tool
        parameters = told.get("parameters") or told.get("input_schema")
        if told.get("name") and parameters:
            known[told["name"]] = {"description": told.get("description"), "parameters": parameters}
    return known


def _same(one: Any, other: Any) -> bool:
    return _plain(one) == _plain(other)


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


def _both(before: Any, after: Any) -> str:
    return f"\n  recorded: {_cut(_plain(before))}\n  now:      {_cut(_plain(after))}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
