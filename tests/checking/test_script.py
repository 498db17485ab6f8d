"""What the stand-in says: the smallest thing that is asked for, in the words of either wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from agentbudget.checking.instances import TEXT, instance_of
from agentbudget.checking.script import ANSWER, called_in, next_turn

SCHEMA = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
OPENAI = {"type": "function", "function": {"name": "search", "parameters": SCHEMA}}
RESPONSES = {"type": "function", "name": "search", "parameters": SCHEMA}
ANTHROPIC = {"name": "search", "input_schema": SCHEMA}
CALL = (("search", {"query": TEXT}),)


@pytest.mark.parametrize("offered", [OPENAI, RESPONSES, ANTHROPIC])
def test_each_tool_is_called_once_and_then_there_is_an_answer(offered: dict[str, Any]) -> None:
    assert next_turn({"tools": [offered]}, []).calls == CALL
    assert next_turn({"tools": [offered]}, ["search"]).text == ANSWER
    assert next_turn({}, []).text == ANSWER


@pytest.mark.parametrize("choice", ["required", "any", {"type": "any"}, {"type": "tool", "name": "search"}, "search",
                                    {"type": "function", "function": {"name": "search"}}])  # fmt: skip
def test_a_tool_that_must_be_called_is_called_again(choice: Any) -> None:
    assert next_turn({"tools": [OPENAI], "tool_choice": choice}, ["search"]).calls == CALL


@pytest.mark.parametrize(
    "params",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ],
)
def test_a_structured_answer_follows_its_schema(params: dict[str, Any]) -> None:
    assert json.loads(next_turn(params, []).text) == {"query": TEXT}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "search", "arguments": "{}"}}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "search", "input": {}}]},
        {"type": "function_call", "name": "search", "arguments": "{}", "call_id": "1"},
    ],
)
def test_what_was_called_counts_until_the_user_speaks(message: dict[str, Any]) -> None:
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "found"}]}
    assert called_in([{"role": "user", "content": "hi"}, message, result]) == ["search"]
    assert called_in([message, {"role": "user", "content": "and now?"}]) == []


class Part(BaseModel):
    size: int = Field(ge=3)


FIELDS: dict[str, Any] = {
    "text": (str, Field(min_length=12)),
    "short": (str, Field(max_length=3)),
    "number": (float, Field(gt=2)),
    "whole": (int, ...),
    "yes": (bool, ...),
    "part": (Part, ...),
    "parts": (list[Part], Field(min_length=2)),
    "maybe": (Part | None, ...),
    "given": (int, 7),
}


@given(names=st.sets(st.sampled_from(sorted(FIELDS))))
def test_the_smallest_value_of_a_schema_is_one(names: set[str]) -> None:
    model = create_model("Made", **{name: FIELDS[name] for name in names})
    for whole in (False, True):
        model.model_validate(instance_of(model.model_json_schema(), whole=whole))
