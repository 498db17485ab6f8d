"""The real OpenAI clients of LangChain against the stand-in."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import openai
import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from agentbudget.domain.usage import Usage
from agentbudget.testing import ProviderServer, Reply, ToolCall

CACHED = Usage(input_tokens=1000, output_tokens=200, cache_read_tokens=640, reasoning_tokens=120)


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


def client(server: ProviderServer, **options: Any) -> ChatOpenAI:
    settings: dict[str, Any] = {"model": "gpt-4o", "api_key": "sk-test", "max_retries": 0, **options}
    return ChatOpenAI(base_url=server.base_url, **settings)


def test_usage_arrives_with_its_details() -> None:
    with ProviderServer([Reply(text="hello", usage=CACHED, service_tier="flex", model="gpt-4o-2024-08-06")]) as server:
        answer = client(server).invoke("hi")
    assert answer.content == "hello"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == 1000
    assert answer.usage_metadata["output_tokens"] == 200
    # In a tier other than the default one LangChain files the details under the tier's name.
    assert 640 in answer.usage_metadata["input_token_details"].values()
    assert 120 in answer.usage_metadata["output_token_details"].values()
    assert answer.response_metadata["model_name"] == "gpt-4o-2024-08-06"
    assert answer.response_metadata["service_tier"] == "flex"
    assert server.usage == CACHED


def test_a_stream_reports_usage_only_when_asked_to() -> None:
    def play(*, stream_usage: bool) -> AIMessageChunk:
        with ProviderServer([Reply(text="a long enough text for several chunks", usage=CACHED)]) as server:
            chunks = [*client(server, stream_usage=stream_usage).stream("hi")]
            assert sum(bool(chunk.content) for chunk in chunks) > 1
            whole: Any = chunks[0]
            for chunk in chunks[1:]:
                whole += chunk
            assert whole.content == "a long enough text for several chunks"
            return AIMessageChunk.model_validate(whole.model_dump())

    with_usage = play(stream_usage=True).usage_metadata
    assert with_usage is not None
    assert with_usage["input_tokens"] == 1000
    assert with_usage["input_token_details"]["cache_read"] == 640
    assert with_usage["output_token_details"]["reasoning"] == 120
    assert play(stream_usage=False).usage_metadata is None


async def test_a_stream_arrives_on_the_event_loop() -> None:
    with ProviderServer([Reply(text="a text in chunks of sixteen", usage=CACHED)]) as server:
        model = client(server, stream_usage=True)
        chunks = [chunk async for chunk in model.astream("hi")]
    assert "".join(str(chunk.content) for chunk in chunks) == "a text in chunks of sixteen"
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) == 200


def test_every_choice_of_n_is_generated_and_paid() -> None:
    with ProviderServer([Reply(text="12345678")]) as server:
        result = client(server, n=3).generate([[HumanMessage("hi")]])
    assert len(result.generations[0]) == 3
    assert server.usage.output_tokens == 6


def test_the_answer_is_cut_at_the_declared_cap() -> None:
    with ProviderServer([Reply(text="x" * 400)]) as server:
        answer = client(server, max_tokens=10).invoke("hi")
    assert answer.response_metadata["finish_reason"] == "length"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 10
    assert server.requests[0].output_cap == 10


def test_missing_and_nonsense_usage_reach_the_client_as_they_are() -> None:
    nonsense = {"prompt_tokens": -5, "completion_tokens": 10, "total_tokens": 5}
    with ProviderServer([Reply(report_usage=False), Reply(raw_usage=nonsense)]) as server:
        missing, strange = client(server).invoke("hi"), client(server).invoke("hi")
    assert missing.usage_metadata is None
    assert strange.usage_metadata is not None
    assert strange.usage_metadata["input_tokens"] == -5
    assert server.usage.input_tokens > 0


def test_an_agent_goes_round_its_tools() -> None:
    asks = Reply(text="", tool_calls=(ToolCall(name="search", args={"query": "a"}),) * 2)
    with ProviderServer([asks, asks, Reply(text="done")]) as server:
        result = create_agent(client(server), [search]).invoke({"messages": [HumanMessage("go")]})
    messages: list[BaseMessage] = result["messages"]
    assert messages[-1].content == "done"
    assert [message.content for message in messages if isinstance(message, ToolMessage)] == ["found a"] * 4
    assert len(server.served) == 3
    # What the server counted grows with the history it was sent.
    inputs = [generation.usage.input_tokens for generation in server.served]
    assert inputs == sorted(set(inputs))


def test_broken_arguments_arrive_as_an_invalid_tool_call() -> None:
    with ProviderServer([Reply(tool_calls=(ToolCall(name="search", args='{"query": '),))]) as server:
        answer = client(server).bind_tools([search]).invoke("hi")
    assert isinstance(answer, AIMessage)
    assert [call["name"] for call in answer.invalid_tool_calls] == ["search"]


def test_an_unanswered_tool_call_is_refused_and_costs_nothing() -> None:
    asked = AIMessage("", tool_calls=[{"name": "search", "args": {}, "id": "call_x"}])
    with (
        ProviderServer() as server,
        pytest.raises(openai.BadRequestError, match="did not have response messages: call_x"),
    ):
        client(server).invoke([HumanMessage("hi"), asked, HumanMessage("well?")])
    assert len(server.requests) == 1
    assert server.served == []


def test_hidden_retries_are_counted_and_only_the_last_is_paid() -> None:
    busy = Reply(status=429, headers={"retry-after-ms": "1"})
    with ProviderServer([busy, Reply(status=500, headers={"retry-after-ms": "1"}), Reply()]) as server:
        assert client(server, max_retries=2).invoke("hi").content == "ok"
    assert [request.sdk_retry for request in server.requests] == [0, 1, 2]
    assert len(server.served) == 1


def test_a_rate_limit_tells_when_to_come_back() -> None:
    busy = Reply(status=429, headers={"retry-after": "7"})
    with ProviderServer([busy]) as server, pytest.raises(openai.RateLimitError) as caught:
        client(server).invoke("hi")
    assert caught.value.response.headers["retry-after"] == "7"


def test_a_cut_stream_raises_after_its_chunks() -> None:
    seen: list[str] = []
    error = pytest.raises(Exception, match=r"peer closed connection|Connection error")  # by version of the client
    with ProviderServer([Reply(text="x" * 160, cut_after_chunks=4)]) as server, error:
        seen.extend(str(chunk.content) for chunk in client(server).stream("hi"))
    assert "".join(seen) == "x" * 48
    assert len(server.served) == 1


def test_a_dropped_connection_is_retried_by_the_sdk_and_paid_twice() -> None:
    with ProviderServer([Reply(cut_after_chunks=0), Reply()]) as server:
        assert client(server, max_retries=1).invoke("hi").content == "ok"
    assert [request.sdk_retry for request in server.requests] == [0, 1]
    assert len(server.served) == 2


def test_a_client_that_gives_up_is_billed_all_the_same() -> None:
    never = threading.Event()
    with ProviderServer(lambda _: Reply(hold=never)) as server:
        with pytest.raises(openai.APITimeoutError):
            client(server, timeout=0.1).invoke("hi")
        assert len(server.served) == 1


def test_an_answer_is_held_until_the_test_lets_go() -> None:
    gate = threading.Event()
    with ProviderServer(lambda _: Reply(hold=gate)) as server, ThreadPoolExecutor(4) as pool:
        model = client(server)
        answers = [pool.submit(model.invoke, "hi") for _ in range(4)]
        server.wait_for_requests(4)
        assert not any(answer.done() for answer in answers)
        gate.set()
        assert [answer.result().content for answer in answers] == ["ok"] * 4
    assert sorted(request.number for request in server.requests) == [0, 1, 2, 3]


async def test_forty_calls_at_once_are_all_answered() -> None:
    with ProviderServer() as server:
        model = client(server)
        answers = await asyncio.gather(*(model.ainvoke(f"{number}") for number in range(40)))
    assert len(answers) == len(server.served) == 40


def test_the_responses_api_answers_with_usage_and_tool_calls() -> None:
    replies = [
        Reply(text="hi", usage=CACHED),
        Reply(text="", tool_calls=(ToolCall(name="search", args={"query": "a"}),)),
    ]
    with ProviderServer(replies) as server:
        model = client(server, use_responses_api=True)
        said, asked = model.invoke("hi"), model.bind_tools([search]).invoke("hi")
    assert said.text == "hi"
    assert said.usage_metadata is not None
    assert said.usage_metadata["input_token_details"]["cache_read"] == 640
    assert isinstance(asked, AIMessage)
    assert asked.tool_calls[0]["args"] == {"query": "a"}
    assert {request.path for request in server.requests} == {"/responses"}


def test_the_responses_api_streams_text_tool_calls_and_usage() -> None:
    script = [Reply(text="a text of several pieces", tool_calls=(ToolCall(name="search", args={"query": "a"}),))]
    with ProviderServer(script) as server:
        chunks = list(client(server, use_responses_api=True).stream("hi"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert isinstance(whole, AIMessageChunk)
    assert whole.text == "a text of several pieces"
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("search", {"query": "a"})]
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == server.usage.output_tokens


def test_embeddings_are_counted_by_their_input() -> None:
    with ProviderServer() as server:
        options: dict[str, Any] = {"api_key": "sk-test", "check_embedding_ctx_length": False}  # no tiktoken download
        embeddings = OpenAIEmbeddings(model="text-embedding-3-small", base_url=server.base_url, **options)
        vectors = embeddings.embed_documents(["12345678", "1234"])
    assert vectors == [[0.5, -0.5, 0.5, -0.5]] * 2
    assert server.usage == Usage(input_tokens=3)


def test_a_script_that_ends_or_fails_says_so() -> None:
    with ProviderServer([]) as server, pytest.raises(openai.BadRequestError, match="no reply left"):
        client(server).invoke("hi")

    def broken(_: object) -> Reply:
        raise KeyError("oops")

    def play() -> None:
        with ProviderServer(broken) as server, pytest.raises(openai.BadRequestError, match="oops"):
            client(server).invoke("hi")

    with pytest.raises(KeyError, match="oops"):
        play()


def test_the_truth_is_reckoned_apart_from_any_price_book() -> None:
    with ProviderServer([Reply(usage=CACHED)] * 2) as server:
        client(server).batch(["a", "b"])
    assert server.cost_nanos(input_nanos=2500, output_nanos=10_000, cache_read_nanos=1250) == 2 * (
        360 * 2500 + 640 * 1250 + 200 * 10_000
    )


def test_a_stream_can_stall_in_the_middle() -> None:
    gate = threading.Event()
    with ProviderServer([Reply(text="x" * 64, hold=gate, hold_after_chunks=3)]) as server:
        pieces = (chunk.text for chunk in client(server).stream("hi") if chunk.text)
        before = [next(pieces), next(pieces)]
        gate.set()
        assert [*before, *pieces] == ["x" * 16] * 4


@pytest.mark.parametrize("reply", [Reply(), Reply(status=500), Reply(text="x" * 64, hold_after_chunks=2)])
def test_closing_drops_what_is_still_held(reply: Reply) -> None:
    held = replace(reply, hold=threading.Event())
    with ThreadPoolExecutor(2) as pool:
        with ProviderServer(lambda _: held) as server:
            model = client(server)
            calls: list[Future[Any]] = [pool.submit(model.invoke, "hi"), pool.submit(lambda: [*model.stream("hi")])]
            server.wait_for_requests(2)
        assert all(isinstance(call.exception(), Exception) for call in calls)


def test_a_path_that_the_standin_lacks_is_refused_by_name() -> None:
    with ProviderServer() as server, pytest.raises(openai.BadRequestError, match="the stand-in has no /completions"):
        client(server).root_client.completions.create(model="gpt-4o", prompt="hi")


def test_waiting_for_a_request_that_never_comes_ends() -> None:
    with ProviderServer() as server, pytest.raises(TimeoutError, match="0 of 1 requests"):
        server.wait_for_requests(1, timeout_seconds=0.01)


@pytest.mark.parametrize(
    "options", [{"status": 302}, {"status": 600}, {"hold_after_chunks": -1}, {"cut_after_chunks": -1}]
)
def test_a_reply_that_means_nothing_is_refused_when_built(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a reply is 200 or an error|negative number of chunks"):
        Reply(**options)
