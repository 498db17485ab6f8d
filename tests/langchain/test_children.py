"""The shape of a task: how deep agents call agents, how many at once, how many tools in one turn."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import BaseTool, tool

import agentbudget as ab
from agentbudget.testing import ScriptedChatModel, assert_valid_history
from tests.langchain.actors import HELLO, answer, asking, scripted
from tests.langchain.support import search, using


def delegating(agent: Any, name: str = "delegate") -> BaseTool:
    """A tool that asks *agent*."""

    async def ask(question: str) -> str:
        given: Any = {"messages": [("user", question)]}
        return str((await agent.ainvoke(given))["messages"][-1].content)

    def ask_now(question: str) -> str:
        given: Any = {"messages": [("user", question)]}
        return str(agent.invoke(given)["messages"][-1].content)

    return tool(name, description="Ask the helper.")(ask_now).model_copy(update={"coroutine": ask})


def nested(levels: int, models: list[ScriptedChatModel]) -> Any:
    """An agent that asks an agent that asks an agent …; the models from the outside in."""
    models.append(scripted(asking("delegate", 1, question="?") if levels else answer("the bottom")))
    own = models[-1]
    return create_agent(own, [delegating(nested(levels - 1, models))] if levels else [])


def batch(name: str, count: int, **arguments: Any) -> Any:
    """A turn that calls a tool *count* times at once, and then says how many ran."""

    def turn(messages: list[BaseMessage]) -> AIMessage:
        done = [message for message in messages if isinstance(message, ToolMessage)]
        if done:
            return answer(f"{sum('Not run' not in message.text for message in done)} ran")
        return answer("", [(name, arguments)] * count)

    return turn


def tool_answers(result: Any) -> list[str]:
    return [message.text for message in result["messages"] if isinstance(message, ToolMessage)]


@pytest.mark.parametrize(("max_depth", "reached"), [(0, 1), (1, 2), (2, 3), (None, 4)])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_agents_call_agents_no_deeper_than_allowed(
    governor: ab.Governor, max_depth: int | None, reached: int, *, asynchronous: bool
) -> None:
    models: list[ScriptedChatModel] = []
    inner = nested(2, models)
    outer = scripted(asking("delegate", 1, question="?"))
    middleware = ab.BudgetMiddleware(max_depth=max_depth, max_model_calls=50, governor=governor)
    agent = create_agent(outer, [delegating(inner)], middleware=[middleware])
    result = asyncio.run(agent.ainvoke(HELLO)) if asynchronous else agent.invoke(HELLO)
    assert_valid_history(result["messages"])
    assert sum(bool(model.calls) for model in [outer, *models]) == reached
    assert middleware.report is not None
    assert middleware.report.status == "completed"


def test_the_one_that_asked_too_deep_is_told_and_goes_on(governor: ab.Governor) -> None:
    outer = scripted(asking("delegate", 1, question="?"))
    middleware = ab.BudgetMiddleware(max_depth=0, governor=governor)
    agent = create_agent(outer, [delegating(create_agent(scripted(), []))], middleware=[middleware])
    result = agent.invoke(HELLO)
    (told,) = tool_answers(result)
    assert "max_depth is 0" in told
    assert result["messages"][-1].content == "done"
    assert middleware.report is not None
    assert [action["action"] for action in middleware.report.actions] == ["refuse"]


def test_without_anybody_to_land_it_a_call_too_deep_stops_the_task(governor: ab.Governor) -> None:
    inner, outer = scripted(), scripted(asking("delegate", 1, question="?"))
    callback = ab.BudgetCallback(max_depth=0, governor=governor)
    with pytest.raises(ab.BudgetExceeded, match="max_depth is 0") as stopped:
        create_agent(outer, [delegating(create_agent(inner, []))]).invoke(HELLO, using(callback))
    assert stopped.value.stop.limit == "max_depth"
    assert not inner.calls
    assert callback.report is not None
    assert callback.report.status == "stopped"


def test_a_task_within_counts_from_its_own_agent(governor: ab.Governor) -> None:
    models: list[ScriptedChatModel] = []
    inner = nested(1, models)

    @tool
    def delegate(question: str) -> str:
        """Ask within a task of its own, which allows one level more."""
        given: Any = {"messages": [("user", question)]}
        with ab.task("within", max_depth=1, governor=governor):
            return str(inner.invoke(given)["messages"][-1].content)

    middleware = ab.BudgetMiddleware(max_model_calls=50, governor=governor)
    create_agent(scripted(asking("delegate", 1, question="?")), [delegate], middleware=[middleware]).invoke(HELLO)
    assert [len(model.calls) for model in models] == [2, 1]


async def test_no_more_children_work_at_once_than_allowed_and_the_others_are_told(governor: ab.Governor) -> None:
    gate = threading.Event()
    inner = scripted(gate=gate)
    outer = scripted(batch("delegate", 5, question="?"))
    middleware = ab.BudgetMiddleware(max_children=2, governor=governor)
    agent = create_agent(outer, [delegating(create_agent(inner, []))], middleware=[middleware])
    running = asyncio.ensure_future(agent.ainvoke(HELLO))
    await asyncio.to_thread(inner.record.wait_for, 2)
    gate.set()
    result = await running
    assert_valid_history(result["messages"])
    told = tool_answers(result)
    assert len(told) == 5
    refused = [each for each in told if "max_children is 2" in each]
    assert len(inner.calls) + len(refused) == 5
    assert refused


def test_children_one_after_the_other_are_never_too_many(governor: ab.Governor) -> None:
    inner = scripted()
    outer = scripted(asking("delegate", 4, question="?"))
    middleware = ab.BudgetMiddleware(max_children=1, governor=governor)
    agent = create_agent(outer, [delegating(create_agent(inner, []))], middleware=[middleware])
    result = agent.invoke(HELLO)
    assert len(inner.calls) == 4
    assert result["messages"][-1].content == "done"


def test_a_child_that_failed_makes_room(governor: ab.Governor) -> None:
    inner = scripted(ValueError("broken"), answer())
    outer = scripted(asking("delegate", 2, question="?"))

    @tool
    def delegate(question: str) -> str:
        """Ask, whatever comes of it."""
        given: Any = {"messages": [("user", question)]}
        try:
            return str(create_agent(inner, []).invoke(given)["messages"][-1].content)
        except ValueError as error:
            return str(error)

    middleware = ab.BudgetMiddleware(max_children=1, governor=governor)
    result = create_agent(outer, [delegate], middleware=[middleware]).invoke(HELLO)
    assert tool_answers(result) == ["broken", "ok"]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_of_one_turn_no_more_tools_run_than_allowed_and_the_rest_is_answered(
    governor: ab.Governor, *, asynchronous: bool
) -> None:
    model = scripted(batch("search", 800, query="a"))
    middleware = ab.BudgetMiddleware(max_tools_per_turn=10, governor=governor)
    agent = create_agent(model, [search], middleware=[middleware])
    result = asyncio.run(agent.ainvoke(HELLO)) if asynchronous else agent.invoke(HELLO)
    assert_valid_history(result["messages"])
    assert result["messages"][-1].content == "10 ran"
    assert middleware.report is not None
    assert (middleware.report.tool_calls, middleware.report.status) == (10, "completed")


def test_the_next_turn_has_its_tools_again(governor: ab.Governor) -> None:
    model = scripted(asking("search", 5, query="a"))
    middleware = ab.BudgetMiddleware(max_tools_per_turn=1, governor=governor)
    result = create_agent(model, [search], middleware=[middleware]).invoke(HELLO)
    assert not any("Not run" in told for told in tool_answers(result))
    assert len(tool_answers(result)) == 5


def test_a_star_limits_every_tool_that_is_not_named(governor: ab.Governor) -> None:
    @tool
    def other(query: str) -> str:
        """Another."""
        return "other"

    def turn(messages: list[BaseMessage]) -> AIMessage:
        if any(isinstance(message, ToolMessage) for message in messages):
            return answer("done")
        return answer("", [("search", {"query": "a"})] * 4 + [("other", {"query": "a"})] * 4)

    middleware = ab.BudgetMiddleware(tools={"search": 3, "*": 1}, governor=governor)
    result = create_agent(scripted(turn), [search, other], middleware=[middleware]).invoke(HELLO)
    assert_valid_history(result["messages"])
    ran = [told for told in tool_answers(result) if "Not run" not in told]
    assert sorted(ran) == ["found a"] * 3 + ["other"]


def test_in_observe_mode_nothing_is_too_deep(new_governor: Any) -> None:
    inner, outer = scripted(), scripted(asking("delegate", 1, question="?"))
    callback = ab.BudgetCallback(max_depth=0, governor=new_governor(mode="observe"))
    create_agent(outer, [delegating(create_agent(inner, []))]).invoke(HELLO, using(callback))
    assert len(inner.calls) == 1


@pytest.mark.parametrize(
    "limits", [{"max_depth": -1}, {"max_children": 0}, {"max_tools_per_turn": 0}, {"max_depth": True}], ids=str
)
def test_a_shape_that_cannot_mean_anything_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ab.ConfigurationError, match=next(iter(limits))):
        ab.Budget(**limits)


def test_a_shape_survives_the_trace() -> None:
    budget = ab.Budget(max_depth=0, max_children=3, max_tools_per_turn=8)
    assert ab.Budget.from_dict(budget.to_dict()) == budget
    assert budget.to_dict() == {"max_depth": 0, "max_children": 3, "max_tools_per_turn": 8}
