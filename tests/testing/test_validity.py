"""Which histories the providers accept."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from agentbudget.testing import anthropic_error, assert_valid_history, openai_error, responses_error

USER = HumanMessage("hi")


def asks(*ids: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "search", "args": {}, "id": each} for each in ids])


def answers(call_id: str) -> ToolMessage:
    return ToolMessage("found", tool_call_id=call_id)


@pytest.mark.parametrize(
    "history",
    [
        [USER],
        [SystemMessage("be brief"), USER, AIMessage("hello"), USER],
        [USER, asks("a", "b"), answers("b"), answers("a"), AIMessage("done")],
        [USER, asks("a"), answers("a"), asks("b"), answers("b")],
        [USER, asks("a"), answers("a"), USER],
    ],
)
def test_a_history_with_every_call_answered_is_valid(history: list[BaseMessage]) -> None:
    assert_valid_history(history)


@pytest.mark.parametrize(
    ("history", "of_openai", "of_anthropic"),
    [
        ([], "empty array", "at least one message"),
        ([USER, asks("a")], "did not have response messages: a", "were found without"),
        ([USER, asks("a", "b"), answers("a"), USER], "did not have response messages: b", "immediately after: b"),
        ([USER, asks("a"), USER, answers("a")], "did not have response messages: a", None),
        ([USER, answers("a")], "must be a response to a preceeding message", "unexpected `tool_use_id`"),
        ([USER, asks("a"), answers("a"), answers("a")], "must be a response to a preceeding message", None),
        ([AIMessage("hello"), USER], None, "first message must use"),
        ([USER, asks("a"), answers("a"), asks("a"), answers("a")], None, "ids must be unique"),
    ],
)
def test_a_broken_history_is_refused(
    history: list[BaseMessage], of_openai: str | None, of_anthropic: str | None
) -> None:
    for error, expected in ((openai_error(history), of_openai), (anthropic_error(history), of_anthropic)):
        assert (error is None) == (expected is None), error
        assert expected is None or expected in str(error)
    with pytest.raises(AssertionError, match="would refuse this history"):
        assert_valid_history(history)


def test_malformed_tool_calls_must_be_answered_too() -> None:
    broken = AIMessage("", invalid_tool_calls=[{"name": "search", "args": "{", "id": "a", "error": None}])
    assert openai_error([USER, broken]) is not None
    assert_valid_history([USER, broken, answers("a")])


def test_wire_dictionaries_are_read_as_well_as_messages() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "search", "arguments": "{}"}}
    asked: list[dict[str, Any]] = [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [call]}]
    assert openai_error(asked) is not None
    assert openai_error([*asked, {"role": "tool", "tool_call_id": "a", "content": "found"}]) is None
    use = {"type": "tool_use", "id": "a", "name": "search", "input": {}}
    asked = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [use]}]
    assert anthropic_error(asked) is not None
    result = {"type": "tool_result", "tool_use_id": "a", "content": "found"}
    assert anthropic_error([*asked, {"role": "user", "content": [result]}]) is None


def test_a_function_call_item_needs_its_output() -> None:
    call, output = {"type": "function_call", "call_id": "a"}, {"type": "function_call_output", "call_id": "a"}
    assert responses_error([call, output]) is None
    assert responses_error([call]) == "No tool output found for function call a."
    assert responses_error([output]) == "No tool call found for function call output with call_id a."
