"""The kill switch: a task is stopped from any thread or process that shares its ledger."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

import agentbudget as ab
from agentbudget.governor.hold import Hold
from agentbudget.governor.values import Call, Kind, Outcome, Result
from agentbudget.testing import assert_valid_history
from tests.langchain.actors import HELLO, asking, calling, graph_of, repeatedly, scripted
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import assert_nothing_held
from tests.ledgers.servers import Server, fresh

THREAD: Any = {"configurable": {"thread_id": "t"}}
STOP = "import sys, agentbudget as ab; ab.stop(sys.argv[1], ledger=sys.argv[2])"


def stop_elsewhere(task_id: str, url: str) -> None:
    """Another process stops the task."""
    subprocess.run([sys.executable, "-c", STOP, task_id, url], check=True, timeout=60)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/spend.db"
    return fresh(request.getfixturevalue("redis_server").url)


@pytest.fixture
def durable() -> Iterator[NewGovernor]:
    """Makes governors whose ledger lasts, checked and closed in the end."""
    made: list[ab.Governor] = []

    def new(**options: Any) -> ab.Governor:
        made.append(ab.Governor(**options))
        return made[-1]

    yield new
    assert_nothing_held(*made)
    for governor in made:
        governor.close()


@pytest.mark.parametrize("limits", [{}, {"max_cost": "$1"}, {"max_model_calls": 9}], ids=str)
def test_law_11_a_stop_from_another_process_refuses_the_next_call_and_says_so(
    url: str, durable: NewGovernor, limits: dict[str, Any]
) -> None:
    governor = durable(ledger=url)
    model = scripted()
    with ab.task("remote", governor=governor, **limits) as task:
        model.invoke("a")
        stop_elsewhere(task.id, url)
        with pytest.raises(ab.BudgetExceeded, match="stopped by hand") as stopped:
            repeatedly(lambda: model.invoke("b"))
    assert stopped.value.stop.limit == "stopped"
    assert stopped.value.stop.task_id == task.id
    assert len(model.calls) == 1
    assert task.report.status == "stopped"


def test_an_agent_that_is_stopped_from_another_process_ends_without_a_last_answer(
    url: str, durable: NewGovernor
) -> None:
    governor = durable(ledger=url)
    middleware = ab.BudgetMiddleware(max_model_calls=9, governor=governor)

    @tool
    def pull_the_plug() -> str:
        """Stop."""
        (task,) = governor._open.values()
        stop_elsewhere(task.id, url)
        return "done"

    model = scripted(asking("pull_the_plug", 9))
    result = create_agent(model, [pull_the_plug], middleware=[middleware]).invoke(HELLO)
    assert len(model.calls) == 1
    assert "stopped by hand" in result["messages"][-1].text or "stopped" in result["messages"][-1].text
    assert_valid_history(result["messages"])


def test_a_free_tool_is_refused_too(url: str, durable: NewGovernor) -> None:
    governor = durable(ledger=url)
    ran: list[int] = []

    @tool
    def look() -> str:
        """Look."""
        ran.append(1)
        return "seen"

    with ab.task("remote", governor=governor) as task:
        look.invoke({})
        stop_elsewhere(task.id, url)
        with pytest.raises(ab.BudgetExceeded, match="stopped"):
            look.invoke({})
    assert ran == [1]


def test_what_draws_on_a_stopped_task_is_stopped_with_it(tmp_path: Path, durable: NewGovernor) -> None:
    url = f"sqlite:///{tmp_path}/spend.db"
    governor = durable(ledger=url)
    model = scripted()
    with ab.task("outer", max_cost="$1", governor=governor) as outer:
        stop_elsewhere(outer.id, url)
        with ab.task("inner", max_cost="$0.50", governor=governor), pytest.raises(ab.BudgetExceeded, match="stopped"):
            model.invoke("a")
    assert not model.calls


def test_only_a_lift_lets_it_go_on(tmp_path: Path, durable: NewGovernor) -> None:
    governor = durable(ledger=f"sqlite:///{tmp_path}/spend.db")
    model = scripted()
    graph = graph_of(a=calling(model), b=calling(model)).compile(checkpointer=InMemorySaver(), interrupt_before=["b"])
    handler = ab.BudgetCallback(max_model_calls=9, governor=governor)
    config: Any = {**THREAD, "callbacks": [handler]}
    graph.invoke(HELLO, config)
    (report,) = handler.reports
    ab.stop(report.task_id)
    with pytest.raises(ab.BudgetExceeded, match="stopped by hand"):
        graph.invoke(None, config)
    task = governor.find_task(report.task_id)
    assert task is not None
    governor.lift(task)
    graph.invoke(None, config)
    assert len(model.calls) == 2


def test_a_stop_within_the_process_holds_in_every_thread_at_once(governor: ab.Governor) -> None:
    model = scripted()
    with ab.task("local", max_cost="$1", governor=governor) as task:
        stopper = threading.Thread(target=ab.stop, args=(task.id,))
        stopper.start()
        stopper.join()
        with pytest.raises(ab.BudgetExceeded, match="stopped by hand"):
            model.invoke("a")
    assert not model.calls


def test_a_task_nobody_knows_is_no_silent_success(tmp_path: Path) -> None:
    with pytest.raises(ab.ConfigurationError, match="ledger="):
        ab.stop("nobody", ledger="memory:")
    with pytest.warns(ab.BudgetWarning, match="no call yet"):
        ab.stop("nobody", ledger=f"sqlite:///{tmp_path}/spend.db")


def test_a_task_that_goes_by_one_id_in_two_governors_is_stopped_in_both(new_governor: NewGovernor) -> None:
    tasks = [new_governor().open_task("t", ab.Budget(), task_id="same") for _ in range(2)]
    ab.stop("same")
    assert [task.stop is not None and task.stop.limit for task in tasks] == ["stopped", "stopped"]
    for task in tasks:
        task.governor.close_task(task)


@pytest.mark.parametrize("by", ["lift", "top_up", "resume"])
def test_what_a_stopped_task_had_refused_within_it_goes_on_with_it(
    by: str, new_governor: NewGovernor, tmp_path: Path
) -> None:
    governor = new_governor(prices={"tool:look": "$0.10"}, trace=tmp_path / "t.jsonl")
    outer = governor.open_task("outer", ab.Budget(max_cost="$0.15"))
    inner = governor.open_task("inner", ab.Budget(max_tool_calls=1 if by == "resume" else 9), parent=outer)

    def look(number: int) -> str:
        answer = governor.admit(inner.chain, Call(id=str(number), kind=Kind.TOOL, name="look"))
        if not isinstance(answer, Hold):
            return answer.limit
        governor.settle(answer, Result(outcome=Outcome.OK))
        return ""

    if by == "lift":
        ab.stop(outer.id)
    stops = [look(number) for number in range(3)]
    if by == "lift":
        governor.lift(outer)
    elif by == "top_up":
        governor.top_up(outer, "$1")
    else:
        governor.resume(outer, ab.Budget(max_cost="$1"))
    went_on = look(9)
    governor.close_task(inner)
    governor.close_task(outer)
    if by == "lift":
        assert (stops, went_on) == (["stopped"] * 3, "")
    elif by == "top_up":
        assert (stops, went_on) == (["", "max_cost", "max_cost"], "")
        what_if = ab.Trace.load(tmp_path / "t.jsonl").replay()
        assert (what_if.cost, what_if.diverged_at) == (outer.report().cost, None)
    else:
        assert stops[1:] == [stops[1]] * 2
        assert went_on == "max_tool_calls", "its own stop stays"
