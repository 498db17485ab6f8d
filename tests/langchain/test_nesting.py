"""Tasks within tasks: what is spent inside counts in every task around it, and siblings share what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

import agentbudget as ab
from tests.langchain.actors import CALL, HELLO, asking, calling, graph_of, scripted
from tests.langchain.support import report_of, using


def _until_stopped(model: Any, most: int = 10) -> int:
    """Call *model* until it is refused; how often it was called."""
    for number in range(most):
        try:
            model.invoke("go")
        except ab.BudgetExceeded:
            return number
    return most


def test_a_nested_task_counts_in_the_one_around_it(governor: ab.Governor) -> None:
    model = scripted()
    with ab.task("outer", governor=governor) as outer:
        model.invoke("go")
        with ab.task("inner") as inner:
            model.invoke("go")
    assert (inner.report.cost, outer.report.cost) == (CALL, 2 * CALL)


def test_nested_tasks_share_what_is_left(governor: ab.Governor) -> None:
    model = scripted()
    with ab.task("outer", max_model_calls=5, governor=governor) as outer:
        with ab.task("first", max_model_calls=3) as first:
            assert _until_stopped(model) == 3
        with ab.task("second", max_model_calls=3) as second:
            assert _until_stopped(model) == 2
    assert first.report.stopped_by is not None
    assert first.report.stopped_by.task_id == first.id
    assert second.report.stopped_by is not None
    assert second.report.stopped_by.task_id == outer.id
    assert outer.report.model_calls == 5


def test_a_stop_of_an_inner_task_leaves_the_outer_one_free_to_go_on(governor: ab.Governor) -> None:
    model = scripted()
    with ab.task("outer", max_model_calls=5, governor=governor) as outer:
        with ab.task("inner", max_model_calls=1):
            assert _until_stopped(model) == 1
        model.invoke("go")
    assert (outer.report.status, outer.report.model_calls) == ("completed", 2)


def test_a_task_inside_a_node_is_limited_by_itself_and_charged_to_the_run(governor: ab.Governor) -> None:
    model, seen = scripted(), []

    def node(state: Any) -> dict[str, Any]:
        with ab.task("inner", max_model_calls=2) as inner:
            seen.append(_until_stopped(model))
        seen.append(inner.report.model_calls)
        return {}

    graph = graph_of(before=calling(model), limited=node, after=calling(model)).compile()
    callback = ab.BudgetCallback(max_model_calls=10, governor=governor)
    graph.invoke(HELLO, using(callback))
    assert seen == [2, 2]
    assert report_of(callback).model_calls == 4
    assert {report.name for report in governor.reports} == {"inner", "LangGraph"}


def test_a_task_inside_a_tool_cannot_spend_more_than_the_run_has_left(governor: ab.Governor) -> None:
    inner_model = scripted()

    @tool
    def work() -> str:
        """Work."""
        with ab.task("inner", max_model_calls=50):
            return str(_until_stopped(inner_model))

    agent = create_agent(scripted(asking("work", 1)), [work])
    with pytest.raises(ab.BudgetExceeded):
        agent.invoke(HELLO, using(ab.BudgetCallback(max_model_calls=4, governor=governor)))
    assert len(inner_model.calls) == 3


def test_a_task_inside_a_run_with_replaced_callbacks_draws_on_the_run(governor: ab.Governor) -> None:
    model = scripted()

    def work(_: Any) -> None:
        with ab.task("inner"):
            model.invoke("go", using())

    callback = ab.BudgetCallback(governor=governor)
    RunnableLambda(work).invoke("go", using(callback))
    assert report_of(callback).model_calls == 1


def test_a_callback_inside_a_task_is_a_task_within_it(governor: ab.Governor) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_model_calls=2, governor=governor)
    graph = graph_of(a=calling(model), b=calling(model)).compile()
    with ab.task("outer", max_model_calls=3, governor=governor, team="cx") as outer:
        graph.invoke(HELLO, using(callback))
        with pytest.raises(ab.BudgetExceeded):
            graph.invoke(HELLO, using(callback))
    assert outer.report.model_calls == 3
    assert [report.model_calls for report in callback.reports] == [2, 1]
    assert [report.tags for report in callback.reports] == [{"team": "cx"}] * 2


def test_two_nested_governors_are_both_charged(new_governor: Any) -> None:
    mine, theirs, model = new_governor(), new_governor(), scripted()
    with (
        ab.task("a", governor=mine, team="cx") as a,
        ab.task("b", max_model_calls=2, governor=theirs) as b,
        ab.task("c", governor=mine) as c,
    ):
        assert _until_stopped(model) == 2
    assert [each.report.model_calls for each in (a, b, c)] == [2, 2, 2]
    assert [(report.name, report.tags) for report in mine.reports] == [("c", {"team": "cx"}), ("a", {"team": "cx"})]
    assert b.report.stopped_by is not None
    assert c.report.stopped_by is None


def test_a_refusal_of_the_second_governor_gives_back_what_the_first_held(new_governor: Any) -> None:
    mine, theirs, model = new_governor(), new_governor(), scripted()
    with (
        ab.task("a", max_model_calls=1, governor=mine) as a,
        ab.task("b", max_output_tokens=19, governor=theirs),
    ):
        assert _until_stopped(model) == 0
        assert a.report.reserved == 0
    with ab.task("again", max_model_calls=1, governor=mine):
        model.invoke("go")


async def test_concurrent_nested_tasks_share_the_outer_limit_exactly(governor: ab.Governor) -> None:
    model = scripted()

    async def one(number: int) -> None:
        async with ab.task(f"inner {number}", max_model_calls=2):
            for _ in range(2):
                await model.ainvoke("go")

    async with ab.task("outer", max_model_calls=7, governor=governor) as outer:
        ended = await asyncio.gather(*(one(number) for number in range(6)), return_exceptions=True)
    assert sum(isinstance(each, ab.BudgetExceeded) for each in ended) >= 2
    assert len(model.calls) == outer.report.model_calls == 7


async def test_a_task_in_one_coroutine_is_not_seen_by_another(governor: ab.Governor) -> None:
    model, opened, done = scripted(), asyncio.Event(), asyncio.Event()

    async def holder() -> int:
        async with ab.task("mine", governor=governor) as mine:
            opened.set()
            await done.wait()
        return mine.report.model_calls

    holding = asyncio.create_task(holder())
    await opened.wait()
    await model.ainvoke("mine is not yours")
    done.set()
    assert await holding == 0


async def test_a_block_that_ends_in_another_context_takes_only_itself_away(governor: ab.Governor) -> None:
    async def held() -> AsyncIterator[None]:
        async with ab.task("held", governor=governor):
            yield

    model, holding = scripted(), held()
    await asyncio.create_task(anext(holding))  # type: ignore[arg-type]  # any awaitable will do
    with ab.task("around", governor=governor) as around:
        with pytest.raises(StopAsyncIteration):
            await anext(holding)
        await model.ainvoke("go")
    assert around.report.model_calls == 1


def test_after_its_block_a_task_is_no_longer_ambient(governor: ab.Governor) -> None:
    model = scripted()
    with ab.task("over", max_model_calls=1, governor=governor) as over:
        model.invoke("go")
    model.invoke("go")
    assert over.report.model_calls == 1


def test_an_id_that_is_open_cannot_be_opened_again(governor: ab.Governor) -> None:
    with (
        ab.task("a", task_id="t", governor=governor),
        pytest.raises(ab.ConfigurationError, match="'t' is open already"),
        ab.task("b", task_id="t", governor=governor),
    ):
        pass


def test_a_later_block_with_the_same_id_goes_on_with_the_task(governor: ab.Governor) -> None:
    model = scripted()
    with ab.task("a", task_id="t", max_model_calls=2, governor=governor):
        assert _until_stopped(model) == 2
    with ab.task("a", task_id="t", max_model_calls=3, governor=governor) as again:
        assert _until_stopped(model) == 1
    assert again.report.model_calls == 3
    assert len(governor.reports) == 1


def test_the_time_a_task_was_closed_for_does_not_count(governor: ab.Governor, clock: Any) -> None:
    model = scripted()
    with ab.task("a", task_id="t", max_seconds=10, governor=governor):
        clock.advance(6)
        model.invoke("go")
    clock.advance(3600)
    with ab.task("a", task_id="t", max_seconds=10, governor=governor) as again:
        model.invoke("go")
        clock.advance(4)
        with pytest.raises(ab.BudgetExceeded, match="max_seconds"):
            model.invoke("go")
    assert again.report.seconds == 10
