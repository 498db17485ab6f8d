"""32 branches at once, each worth $0.10, against $1.00: never more than $1.00 is spent, and at least $0.70 of it.

The budget is held at the moment of the decision: all branches are in flight or refused before the first one settles.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send

import agentbudget as ab
from agentbudget.testing import ProviderServer, Reply
from agentbudget.trace import events
from tests.langchain.support import assert_nothing_held, metered, nanos, openai, report_of, truth, using

BRANCHES = 32
CAP = 9_800
ANSWER = "x" * 4 * 9_700
"""9,700 tokens of gpt-4o's output: $0.097, with a declared cap of 9,800."""
LIMIT = 10**9


def _threads(model: ChatOpenAI, config: RunnableConfig) -> None:
    """Threads of the user's own within one run: the context must be copied for the run to be seen."""

    def work(_: Any) -> None:
        with ThreadPoolExecutor(BRANCHES) as pool:
            futures = [pool.submit(contextvars.copy_context().run, model.invoke, "go") for _ in range(BRANCHES)]
        assert sum(isinstance(future.exception(), ab.BudgetExceeded) for future in futures) > 0

    RunnableLambda(work).invoke(1, config)


async def _gather(model: ChatOpenAI, config: RunnableConfig) -> None:
    async def work(_: Any) -> None:
        await asyncio.gather(*(model.ainvoke("go") for _ in range(BRANCHES)), return_exceptions=True)

    await RunnableLambda(work).ainvoke(1, config)


def _batch(model: ChatOpenAI, config: RunnableConfig) -> None:
    def work(_: Any) -> None:
        model.batch(["go"] * BRANCHES, {"max_concurrency": BRANCHES}, return_exceptions=True)

    RunnableLambda(work).invoke(1, config)


async def _abatch(model: ChatOpenAI, config: RunnableConfig) -> None:
    async def work(_: Any) -> None:
        await model.abatch(["go"] * BRANCHES, return_exceptions=True)

    await RunnableLambda(work).ainvoke(1, config)


def _fan_out(model: ChatOpenAI) -> Runnable[Any, Any]:
    def sync(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def on_loop(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("branch", RunnableLambda(sync, afunc=on_loop))
    sends = [Send("branch", {"messages": [HumanMessage("go")]}) for _ in range(BRANCHES)]
    graph.add_conditional_edges(START, lambda _: sends, ["branch"])
    graph.add_edge("branch", END)
    return graph.compile()


def _send(model: ChatOpenAI, config: RunnableConfig) -> None:
    with pytest.raises(ab.BudgetExceeded):
        _fan_out(model).invoke({"messages": []}, {**config, "max_concurrency": BRANCHES})


async def _asend(model: ChatOpenAI, config: RunnableConfig) -> None:
    with pytest.raises(ab.BudgetExceeded):
        await _fan_out(model).ainvoke({"messages": []}, config)


WAYS: dict[str, Callable[[ChatOpenAI, RunnableConfig], Coroutine[Any, Any, None] | None]] = {
    "threads": _threads,
    "asyncio.gather": _gather,
    "batch": _batch,
    "abatch": _abatch,
    "Send, sync": _send,
    "Send, async": _asend,
}


@pytest.mark.parametrize("way", WAYS)
async def test_law_1_branches_in_parallel_never_spend_more_than_the_budget(way: str) -> None:
    decided = threading.Semaphore(0)
    everyone = threading.Event()

    def count(event: events.Event) -> None:
        """Let the answers go once every branch was admitted or refused."""
        if isinstance(event, events.CallReserved | events.CallDenied):
            decided.release()
            if decided._value == BRANCHES:
                everyone.set()

    governor = ab.Governor(sinks=[count])
    callback = metered(governor, max_cost="$1.00")
    with ProviderServer(lambda _: Reply(text=ANSWER, hold=everyone)) as server:
        model = openai(server, max_tokens=CAP)
        waiting = WAYS[way](model, using(callback))
        if waiting is not None:
            await waiting
        await model.root_async_client.close()
    report = report_of(callback)
    spent = truth(server)
    assert everyone.is_set()
    assert nanos(report.cost) == spent
    assert 0.7 * LIMIT <= spent <= LIMIT
    assert (report.model_calls, report.denied) == (len(server.requests), BRANCHES - len(server.requests))
    assert report.overrun == 0
    assert_nothing_held(governor)


@pytest.mark.parametrize("way", ["batch", "abatch"])
async def test_law_1_a_shared_limit_holds_over_branches_that_are_tasks_of_their_own(way: str) -> None:
    """A top-level batch makes one root run an item: only a shared limit spans them."""
    governor = ab.Governor(limits=[ab.Limit(meter="cost", amount="$1.00", scope="team")])
    callback = ab.BudgetCallback(governor=governor, tags={"team": "cx"}, name="branch")
    with ProviderServer(lambda _: Reply(text=ANSWER)) as server:
        model = RunnableLambda(lambda text: text) | openai(server, max_tokens=CAP)
        many: list[Any] = ["go"] * BRANCHES
        config: Any = {**using(callback), "max_concurrency": 8}
        if way == "batch":
            answers = model.batch(many, config, return_exceptions=True)
        else:
            answers = await model.abatch(many, config, return_exceptions=True)
            await model.last.root_async_client.close()  # type: ignore[attr-defined]  # of ChatOpenAI
    refused = [answer for answer in answers if isinstance(answer, ab.BudgetExceeded)]
    assert len(refused) == BRANCHES - len(server.requests)
    assert 0.7 * LIMIT <= truth(server) <= LIMIT
    assert sum(nanos(report.cost) for report in callback.reports) == truth(server)
    assert_nothing_held(governor)
