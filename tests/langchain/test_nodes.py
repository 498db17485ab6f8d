"""Budgets of single nodes: a node stops at its own limit, counts in the graph's, and leaves the others alone."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest
from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send

import agentbudget as ab
from tests.langchain.actors import CALL, HELLO, calling, graph_of, scripted
from tests.langchain.support import search

THREAD: Any = {"configurable": {"thread_id": "t"}}


def busy(model: Any, times: int) -> Any:
    """A node that calls *model* *times* times."""

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"]) for _ in range(times)]}

    return node


def content(model: Any, times: int) -> Any:
    """The same, content with what it has when its budget is at its end."""

    def node(state: MessagesState) -> dict[str, Any]:
        found = []
        try:
            for _ in range(times):
                found.append(model.invoke(state["messages"]))  # noqa: PERF401 - what was found before a stop is kept
        except ab.BudgetExceeded:
            pass
        return {"messages": found}

    return node


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_node_is_stopped_at_its_own_limit(governor: ab.Governor, *, asynchronous: bool) -> None:
    plan, research = scripted(), scripted()
    graph = graph_of(plan=busy(plan, 3), research=busy(research, 9), write=busy(plan, 1)).compile()
    guarded = ab.guard(graph, max_model_calls=50, nodes={"research": ab.Budget(max_model_calls=2)}, governor=governor)
    with pytest.raises(ab.BudgetExceeded) as stopped:
        asyncio.run(guarded.ainvoke(HELLO)) if asynchronous else guarded.invoke(HELLO)
    assert (len(plan.calls), len(research.calls)) == (3, 2)
    assert stopped.value.stop.task == "research"
    assert [(r.model_calls, r.cost) for r in governor.reports] == [(2, 2 * CALL), (5, 5 * CALL)]


def test_a_node_that_is_content_with_what_it_has_lets_the_graph_go_on(governor: ab.Governor) -> None:
    model, research = scripted(), scripted()
    graph = graph_of(research=content(research, 9), write=calling(model)).compile()
    result = ab.guard(graph, nodes={"research": ab.Budget(max_model_calls=2)}, governor=governor).invoke(HELLO)
    assert (len(research.calls), len(model.calls)) == (2, 1)
    assert len(result["messages"]) == 4
    assert governor.reports[-1].status == "completed"


def test_all_executions_of_a_node_share_its_budget(governor: ab.Governor) -> None:
    model = scripted()
    builder = StateGraph(MessagesState)
    node: Any = calling(model)
    builder.add_node("research", node)
    builder.add_edge(START, "research")
    builder.add_conditional_edges("research", lambda state: "research" if len(state["messages"]) < 9 else END)
    graph = ab.guard(builder.compile(), nodes={"research": ab.Budget(max_model_calls=3)}, governor=governor)
    for _ in range(2):  # and each task of the graph has it anew
        with pytest.raises(ab.BudgetExceeded):
            graph.invoke(HELLO)
    assert len(model.calls) == 6


def test_parallel_executions_share_it_too(governor: ab.Governor) -> None:
    model = scripted()
    builder = StateGraph(MessagesState)
    builder.add_node("research", content(model, 3))
    builder.add_conditional_edges(START, lambda state: [Send("research", state)] * 4, ["research"])
    builder.add_edge("research", END)
    ab.guard(builder.compile(), nodes={"research": ab.Budget(max_model_calls=5)}, governor=governor).invoke(HELLO)
    assert len(model.calls) == 5


def test_an_agent_as_a_node_is_within_the_budget_of_its_node(governor: ab.Governor) -> None:
    model = scripted()
    graph = graph_of(helper=create_agent(model, [search]), after=busy(model, 9)).compile()
    guarded = ab.guard(graph, max_model_calls=5, nodes={"helper": ab.Budget(max_model_calls=1)}, governor=governor)
    with pytest.raises(ab.BudgetExceeded) as stopped:
        guarded.invoke(HELLO)
    assert stopped.value.stop.limit_amount == 5
    assert len(model.calls) == 5


def test_a_node_of_a_subgraph_with_the_same_name_is_another_node(governor: ab.Governor) -> None:
    model = scripted()
    inner = graph_of(research=busy(model, 4)).compile()
    graph = graph_of(sub=inner, research=busy(model, 1)).compile()
    ab.guard(graph, nodes={"research": ab.Budget(max_model_calls=1)}, governor=governor).invoke(HELLO)
    assert len(model.calls) == 5


def test_law_12_after_a_larger_budget_the_thread_goes_on_and_nothing_done_is_paid_twice(governor: ab.Governor) -> None:
    plan, research = scripted(), scripted()
    nodes: dict[str, Any] = {"plan": calling(plan), "one": calling(research), "two": calling(research)}
    saver = InMemorySaver()

    def run(given: Any, most: int) -> Any:
        graph = graph_of(**nodes).compile(checkpointer=saver)
        limits = {"one": ab.Budget(max_model_calls=1), "two": ab.Budget(max_total_tokens=most)}
        return ab.guard(graph, nodes=limits, governor=governor).invoke(given, THREAD)

    with pytest.raises(ab.BudgetExceeded):
        run(HELLO, 10)
    result = run(None, 1_000)
    assert (len(plan.calls), len(research.calls)) == (1, 2)
    assert len(result["messages"]) == 4
    assert governor.reports[-1].cost == 3 * CALL


@pytest.mark.parametrize(
    ("nodes", "error", "match"),
    [
        ({"reserch": ab.Budget(max_model_calls=1)}, ab.ConfigurationError, "it has 'research'"),
        ({"__start__": ab.Budget(max_model_calls=1)}, ab.ConfigurationError, "no such node"),
        ({"research": "$1"}, TypeError, "not a Budget"),
    ],
    ids=["misspelt", "start", "no budget"],
)
def test_what_is_no_node_with_a_budget_is_refused_when_the_graph_is_guarded(
    nodes: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        ab.guard(graph_of(research=calling(scripted())).compile(), nodes=nodes)


def test_only_a_graph_has_nodes() -> None:
    with pytest.raises(ab.ConfigurationError, match="no nodes"):
        ab.guard(scripted(), nodes={"a": ab.Budget(max_model_calls=1)})
    graph = ab.guard(graph_of(a=calling(scripted())).compile(), nodes={"a": ab.Budget(max_model_calls=1)})
    (handler,) = graph.config["callbacks"]
    with pytest.raises(TypeError, match="guard it anew"):
        pickle.dumps(handler)
