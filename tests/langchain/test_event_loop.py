"""On the event loop nothing blocks; over many tasks memory stays flat; no secret reaches a trace."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from blockbuster import BlockBuster, BlockingError, blockbuster_ctx
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, UsageMetadata
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

import agentbudget as ab
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.testing import ProviderServer, Reply, ScriptedChatModel, ToolCall, scripted_reply
from tests.langchain.support import assert_nothing_held, metered, openai, report_of, using

NewGovernor = Callable[..., ab.Governor]


@tool
async def look_up(query: str) -> str:
    """Look something up."""
    await asyncio.sleep(0)
    return f"found {query}"


# -- blocking ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def strict() -> Iterator[BlockBuster]:
    """Every blocking call that is made on an event loop by way of this project raises."""
    with blockbuster_ctx("agentbudget") as guard:
        yield guard


async def test_the_guard_of_these_tests_sees_a_blocking_handler(strict: BlockBuster) -> None:
    """A canary: a sink that blocks is called from inside the project, and is caught."""
    caught: list[BaseException] = []

    def sink(_: object) -> None:
        try:
            time.sleep(0.001)  # that is the point
        except BlockingError as error:
            caught.append(error)

    governor = await asyncio.to_thread(lambda: ab.Governor(sinks=[sink]))
    await ScriptedChatModel(script=[scripted_reply("ok")]).ainvoke("hi", config=using(metered(governor)))
    assert caught


# LangChain makes the coroutines of all handlers before it awaits the first; those after a stop are dropped unawaited.
@pytest.mark.filterwarnings("ignore:coroutine 'ahandle_event' was never awaited:RuntimeWarning")
@pytest.mark.parametrize("way", ["ainvoke", "astream", "astream_events"])
@pytest.mark.parametrize("where", ["folder", "one.jsonl"])
async def test_a_governed_agent_with_a_trace_never_blocks_the_event_loop(
    strict: BlockBuster, tmp_path: Path, where: str, way: str
) -> None:
    governor = await asyncio.to_thread(lambda: ab.Governor(trace=tmp_path / where))
    turns = [scripted_reply(calls=[("look_up", {"query": str(n)})], input_tokens=9, output_tokens=1) for n in range(5)]
    model = ScriptedChatModel(script=[*turns, scripted_reply("done " * 200, input_tokens=9, output_tokens=1)])
    agent = create_agent(model, [look_up])
    callback = metered(governor, max_cost="$0.50", max_model_calls=6)
    given: Any = {"messages": [HumanMessage("go")]}
    async with ab.task("outer", governor=governor, max_cost="$1") as outer:
        if way == "ainvoke":
            await agent.ainvoke(given, config=using(callback))
        elif way == "astream":
            async for _ in agent.astream(given, config=using(callback), stream_mode="messages"):
                pass
        else:
            async for _ in agent.astream_events(given, config=using(callback), version="v2"):
                pass

        async def endless(_: Any) -> None:
            while True:
                await ScriptedChatModel(script=[scripted_reply("again")]).ainvoke("hi")

        with pytest.raises(ab.BudgetExceeded):
            await RunnableLambda(endless).ainvoke(1, config=using(metered(governor, max_model_calls=1)))
    assert outer.report.model_calls == 7
    await asyncio.to_thread(governor.close)
    loaded = await asyncio.to_thread(lambda: ab.Trace.load(next(tmp_path.rglob("*.jsonl"))))
    assert loaded.report.model_calls == 7


# -- memory ------------------------------------------------------------------------------------------------------------

MESSAGES: list[list[BaseMessage]] = [[HumanMessage("hi")]]
PARAMS = {"model": "gpt-4o", "max_tokens": 20}
META = {"ls_provider": "openai", "ls_model_name": "gpt-4o", "ls_max_tokens": 20}


def play_task(callback: ab.BudgetCallback, calls: int = 1) -> None:
    """The events of one task with *calls* model calls and a tool call, as LangChain tells them."""
    root = uuid4()
    callback.on_chain_start({}, {}, run_id=root, metadata={})
    for _ in range(calls):
        run = uuid4()
        callback.on_chat_model_start(
            {}, MESSAGES, run_id=run, parent_run_id=root, metadata=META, invocation_params=PARAMS
        )
        callback.on_llm_end(_answer(run), run_id=run)
    used = uuid4()
    callback.on_tool_start({"name": "search"}, "a", run_id=used, parent_run_id=root, inputs={"query": "a"})
    callback.on_tool_end("found", run_id=used)
    callback.on_chain_end({}, run_id=root)


def _answer(run: UUID) -> LLMResult:
    usage = UsageMetadata(input_tokens=20, output_tokens=5, total_tokens=25)
    message = AIMessage("ok", id=f"lc_run--{run}", usage_metadata=usage, response_metadata={"model_name": "gpt-4o"})
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def test_many_tasks_through_one_handler_leave_memory_flat(tmp_path: Path) -> None:
    """Once the stores of recent tasks and reservations are full, 1,500 further tasks add nothing."""
    governor = ab.Governor(ledger=MemoryLedger(retain=1_000), trace=tmp_path / "t.jsonl")
    callback = metered(governor, max_cost="$0.50", tools={"search": 3})
    tracemalloc.start()
    try:
        for _ in range(2_000):
            play_task(callback)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(1_500):
            play_task(callback)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000, f"{(after - before) / 1_500:.0f} bytes a task"
    assert_nothing_held(governor)


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_no_secret_reaches_a_trace_by_default(new_governor: NewGovernor, tmp_path: Path) -> None:
    secrets = {
        name: f"sk-{name}-{uuid4().hex}"
        for name in ("key", "prompt", "system", "answer", "args", "result", "failure", "stream")
    }

    @tool
    def leaky(query: str) -> str:
        """A tool."""
        if query == "fail":
            raise RuntimeError(secrets["failure"])
        return secrets["result"]

    replies = [
        Reply(text=secrets["answer"], tool_calls=(ToolCall(name="leaky", args={"query": secrets["args"]}),)),
        Reply(text=secrets["answer"], tool_calls=(ToolCall(name="leaky", args={"query": "fail"}),)),
    ]
    governor = new_governor(trace=tmp_path, sinks=[])
    with ProviderServer(
        [*replies, Reply(text=secrets["stream"]), Reply(status=400, error=secrets["failure"])]
    ) as server:
        model = openai(server, api_key=secrets["key"])
        agent = create_agent(model, [leaky], system_prompt=secrets["system"])
        with pytest.raises(RuntimeError):
            agent.invoke({"messages": [HumanMessage(secrets["prompt"])]}, config=using(metered(governor, max_cost=1)))
        list(model.stream(secrets["prompt"], config=using(metered(governor, max_cost=1))))
        with pytest.raises(Exception, match=re.escape(secrets["failure"])):
            model.invoke(secrets["prompt"], config=using(metered(governor, max_cost=1)))
        with pytest.raises(ab.BudgetExceeded):
            model.invoke(secrets["prompt"], config=using(metered(governor, max_cost="$0.000001")))
    governor.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 4
    written = "".join(path.read_text() for path in files)
    assert "gpt-4o" in written
    assert "RuntimeError" in written
    for name, secret in secrets.items():
        assert secret not in written, f"the secret in the {name} was written"


def test_a_governor_opens_no_connection(new_governor: NewGovernor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        msg = "a connection was opened"
        raise AssertionError(msg)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    callback = metered(new_governor(), max_cost="$0.50")
    ScriptedChatModel(script=[scripted_reply("ok")]).invoke("hi", config=using(callback))
    assert report_of(callback).model_calls == 1
