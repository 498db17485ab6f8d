"""What the stand-in says: every tool once, what a schema asks for, else a short text. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentbudget.checking.instances import instance_of

ANSWER = "This is the stand-in's answer."
_MOST_CALLS = 16
_FORCED = frozenset({"any", "required", "tool", "function"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One answer: a text, or tool calls as (name, arguments)."""

    text: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()


def next_turn(params: Mapping[str, Any], called: Sequence[str], answer: str = ANSWER) -> Turn:
    """The answer to a request with *params* (in any provider's words) after the tools in *called* were called."""
    schema = _answer_schema(params)
    if schema is not None:
        return Turn(text=json.dumps(instance_of(schema)))
    tools = dict(_offered(params.get("tools") or ()))
    named, forced = _choice(params.get("tool_choice"))
    if named in tools:
        return _calling(tools, [named])
    pending = [name for name in tools if name not in called]
    if forced and tools:  # the last tool is, by custom, the one that carries the structured answer
        return _calling(tools, pending[:-1] or pending or [list(tools)[-1]])
    if not pending or called:
        return Turn(text=answer)
    return _calling(tools, pending[:1] if params.get("parallel_tool_calls") is False else pending)


def _calling(tools: Mapping[str, Any], names: Iterable[str]) -> Turn:
    return Turn(calls=tuple((name, _arguments(tools[name])) for name in list(names)[:_MOST_CALLS]))


def _arguments(schema: Any) -> dict[str, Any]:
    made = instance_of(schema or {"type": "object"})
    return made if isinstance(made, dict) else {}


def _offered(tools: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    """Name and argument schema of each tool that the client runs."""
    for tool in tools:
        if not isinstance(tool, Mapping):
            continue
        function = tool.get("function", tool)
        schema = function.get("parameters", function.get("input_schema"))
        if isinstance(function.get("name"), str) and schema is not None:
            yield function["name"], schema


def _choice(choice: Any) -> tuple[str, bool]:
    """The tool that must be called, if one is named; whether any must."""
    if isinstance(choice, Mapping):
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, Mapping) else None
        return str(name or ""), choice.get("type") in _FORCED
    return (choice if isinstance(choice, str) else ""), choice in _FORCED or choice is True


def _answer_schema(params: Mapping[str, Any]) -> Any:
    """The schema that the text must follow, if any."""
    text, output = params.get("text"), params.get("output_config")
    for place in (
        params.get("response_format"),
        params.get("output_format"),
        text.get("format") if isinstance(text, Mapping) else None,
        output.get("format") if isinstance(output, Mapping) else None,
    ):
        if isinstance(place, Mapping) and str(place.get("type", "")).startswith("json"):
            inner = place.get("json_schema", place)
            return inner.get("schema", {"type": "object"}) if isinstance(inner, Mapping) else {"type": "object"}
    return None


def called_in(messages: Iterable[Any]) -> list[str]:
    """Names of the tools that the last answers in *messages*, in any provider's words, called since the user spoke."""
    names: list[str] = []
    for message in messages:
        if _by_user(message):
            names.clear()
        names.extend(_names(message))
    return names


def _by_user(message: Any) -> bool:
    if not isinstance(message, Mapping) or message.get("role") != "user":
        return False
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    return not any(isinstance(block, Mapping) and block.get("type") == "tool_result" for block in blocks)


def _names(message: Any) -> Iterable[str]:
    if not isinstance(message, Mapping):
        return
    if message.get("type") == "function_call":
        yield str(message.get("name"))
    for call in message.get("tool_calls") or ():
        yield str(call.get("function", call).get("name"))
    content = message.get("content")
    for block in content if isinstance(content, list) else ():
        if isinstance(block, Mapping) and block.get("type") == "tool_use":
            yield str(block.get("name"))
