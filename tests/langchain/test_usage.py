"""What LangChain reports as usage, in all its spellings, as one `Usage`."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from agentbudget.domain.usage import Usage
from agentbudget.langchain.usage import Answer, read_result, to_usage


def result(message: AIMessage, *more: AIMessage, output: dict[str, Any] | None = None) -> LLMResult:
    return LLMResult(generations=[[ChatGeneration(message=one) for one in (message, *more)]], llm_output=output)


def said(counts: dict[str, Any] | None = None, /, **meta: Any) -> AIMessage:
    # Providers' adapters build this mapping by hand, so nothing guarantees its shape.
    message = AIMessage("ok", response_metadata=meta)
    message.usage_metadata = counts  # type: ignore[assignment]  # see above
    return message


LIFETIMES = {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 9}
WRITES = {"cache_write_5m_tokens": 7, "cache_write_1h_tokens": 9}
COUNTS = {"input_tokens": 100, "output_tokens": 60, "total_tokens": 160}


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({}, {}),
        ({"input_token_details": {"cache_read": 64}}, {"cache_read_tokens": 64}),
        ({"output_token_details": {"reasoning": 12}}, {"reasoning_tokens": 12}),
        ({"input_token_details": {"cache_creation": 20}}, {"cache_write_5m_tokens": 20}),
        ({"input_token_details": {"cache_creation": 0, **LIFETIMES}}, WRITES),
        ({"input_token_details": {"cache_creation": 16, **LIFETIMES}}, WRITES),
        ({"input_token_details": {"audio": 30}}, {"input_audio_tokens": 30}),
        ({"output_token_details": {"audio": 30, "reasoning": 5}}, {"output_audio_tokens": 30, "reasoning_tokens": 5}),
        ({"input_token_details": {"flex_cache_read": 64}}, {"cache_read_tokens": 64}),
        ({"output_token_details": {"priority_reasoning": 12}}, {"reasoning_tokens": 12}),
        ({"input_token_details": None, "output_token_details": {"reasoning": None}}, {}),
        ({"input_token_details": {"a_detail_of_tomorrow": 5}}, {}),
    ],
)
def test_every_detail_finds_its_bucket(details: dict[str, Any], expected: dict[str, int]) -> None:
    usage, problem = to_usage({**COUNTS, **details})
    assert usage == Usage(input_tokens=100, output_tokens=60, **expected)
    assert problem == ""


@pytest.mark.parametrize(
    "raw",
    [
        {"input_tokens": -1, "output_tokens": 1},
        {"input_tokens": 1, "output_tokens": -1},
        {"input_tokens": 10**13, "output_tokens": 1},
        {"input_tokens": 1.5, "output_tokens": 1},
        {"input_tokens": "7", "output_tokens": 1},
        {"input_tokens": True, "output_tokens": 1},
        {"input_tokens": None, "output_tokens": 1},
        {"output_tokens": 1},
        {},
        {**COUNTS, "input_token_details": {"cache_read": 101}},
        {**COUNTS, "input_token_details": {"cache_read": -1}},
        {**COUNTS, "output_token_details": {"reasoning": 61}},
        {**COUNTS, "input_token_details": {"cache_read": "many"}},
    ],
    ids=str,
)
def test_usage_that_cannot_be_right_is_named_and_never_counted(raw: dict[str, Any]) -> None:
    usage, problem = to_usage(raw)
    assert usage is None
    assert "cannot be right" in problem


def test_the_first_of_several_answers_carries_the_usage_of_all() -> None:
    answer = read_result(result(said(COUNTS), said(COUNTS), output={"model_name": "gpt-4o"}))
    assert answer.usage == Usage(input_tokens=100, output_tokens=60)
    assert answer.model == "gpt-4o"


@pytest.mark.parametrize(
    ("meta", "output", "expected"),
    [
        ({"model_name": "a"}, {"model_name": "b"}, "a"),
        ({"model": "a"}, None, "a"),
        ({}, {"model_name": "b"}, "b"),
        ({}, None, ""),
    ],
)
def test_the_name_of_the_model_that_answered(meta: dict[str, Any], output: Any, expected: str) -> None:
    assert read_result(result(said(COUNTS, **meta), output=output)).model == expected


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"service_tier": "flex"}, "flex"),
        ({"service_tier": "default"}, ""),
        ({"service_tier": None}, ""),
        ({"usage": {"service_tier": "priority"}}, "priority"),
        ({"usage": {"service_tier": "standard"}}, ""),
        ({"service_tier": 3}, ""),
    ],
)
def test_the_tier_that_answered(meta: dict[str, Any], expected: str) -> None:
    assert read_result(result(said(COUNTS, **meta))).tier == expected


OPENAI = {
    "prompt_tokens": 100,
    "completion_tokens": 60,
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 12},
}
AS_USAGE = Usage(input_tokens=100, output_tokens=60, cache_read_tokens=64, reasoning_tokens=12)


def test_usage_that_only_the_whole_result_carries_is_found() -> None:
    assert read_result(result(said(), output={"token_usage": OPENAI})).usage == AS_USAGE


def test_usage_in_the_body_of_an_answer_that_could_not_be_parsed_is_found() -> None:
    assert read_result(result(said(body={"usage": OPENAI}))).usage == AS_USAGE


def test_usage_of_a_text_completion_is_found_beside_it() -> None:
    text = LLMResult(generations=[[Generation(text="ok")]], llm_output={"token_usage": OPENAI, "model_name": "x"})
    assert read_result(text) == Answer(AS_USAGE, "", "x", said="ok")


def test_without_usage_every_answer_is_measured_tool_calls_included() -> None:
    call = {"name": "search", "args": {"query": "ä"}, "id": "c1"}
    answer = read_result(result(AIMessage("four"), AIMessage("", tool_calls=[call])))
    assert answer.usage is None
    assert answer.size == 4 + len("search") + len(str({"query": "ä"}).encode())


@pytest.mark.parametrize("usage", [{"total_cost": 0}, {**COUNTS, "total_cost": 0}])
def test_langchains_mark_of_an_answer_from_its_cache(usage: dict[str, Any]) -> None:
    answer = read_result(result(said(usage)))
    assert answer.cached
    assert answer.problem == ""
    assert not read_result(result(said({**COUNTS, "total_cost": 0}), output={"model_name": "x"})).cached


def test_searches_that_the_provider_made_are_counted() -> None:
    anthropic = AIMessage("ok", response_metadata={"usage": {"server_tool_use": {"web_search_requests": 2}}})
    openai = AIMessage([{"type": "web_search_call", "id": "1"}, {"type": "text", "text": "ok"}])
    for message, searches in ((anthropic, 2), (openai, 1), (said(), 0)):
        message.usage_metadata = COUNTS  # type: ignore[assignment]  # a plain dict
        usage = read_result(result(message)).usage
        assert usage is not None
        assert usage.web_searches == searches


@pytest.mark.parametrize("generations", [[], [[]]])
def test_a_result_without_an_answer_tells_nothing(generations: list[Any]) -> None:
    assert read_result(LLMResult(generations=generations)) == Answer()


@pytest.mark.parametrize("counts", ["nonsense", [1], 7])
def test_what_cannot_be_read_is_a_problem_and_breaks_nothing(counts: Any) -> None:
    answer = read_result(result(said(counts)))
    assert answer.usage is None
    assert "cannot be read" in answer.problem
    assert isinstance(answer.said, AIMessage), "the answer itself goes on record all the same"


def test_a_name_of_a_model_that_is_no_text_is_none() -> None:
    assert read_result(result(said(COUNTS, model_name=5))).model == ""
