"""The scripted chat model behaves as a chat model of LangChain does."""

from __future__ import annotations

import asyncio
import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool

from agentbudget.testing import ScriptedChatModel, scripted_reply


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


class Start(BaseCallbackHandler):
    """Keeps what callbacks are told about a call."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.params: dict[str, Any] = {}
        self.llm_output: dict[str, Any] | None = None

    def on_chat_model_start(self, *args: Any, metadata: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.metadata, self.params = metadata or {}, kwargs["invocation_params"]

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.llm_output = response.llm_output


def test_it_plays_answers_errors_and_functions_in_order() -> None:
    def echo(messages: list[BaseMessage]) -> AIMessage:
        return AIMessage(messages[-1].text.upper())

    model = ScriptedChatModel(script=[scripted_reply("one"), ConnectionError("down"), echo])
    assert model.invoke("a").content == "one"
    with pytest.raises(ConnectionError, match="down"):
        model.invoke("b")
    assert model.invoke("c").content == "C"
    with pytest.raises(IndexError, match="call 4 came, but the script has 3 turns"):
        model.invoke("d")
    assert [call.messages[-1].content for call in model.calls] == ["a", "b", "c", "d"]


def test_the_last_turn_can_go_on() -> None:
    model = ScriptedChatModel(script=[scripted_reply("again", input_tokens=3, output_tokens=1)], repeat_last=True)
    answers = model.batch(["a", "b", "c"])
    assert [answer.content for answer in answers] == ["again"] * 3
    assert len({answer.id for answer in answers}) == 3


async def test_both_streams_carry_usage_and_tool_calls_on_the_last_chunk() -> None:
    turn = scripted_reply(
        "some words to stream", calls=[("search", {"query": "a"})], input_tokens=100, output_tokens=20
    )
    model = ScriptedChatModel(script=[turn, turn])
    for chunks in ([*model.stream("a")], [chunk async for chunk in model.astream("a")]):
        assert sum(bool(chunk.content) for chunk in chunks) > 1
        whole = sum(chunks[1:], start=chunks[0])
        assert whole.content == "some words to stream"
        assert whole.usage_metadata == turn.usage_metadata
        assert [call["args"] for call in whole.tool_calls] == [{"query": "a"}]
        assert whole.response_metadata["model_name"] == "gpt-4o"


def test_callbacks_are_told_provider_model_and_cap() -> None:
    seen = Start()
    model = ScriptedChatModel(script=[scripted_reply("ok")], model_name="claude-x", provider="anthropic", max_tokens=77)
    model.invoke("hi", config={"callbacks": [seen]})
    assert seen.metadata["ls_provider"] == "anthropic"
    assert seen.metadata["ls_model_name"] == "claude-x"
    assert seen.metadata["ls_max_tokens"] == 77
    assert seen.params["max_tokens"] == 77
    assert seen.llm_output is not None
    assert seen.llm_output["model_name"] == "claude-x"


def test_copies_share_the_script_and_the_record() -> None:
    model = ScriptedChatModel(script=[scripted_reply(str(number)) for number in range(5)])
    family: list[Any] = [
        *(model, model.with_config(tags=["x"]), model.bind(stop=["y"]), copy.deepcopy(model), model.model_copy()),
    ]
    assert [member.invoke("hi").content for member in family] == ["0", "1", "2", "3", "4"]
    assert len(model.calls) == 5


def test_an_agent_can_use_it_with_tools() -> None:
    model = ScriptedChatModel(script=[scripted_reply(calls=[("search", {"query": "a"})]), scripted_reply("done")])
    result = create_agent(model, [search]).invoke({"messages": [HumanMessage("go")]})
    assert [message.text for message in result["messages"]] == ["go", "", "found a", "done"]
    assert model.calls[0].kwargs["tools"][0]["function"]["name"] == "search"


def test_calls_from_many_threads_are_each_played_once() -> None:
    model = ScriptedChatModel(script=[scripted_reply(str(number)) for number in range(200)])
    with ThreadPoolExecutor(8) as pool:
        answers = [answer.content for answer in pool.map(model.invoke, ["hi"] * 200)]
    assert sorted(map(int, map(str, answers))) == list(range(200))


def test_a_gate_holds_calls_in_flight() -> None:
    gate = threading.Event()
    model = ScriptedChatModel(script=[scripted_reply("ok")], repeat_last=True, gate=gate)
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(model.invoke, "hi") for _ in range(3)]
        model.record.wait_for(3)
        assert not any(answer.done() for answer in answers)
        gate.set()
        assert [answer.result().content for answer in answers] == ["ok"] * 3


async def test_a_call_held_at_the_gate_can_be_cancelled() -> None:
    model = ScriptedChatModel(script=[scripted_reply("ok")], gate=threading.Event())
    call = asyncio.create_task(model.ainvoke("hi"))
    await asyncio.to_thread(model.record.wait_for, 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def test_waiting_for_a_call_that_never_comes_ends() -> None:
    with pytest.raises(TimeoutError, match="0 of 1 calls"):
        ScriptedChatModel(script=[]).record.wait_for(1, timeout_seconds=0.01)


def test_content_blocks_are_streamed_whole() -> None:
    model = ScriptedChatModel(script=[AIMessage([{"type": "text", "text": "blocks"}])])
    assert "".join(chunk.text for chunk in model.stream("a")) == "blocks"
