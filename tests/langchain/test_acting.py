"""The acting core: a call is made to fit before it is made, and reserved once."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool

import agentbudget as ab
from agentbudget.domain.verdict import StopReport
from agentbudget.governor.governor import Governor
from agentbudget.governor.waiting import Waiter
from agentbudget.langchain import abilities
from agentbudget.langchain.acting import Acting, Prepared, aprepare, current_tasks, hand_over, prepare
from agentbudget.testing import FakeClock, ProviderServer, Reply, ScriptedChatModel, scripted_reply
from agentbudget.trace import events
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import anthropic, nanos, openai, search

DIME = {"dime": {"input": "0", "output": "10"}}
"""A model whose 10,000 tokens of output cost ten cents, and whose input is free."""
BRANCHES = 32
ASK = [HumanMessage("a")]


def dime(*, cents: int, cap: int | None = 10_000, **options: Any) -> ScriptedChatModel:
    """A model that may cost ten cents a call, and costs *cents*."""
    reply = scripted_reply("ok", input_tokens=5, output_tokens=cents * 1_000)
    return ScriptedChatModel(script=[reply], repeat_last=True, model_name="dime", max_tokens=cap, **options)


def call(model: BaseChatModel, options: Acting) -> AIMessage | StopReport:
    """One call, planned and made."""
    prepared = prepare(model, ASK, {}, current_tasks(), options)
    if isinstance(prepared, StopReport):
        return prepared
    with hand_over(prepared):
        return prepared.model.invoke(ASK, **prepared.settings)


async def acall(model: BaseChatModel, options: Acting) -> AIMessage | StopReport:
    """One call, planned and made, asynchronously."""
    prepared = await aprepare(model, ASK, {}, current_tasks(), options)
    if isinstance(prepared, StopReport):
        return prepared
    with hand_over(prepared):
        return await prepared.model.ainvoke(ASK, **prepared.settings)


def in_threads(count: int, work: Callable[[], Any], meanwhile: Callable[[], None]) -> list[Any]:
    """The results of *count* threads that do *work* in this context."""
    with ThreadPoolExecutor(count) as pool:
        futures: list[Future[Any]] = [pool.submit(contextvars.copy_context().run, work) for _ in range(count)]
        meanwhile()
        return [future.result(timeout=30) for future in futures]


def run_branches(how: str, model: ScriptedChatModel, options: Acting) -> list[Any]:
    """32 calls at once; the first ten are held in flight until the others had to look for room."""
    assert model.gate is not None

    def release() -> None:
        model.record.wait_for(10)
        assert model.gate is not None
        model.gate.set()

    if how == "threads":
        return in_threads(BRANCHES, lambda: call(model, options), release)

    async def gather() -> list[Any]:
        freed = asyncio.get_running_loop().run_in_executor(None, release)
        answers = await asyncio.wait_for(asyncio.gather(*[acall(model, options) for _ in range(BRANCHES)]), 30)
        await freed
        return answers

    return asyncio.run(gather())


@pytest.fixture
def dimes(new_governor: NewGovernor) -> Governor:
    return new_governor(prices=DIME)


class TestWaiting:
    @pytest.mark.parametrize("how", ["threads", "asyncio"])
    def test_branches_that_cost_less_than_their_worst_case_all_complete(self, how: str, dimes: Governor) -> None:
        model = dime(cents=2, gate=threading.Event())
        with ab.task("fan-out", max_cost="$1.00", governor=dimes) as task:
            answers = run_branches(how, model, Acting.of())
        assert [type(answer) for answer in answers] == [AIMessage] * BRANCHES
        assert task.report.cost == Decimal("0.64")
        assert task.report.stopped_by is None

    @pytest.mark.parametrize("how", ["threads", "asyncio"])
    def test_branches_that_cost_their_worst_case_use_the_budget_up_and_no_more(self, how: str, dimes: Governor) -> None:
        model = dime(cents=10, gate=threading.Event())
        with ab.task("fan-out", max_cost="$1.00", governor=dimes) as task:
            answers = run_branches(how, model, Acting.of())
        refused = [answer for answer in answers if isinstance(answer, StopReport)]
        assert Decimal("0.90") <= task.report.cost <= Decimal("1.00")
        assert len(model.calls) + len(refused) == BRANCHES
        assert all(stop.limit == "max_cost" for stop in refused)

    def test_a_call_never_waits_for_the_tool_it_runs_in(self, new_governor: NewGovernor) -> None:
        governor = new_governor(prices={**DIME, "tool:ask": "$0.95"}, clock=None)
        model, options = dime(cents=1), Acting.of(wait=1)

        @tool
        def ask(question: str) -> str:
            """Ask."""
            return type(call(model, options)).__name__

        with ab.task("nested", max_cost="$1.00", governor=governor) as task:
            assert ask.invoke({"question": "a"}) == "AIMessage"
        assert model.calls[0].kwargs == {"max_tokens": 5000}
        assert [action["action"] for action in task.report.actions] == ["shrink"]

    def test_two_tools_whose_calls_wait_for_each_others_tool_do_not_wait_for_ever(
        self, new_governor: NewGovernor
    ) -> None:
        governor = new_governor(prices={**DIME, "tool:ask": "$0.47"}, clock=None)
        model, options, both = dime(cents=1), Acting.of(wait=5), threading.Barrier(2, timeout=20)

        @tool
        def ask(question: str) -> str:
            """Ask."""
            both.wait()
            return type(call(model, options)).__name__

        with ab.task("nested", max_cost="$1.00", governor=governor) as task:
            answers = in_threads(2, lambda: ask.invoke({"question": "a"}), lambda: None)
        assert answers == ["AIMessage", "AIMessage"]
        assert task.report.cost == Decimal("0.96")
        waited = [action["numbers"]["seconds"] for action in task.report.actions if action["action"] == "wait"]
        assert all(seconds < 5 for seconds in waited)

    def test_who_came_first_is_served_first(self, dimes: Governor) -> None:
        """A large call at the head is not overtaken by small ones that would fit before it."""
        order: list[str] = []
        large, small = dime(cents=1, cap=60_000), dime(cents=1, cap=5_000)

        async def queue_up() -> None:
            with ab.task("queue", max_cost="$1.00", governor=dimes):
                tasks = current_tasks()
                first = prepare(dime(cents=1, cap=90_000), ASK, {}, tasks, Acting.of())
                assert isinstance(first, Prepared)

                async def queued(name: str, model: BaseChatModel) -> None:
                    prepared = await aprepare(model, ASK, {}, tasks, Acting.of())
                    assert isinstance(prepared, Prepared)
                    order.append(name)
                    assert prepared.offered is not None
                    prepared.offered.release()

                waiting = [asyncio.create_task(queued("large", large))]
                await _until(lambda: len(dimes.waiting) == 1)
                waiting.append(asyncio.create_task(queued("small", small)))
                await _until(lambda: len(dimes.waiting) == 2)
                with hand_over(first):
                    pass
                await asyncio.wait_for(asyncio.gather(*waiting), 20)

        asyncio.run(queue_up())
        assert order == ["large", "small"]

    def test_a_cancelled_wait_leaves_nothing_behind(self, dimes: Governor) -> None:
        async def cancel() -> None:
            with ab.task("cancelled", max_cost="$0.10", governor=dimes):
                first = prepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of())
                assert isinstance(first, Prepared)
                waiting = asyncio.create_task(aprepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of()))
                await _until(lambda: len(dimes.waiting) == 1)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert len(dimes.waiting) == 0
                with hand_over(first):
                    pass

        asyncio.run(cancel())

    def test_a_wait_ends_at_its_time_with_the_reason(self, dimes: Governor, clock: FakeClock) -> None:
        async def wait_too_long() -> Prepared | StopReport:
            with ab.task("impatient", max_cost="$0.10", governor=dimes):
                first = prepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of())
                assert isinstance(first, Prepared)
                with hand_over(first):
                    waiting = asyncio.create_task(aprepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of(wait=5)))
                    await _until(lambda: len(dimes.waiting) == 1)
                    clock.advance(5)
                    dimes.waiting.changed()
                    return await waiting

        stop = asyncio.run(wait_too_long())
        assert isinstance(stop, StopReport)
        assert stop.reserved == 100_000_000
        assert "wait for the calls in flight" in stop.remedy

    def test_a_sync_call_on_an_event_loop_does_not_block_it(self, dimes: Governor) -> None:
        async def on_the_loop() -> None:
            with ab.task("loop", max_cost="$0.10", governor=dimes):
                first = prepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of())
                assert isinstance(first, Prepared)
                assert isinstance(prepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of()), StopReport)
                with hand_over(first):
                    pass

        asyncio.run(on_the_loop())

    @pytest.mark.parametrize("end", ["settled", "given back", "refused"])
    def test_whatever_ends_a_call_wakes_who_waits(self, end: str, dimes: Governor) -> None:
        woken: list[str] = []
        with ab.task("woken", max_cost="$0.15", governor=dimes):
            prepared = prepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of())
            assert isinstance(prepared, Prepared)
            waiter = Waiter(frozenset(), (), lambda: woken.append(end))
            dimes.waiting.enter(waiter)
            with hand_over(prepared):
                if end == "settled":
                    prepared.model.invoke(ASK)
                elif end == "refused":
                    with pytest.raises(ab.BudgetExceeded):
                        dime(cents=1).invoke([HumanMessage("another")], max_tokens=20_000)
                if end != "given back":
                    assert woken
            assert woken
            dimes.waiting.leave(waiter)


class TestHandOver:
    def test_a_prepared_call_is_reserved_once_under_the_id_of_its_run(self, new_governor: NewGovernor) -> None:
        told: list[events.Event] = []
        governor = new_governor(prices=DIME, sinks=[told.append])
        with ab.task("once", max_cost="$0.15", governor=governor) as task:
            answer = call(dime(cents=1), Acting.of())
        reserved = [event for event in told if isinstance(event, events.CallReserved)]
        settled = [event for event in told if isinstance(event, events.CallSettled)]
        assert isinstance(answer, AIMessage)
        assert [event.cost for event in reserved] == [100_000_000]
        assert [event.call for event in reserved] == [event.call for event in settled]
        assert task.report.model_calls == 1
        assert task.report.cost == Decimal("0.01")

    def test_a_reservation_nobody_takes_is_given_back_untold(self, new_governor: NewGovernor) -> None:
        told: list[events.Event] = []
        governor = new_governor(prices=DIME, sinks=[told.append])
        with ab.task("unused", max_cost="$1", governor=governor):
            prepared = prepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of())
            assert isinstance(prepared, Prepared)
            with pytest.raises(LookupError), hand_over(prepared):
                raise LookupError
        assert not any(isinstance(event, events.CallReserved | events.CallReleased) for event in told)

    def test_another_request_to_the_model_reserves_for_itself(self, dimes: Governor) -> None:
        with ab.task("edited", max_cost="$0.15", governor=dimes) as task:
            prepared = prepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of())
            assert isinstance(prepared, Prepared)
            with hand_over(prepared):
                prepared.model.invoke([*ASK, HumanMessage("and more")])
        assert task.report.model_calls == 1

    def test_another_model_called_on_the_way_leaves_the_reservation_alone(self, dimes: Governor) -> None:
        other = ScriptedChatModel(script=[scripted_reply("ok", input_tokens=5, output_tokens=5)], max_tokens=10)
        with ab.task("on the way", max_cost="$0.15", governor=dimes) as task:
            prepared = prepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of())
            assert isinstance(prepared, Prepared)
            with hand_over(prepared):
                other.invoke(ASK)
                prepared.model.invoke(ASK)
        assert task.report.model_calls == 2

    def test_a_call_cut_off_without_an_end_is_charged_as_cancelled(self, dimes: Governor) -> None:
        model = dime(cents=1, gate=threading.Event())

        async def cancel() -> None:
            calling = asyncio.create_task(acall(model, Acting.of()))
            await _until(lambda: len(model.calls) == 1)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling

        with ab.task("cancelled", max_cost="$0.15", governor=dimes) as task:
            asyncio.run(cancel())
            assert task.report.reserved == 0
        assert task.report.cost == Decimal("0.10")

    def test_a_refusal_by_prepare_latches_nothing(self, dimes: Governor) -> None:
        with ab.task("lenient", max_cost="$0.02", governor=dimes) as task:
            stop = prepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of(min_output_tokens=5_000))
            assert isinstance(stop, StopReport)
            assert isinstance(call(dime(cents=1, cap=2_000), Acting.of()), AIMessage)
        assert task.report.stopped_by is None

    def test_in_observe_mode_nothing_is_changed(self, new_governor: NewGovernor) -> None:
        governor = new_governor(prices=DIME, mode="observe")
        with ab.task("observed", max_cost="$0.01", governor=governor) as task:
            assert isinstance(call(model := dime(cents=1), Acting.of()), AIMessage)
        assert model.calls[0].kwargs == {}
        assert task.report.model_calls == 1


class TestShrinking:
    @pytest.mark.parametrize("client", ["chat", "chat without a cap", "responses", "anthropic", "kwargs"])
    def test_the_cap_reaches_the_provider_whatever_the_client_calls_it(self, client: str, governor: Governor) -> None:
        params: dict[str, Any] = {}
        with ProviderServer() as server:
            models: dict[str, Callable[[], BaseChatModel]] = {
                "chat": lambda: openai(server, max_tokens=5_000),
                "chat without a cap": lambda: openai(server, max_tokens=None),
                "responses": lambda: openai(server, max_tokens=5_000, use_responses_api=True),
                "anthropic": lambda: anthropic(server, max_tokens=5_000),
                "kwargs": lambda: openai(server, max_tokens=None),
            }
            params = {"max_tokens": 5_000} if client == "kwargs" else {}
            with ab.task("shrunk", max_cost="$0.01", governor=governor) as task:
                prepared = prepare(models[client](), ASK, params, current_tasks(), Acting.of())
                assert isinstance(prepared, Prepared)
                with hand_over(prepared):
                    prepared.model.invoke(ASK, **{**params, **prepared.settings})
            (cap,) = {*prepared.settings.values()}
            assert server.requests[0].output_cap == cap < 5_000
        assert prepared.actions == ("shrink",)
        assert task.report.actions[0]["action"] == "shrink"

    def test_what_fits_is_left_as_it_is(self, dimes: Governor) -> None:
        with ab.task("roomy", max_cost="$1", governor=dimes):
            prepared = prepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of())
            assert isinstance(prepared, Prepared)
            with hand_over(prepared):
                pass
        assert (prepared.settings, prepared.actions) == ({}, ())

    def test_without_a_limit_on_output_nothing_is_capped(self, dimes: Governor) -> None:
        with ab.task("counted", max_model_calls=3, governor=dimes):
            prepared = prepare(dime(cents=1, cap=None), ASK, {}, current_tasks(), Acting.of())
            assert isinstance(prepared, Prepared)
            with hand_over(prepared):
                pass
        assert prepared.settings == {}

    def test_below_the_floor_the_call_is_refused_with_what_the_floor_would_need(self, dimes: Governor) -> None:
        with ab.task("poor", max_cost="$0.001", governor=dimes):
            stop = prepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of(min_output_tokens=256))
        assert isinstance(stop, StopReport)
        assert stop.requested == 256 * 10_000

    def test_thinking_is_left_room_for_besides_the_answer(self, governor: Governor) -> None:
        with ProviderServer() as server, ab.task("thinking", max_cost="$0.02", governor=governor):
            model = anthropic(server, max_tokens=5_000, thinking={"type": "enabled", "budget_tokens": 2_000})
            assert isinstance(prepare(model, ASK, {}, current_tasks(), Acting.of()), StopReport)

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        budget=st.integers(1, 50_000_000),
        prices=st.tuples(st.integers(1, 40_000), st.integers(1, 90_000)),
        answers=st.lists(st.integers(0, 6_000), min_size=1, max_size=6),
        cap=st.one_of(st.none(), st.integers(1, 8_000)),
        least=st.integers(1, 600),
    )
    def test_with_a_provider_that_honours_caps_the_budget_is_a_guarantee(
        self, budget: int, prices: tuple[int, int], answers: list[int], cap: int | None, least: int
    ) -> None:
        read, written = prices
        price = {"input": Decimal(read) / 1_000, "output": Decimal(written) / 1_000}
        governor, options = ab.Governor(prices={"gpt-4o": price}), Acting.of(min_output_tokens=least)
        replies = [Reply(text="word " * count) for count in answers]
        with ProviderServer(replies) as server:
            model = openai(server, max_tokens=cap)
            with ab.task("guaranteed", max_cost=Decimal(budget) * Decimal("1e-9"), governor=governor) as task:
                for _ in answers:
                    call(model, options)
            spent = server.cost_nanos(input_nanos=read, output_nanos=written)
        assert nanos(task.report.cost) == spent <= budget
        assert task.report.overrun == 0
        assert governor.ledger.verify().ok


async def _until(true: Callable[[], bool]) -> None:
    """Let the loop run until *true* is."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0)


def test_tools_count_in_the_plan_as_they_do_in_the_call(dimes: Governor) -> None:
    """The plan sees tools as they were given, the handler as they are sent: both reserve the same."""
    model = dime(cents=1)
    with ab.task("tools", max_cost="$1", governor=dimes):
        for tools in ([search], [convert_to_openai_tool(search)]):
            prepared = prepare(model, ASK, {"tools": tools}, current_tasks(), Acting.of())
            assert isinstance(prepared, Prepared)
            with hand_over(prepared):
                prepared.model.bind_tools([search]).invoke(ASK)
    report = dimes.reports[-1]
    assert report.model_calls == 2


class TestSeveralGovernors:
    def test_each_reserves_once_and_both_are_charged(self, new_governor: NewGovernor) -> None:
        one, two = new_governor(prices=DIME), new_governor(prices=DIME)
        with (
            ab.task("outer", max_cost="$0.15", governor=one) as outer,
            ab.task("inner", max_cost="$0.15", governor=two) as inner,
        ):
            assert isinstance(call(dime(cents=1), Acting.of()), AIMessage)
        assert (outer.report.cost, inner.report.cost) == (Decimal("0.01"), Decimal("0.01"))

    def test_a_refusal_of_one_gives_back_what_the_other_held(self, new_governor: NewGovernor) -> None:
        one, two = new_governor(prices=DIME), new_governor(prices=DIME)
        with (
            ab.task("outer", max_cost="$0.05", governor=one) as outer,
            ab.task("inner", max_cost="$0.15", governor=two) as inner,
        ):
            assert isinstance(prepare(dime(cents=1), ASK, {}, current_tasks(), Acting.of()), StopReport)
            assert not outer.report.reserved
            assert not inner.report.reserved
            assert all(two.ledger.balance(account).reserved == 0 for account in two.ledger.accounts())


def test_the_schema_of_a_tool_is_made_once_and_keeps_no_tool_alive() -> None:
    @tool
    def look(n: int) -> str:
        """Look."""
        return str(n)

    assert abilities.schemas_of([look])[0] is abilities.schemas_of([look])[0]
    alive = weakref.ref(look)
    del look
    gc.collect()
    assert alive() is None
