"""Whatever is run, and however: one run is one task, every model call in it is counted, and a stop stops it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langgraph.func import entrypoint
from langgraph.func import task as step

import agentbudget as ab
from agentbudget.testing import ScriptedChatModel
from tests.langchain.actors import CALL, ENTRIES, HELLO, answer, asking, calling, graph_of, scripted
from tests.langchain.support import search, using

Build = Callable[[ScriptedChatModel], Any]

# LangChain makes one coroutine for each inline handler (its own streaming needs some) and, where one raises, drops the
# others without a word to Python.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'ahandle_event' was never awaited:RuntimeWarning")


def _chain(model: ScriptedChatModel) -> Any:
    again: Any = RunnableLambda(lambda message: [("user", message.text)])
    return ChatPromptTemplate.from_messages([("user", "{say}")]) | model | again | model


def _graph(model: ScriptedChatModel) -> Any:
    return graph_of(first=calling(model), second=calling(model)).compile()


def _graph_with_subgraph(model: ScriptedChatModel) -> Any:
    return graph_of(first=calling(model), inner=_graph(model)).compile()


def _agent(model: ScriptedChatModel) -> Any:
    return create_agent(model, [search])


def _deep_agent(model: ScriptedChatModel) -> Any:
    return create_deep_agent(model=model, tools=[search])


def _functional(model: ScriptedChatModel) -> Any:
    @step
    def ask(text: str) -> str:
        return model.invoke(text).text

    @entrypoint()
    def flow(messages: Any) -> str:
        return ask(ask("hello").result()).result()

    return flow


SHAPES: dict[str, tuple[Build, Any, int]] = {
    "chain": (_chain, {"say": "hello"}, 2),
    "graph": (_graph, HELLO, 2),
    "subgraph": (_graph_with_subgraph, HELLO, 3),
    "agent": (_agent, HELLO, 2),
    "deep agent": (_deep_agent, HELLO, 2),
}
"""What is built around a model, what it is given, and how many model calls it then makes."""


def _model() -> ScriptedChatModel:
    return scripted(asking("search", 1, query="a"))


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_one_run_is_one_task_with_all_of_its_calls(governor: ab.Governor, shape: str, entry: str) -> None:
    build, given, calls = SHAPES[shape]
    model, callback = _model(), ab.BudgetCallback(governor=governor)
    ENTRIES[entry](build(model), given, using(callback))
    assert [(report.model_calls, report.status) for report in callback.reports] == [(calls, "completed")]
    assert callback.reports[0].cost == len(model.calls) * CALL == calls * CALL


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_stop_leaves_every_entry_and_no_further_call_is_made(governor: ab.Governor, shape: str, entry: str) -> None:
    build, given, calls = SHAPES[shape]
    model, callback = _model(), ab.BudgetCallback(max_model_calls=calls - 1, governor=governor)
    with pytest.raises(ab.BudgetExceeded, match="max_model_calls"):
        ENTRIES[entry](build(model), given, using(callback))
    assert len(model.calls) == calls - 1
    assert [(report.model_calls, report.status) for report in callback.reports] == [(calls - 1, "stopped")]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_bare_model_is_a_task_by_itself(governor: ab.Governor, entry: str) -> None:
    model, callback = scripted(), ab.BudgetCallback(governor=governor)
    ENTRIES[entry](model, "hello", using(callback))
    assert [(report.model_calls, report.cost) for report in callback.reports] == [(1, CALL)]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_bare_model_that_does_not_fit_is_not_called(governor: ab.Governor, entry: str) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_output_tokens=19, governor=governor)
    with pytest.raises(ab.BudgetExceeded, match="max_output_tokens"):
        ENTRIES[entry](model, "hello", using(callback))
    assert not model.calls
    assert [(report.model_calls, report.status) for report in callback.reports] == [(0, "stopped")]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_ambient_task_holds_on_every_entry_without_a_callback(governor: ab.Governor, shape: str, entry: str) -> None:
    build, given, calls = SHAPES[shape]
    model = _model()
    with pytest.raises(ab.BudgetExceeded), ab.task("job", max_model_calls=calls - 1, governor=governor) as task:
        ENTRIES[entry](build(model), given, {})
    assert len(model.calls) == calls - 1
    assert (task.report.model_calls, task.report.status) == (calls - 1, "stopped")


def test_the_functional_api_is_one_task(governor: ab.Governor) -> None:
    callback = ab.BudgetCallback(governor=governor)
    _functional(scripted()).invoke("go", using(callback))
    assert [report.model_calls for report in callback.reports] == [2]


def test_a_tool_called_by_itself_is_a_task(governor: ab.Governor) -> None:
    callback = ab.BudgetCallback(governor=governor)
    search.invoke({"query": "a"}, using(callback))
    assert [(report.tool_calls, report.model_calls) for report in callback.reports] == [(1, 0)]


def test_guard_keeps_the_type_and_the_surface_of_a_graph(governor: ab.Governor) -> None:
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph.state import CompiledStateGraph

    model = scripted()
    plain = graph_of(first=calling(model), second=calling(model)).compile(checkpointer=InMemorySaver())
    guarded = ab.guard(plain, max_model_calls=3, governor=governor)
    thread: Any = {"configurable": {"thread_id": "t"}}
    assert type(guarded) is CompiledStateGraph
    guarded.invoke(HELLO, thread)
    assert len(guarded.get_state(thread).values["messages"]) == 3
    assert list(guarded.get_graph().nodes) == list(plain.get_graph().nodes)
    guarded.update_state(thread, {"messages": [("user", "again")]})
    with pytest.raises(ab.BudgetExceeded):
        ab.guard(plain, max_model_calls=1, governor=governor).invoke(HELLO, thread)
    guarded.with_config(tags=["x"]).invoke(HELLO, {"configurable": {"thread_id": "u"}})
    assert [report.model_calls for report in governor.reports] == [2, 1, 2]
    plain.invoke(HELLO, thread)
    assert len(governor.reports) == 3, "the graph that was guarded is itself unchanged"


def test_guard_takes_any_runnable(governor: ab.Governor) -> None:
    chain = ab.guard(_chain(scripted(answer())), max_model_calls=1, governor=governor)
    with pytest.raises(ab.BudgetExceeded):
        chain.invoke({"say": "hello"})
