"""`price_tool`: a price said where the tool is defined."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from agentbudget.errors import ConfigurationError
from agentbudget.pricing.tools import ToolPrice, declare_tool_price

_T = TypeVar("_T")


def price_tool(price: object) -> Callable[[_T], _T]:
    """Give the decorated tool, or the function a tool is made of, a price in this process.

    Args:
        price: `"$0.01"` a call, `{"per_unit": "$0.001", "unit": "pages"}`, or a function of (arguments, result).

    Raises:
        ConfigurationError: not a price, or not a tool. A price in `Governor(prices=...)` wins over this one.
    """
    parsed = ToolPrice.of(price, where="price_tool")

    def declare(tool: _T) -> _T:
        name = getattr(tool, "name", None) or getattr(tool, "__name__", None)
        if not isinstance(name, str):
            msg = f"price_tool: {tool!r} is neither a tool nor a function."
            raise ConfigurationError(msg)
        declare_tool_price(name, parsed)
        return tool

    return declare
