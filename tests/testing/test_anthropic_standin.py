"""The real Anthropic client of LangChain against the stand-in."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool

from agentbudget.domain.usage import Usage
from agentbudget.testing import ProviderServer, Reply, ToolCall

CACHED = Usage(
    input_tokens=1000, output_tokens=50, cache_read_tokens=600, cache_write_5m_tokens=200, cache_write_1h_tokens=100
)


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


def client(server: ProviderServer, **options: Any) -> ChatAnthropic:
    settings: dict[str, Any] = {"model": "claude-standin", "api_key": "sk-test", "max_tokens": 1000, "max_retries": 0}
    return ChatAnthropic(base_url=server.base_url, **{**settings, **options})


def test_usage_arrives_with_cache_reads_and_both_kinds_of_cache_writes() -> None:
    with ProviderServer([Reply(text="hello", usage=CACHED)]) as server:
        answer = client(server).invoke("hi")
    assert answer.content == "hello"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == 1000
    details: Any = answer.usage_metadata["input_token_details"]
    assert details["cache_read"] == 600
    assert details["ephemeral_5m_input_tokens"] == 200
    assert details["ephemeral_1h_input_tokens"] == 100
    assert server.usage == CACHED


def test_a_stream_reports_its_usage_in_message_delta() -> None:
    with ProviderServer([Reply(text="a long enough text for several chunks", usage=CACHED)]) as server:
        chunks = [*client(server).stream("hi")]
    assert "".join(chunk.text for chunk in chunks) == "a long enough text for several chunks"
    whole = sum(chunks[1:], start=chunks[0])
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["input_tokens"] == 1000
    assert whole.usage_metadata["output_tokens"] == 50


def test_the_answer_is_cut_at_max_tokens() -> None:
    with ProviderServer([Reply(text="x" * 400)]) as server:
        answer = client(server, max_tokens=10).invoke("hi")
    assert answer.response_metadata["stop_reason"] == "max_tokens"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 10


@pytest.mark.parametrize("streaming", [False, True])
def test_an_agent_goes_round_its_tools(*, streaming: bool) -> None:
    asks = Reply(text="let me look", tool_calls=(ToolCall(name="search", args={"query": "a"}),) * 2)
    with ProviderServer([asks, Reply(text="done")]) as server:
        agent = create_agent(client(server, streaming=streaming), [search], system_prompt="Be brief.")
        result = agent.invoke({"messages": [HumanMessage("go")]})
    messages: list[BaseMessage] = result["messages"]
    assert messages[-1].text == "done"
    assert [message.content for message in messages if isinstance(message, ToolMessage)] == ["found a"] * 2
    assert len(server.served) == 2


def test_an_unanswered_tool_use_is_refused_and_costs_nothing() -> None:
    asked = AIMessage("", tool_calls=[{"name": "search", "args": {}, "id": "toolu_x"}])
    with (
        ProviderServer() as server,
        pytest.raises(anthropic.BadRequestError, match=r"without `tool_result` blocks.*toolu_x"),
    ):
        client(server).invoke([HumanMessage("hi"), asked, HumanMessage("well?")])
    assert len(server.requests) == 1
    assert server.served == []


def test_an_overloaded_provider_is_retried_by_the_sdk() -> None:
    with ProviderServer([Reply(status=529, headers={"retry-after-ms": "1"}), Reply()]) as server:
        assert client(server, max_retries=1).invoke("hi").content == "ok"
    assert [request.sdk_retry for request in server.requests] == [0, 1]
    assert len(server.served) == 1


def test_web_searches_are_on_the_bill() -> None:
    with ProviderServer([Reply(usage=Usage(input_tokens=10, output_tokens=5, web_searches=3))]) as server:
        answer = client(server).invoke("hi")
    assert answer.response_metadata["usage"]["server_tool_use"]["web_search_requests"] == 3


@pytest.mark.parametrize("streamed", [False, True])
def test_nonsense_and_missing_usage_reach_the_client_as_they_are(*, streamed: bool) -> None:
    nonsense = {"input_tokens": -5, "output_tokens": 10}
    with ProviderServer([Reply(raw_usage=nonsense), Reply(report_usage=False)]) as server:
        model = client(server, streaming=streamed)
        strange = model.invoke("hi")
        assert strange.usage_metadata is not None
        assert strange.usage_metadata["input_tokens"] == -5
        silent = (
            model.invoke("hi").usage_metadata if streamed else None
        )  # a plain answer without usage breaks the client
        assert silent is None or silent["input_tokens"] == 0
    assert all(generation.usage.input_tokens > 0 for generation in server.served)


def test_max_tokens_is_required() -> None:
    with ProviderServer() as server:
        sdk = anthropic.Anthropic(base_url=server.base_url, api_key="sk-test", max_retries=0)
        body: Any = {"model": "claude-standin", "messages": [{"role": "user", "content": "hi"}]}
        with pytest.raises(anthropic.BadRequestError, match="max_tokens: Field required"):
            sdk.post("/v1/messages", body=body, cast_to=object)
        sdk.close()
