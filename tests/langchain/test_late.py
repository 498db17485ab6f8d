"""Calls that come after their task closed: charged to it, refused by its limits, refused once it is forgotten."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

import agentbudget as ab
from agentbudget.trace.events import CallSettled, Event
from tests.langchain.actors import CALL, scripted
from tests.langchain.support import report_of, using


async def _late_in_block(governor: ab.Governor, before: Callable[[], object], **limits: Any) -> Any:
    """A model call that a block left behind: it runs after *before*, when the block is over."""
    model, over = scripted(), asyncio.Event()

    async def work() -> None:
        await over.wait()
        await model.ainvoke("late")

    async with ab.task("job", governor=governor, **limits) as task:
        left = asyncio.create_task(work())
        await model.ainvoke("in time")
    before()
    over.set()
    return task, (await asyncio.gather(left, return_exceptions=True))[0], model


async def test_a_late_call_is_charged_to_its_closed_task_and_flagged(new_governor: Any) -> None:
    seen: list[Event] = []
    governor = new_governor(sinks=[seen.append])
    task, error, _ = await _late_in_block(governor, lambda: None)
    assert error is None
    assert (task.report.model_calls, task.report.cost, task.report.status) == (2, 2 * CALL, "completed")
    assert [event.late for event in seen if isinstance(event, CallSettled)] == [False, True]


async def test_a_late_call_is_held_to_the_limits_of_its_closed_task(governor: ab.Governor) -> None:
    _, error, model = await _late_in_block(governor, lambda: None, max_model_calls=1)
    assert isinstance(error, ab.BudgetExceeded)
    assert len(model.calls) == 1


async def test_a_late_call_of_a_forgotten_task_is_refused_and_told_what_to_do(
    governor: ab.Governor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbudget.governor.tasks._RECENT_TASKS", 3)

    def others() -> None:
        for _ in range(5):
            governor.close_task(governor.open_task("other", ab.Budget()))

    _, error, model = await _late_in_block(governor, others)
    assert isinstance(error, ab.BudgetExceeded)
    assert error.stop.limit == "closed"
    assert "task of its own" in error.stop.remedy
    assert len(model.calls) == 1


async def test_work_that_a_run_left_behind_belongs_to_the_task_of_the_run(governor: ab.Governor) -> None:
    model, over, left = scripted(), asyncio.Event(), []

    async def work() -> None:
        await over.wait()
        await model.ainvoke("late")

    async def leave(given: str) -> str:
        left.append(asyncio.create_task(work()))
        return given

    callback = ab.BudgetCallback(max_model_calls=1, governor=governor)
    await RunnableLambda(leave).ainvoke("go", using(callback))
    await RunnableLambda(leave).ainvoke("go", using(callback))
    over.set()
    await asyncio.gather(*left)
    assert [report.model_calls for report in callback.reports] == [1, 1]


async def test_work_that_a_run_left_behind_belongs_to_it_with_replaced_callbacks_too(governor: ab.Governor) -> None:
    model, over, left = scripted(), asyncio.Event(), []
    callback = ab.BudgetCallback(governor=governor)

    async def work() -> None:
        await over.wait()
        await model.ainvoke("late", using(callback))

    async def leave(given: str) -> str:
        left.append(asyncio.create_task(work()))
        return given

    await RunnableLambda(leave).ainvoke("go", using(callback))
    over.set()
    await asyncio.gather(*left)
    assert [report.model_calls for report in callback.reports] == [1]


def test_a_late_thread_with_the_context_of_a_block_is_charged_to_its_task(governor: ab.Governor) -> None:
    model = scripted()
    with ab.task("job", governor=governor) as task:
        context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(model.invoke, "late"))
    thread.start()
    thread.join()
    assert task.report.model_calls == 1


def test_a_late_call_that_names_its_task_neither_reopens_nor_widens_it(governor: ab.Governor) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_model_calls=100, governor=governor)
    with ab.task("job", max_model_calls=1, governor=governor) as task:
        model.invoke("in time")
    config: Any = {**using(callback), "metadata": {"agentbudget_task": task.id}}
    with pytest.raises(ab.BudgetExceeded):
        model.invoke("late", config)
    assert (task.report.model_calls, task.report.limits) == (1, {"max_model_calls": 1})


def test_late_calls_of_one_run_do_not_touch_the_next(governor: ab.Governor) -> None:
    model, callback = scripted(), ab.BudgetCallback(governor=governor)
    chain = RunnableLambda(str) | model
    chain.invoke("one", using(callback))
    chain.invoke("two", using(callback))
    assert [report.model_calls for report in callback.reports] == [1, 1]
    assert report_of(callback).status == "completed"
