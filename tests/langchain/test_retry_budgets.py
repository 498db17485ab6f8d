"""Retry budgets: of a task, of one operation, and a ratio that many tasks share; each says which one refused."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.runnables import RunnableLambda

import agentbudget as ab
from agentbudget.domain.accounts import Account, Balance
from agentbudget.domain.retries import split
from agentbudget.errors import LedgerUnavailableError
from agentbudget.langchain import transport
from agentbudget.langchain.acting import current_tasks
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.testing import FakeClock, ProviderServer, Reply, ScriptedChatModel
from tests.langchain.actors import HELLO, answer, scripted
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import metered, openai, report_of, using

HOUR = 3600


def failing() -> ScriptedChatModel:
    return scripted(ConnectionError("no route"))


def tried(model: ScriptedChatModel, governor: ab.Governor, **options: Any) -> ab.BudgetExceeded | None:
    """A task that tries a model which fails, four times; the refusal, if there was one."""
    try:
        with ab.task("t", governor=governor, **options):
            for _ in range(4):
                try:
                    model.invoke("q")
                except ConnectionError:
                    continue
    except ab.BudgetExceeded as stop:
        return stop
    return None


# -- one operation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 2])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_operation_is_retried_so_often_and_no_oftener(
    most: int, new_governor: NewGovernor, *, asynchronous: bool
) -> None:
    model = failing()
    retrying = model.with_retry(stop_after_attempt=5, wait_exponential_jitter=False)
    callback = metered(new_governor(), max_retries_per_call=most)
    with pytest.raises(ab.BudgetExceeded) as stop:
        _ = (
            asyncio.run(retrying.ainvoke("q", using(callback)))
            if asynchronous
            else retrying.invoke("q", using(callback))
        )
    assert len(model.calls) == 1 + most
    assert (stop.value.stop.limit, stop.value.stop.limit_amount) == ("max_retries_per_call", most)
    assert f"max_retries_per_call of task {stop.value.stop.task_id} is {most}" in stop.value.stop.reason
    assert "raise max_retries_per_call" in stop.value.stop.remedy


def test_other_operations_have_retries_of_their_own(new_governor: NewGovernor) -> None:
    model = scripted(ConnectionError(), answer(), ConnectionError(), answer(), ConnectionError(), answer())
    with ab.task("t", max_retries_per_call=1, governor=new_governor()) as t:
        for question in "abc":
            model.with_retry(wait_exponential_jitter=False).invoke(question)
    assert (t.report.retries, t.report.status) == (3, "completed")


def test_the_limit_of_an_outer_task_stops_the_outer_task(new_governor: NewGovernor) -> None:
    governor, model = new_governor(), failing()
    with ab.task("outer", max_retries_per_call=1, governor=governor) as outer:
        stop = tried(model, governor)
        with pytest.raises(ab.BudgetExceeded):
            model.invoke("q")
    assert stop is not None
    assert (len(model.calls), stop.stop.task_id, outer.report.status) == (2, outer.id, "stopped")


def test_hidden_retries_of_a_client_count(new_governor: NewGovernor) -> None:
    with ProviderServer(lambda _: Reply(status=500)) as server:
        model = transport.watch(openai(server, max_retries=5))
        callback = metered(new_governor(), max_retries_per_call=2)
        with pytest.raises(ab.BudgetExceeded, match="max_retries_per_call"):
            model.invoke("q", using(callback))
        assert len(server.requests) == 3


def test_tenacity_stops_before_the_attempt_that_would_be_refused(new_governor: NewGovernor) -> None:
    model = failing()
    with ab.task("t", max_retries_per_call=1, governor=new_governor()) as t:
        with pytest.raises(ConnectionError):
            model.invoke("q")
        assert current_tasks()[0].next_attempt() is None
        with pytest.raises(ConnectionError):
            model.invoke("q")
        stop = current_tasks()[0].next_attempt()
        assert stop is not None
        assert stop.limit == "max_retries_per_call"
    assert t.report.status == "completed", "asking changes nothing"


@pytest.mark.parametrize("inner", [None, 1])
def test_law_15_a_refused_retry_is_replayed(inner: int | None, new_governor: NewGovernor, tmp_path: Path) -> None:
    governor = new_governor(trace=tmp_path / "t.jsonl")
    model = failing()
    with ab.task("outer", max_retries_per_call=2, governor=governor):
        tried(model, governor, max_retries_per_call=inner)
        tried(model, governor)
        with pytest.raises(ab.BudgetExceeded):
            model.invoke("q")
    governor.close()
    trace = ab.Trace.load(tmp_path / "t.jsonl")
    assert trace.replay().diverged_at is None
    assert trace.replay(budget=ab.Budget(max_retries_per_call=0)).diverged_at is not None


# -- a ratio over many tasks -----------------------------------------------------------------------------------------


def ratio(**options: Any) -> ab.RetryRatio:
    return ab.RetryRatio(0.1, **{"scope": "feature", "minimum": 3, **options})


def test_a_failing_provider_costs_a_tenth_more_not_three_times_as_much(new_governor: NewGovernor) -> None:
    governor = new_governor(limits=[ratio()])
    model = failing()
    stops = [tried(model, governor, feature="search") for _ in range(200)]
    first = next(each for each in stops if each is not None)
    firsts = 200
    assert len(model.calls) == firsts + firsts // 10, "800 without it"
    assert first.stop.limit == "the feature retry budget (10% of 2 calls, at least 3)"
    assert "feature search" in first.stop.reason
    assert first.stop.meter == "retries"


def test_a_ratio_counts_for_each_scope_and_window(new_governor: NewGovernor, clock: FakeClock) -> None:
    governor = new_governor(limits=[ratio(window="hour")])
    model = failing()

    def until_refused(feature: str) -> int:
        before = len(model.calls)
        while tried(model, governor, feature=feature) is None:
            pass
        return len(model.calls) - before

    first = until_refused("search")
    assert until_refused("other") == first
    assert until_refused("search") == 1, "a first attempt, and no retry"
    clock.advance(HOUR)
    assert until_refused("search") == first
    assert [tried(model, governor) for _ in range(9)] == [None] * 9, "without the tag it does not apply"


def test_threads_do_not_pass_a_ratio_together(new_governor: NewGovernor) -> None:
    governor = new_governor(limits=[ratio(minimum=5)])
    model = failing()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: tried(model, governor, feature="search"), range(40)))
    assert len(model.calls) <= 40 + 5


def test_work_that_succeeds_is_never_refused_by_a_ratio(new_governor: NewGovernor) -> None:
    governor = new_governor(limits=[ratio(), ab.Limit("model_calls", 1_000, scope="feature", window="hour")])
    model = scripted()
    agent = create_agent(model, [], middleware=[ModelRetryMiddleware(max_retries=2)])
    for _ in range(30):
        with ab.task("t", feature="search", governor=governor) as t:
            agent.invoke(HELLO)
        assert t.report.status == "completed"


def test_a_ratio_in_observe_mode_tells_and_lets_go_on(new_governor: NewGovernor) -> None:
    governor = new_governor(limits=[ratio(minimum=1)], mode="observe")
    model = failing()
    with ab.task("t", feature="search", governor=governor) as t:
        for _ in range(4):
            with pytest.raises(ConnectionError):
                model.invoke("q")
    assert t.report.would_stop is not None
    assert t.report.would_stop.limit.startswith("the feature retry budget")


class Unreadable(MemoryLedger):
    """A ledger whose balances cannot be read."""

    def balance(self, account: Account) -> Balance:
        raise LedgerUnavailableError(f"no route to {account}")


def test_with_balances_out_of_reach_only_the_minimum_is_allowed(clock: FakeClock) -> None:
    governor = ab.Governor(ledger=Unreadable(clock), limits=[ratio(minimum=2)], clock=clock)
    stop = tried(failing(), governor, feature="search")
    assert stop is not None
    assert "at least 2" in stop.stop.limit


def test_law_15_a_refusal_by_a_ratio_is_replayed(new_governor: NewGovernor, tmp_path: Path) -> None:
    governor = new_governor(limits=[ratio(minimum=1)], trace=tmp_path / "t.jsonl")
    assert tried(failing(), governor, feature="search") is not None
    governor.close()
    replayed = ab.Trace.load(tmp_path / "t.jsonl").replay()
    assert replayed.diverged_at is None
    assert replayed.stopped_by is not None
    assert replayed.stopped_by.limit.startswith("the feature retry budget")


def test_a_ratio_that_means_nothing_is_refused() -> None:
    for wrong in (0, -0.1, 1.5, True, "10%", float("nan")):
        with pytest.raises(ab.ConfigurationError, match="max_ratio"):
            ab.RetryRatio(wrong, scope="feature")  # type: ignore[arg-type]  # what a user may try
    for minimum in (0, 1.5, True):
        with pytest.raises(ab.ConfigurationError, match="minimum"):
            ab.RetryRatio(0.1, scope="feature", minimum=minimum)  # type: ignore[arg-type]  # the same
    with pytest.raises(TypeError, match="minimum"):
        ab.RetryRatio(0.1, scope="feature", minimun=3)  # type: ignore[arg-type]  # the same
    with pytest.raises(ab.ConfigurationError, match="not a Limit"):
        split([7])


def test_a_chain_that_is_retried_as_a_whole_says_which_budget_refused(new_governor: NewGovernor) -> None:
    model = failing()
    chain = (RunnableLambda(lambda given: given) | model).with_retry(
        stop_after_attempt=4, wait_exponential_jitter=False
    )
    callback = metered(new_governor(), max_retries=1, max_retries_per_call=3)
    with pytest.raises(ab.BudgetExceeded) as stop:
        chain.invoke("q", using(callback))
    assert stop.value.stop.limit == "max_retries"
    assert report_of(callback).by_layer["with_retry"].calls == 1
