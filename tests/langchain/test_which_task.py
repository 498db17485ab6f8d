"""Roots that LangChain shows no link between: which task each belongs to, and the warning by name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from tenacity import retry, stop_after_attempt

import agentbudget as ab
from tests.langchain.actors import HELLO, calling, graph_of, repeatedly, scripted, tasks_of
from tests.langchain.support import report_of, using


def test_a_loop_of_bare_models_warns_once_at_its_second_call_and_names_the_remedy(governor: ab.Governor) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_model_calls=1, governor=governor)
    model.invoke("one", using(callback))
    with pytest.warns(ab.BudgetWarning, match=r"agentbudget\.task") as caught:
        model.invoke("two", using(callback))
    model.invoke("three", using(callback))
    assert len(caught) == 1
    assert tasks_of(governor) == [1, 1, 1]


def test_a_loop_of_bare_models_inside_a_task_is_one_task_without_a_warning(governor: ab.Governor) -> None:
    model = scripted()
    with pytest.raises(ab.BudgetExceeded), ab.task("loop", max_model_calls=3, governor=governor):
        repeatedly(lambda: model.invoke("go"))
    assert len(model.calls) == 3
    assert tasks_of(governor) == [3]


def test_a_callback_inside_a_task_keeps_its_own_budget_for_each_call_and_the_task_keeps_the_sum(
    governor: ab.Governor,
) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_model_calls=1, governor=governor)
    with pytest.raises(ab.BudgetExceeded) as stopped, ab.task("loop", max_model_calls=3, governor=governor) as task:
        repeatedly(lambda: model.invoke("go", using(callback)))
    assert len(model.calls) == 3
    assert stopped.value.stop.task_id == task.id
    assert [report.model_calls for report in callback.reports] == [1, 1, 1, 0]
    assert task.report.model_calls == 3


def test_each_item_of_a_top_level_batch_is_a_task_of_its_own(governor: ab.Governor) -> None:
    chain = RunnableLambda(str) | scripted()
    callback = ab.BudgetCallback(max_model_calls=1, governor=governor)
    chain.batch(["a", "b", "c"], using(callback))
    asyncio.run(chain.abatch(["a", "b", "c"], using(callback)))
    assert tasks_of(governor) == [1] * 6


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_batch_inside_a_task_is_one_task(governor: ab.Governor, *, asynchronous: bool) -> None:
    model = scripted()
    with pytest.raises(ab.BudgetExceeded), ab.task("batch", max_model_calls=2, governor=governor):
        asyncio.run(model.abatch(["a", "b", "c"])) if asynchronous else model.batch(["a", "b", "c"])
    assert len(model.calls) == 2
    assert tasks_of(governor) == [2]


def test_a_batch_returns_the_stop_where_exceptions_are_returned(governor: ab.Governor) -> None:
    model = scripted()
    with ab.task("batch", max_model_calls=1, governor=governor):
        answers = model.batch(["a", "b", "c"], config={"max_concurrency": 1}, return_exceptions=True)
    assert [isinstance(each, ab.BudgetExceeded) for each in answers] == [False, True, True]


@pytest.mark.parametrize("per", ["callback", "thread"])
def test_per_callback_and_per_thread_share_one_budget_between_runs(governor: ab.Governor, per: str) -> None:
    model = scripted()
    chain = RunnableLambda(str) | model
    callback = ab.BudgetCallback(max_model_calls=3, governor=governor, per=per)
    config: Any = {**using(callback), "metadata": {"thread_id": "t"}}
    with pytest.raises(ab.BudgetExceeded):
        repeatedly(lambda: chain.invoke("go", config))
    assert len(model.calls) == 3
    assert report_of(callback).model_calls == 3
    assert len({report.task_id for report in governor.reports}) == 1


def test_a_shared_budget_that_was_stopped_stays_stopped_for_smaller_calls(governor: ab.Governor) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_input_tokens=4_000, governor=governor, per="callback")
    with pytest.raises(ab.BudgetExceeded):
        model.invoke("long " * 10_000, using(callback))
    with pytest.raises(ab.BudgetExceeded):
        model.invoke("short", using(callback))
    assert not model.calls


def test_threads_of_a_graph_have_a_budget_each(governor: ab.Governor) -> None:
    model = scripted()
    graph = graph_of(only=calling(model)).compile()
    callback = ab.BudgetCallback(max_model_calls=2, governor=governor, per="thread")
    for thread in ("a", "b", "a", "b"):
        graph.invoke(HELLO, {**using(callback), "configurable": {"thread_id": thread}})
    with pytest.raises(ab.BudgetExceeded, match="thread a"):
        graph.invoke(HELLO, {**using(callback), "configurable": {"thread_id": "a"}})
    assert len(model.calls) == 4


def test_what_a_thread_spent_is_known_to_the_next_handler_and_after_many_other_tasks(
    governor: ab.Governor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbudget.governor.tasks._RECENT_TASKS", 3)
    graph = graph_of(only=calling(scripted())).compile()

    def once(thread: str) -> None:
        callback = ab.BudgetCallback(max_model_calls=1, governor=governor, per="thread")
        graph.invoke(HELLO, {**using(callback), "configurable": {"thread_id": thread}})

    for number in range(8):
        once(f"t{number}")
    with pytest.raises(ab.BudgetExceeded, match="thread t0"):
        once("t0")


def test_what_a_callback_spent_is_known_after_many_other_tasks(
    governor: ab.Governor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbudget.governor.tasks._RECENT_TASKS", 3)
    model, callback = scripted(), ab.BudgetCallback(max_model_calls=1, governor=governor, per="callback")
    model.invoke("mine", using(callback))
    for _ in range(8):
        with ab.task("other", governor=governor):
            model.invoke("other")
    with pytest.raises(ab.BudgetExceeded):
        model.invoke("mine", using(callback))


def test_a_budget_per_thread_needs_a_thread_and_says_how_to_name_it(governor: ab.Governor) -> None:
    model, callback = scripted(), ab.BudgetCallback(governor=governor, per="thread")
    with pytest.raises(ab.ConfigurationError, match="thread_id"):
        (RunnableLambda(str) | model).invoke("go", using(callback))
    with pytest.raises(ab.ConfigurationError, match="thread_id"):
        model.invoke("go", using(callback))
    assert not model.calls


def test_a_warning_that_is_an_error_leaves_nothing_open(governor: ab.Governor) -> None:
    model, callback = scripted(), ab.BudgetCallback(governor=governor)
    other = ab.BudgetCallback(governor=governor)
    RunnableLambda(str).invoke("x", using(other))
    model.invoke("one", using(callback))
    with pytest.raises(ab.BudgetWarning):  # pytest runs with warnings as errors
        model.invoke("two", using(callback))
    assert len(model.calls) == 1
    assert tasks_of(governor) == [0, 1]


@pytest.mark.parametrize("inside", [False, True])
def test_tenacity_around_a_call_repeats_within_the_task_around_it(governor: ab.Governor, *, inside: bool) -> None:
    model = scripted(OSError("down"))

    @retry(stop=stop_after_attempt(10), reraise=True)
    def ask(given: Any) -> Any:
        return model.invoke("go")

    if inside:
        with pytest.raises(ab.BudgetExceeded):
            RunnableLambda(ask).invoke("go", using(ab.BudgetCallback(max_model_calls=3, governor=governor)))
    else:
        with pytest.raises(ab.BudgetExceeded), ab.task("retried", max_model_calls=3, governor=governor):
            ask("go")
    assert len(model.calls) == 3
    assert tasks_of(governor) == [3]
