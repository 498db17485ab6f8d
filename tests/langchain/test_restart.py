"""A thread's budget outlives its process, where ledger and checkpoints do: nothing done is paid twice or refunded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

import agentbudget as ab
from agentbudget.testing import assert_valid_history
from tests.langchain.actors import CALL, HELLO, asking, calling, graph_of, scripted
from tests.langchain.support import search

THREAD: Any = {"configurable": {"thread_id": "t"}}
Build = Callable[[ab.Governor, Any], Any]


class Processes:
    """Processes one after the other, which share a folder: the ledger and the checkpoints are all that lasts."""

    def __init__(self, folder: Path) -> None:
        self.ledger = f"sqlite:///{folder}/spend.db"
        self.checkpoints = str(folder / "checkpoints.db")

    def run(self, build: Build, given: Any, config: Any = THREAD) -> Any:
        governor = ab.Governor(ledger=self.ledger)
        try:
            with SqliteSaver.from_conn_string(self.checkpoints) as saver:
                return build(governor, saver).invoke(given, config)
        finally:
            governor.close()

    def arun(self, build: Build, given: Any, config: Any = THREAD) -> Any:
        async def live() -> Any:
            governor = await asyncio.to_thread(ab.Governor, ledger=self.ledger)
            try:
                async with AsyncSqliteSaver.from_conn_string(self.checkpoints) as saver:
                    return await build(governor, saver).ainvoke(given, config)
            finally:
                governor.close()

        return asyncio.run(live())

    def settled(self) -> list[int]:
        """What each task has spent, in nano-dollars, those that drew on another one left out."""
        ledger = ab.open_ledger(self.ledger)
        costs = [ledger.balance(a).settled for a in ledger.accounts() if a.meter is ab.Meter.COST]
        assert ledger.verify().ok
        ledger.close()
        return sorted(costs)


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path)


def nanos(calls: int) -> int:
    return calls * int(CALL.scaleb(9))


@pytest.mark.parametrize("face", ["run", "arun"])
def test_law_12_after_a_restart_a_larger_budget_goes_on_and_nothing_done_is_paid_twice(
    processes: Processes, face: str
) -> None:
    model = scripted(asking("search", 5, query="a"))
    run = getattr(processes, face)

    def within(most: int) -> Build:
        def build(governor: ab.Governor, saver: Any) -> Any:
            middleware = ab.BudgetMiddleware(max_model_calls=most, governor=governor, on_limit="raise")
            return create_agent(model, [search], middleware=[middleware], checkpointer=saver)

        return build

    with pytest.raises(ab.BudgetExceeded):
        run(within(3), HELLO)
    with pytest.raises(ab.BudgetExceeded):
        run(within(3), None)
    assert len(model.calls) == 3
    result = run(within(9), None)
    assert_valid_history(result["messages"])
    assert len(model.calls) == 6
    assert processes.settled() == [nanos(6)]


def test_law_12_a_sub_agent_goes_on_where_it_was(processes: Processes) -> None:
    inner, outer = scripted(asking("search", 3, query="a")), scripted(asking("delegate", 1))

    def within(most: int) -> Build:
        def build(governor: ab.Governor, saver: Any) -> Any:
            sub = create_agent(inner, [search], checkpointer=True)

            @tool
            def delegate() -> str:
                """Delegate."""
                return str(sub.invoke(HELLO)["messages"][-1].content)

            middleware = ab.BudgetMiddleware(max_model_calls=most, governor=governor, on_limit="raise")
            return create_agent(outer, [delegate], middleware=[middleware], checkpointer=saver)

        return build

    with pytest.raises(ab.BudgetExceeded):
        processes.run(within(3), HELLO)
    assert len(inner.calls) + len(outer.calls) == 3
    processes.run(within(20), None)
    assert (len(inner.calls), len(outer.calls)) == (4, 2)
    assert processes.settled() == [nanos(6)]


def test_law_12_parallel_branches_that_were_done_are_not_done_again(processes: Processes) -> None:
    models = [scripted(asking("search", 1, query="a")), scripted(asking("search", 4, query="b"))]

    def within(most: int) -> Build:
        def build(governor: ab.Governor, saver: Any) -> Any:
            builder = StateGraph(MessagesState)
            for name, model in zip("ab", models, strict=True):
                middleware = ab.BudgetMiddleware(max_model_calls=most, governor=governor, on_limit="raise", name=name)
                builder.add_node(name, create_agent(model, [search], middleware=[middleware]))
                builder.add_edge(START, name)
                builder.add_edge(name, END)
            return builder.compile(checkpointer=saver)

        return build

    with pytest.raises(ab.BudgetExceeded):
        processes.run(within(3), HELLO)
    assert [len(model.calls) for model in models] == [2, 3]
    result = processes.run(within(9), None)
    assert [len(model.calls) for model in models] == [2, 5]
    assert_valid_history(result["messages"][:1])
    assert processes.settled() == [nanos(2), nanos(5)]


def test_a_budget_of_the_thread_is_one_over_restarts_with_the_callback_alone(processes: Processes) -> None:
    model = scripted()

    def build(governor: ab.Governor, saver: Any) -> Any:
        graph = graph_of(a=calling(model), b=calling(model)).compile(checkpointer=saver)
        return ab.guard(graph, max_model_calls=3, per="thread", governor=governor)

    processes.run(build, HELLO)
    with pytest.raises(ab.BudgetExceeded):
        processes.run(build, HELLO)
    with pytest.raises(ab.BudgetExceeded):
        processes.run(build, None)
    assert len(model.calls) == 3
    assert processes.settled() == [nanos(3)]


@pytest.mark.parametrize("restart", [False, True])
def test_time_travel_refunds_nothing(tmp_path: Path, *, restart: bool) -> None:
    processes = Processes(tmp_path)
    model = scripted(asking("search", 4, query="a"))
    governors: list[ab.Governor] = []

    def build(governor: ab.Governor, saver: Any) -> Any:
        middleware = ab.BudgetMiddleware(max_model_calls=8, governor=governor, on_limit="raise")
        return create_agent(model, [search], middleware=[middleware], checkpointer=saver)

    with SqliteSaver.from_conn_string(processes.checkpoints) as saver:
        governors.append(ab.Governor(ledger=processes.ledger))
        agent = build(governors[0], saver)
        agent.invoke(HELLO, THREAD)
        earlier = next(state for state in agent.get_state_history(THREAD) if state.metadata["step"] == 2)
        if restart:
            governors.append(ab.Governor(ledger=processes.ledger))
            agent = build(governors[1], saver)
        with pytest.raises(ab.BudgetExceeded, match="8 spent"):
            agent.invoke(None, earlier.config)
    for governor in governors:
        governor.close()
    assert len(model.calls) == 8
    assert processes.settled() == [nanos(8)]
