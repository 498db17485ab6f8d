"""A thread that goes on: its latest task goes on with it, and nothing that was done is paid twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

import agentbudget as ab
from agentbudget.testing import FakeClock, assert_valid_history
from tests.langchain.actors import CALL, HELLO, asking, calling, graph_of, scripted
from tests.langchain.support import report_of, search, using

THREAD: Any = {"configurable": {"thread_id": "t"}}


def _on_thread(*handlers: ab.BudgetCallback) -> Any:
    return {**THREAD, **using(*handlers)}


@pytest.mark.parametrize("same_handler", [True, False])
@pytest.mark.parametrize("asynchronous", [True, False])
def test_law_12_after_a_stop_a_larger_budget_goes_on_and_nothing_done_is_paid_twice(
    governor: ab.Governor, *, same_handler: bool, asynchronous: bool
) -> None:
    model = scripted(asking("search", 3, query="a"))
    agent = create_agent(model, [search], checkpointer=InMemorySaver())
    first = ab.BudgetCallback(max_model_calls=2, governor=governor)
    with pytest.raises(ab.BudgetExceeded):
        agent.invoke(HELLO, _on_thread(first))
    assert len(model.calls) == 2
    again = ab.BudgetCallback(max_model_calls=4, governor=governor)
    if same_handler:
        again = first
        first.budget = ab.Budget(max_model_calls=4)
    config = _on_thread(again)
    result = asyncio.run(agent.ainvoke(None, config)) if asynchronous else agent.invoke(None, config)
    assert len(model.calls) == 4
    assert_valid_history(result["messages"])
    report = report_of(again)
    assert (report.model_calls, report.cost, report.status, report.limits) == (
        4,
        4 * CALL,
        "completed",
        {"max_model_calls": 4},
    )
    assert len(governor.reports) == 1


def test_to_go_on_with_the_same_budget_is_refused_again(governor: ab.Governor) -> None:
    model = scripted(asking("search", 9, query="a"))
    agent = create_agent(model, [search], checkpointer=InMemorySaver())
    callback = ab.BudgetCallback(max_model_calls=2, governor=governor)
    for given in (HELLO, None, None, None):
        with pytest.raises(ab.BudgetExceeded):
            agent.invoke(given, _on_thread(callback))
    assert len(model.calls) == 2


def test_what_fits_the_same_budget_goes_on_when_the_thread_is_resumed(governor: ab.Governor) -> None:
    model, asked = scripted(), ["long " * 10_000, "short"]
    graph = graph_of(only=lambda state: {"messages": [model.invoke(asked.pop(0))]}).compile(
        checkpointer=InMemorySaver()
    )
    callback = ab.BudgetCallback(max_input_tokens=4_000, governor=governor)
    with pytest.raises(ab.BudgetExceeded):
        graph.invoke(HELLO, _on_thread(callback))
    graph.invoke(None, _on_thread(callback))
    assert len(model.calls) == 1
    assert (len(governor.reports), report_of(callback).status) == (1, "completed")


def test_a_top_up_lets_the_thread_go_on(governor: ab.Governor) -> None:
    model = scripted(asking("search", 2, query="a"))
    agent = create_agent(model, [search], checkpointer=InMemorySaver())
    callback = ab.BudgetCallback(max_cost="$0.0013", governor=governor)
    with pytest.raises(ab.BudgetExceeded) as stopped:
        agent.invoke(HELLO, _on_thread(callback))
    done = len(model.calls)
    governor.top_up(stopped.value.stop.task_id, "$1", grant="g1")
    agent.invoke(None, _on_thread(callback))
    assert 0 < done < len(model.calls) == 3
    assert report_of(callback).cost == 3 * CALL


def test_an_answered_interrupt_goes_on_with_the_task(governor: ab.Governor, clock: FakeClock) -> None:
    model = scripted()

    def ask(state: Any) -> dict[str, Any]:
        interrupt("may I?")
        return {}

    graph = graph_of(a=calling(model), ask=ask, b=calling(model), c=calling(model)).compile(
        checkpointer=InMemorySaver()
    )
    callback = ab.BudgetCallback(max_model_calls=2, max_seconds=10, governor=governor)
    graph.invoke(HELLO, _on_thread(callback))
    assert report_of(callback).status == "interrupted"
    clock.advance(3600)
    with pytest.raises(ab.BudgetExceeded, match="max_model_calls"):
        graph.invoke(Command(resume="yes"), _on_thread(callback))
    assert len(model.calls) == 2
    assert len(callback.reports) == 1


def test_steps_between_breakpoints_share_one_budget(governor: ab.Governor) -> None:
    model = scripted()
    graph = graph_of(a=calling(model), b=calling(model), c=calling(model)).compile(
        checkpointer=InMemorySaver(), interrupt_before=["b", "c"]
    )
    callback = ab.BudgetCallback(max_model_calls=2, governor=governor)
    graph.invoke(HELLO, _on_thread(callback))
    graph.invoke(None, _on_thread(callback))
    with pytest.raises(ab.BudgetExceeded):
        graph.invoke(None, _on_thread(callback))
    assert len(model.calls) == 2


def test_new_input_on_the_thread_is_a_new_task(governor: ab.Governor) -> None:
    model = scripted()
    graph = graph_of(a=calling(model)).compile(checkpointer=InMemorySaver())
    callback = ab.BudgetCallback(max_model_calls=1, governor=governor)
    for _ in range(3):
        graph.invoke(HELLO, _on_thread(callback))
    assert [report.model_calls for report in callback.reports] == [1, 1, 1]


def test_another_thread_is_not_continued(governor: ab.Governor) -> None:
    model = scripted()
    graph = graph_of(a=calling(model), b=calling(model)).compile(checkpointer=InMemorySaver(), interrupt_before=["b"])
    callback = ab.BudgetCallback(max_model_calls=1, governor=governor)
    for thread in ("one", "two"):
        graph.invoke(HELLO, {**using(callback), "configurable": {"thread_id": thread}})
    with pytest.raises(ab.BudgetExceeded):
        graph.invoke(None, {**using(callback), "configurable": {"thread_id": "one"}})
    assert [(report.model_calls, report.status) for report in callback.reports] == [(1, "completed"), (1, "stopped")]


def test_two_handlers_go_on_with_a_task_each(governor: ab.Governor) -> None:
    model = scripted()
    graph = graph_of(a=calling(model), b=calling(model), c=calling(model)).compile(
        checkpointer=InMemorySaver(), interrupt_before=["b", "c"]
    )
    loose = ab.BudgetCallback(max_model_calls=9, governor=governor)
    tight = ab.BudgetCallback(max_model_calls=2, governor=governor)
    graph.invoke(HELLO, _on_thread(loose, tight))
    graph.invoke(None, _on_thread(loose, tight))
    with pytest.raises(ab.BudgetExceeded) as stopped:
        graph.invoke(None, _on_thread(loose, tight))
    assert stopped.value.stop.task_id == report_of(tight).task_id
    assert [(len(each.reports), report_of(each).model_calls) for each in (loose, tight)] == [(1, 2), (1, 2)]


def test_a_thread_goes_on_inside_another_block_than_the_one_it_began_in(governor: ab.Governor) -> None:
    model = scripted()
    graph = graph_of(a=calling(model), b=calling(model), c=calling(model)).compile(
        checkpointer=InMemorySaver(), interrupt_before=["b"]
    )
    callback = ab.BudgetCallback(max_model_calls=2, governor=governor)
    with ab.task("first request", max_model_calls=1, governor=governor) as first:
        graph.invoke(HELLO, _on_thread(callback))
    with (
        ab.task("second request", max_model_calls=5, governor=governor) as second,
        pytest.raises(ab.BudgetExceeded) as stopped,
    ):
        graph.invoke(None, _on_thread(callback))
    assert stopped.value.stop.task_id == report_of(callback).task_id
    assert [each.report.model_calls for each in (first, second)] == [1, 1]
    assert report_of(callback).model_calls == 2


def test_a_sub_agent_that_was_stopped_goes_on_without_repeating_a_call(governor: ab.Governor) -> None:
    inner = scripted(asking("search", 3, query="a"))
    sub = create_agent(inner, [search], checkpointer=True)

    @tool
    def delegate() -> str:
        """Delegate."""
        return str(sub.invoke(HELLO)["messages"][-1].content)

    outer = scripted(asking("delegate", 1))
    agent = create_agent(outer, [delegate], checkpointer=InMemorySaver())
    with pytest.raises(ab.BudgetExceeded):
        agent.invoke(HELLO, _on_thread(ab.BudgetCallback(max_model_calls=3, governor=governor)))
    assert len(inner.calls) + len(outer.calls) == 3
    again = ab.BudgetCallback(max_model_calls=20, governor=governor)
    agent.invoke(None, _on_thread(again))
    assert report_of(again).model_calls == len(inner.calls) + len(outer.calls)
    assert len(outer.calls) == 2


def test_a_guarded_graph_goes_on_with_its_thread(governor: ab.Governor) -> None:
    model = scripted()
    plain = graph_of(a=calling(model), b=calling(model)).compile(checkpointer=InMemorySaver())
    with pytest.raises(ab.BudgetExceeded):
        ab.guard(plain, max_model_calls=1, governor=governor).invoke(HELLO, THREAD)
    ab.guard(plain, max_model_calls=2, governor=governor).invoke(None, THREAD)
    assert [report.model_calls for report in governor.reports] == [2]
