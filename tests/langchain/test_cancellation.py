"""Law 10: what was paid is charged although it failed; what was refused is not. Law 4: nothing stays reserved."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from openai import APIConnectionError, APIStatusError, APITimeoutError

import agentbudget as ab
from agentbudget.testing import ProviderServer, Reply, ScriptedChatModel, scripted_reply
from tests.langchain.support import (
    SEARCH,
    assert_nothing_held,
    in_chain,
    metered,
    nanos,
    openai,
    report_of,
    search,
    truth,
    using,
)

CAP = 500 * 10_000
"""Nano-dollars of the output that the clients of these tests declare."""


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """An event that answers wait for; set at the end, so that no thread of the stand-in stays behind."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
async def server(held: threading.Event) -> AsyncIterator[ProviderServer]:
    """A provider that generates, and never answers."""
    with ProviderServer(lambda _: Reply(text="x" * 400, hold=held)) as server:
        yield server


async def cancel_once_asked(server: ProviderServer, work: Any) -> None:
    """Start *work*, wait until the provider was asked, cancel."""
    running = asyncio.ensure_future(work)
    asked = asyncio.ensure_future(asyncio.to_thread(server.wait_for_requests, 1))
    await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        await running  # raises what kept it from asking
    await asked
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.sleep(0)  # the callbacks of the ended asyncio task


# -- cancelled ---------------------------------------------------------------------------------------------------------


async def test_law_10_a_cancelled_bare_call_is_charged_its_estimate(
    governor: ab.Governor, server: ProviderServer
) -> None:
    callback, model = metered(governor, max_cost="$0.50"), openai(server)
    await cancel_once_asked(server, model.ainvoke("hi", config=using(callback)))
    report = report_of(callback)
    assert report.status == "cancelled"
    assert nanos(report.cost) >= max(CAP, truth(server))
    assert report.estimated == report.wasted == report.cost
    await model.root_async_client.close()


async def test_law_10_a_cancelled_call_in_a_chain_is_charged(governor: ab.Governor, server: ProviderServer) -> None:
    callback, model = metered(governor, max_cost="$0.50"), openai(server)
    await cancel_once_asked(server, (RunnableLambda(str) | model).ainvoke("hi", config=using(callback)))
    assert nanos(report_of(callback).cost) >= CAP
    assert report_of(callback).status == "cancelled"
    await model.root_async_client.close()


async def test_law_10_a_cancelled_call_in_an_agent_is_charged(governor: ab.Governor, server: ProviderServer) -> None:
    callback, model = metered(governor, max_cost="$0.50"), openai(server)
    agent = create_agent(model, [search])
    await cancel_once_asked(server, agent.ainvoke({"messages": [HumanMessage("hi")]}, config=using(callback)))
    assert nanos(report_of(callback).cost) >= CAP
    assert report_of(callback).model_calls == 1
    await model.root_async_client.close()


async def test_law_10_a_call_that_wait_for_gave_up_is_charged(governor: ab.Governor, server: ProviderServer) -> None:
    callback, model = metered(governor, max_cost="$0.50"), openai(server)

    async def impatient() -> None:
        call = asyncio.ensure_future(model.ainvoke("hi", config=using(callback)))
        await asyncio.to_thread(server.wait_for_requests, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, timeout=0)

    await impatient()
    await asyncio.sleep(0)
    assert nanos(report_of(callback).cost) >= CAP
    await model.root_async_client.close()


async def test_law_10_a_call_that_asyncio_timeout_gave_up_within_a_living_task_is_charged(
    governor: ab.Governor, server: ProviderServer
) -> None:
    """The asyncio task that made the call goes on, so its end cannot tell; the end of the chain does."""
    callback, model = metered(governor, max_cost="$0.50"), openai(server)

    async def work(_: object) -> str:
        with pytest.raises(TimeoutError):
            await impatient()
        return "went on"

    async def impatient() -> None:
        async with asyncio.timeout(None) as deadline:
            asyncio.get_running_loop().call_soon(deadline.reschedule, 0)
            await model.ainvoke("hi")

    assert await RunnableLambda(work).ainvoke(1, config=using(callback)) == "went on"
    report = report_of(callback)
    assert nanos(report.cost) >= CAP
    assert report.model_calls == 1
    await model.root_async_client.close()


async def test_law_10_a_cancelled_async_tool_is_charged_its_price_and_the_model_inside_it(
    server: ProviderServer,
) -> None:
    governor = ab.Governor(prices={"tool:ask": "$0.01"})
    callback, model = metered(governor, max_cost="$0.50"), openai(server)

    @tool
    async def ask(question: str) -> str:
        """Ask."""
        return str((await model.ainvoke(question)).content)

    await cancel_once_asked(server, ask.ainvoke({"question": "hi"}, config=using(callback)))
    report = report_of(callback)
    assert nanos(report.by_tool["ask"].cost) == 10_000_000
    assert nanos(report.by_model["gpt-4o"].cost) >= CAP
    assert report.status == "cancelled"
    await model.root_async_client.close()
    assert_nothing_held(governor)


async def test_law_10_a_graph_node_that_times_out_is_charged(governor: ab.Governor, server: ProviderServer) -> None:
    if "timeout" not in inspect.signature(StateGraph.add_node).parameters:
        pytest.skip("this LangGraph has no timeouts of nodes")

    class State(TypedDict):
        text: str

    callback, model = metered(governor, max_cost="$0.50"), openai(server)

    async def node(state: State) -> State:
        return {"text": str((await model.ainvoke(state["text"])).content)}

    graph = StateGraph(State)
    graph.add_node("ask", node, timeout=0.2)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    with pytest.raises(Exception, match="timeout|timed out|exceeded"):
        await graph.compile().ainvoke({"text": "hi"}, config=using(callback))
    await asyncio.sleep(0)
    assert nanos(report_of(callback).cost) >= CAP
    await model.root_async_client.close()


def test_law_10_an_interrupted_program_charges_what_was_in_flight(governor: ab.Governor) -> None:
    model = ScriptedChatModel(script=[KeyboardInterrupt()], max_tokens=500)
    callback = metered(governor, max_cost="$0.50")
    with pytest.raises(KeyboardInterrupt):
        create_agent(model, [search]).invoke({"messages": [HumanMessage("hi")]}, config=using(callback))
    assert nanos(report_of(callback).cost) >= CAP
    assert report_of(callback).status == "cancelled"


# -- timed out, refused, broken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 2])
def test_law_10_a_client_timeout_is_charged_for_every_request_that_may_have_run(
    governor: ab.Governor, held: threading.Event, retries: int
) -> None:
    with ProviderServer(lambda _: Reply(text="x" * 400, hold=held)) as server:
        callback = metered(governor, max_cost="$0.50")
        with pytest.raises(APITimeoutError):
            openai(server, timeout=0.1, max_retries=retries).invoke("hi", config=using(callback))
        held.set()
    report = report_of(callback)
    assert len(server.served) == retries + 1
    assert nanos(report.cost) >= (retries + 1) * CAP
    assert nanos(report.cost) >= truth(server)
    assert report.status == "failed"
    assert nanos(report.overrun) == nanos(report.cost) * retries // (retries + 1)


def test_law_10_the_sdks_own_default_number_of_retries_is_known(governor: ab.Governor, held: threading.Event) -> None:
    with ProviderServer(lambda _: Reply(text="x" * 400, hold=held)) as server:
        callback = metered(governor, max_cost="$0.50")
        with pytest.raises(APITimeoutError):
            openai(server, timeout=0.1, max_retries=None).invoke("hi", config=using(callback))
        held.set()
    assert len(server.served) == 3
    assert nanos(report_of(callback).cost) >= truth(server) > 0


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_law_10_a_request_that_the_provider_refused_costs_nothing(governor: ab.Governor, status: int) -> None:
    with ProviderServer([Reply(status=status)]) as server:
        callback = metered(governor, max_cost="$0.50")
        with pytest.raises(APIStatusError):
            openai(server).invoke("hi", config=using(callback))
    report = report_of(callback)
    assert (nanos(report.cost), report.model_calls, report.status) == (0, 1, "failed")
    assert server.served == []


def test_law_10_a_refused_stream_costs_nothing(governor: ab.Governor) -> None:
    with ProviderServer([Reply(status=429)]) as server:
        callback = metered(governor, max_cost="$0.50")
        with pytest.raises(APIStatusError):
            list(openai(server).stream("hi", config=using(callback)))
    assert report_of(callback).cost == 0


def test_law_10_a_provider_that_could_not_be_reached_costs_nothing(governor: ab.Governor) -> None:
    with ProviderServer() as server:
        model = openai(server)
    callback = metered(governor, max_cost="$0.50")
    with pytest.raises(APIConnectionError):
        model.invoke("hi", config=using(callback))
    assert report_of(callback).cost == 0


def test_law_10_a_connection_that_broke_before_the_answer_is_charged(governor: ab.Governor) -> None:
    with ProviderServer([Reply(text="x" * 400, cut_after_chunks=0)]) as server:
        callback = metered(governor, max_cost="$0.50")
        with pytest.raises(APIConnectionError):
            openai(server).invoke("hi", config=using(callback))
    assert nanos(report_of(callback).cost) >= max(CAP, truth(server))


def test_law_10_hidden_retries_before_the_answer_cost_only_the_answer(governor: ab.Governor) -> None:
    with ProviderServer([Reply(status=429, headers={"retry-after-ms": "1"}), Reply(text="x" * 400)]) as server:
        callback = metered(governor, max_cost="$0.50")
        openai(server, max_retries=2).invoke("hi", config=using(callback))
    assert len(server.requests) == 2
    assert nanos(report_of(callback).cost) == truth(server)


# -- abandoned streams -------------------------------------------------------------------------------------------------

LONG = Reply(text="some words of an answer " * 80)


def test_law_10_a_stream_left_by_break_and_close_is_charged_what_it_sent(governor: ab.Governor) -> None:
    with ProviderServer([LONG]) as server:
        callback = metered(governor, max_cost="$0.50")
        stream: Any = openai(server).stream("hi", config=using(callback))
        for number, _ in enumerate(stream):
            if number == 10:
                break
        stream.close()
    report = report_of(callback)
    assert report.status == "cancelled"
    assert 0 < report.usage.output_tokens <= server.usage.output_tokens
    assert report.usage.input_tokens >= server.usage.input_tokens
    assert report.estimated == report.wasted == report.cost > 0


def test_law_10_a_stream_that_is_only_dropped_is_charged_when_it_is_collected(governor: ab.Governor) -> None:
    with ProviderServer([LONG]) as server:
        callback = metered(governor, max_cost="$0.50")
        stream: Any = openai(server).stream("hi", config=using(callback))
        next(stream)
        next(stream)
        del stream
    assert report_of(callback).cost > 0


async def test_law_10_an_async_stream_left_by_break_is_charged_what_it_sent(governor: ab.Governor) -> None:
    with ProviderServer([LONG]) as server:
        callback, model = metered(governor, max_cost="$0.50"), openai(server)
        stream: Any = model.astream("hi", config=using(callback))
        number = 0
        async for _ in stream:
            number += 1
            if number == 10:
                break
        await stream.aclose()
        await model.root_async_client.close()
    assert 0 < report_of(callback).usage.output_tokens <= server.usage.output_tokens
    assert report_of(callback).cost > 0


async def test_law_10_a_cancelled_async_stream_is_charged_what_it_sent(
    governor: ab.Governor, held: threading.Event
) -> None:
    arrived = asyncio.Event()
    with ProviderServer([Reply(text="x" * 400, hold=held, hold_after_chunks=5)]) as server:
        callback, model = metered(governor, max_cost="$0.50"), openai(server)

        async def read() -> None:
            text = ""
            async for chunk in model.astream("hi", config=using(callback)):
                text += str(chunk.content)
                if len(text) == 4 * 16:  # all that comes before the wait
                    arrived.set()

        reading = asyncio.create_task(read())
        await arrived.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await model.root_async_client.close()
        held.set()
    report = report_of(callback)
    assert report.cost > 0
    assert report.status == "cancelled"


@pytest.mark.parametrize("usage", [True, False], ids=["usage asked for", "no usage asked for"])
def test_law_10_a_stream_cut_by_the_provider_is_charged_what_it_sent(governor: ab.Governor, usage: bool) -> None:
    with ProviderServer([Reply(text="some words " * 80, cut_after_chunks=20)]) as server:
        callback = metered(governor, max_cost="$0.50")
        with pytest.raises(Exception, match="onnection|peer|incomplete|chunked"):
            list(openai(server, stream_usage=usage).stream("hi", config=using(callback)))
    report = report_of(callback)
    assert report.status == "failed"
    assert report.usage.output_tokens >= 20 * 16 / 4 - 8
    assert report.estimated == report.wasted == report.cost > 0


def test_law_10_an_agents_stream_left_in_the_middle_closes_its_task(governor: ab.Governor) -> None:
    replies = [Reply(text="", tool_calls=(SEARCH,)), LONG]
    with ProviderServer(replies) as server:
        callback = metered(governor, max_cost="$0.50")
        agent = create_agent(openai(server), [search])
        stream: Any = agent.stream({"messages": [HumanMessage("go")]}, config=using(callback), stream_mode="messages")
        for chunk, _ in stream:
            if "words" in str(chunk.content):
                break
        stream.close()
    report = report_of(callback)
    assert report.model_calls == 2
    assert report.status == "cancelled"


# -- a retry is an attempt, and each is charged once -------------------------------------------------------------------


@pytest.mark.parametrize("error", [TimeoutError("slow"), ValueError("broken")])
def test_law_10_each_failed_attempt_is_charged_and_the_last_one_by_its_usage(
    governor: ab.Governor, error: Exception
) -> None:
    answer = scripted_reply("ok", input_tokens=100, output_tokens=10)
    model = ScriptedChatModel(script=[error, answer], max_tokens=500)
    callback = metered(governor, max_cost="$0.50")
    model.with_retry(wait_exponential_jitter=False).invoke("hi", config=using(callback))
    report = report_of(callback)
    assert report.model_calls == 2
    assert report.retries == 1
    assert nanos(report.wasted) >= CAP
    assert nanos(report.cost - report.wasted) == 100 * 2_500 + 10 * 10_000


def test_law_4_a_generate_refused_in_the_middle_gives_back_what_its_siblings_held(governor: ab.Governor) -> None:
    model = ScriptedChatModel(script=[scripted_reply("ok", input_tokens=1, output_tokens=1)], repeat_last=True)
    callback = metered(governor, max_model_calls=2)
    with pytest.raises(ab.BudgetExceeded):
        in_chain(lambda _: model.generate([[HumanMessage("a")]] * 3, callbacks=[callback]), callback)
    assert model.calls == ()


def test_law_4_a_call_that_never_tells_its_end_is_charged_when_its_chain_ends(governor: ab.Governor) -> None:
    callback = metered(governor, max_cost="$0.50")
    model = ScriptedChatModel(script=[scripted_reply("ok")], max_tokens=500)

    def forget(_: object, config: Any) -> None:
        config["callbacks"].on_chat_model_start({}, [[HumanMessage("hi")]], **_params(model))

    RunnableLambda(forget).invoke(1, config=using(callback))
    assert nanos(report_of(callback).cost) >= CAP


def _params(model: ScriptedChatModel) -> dict[str, Any]:
    return {"invocation_params": {"model": model.model_name, "max_tokens": model.max_tokens}}


def test_law_4_a_lease_that_ran_out_is_presumed_spent_and_a_late_end_settles_it() -> None:
    from agentbudget.testing import FakeClock

    clock = FakeClock()
    governor = ab.Governor(clock=clock, lease_seconds=60)
    callback = metered(governor, max_cost="$0.50")
    answers: list[Callable[[], None]] = [lambda: clock.advance(61)]

    def late(_: Any) -> Any:
        answers.pop()()
        governor.ledger.verify()
        return scripted_reply("ok", input_tokens=100, output_tokens=10)

    ScriptedChatModel(script=[late], max_tokens=500).invoke("hi", config=using(callback))
    assert nanos(report_of(callback).cost) == 100 * 2_500 + 10 * 10_000
    for account in governor.ledger.accounts():
        assert governor.ledger.balance(account).presumed == 0
    assert_nothing_held(governor)


def test_law_4_a_call_that_never_ran_costs_nothing_even_where_its_lease_ran_out_first() -> None:
    from agentbudget.governor.hold import Hold
    from agentbudget.governor.values import Call, Kind
    from agentbudget.testing import FakeClock

    clock = FakeClock()
    governor = ab.Governor(clock=clock, lease_seconds=60)
    task = governor.open_task("t", ab.Budget(max_cost="$0.50"))
    hold = governor.offer((task,), Call(id="c", kind=Kind.MODEL, name="gpt-4o", cap=500))
    assert isinstance(hold, Hold)
    clock.advance(61)
    account = task.lines[0].account
    assert governor.ledger.balance(account).presumed == hold.reserved.cost > 0
    governor.release(hold)
    balance = governor.ledger.balance(account)
    assert (balance.presumed, balance.settled, balance.overrun) == (0, 0, 0)
    assert governor.ledger.verify().ok
