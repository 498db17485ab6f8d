"""Scripted replies refuse what the wire could not carry when they are made, not in the server's thread."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import ToolCall as HostToolCall

from agentbudget.testing import Reply, ToolCall


@pytest.mark.parametrize("call", [HostToolCall(name="search", args={}, id="1"), {"name": "search"}, "search"])
def test_a_tool_call_of_another_class_is_refused_with_the_right_one(call: Any) -> None:
    with pytest.raises(TypeError, match=r"agentbudget\.testing\.ToolCall"):
        Reply(tool_calls=(call,))


def test_a_tool_call_of_the_kit_is_taken() -> None:
    assert Reply(tool_calls=(ToolCall(name="search"),)).tool_calls[0].name == "search"
