"""Landings: how an agent ends at its limit. Every final history is one that both providers accept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelFallbackMiddleware, ModelRetryMiddleware, hook_config
from langchain.agents.middleware.types import ModelRequest
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel

import agentbudget as ab
from agentbudget.domain.verdict import StopReport
from agentbudget.langchain import landing
from agentbudget.testing import ProviderServer, Reply, Request, assert_valid_history
from tests.langchain.actors import CALL, answer, asking, scripted
from tests.langchain.support import SEARCH, anthropic, openai, search, truth

HELLO: Any = {"messages": [("user", "hello")]}
STOP = StopReport(limit="max_cost", meter="cost", settled=400_000_000, limit_amount=500_000_000, call="model gpt-4o")


def _report(middleware: ab.BudgetMiddleware) -> ab.TaskReport:
    assert middleware.report is not None, "no task was closed"
    return middleware.report


def _actions(middleware: ab.BudgetMiddleware) -> list[str]:
    return [action["action"] for action in _report(middleware).actions]


def _restless(request: Request) -> Reply:
    """Searches for ever while there is a tool, and tells what it was asked at the end."""
    if request.body.get("tools"):
        return Reply(text="I will look.", tool_calls=(SEARCH,))
    return Reply(text="That is what I found.")


# -- finish ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [openai, anthropic])
@pytest.mark.parametrize("asynchronous", [True, False])
def test_finish_asks_once_for_a_last_answer_without_tools(
    governor: ab.Governor, client: Any, *, asynchronous: bool
) -> None:
    with ProviderServer(_restless) as server:
        middleware = ab.BudgetMiddleware(max_cost="$0.08", governor=governor, final_note="Finish now.")
        agent = create_agent(client(server), [search], middleware=[middleware], system_prompt="Be brief.")
        result = asyncio.run(agent.ainvoke(HELLO)) if asynchronous else agent.invoke(HELLO)
        last = server.requests[-1]
        assert "Finish now." in str(last.body.get("system") or last.messages[0])
        assert "Be brief." in str(last.body.get("system") or last.messages[0])
        assert [bool(each.body.get("tools")) for each in server.requests] == [True] * (len(server.requests) - 1) + [
            False
        ]
        assert len(server.served) == len(server.requests) > 3
    assert result["messages"][-1].content == "That is what I found."
    assert_valid_history(result["messages"])
    report = _report(middleware)
    assert (report.status, _actions(middleware)[-1]) == ("stopped", "finish")
    assert report.stopped_by is not None
    assert report.stopped_by.kept > 0


@settings(deadline=None, max_examples=25)
@given(
    cents=st.integers(2, 30),
    words=st.integers(1, 1500),
    cap=st.sampled_from([64, 300, 500, 2000]),
    reserve=st.sampled_from([None, "$0.005"]),
)
def test_law_1_the_last_answer_is_paid_from_within_the_budget(
    cents: int, words: int, cap: int, reserve: str | None
) -> None:
    def script(request: Request) -> Reply:
        text = "word " * words
        return Reply(text=text, tool_calls=(SEARCH,)) if request.body.get("tools") else Reply(text=text)

    with ProviderServer(script) as server:
        middleware = ab.BudgetMiddleware(max_cost=f"${cents / 100}", governor=ab.Governor(), finish_reserve=reserve)
        agent = create_agent(openai(server, max_tokens=cap), [search], middleware=[middleware])
        result = agent.invoke(HELLO, {"recursion_limit": 200})
        assert truth(server) <= cents * 10_000_000
    assert_valid_history(result["messages"])
    assert _report(middleware).reserved == 0


def test_a_model_that_still_calls_tools_is_not_obeyed(governor: ab.Governor) -> None:
    model = scripted(asking("search", 99, query="a"))
    middleware = ab.BudgetMiddleware(max_model_calls=3, governor=governor)
    result = create_agent(model, [search], middleware=[middleware]).invoke(HELLO)
    assert len(model.calls) == 3
    assert sum(isinstance(message, ToolMessage) for message in result["messages"]) == 2
    assert result["messages"][-1].tool_calls == []
    assert "max_model_calls is 3" in result["messages"][-1].content
    assert_valid_history(result["messages"])


class Weather(BaseModel):
    """The weather."""

    sky: str


@pytest.mark.parametrize("tools", [[], [search]])
def test_the_last_answer_honours_structured_output(governor: ab.Governor, tools: list[Any]) -> None:
    def turn(messages: list[BaseMessage]) -> AIMessage:
        asked = isinstance(messages[0], SystemMessage)
        return answer("", [("Weather", {"sky": "blue"})] if asked else [("search", {"query": "a"})])

    model = scripted(turn)
    middleware = ab.BudgetMiddleware(max_model_calls=2 if tools else 1, governor=governor)
    agent = create_agent(model, tools, middleware=[middleware], response_format=ToolStrategy(Weather))
    result = agent.invoke(HELLO)
    assert result["structured_response"] == Weather(sky="blue")
    assert_valid_history(result["messages"])


@pytest.mark.parametrize("tools", [[], [search]])
def test_without_a_structured_answer_the_agent_ends_all_the_same(governor: ab.Governor, tools: list[Any]) -> None:
    model = scripted(lambda messages: answer("", [("Weather", {"wrong": 1})]))
    middleware = ab.BudgetMiddleware(max_model_calls=3, governor=governor)
    agent = create_agent(model, tools, middleware=[middleware], response_format=ToolStrategy(Weather))
    result = agent.invoke(HELLO)
    assert len(model.calls) == 3
    assert result.get("structured_response") is None
    assert_valid_history(result["messages"])


def test_a_last_answer_that_cannot_be_paid_becomes_end_and_says_so(governor: ab.Governor) -> None:
    model = scripted(asking("search", 99, query="a"))
    middleware = ab.BudgetMiddleware(max_cost="$0.0001", governor=governor)
    result = create_agent(model, [search], middleware=[middleware]).invoke(HELLO)
    assert not model.calls
    assert "A last answer could not be paid" in result["messages"][-1].content
    assert _actions(middleware) == ["finish", "end"]
    assert_valid_history(result["messages"])


@pytest.mark.parametrize("host", [ModelRetryMiddleware(max_retries=3, initial_delay=0), None])
@pytest.mark.parametrize("first", [True, False])
def test_law_11_the_last_answer_is_one_attempt(governor: ab.Governor, host: Any, *, first: bool) -> None:
    model = scripted(asking("search", 9, query="a"), asking("search", 9, query="a"), ConnectionError("down"))
    others = [host or ModelFallbackMiddleware(scripted(ConnectionError("down too")))]
    middleware = ab.BudgetMiddleware(max_tool_calls=1, governor=governor)
    stack = [middleware, *others] if first else [*others, middleware]
    result = create_agent(model, [search], middleware=stack).invoke(HELLO)
    assert len(model.calls) == 3
    assert "A last answer" in result["messages"][-1].content
    assert_valid_history(result["messages"])
    assert _report(middleware).model_calls == 3


class Judge(AgentMiddleware[Any, Any, Any]):
    """Never satisfied with an answer."""

    @hook_config(can_jump_to=["model"])
    def after_model(self, state: Any, runtime: Any) -> Any:
        return None if state["messages"][-1].tool_calls else {"jump_to": "model"}


@pytest.mark.parametrize("limits", [{"max_model_calls": 3}, {"max_tool_calls": 1}])
def test_law_11_an_agent_that_is_kept_alive_after_its_end_raises(governor: ab.Governor, limits: dict[str, Any]) -> None:
    model = scripted(asking("search", 99, query="a"))
    middleware = ab.BudgetMiddleware(governor=governor, **limits)
    with pytest.raises(ab.BudgetExceeded):
        create_agent(model, [search], middleware=[middleware, Judge()]).invoke(HELLO)
    assert len(model.calls) == 3


# -- end, raise, callable --------------------------------------------------------------------------------------------


def test_end_says_why_in_plain_words(governor: ab.Governor) -> None:
    model = scripted(asking("search", 99, query="a"))
    middleware = ab.BudgetMiddleware(max_cost="$0.002", governor=governor, on_limit="end")
    result = create_agent(model, [search], middleware=[middleware]).invoke(HELLO)
    assert "the budget of this task is used up. max_cost is $0.0020" in result["messages"][-1].content
    assert _report(middleware).cost == len(model.calls) * CALL
    assert_valid_history(result["messages"])


def test_raise_raises_and_reports(governor: ab.Governor) -> None:
    model = scripted(asking("search", 99, query="a"))
    middleware = ab.BudgetMiddleware(max_model_calls=2, governor=governor, on_limit="raise")
    with pytest.raises(ab.BudgetExceeded) as stopped:
        create_agent(model, [search], middleware=[middleware]).invoke(HELLO)
    assert stopped.value.stop.limit == "max_model_calls"
    assert _report(middleware).model_calls == len(model.calls) == 2


async def test_a_callable_answers_in_place_of_the_model(governor: ab.Governor) -> None:
    async def by_keyword(stop: StopReport, request: Any) -> AIMessage:
        return AIMessage(f"nothing found for {request.messages[0].content!r} ({stop.limit})")

    model = scripted(asking("search", 99, query="a"))
    for way in (by_keyword, lambda stop, request: f"nothing found for 'hello' ({stop.limit})"):
        middleware = ab.BudgetMiddleware(max_model_calls=2, governor=governor, on_limit=way)
        result = await create_agent(model, [search], middleware=[middleware]).ainvoke(HELLO)
        assert result["messages"][-1].content == "nothing found for 'hello' (max_model_calls)"
        assert_valid_history(result["messages"])


def test_law_11_a_callable_that_calls_a_model_is_refused(governor: ab.Governor) -> None:
    model = scripted(asking("search", 99, query="a"))
    middleware = ab.BudgetMiddleware(
        max_model_calls=2, governor=governor, on_limit=lambda stop, request: model.invoke("one more")
    )
    result = create_agent(model, [search], middleware=[middleware]).invoke(HELLO)
    assert len(model.calls) == 2
    assert "was refused" in result["messages"][-1].content


# -- pure helpers ----------------------------------------------------------------------------------------------------


def test_calls_are_stripped_from_every_kind_of_content() -> None:
    blocks: list[Any] = [
        {"type": "text", "text": "so far"},
        {"type": "tool_use", "id": "1", "name": "search", "input": {}},
    ]
    call = {"name": "search", "args": {}, "id": "1", "type": "tool_call"}
    message = AIMessage(content=blocks, tool_calls=[call], additional_kwargs={"tool_calls": [1], "kept": 2})
    stripped = landing.without_calls(message, STOP)
    assert (stripped.content, stripped.tool_calls, stripped.additional_kwargs) == (blocks[:1], [], {"kept": 2})
    assert landing.without_calls(AIMessage("fine"), STOP).content == "fine"
    assert "max_cost is $0.50" in landing.without_calls(AIMessage("", tool_calls=[call]), STOP).content


def test_calls_nobody_answered_are_answered_at_the_end() -> None:
    calls: list[Any] = [{"name": "search", "args": {}, "id": each, "type": "tool_call"} for each in ("1", "2")]
    history: list[Any] = [HumanMessage("hi"), AIMessage("", tool_calls=calls), ToolMessage("a", tool_call_id="2")]
    assert [each.tool_call_id for each in landing.unanswered(history)] == ["1"]
    assert_valid_history([*history, *landing.unanswered(history)])
    assert landing.unanswered([*history, HumanMessage("hm")]) == []
    assert landing.unanswered([HumanMessage("hi")]) == []


def test_a_system_message_of_blocks_keeps_its_blocks() -> None:
    blocks: list[Any] = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    request: ModelRequest[Any] = ModelRequest(
        model=scripted(), messages=[HumanMessage("hi")], system_message=SystemMessage(blocks), tools=[search]
    )
    last = landing.last_request(request, "Now.")
    assert last.system_message is not None
    assert last.system_message.content == [*blocks, {"type": "text", "text": "Now."}]
    assert (last.tools, request.tools) == ([], [search])


def test_tools_of_structured_output_are_counted_as_input() -> None:
    for given_format in (Weather, ToolStrategy(Weather)):
        assert [each["name"] for each in landing.answer_tools(given_format)] == ["Weather"]
    assert landing.answer_tools(None) == []
