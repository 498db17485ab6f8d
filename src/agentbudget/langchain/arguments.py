"""What a call of a tool's function asks for, told apart from what LangChain and LangGraph pass in."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolCallId
from langgraph.prebuilt import InjectedState, InjectedStore, ToolRuntime

from agentbudget.retries.sameness import digest

_BY_NAME: Final = frozenset({"callbacks", "run_manager", "tool_call_id"})
"""Arguments that LangChain passes in by their name."""
_BY_TYPE: Final = (InjectedState, InjectedStore, InjectedToolCallId, ToolRuntime)
_NOT_TOLD: Final = frozenset({"checkpoint_id", "checkpoint_map", "checkpoint_ns"})
"""Where in its thread a graph is: of the host, like all that begins with two underscores."""


class Arguments(NamedTuple):
    """The arguments of a call."""

    said: dict[str, Any]
    """What is asked, by name: the call's own arguments, and whom the run is for where the host tells the function."""
    call_id: str
    """The id of the tool call as the function was told it; empty where it was not."""


def arguments(
    function: Callable[..., Any], schema: object, given: tuple[Any, ...], named: Mapping[str, Any]
) -> Arguments:
    """The arguments of `function(*given, **named)`.

    A state as a whole, a store, callbacks and ids say nothing of what is asked. One field of a state
    (`InjectedState("customer")`) does. Of a config or a runtime counts whom the run is for: its `configurable` and its
    context, as far as they can be compared.

    Args:
        function: what is called.
        schema: the class of the arguments of its tool, which may say what is passed in; None where there is none.
        given: positional arguments.
        named: the others.
    """
    bound = inspect.signature(function).bind(*given, **named)
    bound.apply_defaults()
    hints = {**_hints(function), **(_hints(schema) if isinstance(schema, type) else {})}
    said: dict[str, Any] = {}
    call_id = ""
    for name, value in bound.arguments.items():
        if isinstance(value, ToolRuntime):
            said[name] = [_comparable(value.context), _told(value.config)]
            call_id = value.tool_call_id or call_id
        elif _is_config(hints.get(name)):
            said[name] = _told(value or {})
        elif name in _BY_NAME or _is_injected(hints.get(name)):
            if isinstance(value, str) and (name == "tool_call_id" or _has(hints.get(name), InjectedToolCallId)):
                call_id = value
        else:
            said[name] = value
    return Arguments(said, call_id)


def _hints(source: Any) -> Mapping[str, Any]:
    try:
        return get_type_hints(source, include_extras=True)
    except Exception:  # noqa: BLE001 - annotations may be any text; then they are read as text
        return getattr(source, "__annotations__", {})


def _is_config(hint: Any) -> bool:
    if isinstance(hint, str):
        return RunnableConfig.__name__ in hint
    return hint is RunnableConfig or RunnableConfig in get_args(hint)


def _is_injected(hint: Any) -> bool:
    """Whether the host fills it in; one field of a state is what is asked."""
    if isinstance(hint, str):
        return any(each.__name__ in hint for each in _BY_TYPE)
    state = next((each for each in get_args(hint) if isinstance(each, InjectedState)), None)
    return any(_has(hint, each) for each in _BY_TYPE) and not (state is not None and state.field)


def _has(hint: Any, wanted: type) -> bool:
    """Whether *hint* is *wanted*, or says it anywhere: in a union, annotated with it."""
    if isinstance(hint, wanted) or (isinstance(hint, type) and issubclass(hint, wanted)):
        return True
    origin = get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, wanted):
        return True
    return origin is not Literal and any(_has(each, wanted) for each in get_args(hint))


def _told(config: Mapping[str, Any]) -> Any:
    """Whom a run with this *config* is for."""
    chosen = config.get("configurable") or {}
    return _comparable({k: v for k, v in chosen.items() if not str(k).startswith("__") and k not in _NOT_TOLD})


def _comparable(value: Any) -> Any:
    """What of *value* can be compared: a context may hold a connection beside the user."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(type(value), "model_fields"):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        parts = {str(name): _hashed(each) for name, each in value.items()}
        return {name: hashed for name, hashed in parts.items() if hashed is not None}
    return _hashed(value)


def _hashed(value: Any) -> str | None:
    try:
        return digest(value)
    except TypeError:
        return None
