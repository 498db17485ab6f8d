"""`polling`: said where the tool is defined, that asking it the same again and again is no loop."""

from __future__ import annotations

from typing import TypeVar

from agentbudget.errors import ConfigurationError

_T = TypeVar("_T")
_POLLING: set[str] = set()


def polling(tool: _T) -> _T:
    """Exempt the decorated tool, or the function a tool is made of, from the loop rules of this process.

    Raises:
        ConfigurationError: not a tool.
    """
    name = getattr(tool, "name", None) or getattr(tool, "__name__", None)
    if not isinstance(name, str):
        msg = f"polling: {tool!r} is neither a tool nor a function."
        raise ConfigurationError(msg)
    _POLLING.add(name)
    return tool


def is_polling(name: str) -> bool:
    """Whether the tool called *name* was declared to poll."""
    return name in _POLLING
