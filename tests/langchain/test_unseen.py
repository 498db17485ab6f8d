"""What LangChain hides: threads, unknown parents, prompts of one `generate`. What then happens is defined."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManager
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool

import agentbudget as ab
from tests.langchain.actors import HELLO, answer, asking, calling, graph_of, repeatedly, scripted, tasks_of
from tests.langchain.support import report_of, search, using

# -- raw threads -------------------------------------------------------------------------------------------------------


def _in_raw_thread(act: Callable[[], object]) -> None:
    """Run *act* in a thread that inherits no context."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def test_a_raw_thread_without_the_handler_is_not_seen(governor: ab.Governor) -> None:
    model = scripted()
    with ab.task("job", max_model_calls=1, governor=governor) as task:
        _in_raw_thread(lambda: model.invoke("unseen"))
    assert task.report.model_calls == 0
    assert len(model.calls) == 1


def test_a_raw_thread_with_the_handler_alone_is_a_task_of_its_own(governor: ab.Governor) -> None:
    model, callback = scripted(), ab.BudgetCallback(governor=governor)
    inside: Any = RunnableLambda(lambda _: _in_raw_thread(lambda: model.invoke("go", using(callback))))
    inside.invoke("go", using(callback))
    assert sorted(tasks_of(governor)) == [0, 1]


def test_a_raw_thread_that_names_the_task_joins_it(governor: ab.Governor) -> None:
    model = scripted()
    callback = ab.BudgetCallback(max_model_calls=100, governor=governor)
    with ab.task("job", max_model_calls=2, governor=governor) as task:
        config: Any = {**using(callback), "metadata": {"agentbudget_task": task.id}}
        refused: list[BaseException] = []

        def work() -> None:
            try:
                model.invoke("go", config)
            except ab.BudgetExceeded as stop:
                refused.append(stop)

        for _ in range(3):
            _in_raw_thread(work)
        assert len(refused) == 1
    assert task.report.model_calls == 2
    assert not callback.reports
    assert tasks_of(governor) == [2]


def test_a_named_task_is_joined_whatever_the_governor_of_the_handler(new_governor: Any) -> None:
    mine, other = new_governor(), new_governor()
    callback = ab.BudgetCallback(governor=other)
    with ab.task("job", governor=mine) as task:
        config: Any = {**using(callback), "metadata": {"agentbudget_task": task.id}}
        _in_raw_thread(lambda: scripted().invoke("go", config))
    assert task.report.model_calls == 1
    assert not other.reports


def test_runs_that_name_the_same_task_share_its_budget(governor: ab.Governor) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_model_calls=2, governor=governor)
    config: Any = {**using(callback), "metadata": {"agentbudget_task": "ticket-17"}}
    with pytest.raises(ab.BudgetExceeded):
        repeatedly(lambda: model.invoke("go", config))
    assert len(model.calls) == 2
    assert [(report.task_id, report.model_calls) for report in governor.reports] == [("ticket-17", 2)]


# -- parents that nobody has heard of ----------------------------------------------------------------------------------


def test_a_handler_on_the_model_of_an_ungoverned_agent_is_one_budget_for_all_of_its_calls(
    governor: ab.Governor,
) -> None:
    callback = ab.BudgetCallback(max_model_calls=3, governor=governor)
    model = scripted(asking("search", 20, query="a"), callbacks=[callback])
    with pytest.raises(ab.BudgetExceeded):
        create_agent(model, [search]).invoke(HELLO)
    assert len(model.calls) == 3


def test_a_handler_that_hears_of_no_tool_does_not_take_a_sub_agent_for_a_new_task(governor: ab.Governor) -> None:
    class Deaf(ab.BudgetCallback):
        ignore_agent = True

    inner = scripted(asking("search", 3, query="a"))
    sub = create_agent(inner, [search])

    @tool
    def delegate() -> str:
        """Delegate."""
        return str(sub.invoke(HELLO))

    outer = scripted(asking("delegate", 20))
    with pytest.raises(ab.BudgetExceeded):
        create_agent(outer, [delegate]).invoke(HELLO, using(Deaf(max_model_calls=7, governor=governor)))
    assert len(inner.calls) + len(outer.calls) == 7
    assert tasks_of(governor) == [7]


def test_a_handler_that_children_do_not_inherit_is_still_one_task_with_its_model(governor: ab.Governor) -> None:
    callback = ab.BudgetCallback(max_model_calls=2, governor=governor)
    model = scripted(asking("search", 9, query="a"), callbacks=[callback])
    with pytest.raises(ab.BudgetExceeded):
        create_agent(model, [search]).invoke(HELLO, {"callbacks": CallbackManager([callback])})
    assert len(model.calls) == 2
    assert tasks_of(governor) == [2]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_guarded_subgraph_of_an_ungoverned_graph_is_a_task_each_time_it_runs(
    governor: ab.Governor, *, asynchronous: bool
) -> None:
    model = scripted()
    inner = ab.guard(graph_of(a=calling(model), b=calling(model)).compile(), max_model_calls=2, governor=governor)
    outer = graph_of(before=calling(model), one=inner, two=inner).compile()
    asyncio.run(outer.ainvoke(HELLO)) if asynchronous else outer.invoke(HELLO)
    assert tasks_of(governor) == [2, 2]
    assert len(model.calls) == 5


def test_a_guarded_subgraph_of_a_governed_graph_has_its_own_limit_and_counts_in_the_outer_one(
    governor: ab.Governor,
) -> None:
    model = scripted()
    inner = ab.guard(graph_of(a=calling(model), b=calling(model)).compile(), max_model_calls=2, governor=governor)
    outer = graph_of(before=calling(model), one=inner, two=inner).compile()
    with pytest.raises(ab.BudgetExceeded) as stopped:
        outer.invoke(HELLO, using(callback := ab.BudgetCallback(max_model_calls=4, governor=governor)))
    assert stopped.value.stop.task_id == report_of(callback).task_id
    assert tasks_of(governor) == [2, 1, 4]


# -- one generate of several prompts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_refused_prompt_of_a_generate_gives_back_what_the_others_held(
    governor: ab.Governor, *, asynchronous: bool
) -> None:
    from langchain_core.messages import HumanMessage

    model = scripted()
    prompts: Any = [[HumanMessage("one")], [HumanMessage("two")], [HumanMessage("three")]]
    with ab.task("prompts", max_model_calls=2, governor=governor) as task:
        with pytest.raises(ab.BudgetExceeded):
            asyncio.run(model.agenerate(prompts)) if asynchronous else model.generate(prompts)
        assert task.report.reserved == 0
    assert not model.calls
    assert task.report.model_calls == task.report.cost == 0


@pytest.mark.parametrize("callbacks", ["none", "of the run"])
def test_a_generate_inside_a_run_is_seen_only_where_it_is_given_callbacks(
    governor: ab.Governor, callbacks: str
) -> None:
    from langchain_core.messages import HumanMessage

    model = scripted()

    def work(_: Any, config: RunnableConfig) -> None:
        given: Any = config.get("callbacks") if callbacks == "of the run" else None
        model.generate([[HumanMessage("one")], [HumanMessage("two")]], callbacks=given)

    RunnableLambda(work).invoke("go", using(ab.BudgetCallback(governor=governor)))
    assert tasks_of(governor) == [2 if callbacks == "of the run" else 0]
    with ab.task("job", governor=governor) as task:
        RunnableLambda(work).invoke("go")
    assert task.report.model_calls == 2, "an ambient task sees it in any case"


# -- generators --------------------------------------------------------------------------------------------------------


def test_a_stream_read_step_by_step_belongs_to_the_task_in_which_it_began(governor: ab.Governor) -> None:
    def words() -> Iterator[str]:
        with ab.task("inner", governor=governor):
            for chunk in scripted(answer("one two three four")).stream("go"):
                yield chunk.text

    with ab.task("outer", governor=governor) as outer:
        assert "".join(words()) == "one two three four"
    assert outer.report.model_calls == 1
    assert tasks_of(governor) == [1, 1]
