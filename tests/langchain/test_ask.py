"""Asking a person at the limit: shown the numbers, granted once, never by mistake."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

import agentbudget as ab
from agentbudget.domain.verdict import StopReport
from agentbudget.langchain import ask
from agentbudget.testing import FakeClock, assert_valid_history
from tests.langchain.actors import CALL, answer, asking, scripted
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import search

HELLO: Any = {"messages": [("user", "hello")]}
THREAD: Any = {"configurable": {"thread_id": "t"}}
COST = StopReport(limit="max_cost", meter="cost", settled=5, requested=3, kept=2, limit_amount=8, call="model gpt-4o")


def _report(middleware: ab.BudgetMiddleware) -> ab.TaskReport:
    assert middleware.report is not None, "no task was closed"
    return middleware.report


def _asked(result: Any) -> dict[str, Any]:
    (interrupted,) = result["__interrupt__"]
    return dict(interrupted.value)


def _agent(model: Any, middleware: ab.BudgetMiddleware, saver: Any = None, tools: Any = (search,)) -> Any:
    return create_agent(model, list(tools), middleware=[middleware], checkpointer=saver or InMemorySaver())


# -- the whole way ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_grant_goes_on_where_the_agent_paused_and_nothing_is_paid_twice(
    governor: ab.Governor, clock: FakeClock, *, asynchronous: bool
) -> None:
    model = scripted(asking("search", 6, query="a"))
    middleware = ab.BudgetMiddleware(max_cost="$0.0015", max_seconds=60, governor=governor, on_limit="ask")
    agent = _agent(model, middleware)

    def run(given: Any) -> Any:
        return asyncio.run(agent.ainvoke(given, THREAD)) if asynchronous else agent.invoke(given, THREAD)

    shown = _asked(run(HELLO))
    done = len(model.calls)
    assert done < 7
    assert (shown["type"], shown["limit"], shown["meter"], shown["limit_amount"]) == (
        "agentbudget.limit",
        "max_cost",
        "cost",
        "$0.0015",
    )
    assert {"spent", "reserved", "projected", "missing", "kept", "last_calls", "question"} <= set(shown)
    assert json.loads(json.dumps(shown)) == shown
    assert _report(middleware).status == "interrupted"
    clock.advance(3600)  # the time a person takes does not count
    result = run(Command(resume={"grant": "$0.01", "approver": "ann"}))
    assert result["messages"][-1].content == "done"
    assert_valid_history(result["messages"])
    report = _report(middleware)
    assert len(model.calls) == 7
    assert (report.cost, report.status) == (7 * CALL, "completed")
    assert report.limits["max_cost"] == Decimal("0.0115")
    assert len(middleware.reports) == 1


def test_what_is_shown_as_missing_is_enough(governor: ab.Governor) -> None:
    model = scripted(asking("search", 6, query="a"))
    agent = _agent(model, ab.BudgetMiddleware(max_cost="$0.0015", governor=governor, on_limit="ask"))
    result = agent.invoke(HELLO, THREAD)
    for _ in range(40):
        if "__interrupt__" not in result:
            break
        before = len(model.calls)
        offer = next(iter(_asked(result)["options"])).split("'")[3]
        result = agent.invoke(Command(resume={"grant": offer}), THREAD)
        assert len(model.calls) > before
    assert result["messages"][-1].content == "done"


@pytest.mark.parametrize(("word", "calls"), [("finish", 1), ("stop", 0), (" FINISH ", 1)])
def test_a_person_may_end_it(governor: ab.Governor, word: str, calls: int) -> None:
    model = scripted(asking("search", 99, query="a"))
    middleware = ab.BudgetMiddleware(max_model_calls=3, governor=governor, on_limit="ask")
    agent = _agent(model, middleware)
    agent.invoke(HELLO, THREAD)
    before = len(model.calls)
    result = agent.invoke(Command(resume=word), THREAD)
    assert len(model.calls) - before == calls
    assert "__interrupt__" not in result
    assert_valid_history(result["messages"])
    report = _report(middleware)
    assert (report.status, report.stopped_by and report.stopped_by.limit) == ("stopped", "max_model_calls")


def test_more_of_another_meter_can_be_granted(governor: ab.Governor) -> None:
    model = scripted(asking("search", 4, query="a"))
    middleware = ab.BudgetMiddleware(max_tool_calls=2, governor=governor, on_limit="ask")
    agent = _agent(model, middleware)
    shown = _asked(agent.invoke(HELLO, THREAD))
    assert (shown["limit"], shown["missing"]) == ("max_tool_calls", "1")
    result = agent.invoke(Command(resume={"grant": 9}), THREAD)
    assert result["messages"][-1].content == "done"
    assert _report(middleware).tool_calls == 3  # the refused one was answered without being run


@pytest.mark.parametrize(
    "nonsense", ["yes", True, 5, {"grant": True}, {"grant": "$0"}, {"grant": "-1"}, {"gant": "$1"}]
)
def test_what_is_not_understood_asks_again_with_the_reason_and_grants_nothing(
    governor: ab.Governor, nonsense: Any
) -> None:
    model = scripted(asking("search", 99, query="a"))
    middleware = ab.BudgetMiddleware(max_cost="$0.0015", governor=governor, on_limit="ask")
    agent = _agent(model, middleware)
    agent.invoke(HELLO, THREAD)
    before = len(model.calls)
    for _ in range(2):
        shown = _asked(agent.invoke(Command(resume=nonsense), THREAD))
        assert shown["problem"]
        assert shown["limit_amount"] == "$0.0015"
    assert len(model.calls) == before
    result = agent.invoke(Command(resume="stop"), THREAD)
    assert "__interrupt__" not in result


def test_to_go_on_without_an_answer_asks_again(governor: ab.Governor) -> None:
    model = scripted(asking("search", 99, query="a"))
    agent = _agent(model, ab.BudgetMiddleware(max_model_calls=2, governor=governor, on_limit="ask"))
    asked = [_asked(agent.invoke(given, THREAD)) for given in (HELLO, None, None)]
    assert asked[0]["question"] == asked[2]["question"]
    assert len(model.calls) == 1


def test_a_grant_is_written_once_however_often_its_node_runs_anew(governor: ab.Governor) -> None:
    model = scripted(asking("search", 99, query="a"))
    middleware = ab.BudgetMiddleware(max_cost="$0.0015", governor=governor, on_limit="ask")
    agent = _agent(model, middleware)
    agent.invoke(HELLO, THREAD)
    for _ in range(3):  # each too little, so that the node runs anew and hears the answers before again
        assert "__interrupt__" in agent.invoke(Command(resume={"grant": "$0.00001", "approver": "ann"}), THREAD)
    assert "__interrupt__" in agent.invoke(None, THREAD)
    grants = [entry for entry in governor.ledger.journal() if entry.verb == "grant"]
    assert len({entry.id for entry in grants}) == len(grants) == 3
    assert _report(middleware).limits["max_cost"] == Decimal("0.00153")


def test_a_money_limit_raised_elsewhere_needs_no_answer(governor: ab.Governor) -> None:
    model = scripted(asking("search", 3, query="a"))
    middleware = ab.BudgetMiddleware(max_cost="$0.0015", governor=governor, on_limit="ask")
    agent = _agent(model, middleware)
    agent.invoke(HELLO, THREAD)
    governor.top_up(_report(middleware).task_id, "$1")
    result = agent.invoke(Command(resume="retry"), THREAD)
    assert result["messages"][-1].content == "done"


def test_two_agents_in_parallel_branches_are_asked_and_granted_apart(governor: ab.Governor) -> None:
    models = [scripted(asking("search", 3, query=name)) for name in ("a", "b")]
    middleware = ab.BudgetMiddleware(max_model_calls=3, governor=governor, on_limit="ask")
    builder = StateGraph(MessagesState)
    for name, model in zip(("a", "b"), models, strict=True):
        builder.add_node(name, create_agent(model, [search], middleware=[middleware]))
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    graph: Any = builder.compile(checkpointer=InMemorySaver())
    paused = graph.invoke(HELLO, THREAD)["__interrupt__"]
    assert len(paused) == 2
    before = [len(model.calls) for model in models]
    graph.invoke(Command(resume={paused[0].id: {"grant": 5}, paused[1].id: "stop"}), THREAD)
    finished = sorted(len(model.calls) - count for model, count in zip(models, before, strict=True))
    assert finished == [0, 2]
    assert sorted(report.status for report in middleware.reports) == ["completed", "stopped"]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_two_tools_of_one_turn_are_asked_and_granted_apart(governor: ab.Governor, *, asynchronous: bool) -> None:
    inner = scripted(asking("search", 2, query="b"))
    helper = create_agent(inner, [search])

    @tool
    def delegate(question: str) -> str:
        """Ask the helper."""
        given: Any = {"messages": [("user", question)]}
        return str(helper.invoke(given)["messages"][-1].content)

    outer = scripted(answer("", [("delegate", {"question": q}) for q in "xy"]), answer("done"))
    middleware = ab.BudgetMiddleware(max_model_calls=3, governor=governor, on_limit="ask")
    agent = _agent(outer, middleware, tools=[delegate])
    config: Any = {**THREAD, "max_concurrency": 1}  # the first grant lifts the stop before the second tool is asked

    def run(given: Any) -> Any:
        return asyncio.run(agent.ainvoke(given, config)) if asynchronous else agent.invoke(given, config)

    paused = run(HELLO)["__interrupt__"]
    assert len(paused) == 2
    result = run(Command(resume={each.id: {"grant": 9} for each in paused}))
    assert result["messages"][-1].content == "done"
    assert_valid_history(result["messages"])
    assert _report(middleware).limits["max_model_calls"] == 3 + 9 + 9
    assert _report(middleware).model_calls == len(inner.calls) + len(outer.calls)


def test_after_a_restart_with_durable_ledger_and_checkpoints_a_grant_goes_on(
    new_governor: NewGovernor, tmp_path: Any
) -> None:
    model = scripted(asking("search", 6, query="a"))
    path = str(tmp_path / "checkpoints.db")
    ledger = new_governor().ledger  # what both processes would reach

    class Durable:
        """The ledger of another process: all that a restart keeps."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger, name)

    def process(given: Any) -> tuple[Any, ab.BudgetMiddleware]:
        with SqliteSaver.from_conn_string(path) as saver:
            governor: Any = ab.Governor(ledger=Durable())
            middleware = ab.BudgetMiddleware(max_cost="$0.0015", governor=governor, on_limit="ask")
            return _agent(model, middleware, saver).invoke(given, THREAD), middleware

    assert "__interrupt__" in process(HELLO)[0]
    before = len(model.calls)
    assert "__interrupt__" in process(Command(resume={"grant": "$0.00001"}))[0]
    assert len(model.calls) == before
    result, middleware = process(Command(resume={"grant": "$0.01"}))
    assert result["messages"][-1].content == "done"
    assert len(model.calls) == 7
    (cost,) = [account for account in ledger.accounts() if account.meter is ab.Meter.COST]
    assert ledger.balance(cost).settled == 7 * int(CALL.scaleb(9))
    assert _report(middleware).status == "completed"


# -- another model ---------------------------------------------------------------------------------------------------


def _cheap(*turns: Any) -> Any:
    return scripted(*turns, model_name="gpt-4o-mini")


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_person_may_have_a_cheaper_model_go_on_without_more_money(
    governor: ab.Governor, *, asynchronous: bool
) -> None:
    dear, cheap = scripted(asking("search", 9, query="a")), _cheap(asking("search", 9, query="a"))
    middleware = ab.BudgetMiddleware(max_cost="$0.0015", governor=governor, on_limit="ask", ask_models=[cheap])
    agent = _agent(dear, middleware)

    def run(given: Any) -> Any:
        return asyncio.run(agent.ainvoke(given, THREAD)) if asynchronous else agent.invoke(given, THREAD)

    assert "{'model': 'gpt-4o-mini'}" in _asked(run(HELLO))["options"]
    before = len(dear.calls)
    result = run(Command(resume={"model": "gpt-4o-mini", "approver": "ann"}))
    assert len(dear.calls) == before
    assert result["messages"][-1].content == "done"
    assert len(cheap.calls) == 10 - before
    assert cheap.calls[0].kwargs.get("tools")
    asked = [action for action in _report(middleware).actions if action["action"] == "ask"]
    assert asked[0]["numbers"] == {"approver": "ann"}
    assert asked[0]["reason"].startswith("model gpt-4o-mini")
    assert _report(middleware).limits["max_cost"] == Decimal("0.0015")


def test_a_model_and_a_grant_may_come_together(governor: ab.Governor) -> None:
    dear, cheap = scripted(asking("search", 99, query="a")), _cheap()
    middleware = ab.BudgetMiddleware(max_cost="$0.0015", governor=governor, on_limit="ask", ask_models=[cheap])
    agent = _agent(dear, middleware)
    agent.invoke(HELLO, THREAD)
    agent.invoke(Command(resume={"model": "gpt-4o-mini", "grant": "$0.01"}), THREAD)
    assert len(cheap.calls) == 1
    assert _report(middleware).limits["max_cost"] == Decimal("0.0115")


def test_a_model_nobody_offered_is_not_taken(governor: ab.Governor) -> None:
    dear, cheap = scripted(asking("search", 99, query="a")), _cheap()
    middleware = ab.BudgetMiddleware(max_cost="$0.0015", governor=governor, on_limit="ask", ask_models=[cheap])
    agent = _agent(dear, middleware)
    agent.invoke(HELLO, THREAD)
    for wrong in ({"model": "gpt-5"}, {"model": 7}, {"model": "gpt-5", "grant": "$1"}):
        assert "one of gpt-4o-mini" in _asked(agent.invoke(Command(resume=wrong), THREAD))["problem"]
    assert not cheap.calls
    assert not [entry for entry in governor.ledger.journal() if entry.verb == "grant"]


def test_the_chosen_model_outlives_a_restart_of_the_process(new_governor: NewGovernor, tmp_path: Any) -> None:
    dear, cheap = scripted(asking("search", 99, query="a")), _cheap(asking("search", 99, query="a"))
    ledger = f"sqlite:///{tmp_path}/spend.db"

    def process(given: Any) -> Any:
        with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
            governor = ab.Governor(ledger=ledger)
            middleware = ab.BudgetMiddleware(max_cost="$0.0015", governor=governor, on_limit="ask", ask_models=[cheap])
            result = _agent(dear, middleware, saver).invoke(given, THREAD)
            governor.close()
            return result

    _asked(process(HELLO))
    before = len(dear.calls)
    _asked(process(Command(resume={"model": "gpt-4o-mini"})))
    assert cheap.calls
    seen = len(cheap.calls)
    assert process(Command(resume={"grant": "$0.00003"}))["__interrupt__"]
    assert len(dear.calls) == before
    assert len(cheap.calls) > seen


def test_models_to_choose_from_need_somebody_who_is_asked() -> None:
    with pytest.raises(ab.ConfigurationError, match="on_limit='ask'"):
        ab.BudgetMiddleware(max_cost="$1", ask_models=[_cheap()])


def test_without_a_checkpointer_the_first_run_says_what_to_do(governor: ab.Governor) -> None:
    model = scripted()
    agent = create_agent(
        model, [search], middleware=[ab.BudgetMiddleware(max_cost="$1", governor=governor, on_limit="ask")]
    )
    with pytest.raises(ab.ConfigurationError, match="needs a checkpointer"):
        agent.invoke(HELLO)
    assert not model.calls


# -- pure ------------------------------------------------------------------------------------------------------------


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3))
def test_only_words_and_grants_are_decisions(value: Any) -> None:
    decision = ask.understand(value, COST)
    if isinstance(decision, ask.Decision):
        assert isinstance(value, str)
        assert value.strip().lower() == decision.what != "grant"
    granted = ask.understand({"grant": value}, COST)
    if isinstance(granted, ask.Decision):
        assert ab.Budget(max_cost=value).max_cost


def test_what_a_grant_cannot_change_takes_none() -> None:
    for stop in (
        StopReport(limit="max_seconds", meter="seconds", limit_amount=3),
        StopReport(limit="the team limit on cost", meter="cost", limit_amount=3),
        StopReport(limit="unpriced"),
    ):
        assert isinstance(ask.understand({"grant": "$1"}, stop), str)
        assert list(ask.options(stop)) == ["finish", "stop", "retry"]
        assert ask.question(stop)["limit"] == stop.limit
    assert ask.missing(COST) == 2


@pytest.mark.parametrize("given_answer", [{"grant": 0}, {"grant": "$1"}, {"grant": True}, {"grant": 1, "approver": 7}])
def test_units_are_whole_numbers_from_one(given_answer: Any) -> None:
    calls = StopReport(limit="max_model_calls", meter="model_calls", limit_amount=3)
    assert isinstance(ask.understand(given_answer, calls), str)
    assert ask.understand({"grant": 2, "approver": "ann"}, calls) == ask.Decision(
        what="grant", amount=2, approver="ann"
    )
