"""`max_seconds`: what is awaited at the deadline is cancelled and charged, unless the governor only observes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from typing_extensions import override

import agentbudget as ab
from agentbudget.testing import FakeClock, ScriptedChatModel
from tests.langchain.actors import HELLO, answer, scripted
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import search

TURNS = 1_000
"""Turns of the event loop in which a timer of a microsecond surely fires."""


class _Slow(ScriptedChatModel):
    """Thinks for `TURNS` turns of the event loop, in a stream after its first chunk."""

    @override
    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        await _think()
        return await super()._agenerate(messages, *args, **kwargs)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
            yield chunk
            await _think()


async def _think() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def _slow() -> _Slow:
    return _Slow(script=(answer("a long answer"),), repeat_last=True, max_tokens=20)


async def _invoke(model: ScriptedChatModel) -> object:
    return await ab.governed(model).ainvoke("hello")


async def _stream(model: ScriptedChatModel) -> object:
    return [chunk async for chunk in ab.governed(model).astream("hello")]


async def _with_own_budget(model: ScriptedChatModel) -> object:
    return await ab.governed(model, max_cost="$1").ainvoke("hello")


async def _in_a_graph(model: ScriptedChatModel) -> object:
    return await create_agent(ab.governed(model), [search]).ainvoke(HELLO)


async def _with_middleware(model: ScriptedChatModel) -> object:
    return await create_agent(model, [search], middleware=[ab.BudgetMiddleware(max_cost="$1")]).ainvoke(HELLO)


WAYS = (_invoke, _stream, _with_own_budget, _in_a_graph, _with_middleware)
Way = Callable[[ScriptedChatModel], Awaitable[object]]


async def _almost_out_of_time(way: Way, clock: FakeClock, governor: ab.Governor) -> ab.TaskReport:
    """The report of a task in which a slow call begins a microsecond before the deadline."""
    try:
        async with ab.task("t", max_seconds=1, governor=governor) as task:
            clock.advance(1 - 1e-6)
            await way(_slow())
    finally:
        report = task.report
    return report


@pytest.mark.parametrize("way", WAYS)
async def test_at_the_deadline_a_call_in_flight_is_cancelled_and_charged(
    way: Way, clock: FakeClock, new_governor: NewGovernor
) -> None:
    governor = new_governor()
    with pytest.raises(ab.BudgetExceeded) as stopped:
        await _almost_out_of_time(way, clock, governor)
    assert stopped.value.stop.limit == "max_seconds"
    report = governor.reports[-1]
    assert (report.status, report.model_calls, report.reserved) == ("stopped", 1, Decimal(0))
    assert report.cost > 0
    assert report.cost == report.estimated


@pytest.mark.parametrize("way", WAYS)
async def test_a_governor_that_observes_cancels_nothing_at_a_deadline(
    way: Way, clock: FakeClock, new_governor: NewGovernor
) -> None:
    report = await _almost_out_of_time(way, clock, new_governor(mode="observe"))
    assert (report.status, report.model_calls, report.estimated) == ("completed", 1, Decimal(0))


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_that_is_in_time_is_left_alone(way: Way, clock: FakeClock, new_governor: NewGovernor) -> None:
    governor = new_governor()
    async with ab.task("t", max_seconds=60, governor=governor):
        await way(scripted())
    report = governor.reports[-1]
    assert (report.status, report.model_calls, report.estimated) == ("completed", 1, Decimal(0))


async def test_a_timeout_of_something_else_is_raised_as_it_is(new_governor: NewGovernor) -> None:
    async with ab.task("t", max_seconds=60, governor=new_governor()):
        with pytest.raises(TimeoutError, match="the network"):
            await ab.governed(scripted(TimeoutError("the network"))).ainvoke("hello")
