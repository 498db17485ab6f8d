"""Law 14: every stop says which limit, whose, with which numbers, and what would have let it go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

import agentbudget as ab
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.testing import (
    FakeClock,
    ScriptedChatModel,
    scripted_reply,
)
from tests.langchain.support import in_chain, metered, nanos, report_of, search, using

REPLY = scripted_reply("ok", input_tokens=100, output_tokens=10)


def five_calls(governor: ab.Governor, *, tags: dict[str, str] | None = None, **limits: Any) -> ab.StopReport:
    """Why a task of up to five rounds of model and tool was stopped."""
    model = ScriptedChatModel(script=[REPLY], repeat_last=True, max_tokens=100)

    def work(_: Any) -> None:
        for number in range(5):
            model.invoke("hi")
            search.invoke({"query": str(number)})

    callback = ab.BudgetCallback(governor=governor, tags=tags, name="five", **limits)
    with pytest.raises(ab.BudgetExceeded) as raised:
        RunnableLambda(work).invoke(1, config=using(callback))
    report = report_of(callback)
    assert report.stopped_by == raised.value.stop
    assert raised.value.report == report
    assert raised.value.stop.task == "five"
    assert raised.value.stop.task_id == report.task_id
    assert str(raised.value).startswith("Stopped: ")
    return raised.value.stop


@pytest.mark.parametrize(
    ("option", "most", "meter", "settled", "refused"),
    [
        ("max_cost", "$0.0012", "cost", 350_000, "model gpt-4o"),
        ("max_total_tokens", 350, "total_tokens", 110, "model gpt-4o"),
        ("max_output_tokens", 110, "output_tokens", 20, "model gpt-4o"),
        ("max_uncached_tokens", 350, "uncached_tokens", 110, "model gpt-4o"),
        ("max_model_calls", 3, "model_calls", 3, "model gpt-4o"),
        ("max_tool_calls", 2, "tool_calls", 2, "tool search"),
    ],
)
def test_law_14_the_stop_names_the_limit_and_its_numbers(
    governor: ab.Governor, option: str, most: Any, meter: str, settled: int, refused: str
) -> None:
    stop = five_calls(governor, **{option: most})
    assert (stop.limit, stop.meter, stop.call) == (option, meter, refused)
    assert stop.scope == f"task {stop.task_id}"
    assert stop.settled >= settled
    assert stop.settled + stop.reserved + stop.presumed + stop.requested > (stop.limit_amount or 0)
    assert stop.limit_amount == (1_200_000 if option == "max_cost" else most)
    assert stop.last_calls
    assert f"raise {option} to at least" in stop.remedy


def test_law_14_what_the_stop_proposes_lets_the_call_go_on(governor: ab.Governor) -> None:
    stop = five_calls(governor, max_model_calls=3)
    assert "raise max_model_calls to at least 4 (1 more)" in stop.remedy
    assert five_calls(governor, max_model_calls=4).settled == 4


def test_law_14_input_tokens(governor: ab.Governor) -> None:
    model = ScriptedChatModel(script=[REPLY])
    with pytest.raises(ab.BudgetExceeded) as raised:
        model.invoke("word " * 500, config=using(metered(governor, max_input_tokens=100)))
    assert raised.value.stop.limit == "max_input_tokens"
    assert raised.value.stop.requested > 100


def test_law_14_the_limit_of_one_tool(governor: ab.Governor) -> None:
    stop = five_calls(governor, tools={"search": 2})
    assert (stop.limit, stop.call, stop.settled, stop.limit_amount) == ("tools['search']", "tool search", 2, 2)
    assert "tool search" in stop.scope


def test_law_14_retries(governor: ab.Governor) -> None:
    model = ScriptedChatModel(script=[ValueError("no")], repeat_last=True)
    with pytest.raises(ab.BudgetExceeded) as raised:
        model.with_retry(stop_after_attempt=9, wait_exponential_jitter=False).invoke(
            "hi", config=using(metered(governor, max_retries=2))
        )
    assert len(model.calls) == 3
    assert (raised.value.stop.limit, raised.value.stop.settled) == ("max_retries", 2)


def test_law_14_seconds(clock: FakeClock, governor: ab.Governor) -> None:
    def slow(_: Any) -> AIMessage:
        clock.advance(20)
        return REPLY

    model = ScriptedChatModel(script=[slow], repeat_last=True)
    callback = metered(governor, max_seconds=30)
    with pytest.raises(ab.BudgetExceeded) as raised:
        in_chain(lambda _: [model.invoke("hi") for _ in range(5)], callback)
    stop = raised.value.stop
    assert (stop.limit, stop.meter, stop.settled, stop.limit_amount) == ("max_seconds", "seconds", 40, 30)
    assert len(model.calls) == 2
    assert stop.last_calls
    assert "max_seconds of" in stop.reason


def test_law_14_a_shared_limit_names_its_scope_and_window(clock: FakeClock) -> None:
    limit = ab.Limit(meter="model_calls", amount=3, scope="team", window="month")
    governor = ab.Governor(limits=[limit], clock=clock)
    stop = five_calls(governor, tags={"team": "cx"})
    assert "team" in stop.limit
    assert stop.scope == "team cx"
    assert stop.window == "2026-01"
    assert (stop.settled, stop.limit_amount) == (3, 3)
    again = five_calls(governor, tags={"team": "cx"})
    assert again.settled == 3
    assert five_calls(governor, tags={"team": "ops"}).scope == "team ops"


def test_law_14_an_unpriced_model(governor: ab.Governor) -> None:
    model = ScriptedChatModel(script=[REPLY], model_name="in-house-7b", provider="acme")
    with pytest.raises(ab.BudgetExceeded) as raised:
        model.invoke("hi", config=using(metered(governor, max_cost="$1")))
    assert raised.value.stop.limit == "unpriced"
    assert "prices=" in raised.value.stop.remedy
    assert "to go on" in str(raised.value)


class Unreachable(MemoryLedger):
    """A ledger that answers nothing while it is down."""

    down = False

    def reserve(self, *args: Any, **kwargs: Any) -> Any:
        if self.down:
            msg = "connection refused"
            raise ab.LedgerUnavailableError(msg)
        return super().reserve(*args, **kwargs)


def test_law_14_a_ledger_out_of_reach_refuses_and_says_so(clock: FakeClock) -> None:
    ledger = Unreachable(clock)
    governor = ab.Governor(ledger=ledger, clock=clock)
    model = ScriptedChatModel(script=[REPLY], repeat_last=True)
    ledger.down = True
    with pytest.raises(ab.BudgetExceeded) as raised:
        model.invoke("hi", config=using(metered(governor, max_cost="$1")))
    assert model.calls == ()
    assert raised.value.stop.limit == "ledger"
    assert "connection refused" in raised.value.stop.remedy
    ledger.down = False
    model.invoke("hi", config=using(metered(governor, max_cost="$1")))
    assert len(model.calls) == 1


def test_law_14_calls_in_flight_are_told_apart_from_what_was_spent(governor: ab.Governor) -> None:
    stops: list[ab.StopReport] = []
    small = ScriptedChatModel(script=[REPLY], repeat_last=True, max_tokens=100)

    def meanwhile(_: Any) -> AIMessage:
        with pytest.raises(ab.BudgetExceeded) as raised:
            small.invoke("hi")
        stops.append(raised.value.stop)
        return REPLY

    outer = ScriptedChatModel(script=[meanwhile], max_tokens=100)
    in_chain(lambda _: outer.invoke("hi"), metered(governor, max_cost="$0.0018"))
    (stop,) = stops
    assert stop.settled == 0
    assert stop.reserved > 0
    assert "wait for the calls in flight" in stop.remedy


# -- observe -----------------------------------------------------------------------------------------------------------


def test_observe_stops_nothing_and_records_everything(clock: FakeClock) -> None:
    governor = ab.Governor(mode="observe", clock=clock)

    def slow(_: Any) -> AIMessage:
        clock.advance(20)
        return REPLY

    model = ScriptedChatModel(script=[slow], repeat_last=True, max_tokens=100)
    callback = metered(governor, max_cost="$0.0012", max_model_calls=2, max_seconds=50, tools={"search": 1})

    def work(_: Any) -> None:
        for number in range(5):
            model.invoke("hi")
            search.invoke({"query": str(number)})

    RunnableLambda(work).invoke(1, config=using(callback))
    report = report_of(callback)
    assert (report.model_calls, report.tool_calls) == (5, 5)
    assert nanos(report.cost) == 5 * 350_000
    assert report.usage.input_tokens == 500
    assert report.status == "completed"
    assert report.stopped_by is None
    assert report.would_stop is not None
    assert report.would_deny >= 6
    assert report.coverage == 1


def test_observe_lets_an_unpriced_model_run_and_shows_it(clock: FakeClock) -> None:
    governor = ab.Governor(mode="observe", clock=clock)
    model = ScriptedChatModel(script=[REPLY], model_name="in-house-7b", provider="acme")
    callback = metered(governor, max_cost="$1")
    model.invoke("hi", config=using(callback))
    report = report_of(callback)
    assert (nanos(report.cost), report.coverage, report.would_deny) == (0, 0, 1)
    assert report.usage.input_tokens == 100


def test_observe_lets_a_ledger_out_of_reach_pass(clock: FakeClock) -> None:
    ledger = Unreachable(clock)
    governor = ab.Governor(ledger=ledger, clock=clock, mode="observe")
    ledger.down = True
    callback = metered(governor, max_cost="$1")
    ScriptedChatModel(script=[REPLY]).invoke("hi", config=using(callback))
    assert nanos(report_of(callback).cost) == 350_000


async def test_two_tasks_side_by_side_stop_apart(governor: ab.Governor) -> None:
    model = ScriptedChatModel(script=[REPLY], repeat_last=True, max_tokens=100)
    callback = metered(governor, max_model_calls=2)

    async def work(calls: int) -> int:
        for _ in range(calls):
            await model.ainvoke("hi")
        return calls

    chain = RunnableLambda(work)
    ended = await asyncio.gather(
        *(chain.ainvoke(calls, config=using(callback)) for calls in (1, 2, 3)), return_exceptions=True
    )
    assert ended[:2] == [1, 2]
    assert isinstance(ended[2], ab.BudgetExceeded)
    assert len(model.calls) == 5
