"""The policies in tenacity's hands, around real calls: sync and async, alone and composed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tenacity
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from tenacity import stop_after_attempt, stop_before_delay, stop_never, wait_fixed, wait_none

import agentbudget as ab
from agentbudget.langchain.acting import current_tasks
from agentbudget.retries import retry_if_can_succeed, stop_when_unaffordable, wait_retry_after
from agentbudget.testing import FakeClock, ScriptedChatModel, scripted_reply
from tests.retries.test_failures import NOW, Answered


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def governor(clock: FakeClock) -> Iterator[ab.Governor]:
    governor = ab.Governor(clock=clock)
    yield governor
    for account in governor.ledger.accounts():
        assert governor.ledger.balance(account).reserved == 0, "an enquiry left a reservation"
    governor.close()


class Naps(list[float]):
    """Sleeps by moving the clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
        self._clock.advance(seconds)

    async def later(self, seconds: float) -> None:
        self(seconds)


def failing(*errors: Exception) -> ScriptedChatModel:
    """A model that fails so, then answers."""
    return ScriptedChatModel(script=[*errors, scripted_reply("ok", input_tokens=100, output_tokens=10)], max_tokens=20)


def attempted(model: Any, how: str, naps: Naps, **policies: Any) -> object:
    """Call *model* under tenacity; the last error is raised as it is."""
    settings = {"retry": retry_if_can_succeed(), "wait": wait_none(), "stop": stop_never, "reraise": True, **policies}
    if how == "sync":
        return tenacity.Retrying(sleep=naps, **settings)(model.invoke, "hi")

    async def ask() -> object:
        return await tenacity.AsyncRetrying(sleep=naps.later, **settings)(model.ainvoke, "hi")

    return asyncio.run(ask())


both = pytest.mark.parametrize("how", ["sync", "async"])


@both
def test_what_cannot_succeed_is_tried_once(governor: ab.Governor, clock: FakeClock, how: str) -> None:
    with ab.task("job", governor=governor) as task, pytest.raises(Answered):
        attempted(failing(Answered(401)), how, Naps(clock))
    assert task.report.model_calls == 1


@both
def test_tenacity_is_shown_as_the_caller_that_repeats(governor: ab.Governor, clock: FakeClock, how: str) -> None:
    with ab.task("job", governor=governor) as task:
        attempted(failing(Answered(503), Answered(429)), how, Naps(clock))
    assert {name: row.calls for name, row in task.report.by_layer.items()} == {"caller": 2}


@both
@pytest.mark.parametrize(
    "limits", [{"max_retries": 1}, {"max_model_calls": 2}, {"max_cost": "$0.0008"}, {"max_seconds": 15}], ids=str
)
def test_it_stops_with_the_error_of_the_last_attempt_when_the_next_is_not_affordable(
    governor: ab.Governor, clock: FakeClock, how: str, limits: dict[str, Any]
) -> None:
    model, naps = failing(*[RuntimeError(f"attempt {n}") for n in (1, 2, 3)]), Naps(clock)
    with ab.task("job", governor=governor, **limits) as task, pytest.raises(RuntimeError, match="attempt"):
        attempted(model, how, naps, wait=wait_fixed(10), stop=stop_when_unaffordable(current_tasks))
    assert len(model.calls) in {1, 2}
    assert len(naps) == len(model.calls) - 1, "nothing is waited for that will not be tried"
    assert task.report.stopped_by is None
    assert task.report.denied == 0


def test_the_task_goes_on_after_a_retry_that_was_not_affordable(governor: ab.Governor, clock: FakeClock) -> None:
    with ab.task("job", governor=governor, max_retries=0) as task:
        with pytest.raises(RuntimeError):
            attempted(failing(RuntimeError()), "sync", Naps(clock), stop=stop_when_unaffordable(current_tasks))
        failing().invoke("another question")
    assert task.report.model_calls == 2


@both
def test_without_a_task_nothing_is_unaffordable(clock: FakeClock, how: str) -> None:
    model = failing(RuntimeError(), RuntimeError())
    attempted(model, how, Naps(clock), stop=stop_when_unaffordable(current_tasks))
    assert len(model.calls) == 3


def test_a_governor_that_observes_finds_everything_affordable(clock: FakeClock) -> None:
    model = failing(RuntimeError(), RuntimeError())
    with ab.task("job", governor=ab.Governor(mode="observe"), max_retries=0):
        attempted(model, "sync", Naps(clock), stop=stop_when_unaffordable(current_tasks))
    assert len(model.calls) == 3


def test_it_composes_with_the_policies_of_tenacity(governor: ab.Governor, clock: FakeClock) -> None:
    stop = stop_after_attempt(2) | stop_when_unaffordable(current_tasks)
    retry = retry_if_can_succeed() & tenacity.retry_if_not_exception_type(KeyError)
    wait = wait_retry_after(jitter=0, now=lambda: NOW) + wait_fixed(1)
    model, naps = failing(*[Answered(429, {"retry-after": "4"})] * 3), Naps(clock)
    with ab.task("job", governor=governor), pytest.raises(Answered):
        attempted(model, "sync", naps, stop=stop, retry=retry, wait=wait)
    assert naps == [5]


@both
def test_the_wait_the_provider_asks_for_is_kept_and_jittered_upwards_only(clock: FakeClock, how: str) -> None:
    naps = Naps(clock)
    errors = [Answered(429, {"retry-after": "120"})] * 20
    attempted(failing(*errors), how, naps, wait=wait_retry_after(jitter=2, now=lambda: NOW))
    assert all(120 <= nap <= 122 for nap in naps)
    assert len(set(naps)) > 10


def test_without_a_wish_of_the_provider_the_fallback_decides(clock: FakeClock) -> None:
    naps = Naps(clock)
    attempted(failing(TimeoutError()), "sync", naps, wait=wait_retry_after(wait_fixed(3)))
    assert naps == [3]


def test_a_wait_beyond_the_deadline_is_not_begun(governor: ab.Governor, clock: FakeClock) -> None:
    naps = Naps(clock)
    wait, stop = wait_retry_after(now=lambda: NOW), stop_when_unaffordable(current_tasks) | stop_before_delay(10_000)
    with ab.task("job", governor=governor, max_seconds=60), pytest.raises(Answered):
        attempted(failing(Answered(429, {"retry-after": "90"})), "sync", naps, wait=wait, stop=stop)
    assert naps == []


def test_it_judges_a_tool_and_a_node_of_a_chain_by_the_task_they_run_in(
    governor: ab.Governor, clock: FakeClock
) -> None:
    tried: list[int] = []

    @tool
    def flaky(n: int) -> str:
        """Fail."""
        tried.append(n)
        raise RuntimeError("flaky")

    def node(_: object) -> object:
        retrying = tenacity.Retrying(sleep=Naps(clock), stop=stop_when_unaffordable(current_tasks), reraise=True)
        return retrying(flaky.invoke, {"n": 1})

    with pytest.raises(RuntimeError, match="flaky"):
        RunnableLambda(node).invoke("go", {"callbacks": [ab.BudgetCallback(max_tool_calls=3, governor=governor)]})
    assert tried == [1, 1, 1]


@pytest.mark.parametrize("make", [lambda: wait_retry_after(jitter=-1), lambda: wait_retry_after(jitter=float("nan"))])
def test_a_jitter_that_cannot_be_one_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ab.ConfigurationError, match="jitter"):
        make()


def test_a_task_instead_of_a_function_is_an_error_that_names_the_fix(governor: ab.Governor) -> None:
    given: Any = "job"
    with pytest.raises(ab.ConfigurationError, match="current_tasks"):
        stop_when_unaffordable(given)
