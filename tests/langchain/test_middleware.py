"""`BudgetMiddleware`: one task per agent run, counted once, landed where it belongs."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
)
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

import agentbudget as ab
from agentbudget.testing import FakeClock, assert_valid_history
from tests.langchain.actors import CALL, answer, asking, scripted
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import search

HELLO: Any = {"messages": [("user", "hello")]}
THREAD: Any = {"configurable": {"thread_id": "t"}}


def _run(agent: Any, given: Any = HELLO, config: Any = None, *, asynchronous: bool = False) -> Any:
    return asyncio.run(agent.ainvoke(given, config)) if asynchronous else agent.invoke(given, config)


def _report(middleware: ab.BudgetMiddleware) -> ab.TaskReport:
    assert middleware.report is not None, "no task was closed"
    return middleware.report


def _actions(middleware: ab.BudgetMiddleware) -> list[str]:
    return [action["action"] for action in _report(middleware).actions]


# -- one task per run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [True, False])
def test_each_run_of_the_agent_is_one_task(governor: ab.Governor, *, asynchronous: bool) -> None:
    model = scripted(asking("search", 2, query="a"))
    middleware = ab.BudgetMiddleware(max_model_calls=9, governor=governor, name="lookup", tags={"feature": "support"})
    agent = create_agent(model, [search], middleware=[middleware])
    for _ in range(2):
        _run(agent, asynchronous=asynchronous)
    assert [(r.status, r.model_calls, r.tool_calls, r.cost) for r in middleware.reports] == [
        ("completed", 3, 2, 3 * CALL)
    ] * 2
    assert _report(middleware).tags["feature"] == "support"
    assert len({report.task_id for report in middleware.reports}) == 2


def test_with_the_callback_attached_as_well_each_call_counts_once(governor: ab.Governor) -> None:
    model = scripted(asking("search", 2, query="a"))
    middleware = ab.BudgetMiddleware(max_model_calls=9, governor=governor)
    callback = ab.BudgetCallback(max_model_calls=9, governor=governor)
    with ab.task("around", governor=governor) as around:
        create_agent(model, [search], middleware=[middleware]).invoke(HELLO, {"callbacks": [callback]})
    assert callback.report is not None
    counted = [(r.model_calls, r.tool_calls, r.cost) for r in (_report(middleware), callback.report, around.report)]
    assert counted == [(3, 2, 3 * CALL)] * 3


def test_two_budgets_of_one_agent_hold_both(governor: ab.Governor) -> None:
    model = scripted(asking("search", 9, query="a"))
    loose = ab.BudgetMiddleware(max_model_calls=8, governor=governor, name="loose")
    tight = ab.BudgetMiddleware(max_tool_calls=1, governor=governor, name="tight", on_limit="end")
    result = create_agent(model, [search], middleware=[loose, tight]).invoke(HELLO)
    assert_valid_history(result["messages"])
    assert (_report(tight).tool_calls, _report(tight).status) == (1, "stopped")
    assert (_report(loose).model_calls, _report(loose).status) == (2, "completed")


def test_a_summariser_is_metered_although_no_middleware_is_asked(governor: ab.Governor) -> None:
    model = scripted(asking("search", 3, query="a"))
    summaries = scripted()
    for order in (0, 1):
        middleware = ab.BudgetMiddleware(max_model_calls=50, governor=governor)
        summarise = SummarizationMiddleware(model=summaries, trigger=("messages", 4), keep=("messages", 2))
        stack: list[Any] = [middleware, summarise]
        before = len(model.calls) + len(summaries.calls)
        create_agent(model, [search], middleware=stack[::-1] if order else stack).invoke(HELLO)
        assert summaries.calls
        assert _report(middleware).model_calls == len(model.calls) + len(summaries.calls) - before


def test_a_sub_agent_in_a_tool_draws_on_the_budget_and_its_stop_is_landed_outside(governor: ab.Governor) -> None:
    inner = scripted(asking("search", 99, query="b"))
    outer = scripted(asking("delegate", 1, question="c"))
    helper = create_agent(inner, [search])

    @tool
    def delegate(question: str) -> str:
        """Ask the helper."""
        given: Any = {"messages": [("user", question)]}
        return str(helper.invoke(given)["messages"][-1].content)

    middleware = ab.BudgetMiddleware(max_model_calls=5, governor=governor)
    result = create_agent(outer, [delegate], middleware=[middleware]).invoke(HELLO)
    assert (len(outer.calls), len(inner.calls)) == (2, 3)
    assert_valid_history(result["messages"])
    assert "Not run" in str(result["messages"][-2].content)
    assert result["messages"][-1].content == "done"
    assert _report(middleware).model_calls == 5


def test_a_sub_agent_with_a_budget_of_its_own_lands_by_itself(governor: ab.Governor) -> None:
    inner, outer = scripted(asking("search", 99, query="b")), scripted(asking("delegate", 1, question="c"))
    cap = ab.BudgetMiddleware(max_model_calls=3, governor=governor, name="cap")
    helper = create_agent(inner, [search], middleware=[cap])

    @tool
    def delegate(question: str) -> str:
        """Ask the helper."""
        given: Any = {"messages": [("user", question)]}
        return str(helper.invoke(given)["messages"][-1].content)

    middleware = ab.BudgetMiddleware(max_model_calls=9, governor=governor)
    create_agent(outer, [delegate], middleware=[middleware]).invoke(HELLO)
    assert (len(inner.calls), len(outer.calls)) == (3, 2)
    assert (_report(cap).status, _report(middleware).status) == ("stopped", "completed")
    assert _report(middleware).model_calls == 5


def test_a_stop_of_the_task_around_passes_through(governor: ab.Governor) -> None:
    model = scripted(asking("search", 99, query="a"))
    middleware = ab.BudgetMiddleware(max_model_calls=9, governor=governor)
    agent = create_agent(model, [search], middleware=[ModelRetryMiddleware(), middleware])
    with ab.task("around", max_model_calls=2, governor=governor) as around, pytest.raises(ab.BudgetExceeded) as stopped:
        agent.invoke(HELLO)
    assert stopped.value.stop.task_id == around.id
    assert len(model.calls) == 2


def test_a_failed_run_closes_its_task(governor: ab.Governor) -> None:
    middleware = ab.BudgetMiddleware(max_model_calls=9, governor=governor)
    agent = create_agent(scripted(ValueError("broken")), [search], middleware=[middleware])
    with pytest.raises(ValueError, match="broken"):
        agent.invoke(HELLO)
    assert _report(middleware).status == "failed"


async def test_a_cancelled_run_closes_its_task_and_is_charged(governor: ab.Governor) -> None:
    model = scripted(gate=threading.Event())
    middleware = ab.BudgetMiddleware(max_model_calls=9, governor=governor)
    running = asyncio.ensure_future(create_agent(model, [search], middleware=[middleware]).ainvoke(HELLO))
    await asyncio.to_thread(model.record.wait_for, 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (_report(middleware).status, _report(middleware).model_calls) == ("cancelled", 1)
    assert _report(middleware).cost > 0


# -- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [True, False])
def test_an_answered_interrupt_of_another_middleware_goes_on_with_the_task(
    governor: ab.Governor, clock: FakeClock, *, asynchronous: bool
) -> None:
    model = scripted(asking("search", 9, query="a"))
    middleware = ab.BudgetMiddleware(max_model_calls=3, max_seconds=60, governor=governor)
    person = HumanInTheLoopMiddleware(interrupt_on={"search": True})
    agent = create_agent(model, [search], middleware=[middleware, person], checkpointer=InMemorySaver())
    _run(agent, config=THREAD, asynchronous=asynchronous)
    assert _report(middleware).status == "interrupted"
    approve: Any = Command(resume={"decisions": [{"type": "approve"}]})
    clock.advance(3600)  # the time a person takes does not count
    _run(agent, approve, THREAD, asynchronous=asynchronous)
    result = _run(agent, approve, THREAD, asynchronous=asynchronous)
    assert len(model.calls) == 3
    assert_valid_history(result["messages"])
    assert [(r.model_calls, r.status) for r in middleware.reports] == [(3, "stopped")]


def test_law_12_after_raise_a_larger_budget_goes_on_and_nothing_done_is_paid_twice(governor: ab.Governor) -> None:
    model, saver = scripted(asking("search", 3, query="a")), InMemorySaver()

    def agent_with(most: int) -> Any:
        middleware = ab.BudgetMiddleware(max_model_calls=most, governor=governor, on_limit="raise")
        return create_agent(model, [search], middleware=[middleware], checkpointer=saver)

    with pytest.raises(ab.BudgetExceeded):
        agent_with(2).invoke(HELLO, THREAD)
    with pytest.raises(ab.BudgetExceeded):
        agent_with(2).invoke(None, THREAD)
    assert len(model.calls) == 2
    result = agent_with(9).invoke(None, THREAD)
    assert len(model.calls) == 4
    assert_valid_history(result["messages"])
    assert len(governor.reports) == 1


def test_new_input_on_the_thread_is_a_new_task(governor: ab.Governor) -> None:
    middleware = ab.BudgetMiddleware(max_model_calls=1, governor=governor, on_limit="end")
    agent = create_agent(scripted(), [search], middleware=[middleware], checkpointer=InMemorySaver())
    for _ in range(3):
        agent.invoke(HELLO, THREAD)
    assert [(r.model_calls, r.status) for r in middleware.reports] == [(1, "completed")] * 3


def test_time_travel_refunds_nothing(governor: ab.Governor) -> None:
    model = scripted(asking("search", 9, query="a"))
    middleware = ab.BudgetMiddleware(max_model_calls=3, governor=governor, on_limit="raise")
    agent = create_agent(model, [search], middleware=[middleware], checkpointer=InMemorySaver())
    with pytest.raises(ab.BudgetExceeded):
        agent.invoke(HELLO, THREAD)
    early = [each for each in agent.get_state_history(THREAD) if each.next == ("model",)][-1]
    with pytest.raises(ab.BudgetExceeded):
        agent.invoke(None, early.config)
    assert len(model.calls) == 3


def test_a_resume_whose_spend_was_in_a_memory_that_is_gone_is_refused(new_governor: NewGovernor) -> None:
    saver = InMemorySaver()

    def agent_of(governor: ab.Governor) -> Any:
        middleware = ab.BudgetMiddleware(max_model_calls=1, governor=governor, on_limit="raise")
        return create_agent(scripted(asking("search", 9)), [search], middleware=[middleware], checkpointer=saver)

    with pytest.raises(ab.BudgetExceeded):
        agent_of(new_governor()).invoke(HELLO, THREAD)
    with pytest.raises(ab.ConfigurationError, match="sqlite:///spend.db"):
        agent_of(new_governor()).invoke(None, THREAD)


# -- tools -----------------------------------------------------------------------------------------------------------


@tool
def look(place: str) -> str:
    """Look."""
    return f"saw {place}"


def _batch(*names: str) -> AIMessage:
    return answer("", [(name, {"query": name} if name == "search" else {"place": name}) for name in names])


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize(
    ("limits", "ran", "status"),
    [
        ({"tools": {"search": 2}}, {"search": 2, "look": 2}, "completed"),
        ({"tools": {"search": 2, "*": 1}}, {"search": 2, "look": 1}, "completed"),
        ({"max_tool_calls": 4}, {"search": 4}, "stopped"),
    ],
)
def test_of_a_batch_what_fits_runs_and_the_rest_is_answered(
    governor: ab.Governor, limits: dict[str, Any], ran: dict[str, int], status: str, *, asynchronous: bool
) -> None:
    names = ("search",) * 4 + (("look",) * 2 if "tools" in limits else ("search",) * 2)
    model = scripted(_batch(*names), answer("done"))
    middleware = ab.BudgetMiddleware(governor=governor, **limits)
    result = _run(create_agent(model, [search, look], middleware=[middleware]), asynchronous=asynchronous)
    answers = [message for message in result["messages"] if isinstance(message, ToolMessage)]
    assert len(answers) == len(names)
    good = [message.name for message in answers if message.status == "success"]
    assert {name: good.count(name) for name in set(good)} == ran
    assert_valid_history(result["messages"])
    assert (_report(middleware).tool_calls, _report(middleware).status) == (sum(ran.values()), status)


def test_a_tool_without_calls_left_is_not_offered_again(governor: ab.Governor) -> None:
    model = scripted(_batch("search", "search"), answer("done"))
    middleware = ab.BudgetMiddleware(governor=governor, tools={"search": 1})
    create_agent(model, [search, look], middleware=[middleware]).invoke(HELLO)
    offered = [[each["function"]["name"] for each in call.kwargs.get("tools", [])] for call in model.calls]
    assert offered == [["search", "look"], ["look"]]


def test_with_raise_a_tool_limit_raises(governor: ab.Governor) -> None:
    middleware = ab.BudgetMiddleware(governor=governor, tools={"search": 1}, on_limit="raise")
    agent = create_agent(scripted(asking("search", 9, query="a")), [search], middleware=[middleware])
    with pytest.raises(ab.BudgetExceeded, match="tools\\['search'\\]"):
        agent.invoke(HELLO)


# -- time and the kill switch ----------------------------------------------------------------------------------------


async def test_at_the_deadline_a_model_call_in_flight_is_cancelled_and_charged(governor: ab.Governor) -> None:
    model = scripted(gate=threading.Event())  # never answers
    middleware = ab.BudgetMiddleware(max_seconds=0.05, governor=governor, on_limit="end")
    result = await create_agent(model, [search], middleware=[middleware]).ainvoke(HELLO)
    report = _report(middleware)
    assert (report.status, report.model_calls, report.stopped_by and report.stopped_by.limit) == (
        "stopped",
        1,
        "max_seconds",
    )
    assert report.cost > 0
    assert report.reserved == 0
    assert_valid_history(result["messages"])


async def test_at_the_deadline_a_tool_is_cancelled_and_the_history_stays_valid(governor: ab.Governor) -> None:
    never = asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait."""
        await never.wait()
        return "over"

    model = scripted(asking("wait", 9))
    middleware = ab.BudgetMiddleware(max_seconds=0.3, governor=governor, on_limit="end")
    result = await create_agent(model, [wait], middleware=[middleware]).ainvoke(HELLO)
    assert_valid_history(result["messages"])
    assert len(model.calls) == 1
    assert _report(middleware).reserved == 0


async def test_a_timeout_of_something_else_is_left_alone() -> None:
    middleware = ab.BudgetMiddleware(max_seconds=60, governor=ab.Governor())
    agent = create_agent(scripted(TimeoutError("the network")), [search], middleware=[middleware])
    with pytest.raises(TimeoutError, match="the network"):
        await agent.ainvoke(HELLO)


@pytest.mark.parametrize("on_limit", ["finish", "ask", "end"])
def test_a_task_stopped_by_hand_makes_no_further_call(governor: ab.Governor, on_limit: Any) -> None:
    middleware = ab.BudgetMiddleware(max_model_calls=9, governor=governor, on_limit=on_limit)

    @tool
    def pull_the_plug() -> str:
        """Stop."""
        (task,) = governor._open.values()
        stopper = threading.Thread(target=ab.stop, args=(task.id,))
        stopper.start()
        stopper.join()
        return "stopped"

    model = scripted(asking("pull_the_plug", 9))
    agent = create_agent(model, [pull_the_plug], middleware=[middleware], checkpointer=InMemorySaver())
    result = agent.invoke(HELLO, THREAD)
    assert len(model.calls) == 1
    assert "stopped" in result["messages"][-1].content
    assert_valid_history(result["messages"])
    assert _report(middleware).status == "stopped"


def test_only_an_open_task_can_be_stopped() -> None:
    with pytest.raises(ab.ConfigurationError, match="not open"):
        ab.stop("nobody", ledger="memory:")


# -- construction ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"max_cst": "$1"}, TypeError, "Did you mean 'max_cost'"),
        ({"onlimit": "end"}, TypeError, "Did you mean 'on_limit'"),
        ({"on_limit": "explode"}, ab.ConfigurationError, "'finish', 'ask', 'end', 'raise'"),
        ({"max_cost": "$1", "finish_reserve": "$1"}, ab.ConfigurationError, "must be below max_cost"),
        ({"max_model_calls": 3, "finish_reserve": "$1"}, ab.ConfigurationError, "no max_cost"),
        ({"budget": ab.Budget(max_cost="$1"), "max_seconds": 1}, TypeError, "as well"),
    ],
)
def test_what_cannot_mean_anything_is_refused_at_construction(
    options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        ab.BudgetMiddleware(**options)


def test_both_faces_of_each_hook_are_on_the_class() -> None:
    for hook in ("wrap_model_call", "awrap_model_call", "wrap_tool_call", "awrap_tool_call", "before_agent"):
        assert getattr(ab.BudgetMiddleware, hook) is not getattr(AgentMiddleware, hook)


def test_the_id_of_the_task_is_no_input_and_no_output(governor: ab.Governor) -> None:
    agent = create_agent(scripted(), [search], middleware=[ab.BudgetMiddleware(max_model_calls=2, governor=governor)])
    forged: Any = {**HELLO, "agentbudget_tasks": {"BudgetMiddleware": "forged"}}
    assert set(agent.invoke(forged)) == {"messages"}
    assert governor.reports[-1].task_id != "forged"


def test_observe_mode_lands_nothing(new_governor: NewGovernor) -> None:
    model = scripted(asking("search", 4, query="a"))
    middleware = ab.BudgetMiddleware(max_model_calls=2, max_tool_calls=1, governor=new_governor(mode="observe"))
    result = create_agent(model, [search], middleware=[middleware]).invoke(HELLO)
    assert result["messages"][-1].content == "done"
    assert len(model.calls) == 5
