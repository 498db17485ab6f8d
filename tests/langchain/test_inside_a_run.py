"""Whatever is called inside a run belongs to its task, however it is called."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

import agentbudget as ab
from agentbudget.testing import ScriptedChatModel
from tests.langchain.actors import HELLO, asking, calling, graph_of, scripted, tasks_of
from tests.langchain.support import report_of, search, using

Inner = Callable[[ScriptedChatModel, ab.BudgetCallback, RunnableConfig], object]


async def _gathered(model: ScriptedChatModel) -> None:
    await asyncio.gather(*(asyncio.create_task(model.ainvoke("go")) for _ in range(3)))


async def _in_threads(model: ScriptedChatModel) -> None:
    await asyncio.gather(*(asyncio.to_thread(model.invoke, "go") for _ in range(3)))


def _loop(model: ScriptedChatModel, config: Any = None) -> None:
    for _ in range(3):
        model.invoke("go", config)


def _copied_context(model: ScriptedChatModel) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda context: context.run(model.invoke, "go"), [contextvars.copy_context() for _ in range(3)]))


INNER: dict[str, Inner] = {
    "no config": lambda model, handler, config: _loop(model),
    "the given config": lambda model, handler, config: _loop(model, config),
    "callbacks replaced by the handler": lambda model, handler, config: _loop(
        model, {**config, "callbacks": [handler]}
    ),
    "only the handler": lambda model, handler, config: _loop(model, using(handler)),
    "batch": lambda model, handler, config: model.batch(["a", "b", "c"]),
    "abatch": lambda model, handler, config: asyncio.run(model.abatch(["a", "b", "c"])),
    "gather and create_task": lambda model, handler, config: asyncio.run(_gathered(model)),
    "to_thread": lambda model, handler, config: asyncio.run(_in_threads(model)),
    "threads with a copied context": lambda model, handler, config: _copied_context(model),
    "RunnableParallel": lambda model, handler, config: RunnableParallel(a=model, b=model, c=model).invoke("go"),
    "stream": lambda model, handler, config: [list(model.stream("go")) for _ in range(3)],
    "retry": lambda model, handler, config: [model.with_retry().invoke("go") for _ in range(3)],
}


@pytest.mark.parametrize("way", INNER)
@pytest.mark.parametrize("where", ["lambda", "node", "tool"])
def test_a_model_called_inside_a_run_belongs_to_the_run(governor: ab.Governor, where: str, way: str) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_model_calls=50, governor=governor)
    _run_inside(where, lambda config: INNER[way](model, callback, config), callback)
    assert tasks_of(governor) == [3 + 2 * (where == "tool")]
    assert len(model.calls) == 3


@pytest.mark.parametrize("way", INNER)
@pytest.mark.parametrize("where", ["lambda", "node", "tool"])
def test_a_model_called_inside_a_run_is_held_to_the_budget_of_the_run(
    governor: ab.Governor, where: str, way: str
) -> None:
    outer = where == "tool"
    model, callback = scripted(), ab.BudgetCallback(max_model_calls=2 + outer, governor=governor)
    with pytest.raises(ab.BudgetExceeded):
        _run_inside(where, lambda config: INNER[way](model, callback, config), callback)
    assert len(model.calls) == 2
    assert tasks_of(governor) == [2 + outer]


def _run_inside(where: str, act: Callable[[RunnableConfig], object], callback: ab.BudgetCallback) -> None:
    """Let *act* run in a lambda, a node, or a tool of an agent whose own model is called twice."""

    def step(given: Any, config: RunnableConfig) -> Any:
        act(config)
        return {}

    @tool
    def work(config: RunnableConfig) -> str:
        """Work."""
        act(config)
        return "worked"

    if where == "lambda":
        RunnableLambda(step).invoke("go", using(callback))
    elif where == "node":
        graph_of(only=step).compile().invoke(HELLO, using(callback))
    else:
        create_agent(scripted(asking("work", 1)), [work]).invoke(HELLO, using(callback))


def test_callbacks_emptied_by_hand_are_seen_by_an_ambient_task_and_not_by_a_callback(governor: ab.Governor) -> None:
    model, nobody = scripted(), using()
    callback = ab.BudgetCallback(governor=governor)
    chain: Any = RunnableLambda(lambda _: _loop(model, nobody))
    chain.invoke("go", using(callback))
    assert report_of(callback).model_calls == 0
    with ab.task("job", governor=governor) as task:
        chain.invoke("go")
    assert task.report.model_calls == 3


def test_a_sub_agent_with_callbacks_emptied_by_hand_still_belongs_to_the_run(governor: ab.Governor) -> None:
    inner = graph_of(only=calling(scripted())).compile()

    @tool
    def delegate() -> str:
        """Delegate."""
        return str(inner.invoke(HELLO, using()))

    callback = ab.BudgetCallback(governor=governor)
    create_agent(scripted(asking("delegate", 1)), [delegate]).invoke(HELLO, using(callback))
    assert tasks_of(governor) == [3]


@pytest.mark.parametrize("passed", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_sub_agent_in_a_tool_belongs_to_the_run_with_and_without_the_config(
    governor: ab.Governor, *, passed: bool, asynchronous: bool
) -> None:
    inner = scripted(asking("search", 2, query="a"))
    sub = create_agent(inner, [search])

    @tool
    def delegate(config: RunnableConfig) -> str:
        """Delegate."""
        return str(sub.invoke(HELLO, config if passed else None))

    @tool("delegate")
    async def adelegate(config: RunnableConfig) -> str:
        """Delegate."""
        return str(await sub.ainvoke(HELLO, config if passed else None))

    callback = ab.BudgetCallback(governor=governor)
    agent = create_agent(scripted(asking("delegate", 1)), [adelegate if asynchronous else delegate])
    if asynchronous:
        asyncio.run(agent.ainvoke(HELLO, using(callback)))
    else:
        agent.invoke(HELLO, using(callback))
    assert tasks_of(governor) == [5]


def test_the_sub_agents_of_a_deep_agent_belong_to_its_run(governor: ab.Governor) -> None:
    job = {"description": "look it up", "subagent_type": "helper"}
    helper = scripted(asking("search", 1, query="a"))
    helpers: Any = [{"name": "helper", "description": "h", "system_prompt": "s", "tools": [search], "model": helper}]
    agent = create_deep_agent(model=scripted(asking("task", 2, **job)), tools=[], subagents=helpers)
    agent.invoke(HELLO, using(ab.BudgetCallback(governor=governor)))
    assert tasks_of(governor) == [3 + len(helper.calls)]
    assert len(helper.calls) == 4


class _Words(TypedDict):
    words: list[str]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_branches_sent_out_are_one_task(governor: ab.Governor, *, asynchronous: bool) -> None:
    model = scripted()

    def one(state: Any) -> dict[str, Any]:
        model.invoke(state["word"])
        return {}

    async def aone(state: Any) -> dict[str, Any]:
        await model.ainvoke(state["word"])
        return {}

    builder = StateGraph(_Words)
    builder.add_node("one", aone if asynchronous else one)
    builder.add_conditional_edges(START, lambda state: [Send("one", {"word": word}) for word in state["words"]])
    builder.add_edge("one", END)
    graph, callback = builder.compile(), ab.BudgetCallback(max_model_calls=5, governor=governor)
    given: Any = {"words": list("abcdefgh")}
    with pytest.raises(ab.BudgetExceeded):
        asyncio.run(graph.ainvoke(given, using(callback))) if asynchronous else graph.invoke(given, using(callback))
    assert len(model.calls) == 5
    assert tasks_of(governor) == [5]
