"""Law 11: after a stop nothing leaves the process, whatever the host or the user does about the error."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent, middleware
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tools import StructuredTool
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run as TracedRun
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy

import agentbudget as ab
from agentbudget.testing import (
    ProviderServer,
    Reply,
    Request,
    ScriptedChatModel,
    ToolCall,
    scripted_reply,
)
from tests.langchain.support import WAYS, metered, nanos, openai, report_of, search, truth, using

ALLOWED = 2
"""Model calls that the budget of the matrix admits."""

ADD_NODE = inspect.signature(StateGraph.add_node).parameters


# -- law 11: the matrix ------------------------------------------------------------------------------------------------


def endless(request: Request) -> Reply:
    """A model that uses a tool whenever it has one, and never comes to an end."""
    tools = [tool["function"]["name"] for tool in request.body.get("tools") or ()]
    args = {"query": str(request.number)}
    return Reply(text="once more", tool_calls=tuple(ToolCall(name=name, args=args) for name in tools[:1]))


def looping(call: Runnable[Any, Any], *, swallow: bool) -> RunnableLambda[Any, Any]:
    """Code of a user that calls five times, and hides every error where it swallows."""

    def sync(_: Any) -> str:
        for _ in range(5):
            try:
                call.invoke("hi")
            except Exception:
                if not swallow:
                    raise
        return "done"

    async def on_loop(_: Any) -> str:
        for _ in range(5):
            try:
                await call.ainvoke("hi")
            except Exception:
                if not swallow:
                    raise
        return "done"

    return RunnableLambda(sync, afunc=on_loop)


def asking_tool(call: Runnable[Any, Any]) -> StructuredTool:
    """A tool with a model inside."""

    def sync(query: str) -> str:
        return str(call.invoke(query))

    async def on_loop(query: str) -> str:
        return str(await call.ainvoke(query))

    return StructuredTool.from_function(sync, coroutine=on_loop, name="ask", description="Ask.")


def messages_of(step: Runnable[Any, Any]) -> RunnableLambda[Any, Any]:
    """A node of a graph of messages around *step*."""

    def sync(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(str(step.invoke(state["messages"][-1].content)))]}

    async def on_loop(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(str(await step.ainvoke(state["messages"][-1].content)))]}

    return RunnableLambda(sync, afunc=on_loop)


def one_node(step: Runnable[Any, Any], **options: Any) -> Runnable[Any, Any]:
    graph = StateGraph(MessagesState)
    graph.add_node("ask", messages_of(step), **options)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph.compile()


def agent_with(model: ChatOpenAI, tool: Any, *parts: Any) -> Runnable[Any, Any]:
    return create_agent(model, [tool], middleware=parts)


def retrying_node(model: ChatOpenAI) -> Runnable[Any, Any]:
    policy = RetryPolicy(initial_interval=0, backoff_factor=0, jitter=False, retry_on=Exception)
    return one_node(looping(model, swallow=False), retry_policy=policy)


def handled_node(model: ChatOpenAI) -> Runnable[Any, Any]:
    if "error_handler" not in ADD_NODE:
        pytest.skip("this LangGraph has no error handlers of nodes")
    handler = messages_of(looping(model, swallow=False))
    return one_node(looping(model, swallow=False), error_handler=handler)


def forgiving_tool_node(model: ChatOpenAI) -> Runnable[Any, Any]:
    """Model and tools in a loop of the user's own, with every error of a tool turned into its answer."""
    tools = [asking_tool(looping(model, swallow=False))]
    graph = StateGraph(MessagesState)
    bound = model.bind_tools(tools)

    def sync(state: MessagesState) -> dict[str, Any]:
        return {"messages": [bound.invoke(state["messages"])]}

    async def on_loop(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph.add_node("model", RunnableLambda(sync, afunc=on_loop))
    graph.add_node("tools", ToolNode(tools, handle_tool_errors=True))
    graph.add_edge(START, "model")
    graph.add_edge("model", "tools")
    graph.add_edge("tools", "model")
    return graph.compile()


def _forgive(*_: Any) -> str:
    return "never mind"


def tool_errors(model: ChatOpenAI) -> Runnable[Any, Any]:
    if not hasattr(middleware, "ToolErrorMiddleware"):
        pytest.skip("this LangChain has no ToolErrorMiddleware")
    return agent_with(model, asking_tool(looping(model, swallow=False)), middleware.ToolErrorMiddleware(_forgive))


def batch_in_a_chain(model: ChatOpenAI) -> Runnable[Any, Any]:
    def sync(_: Any) -> list[Any]:
        one_by_one: RunnableConfig = {"max_concurrency": 1}
        return model.batch(["hi"] * 5, config=one_by_one, return_exceptions=True)

    async def on_loop(_: Any) -> list[Any]:
        one_by_one: RunnableConfig = {"max_concurrency": 1}
        return await model.abatch(["hi"] * 5, config=one_by_one, return_exceptions=True)

    return RunnableLambda(sync, afunc=on_loop)


ANY = (Exception,)
NO_WAIT: dict[str, Any] = {
    "max_retries": 3,
    "initial_delay": 0.0,
    "backoff_factor": 0.0,
    "jitter": False,
    "retry_on": ANY,
}

RESURRECTORS: dict[str, tuple[Callable[[ChatOpenAI], Runnable[Any, Any]], str]] = {
    "with_retry": (lambda m: looping(m.with_retry(wait_exponential_jitter=False), swallow=False), "raised"),
    "chain.with_retry": (
        lambda m: looping(m, swallow=False).with_retry(wait_exponential_jitter=False),
        "raised",
    ),
    "with_fallbacks": (lambda m: looping(m.with_fallbacks([m, m]), swallow=False), "raised"),
    "chain.with_fallbacks": (lambda m: looping(m, swallow=False).with_fallbacks([m]), "raised"),
    "RetryPolicy": (retrying_node, "raised"),
    "node error_handler": (handled_node, "raised"),
    "ModelRetryMiddleware": (
        lambda m: agent_with(m, search, middleware.ModelRetryMiddleware(**NO_WAIT, on_failure="continue")),
        "raised" if "GraphBubbleUp" in inspect.getsource(middleware.ModelRetryMiddleware) else "returned",
    ),
    "ModelFallbackMiddleware": (lambda m: agent_with(m, search, middleware.ModelFallbackMiddleware(m)), "raised"),
    "ToolRetryMiddleware": (
        lambda m: agent_with(
            m,
            asking_tool(looping(m, swallow=False)),
            middleware.ToolRetryMiddleware(**NO_WAIT, on_failure="continue"),
        ),
        "raised",
    ),
    "ToolErrorMiddleware": (tool_errors, "raised"),
    "ToolNode(handle_tool_errors=True)": (forgiving_tool_node, "raised"),
    "except Exception in a node": (lambda m: one_node(looping(m, swallow=True)), "returned"),
    "except Exception in a tool": (lambda m: agent_with(m, asking_tool(looping(m, swallow=True))), "raised"),
    "batch(return_exceptions=True)": (batch_in_a_chain, "returned"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("resurrector", RESURRECTORS)
async def test_law_11_nothing_brings_a_stopped_task_back_to_life(
    governor: ab.Governor, resurrector: str, way: str
) -> None:
    build, expected = RESURRECTORS[resurrector]
    callback = metered(governor, max_model_calls=ALLOWED)
    with ProviderServer(endless) as server:
        model = openai(server)
        app = build(model)
        ended = "returned"
        try:
            await WAYS[way](app, {"messages": [HumanMessage("go")]}, using(callback))
        except ab.BudgetExceeded:
            ended = "raised"
        await model.root_async_client.close()
    report = report_of(callback)
    assert len(server.requests) == ALLOWED
    assert ended == expected
    assert report.status == "stopped"
    assert report.stopped_by is not None
    assert report.stopped_by.limit == "max_model_calls"
    assert nanos(report.cost) == truth(server)


def test_law_11_a_call_small_enough_to_fit_is_refused_once_a_larger_one_was(governor: ab.Governor) -> None:
    with ProviderServer() as server:
        large, small = openai(server, max_tokens=10_000), openai(server, max_tokens=10)
        callback = metered(governor, max_cost="$0.05")

        def work(_: Any) -> None:
            with pytest.raises(ab.BudgetExceeded):
                large.invoke("hi")
            with pytest.raises(ab.BudgetExceeded):
                search.invoke({"query": "a"})
            small.invoke("hi")

        with pytest.raises(ab.BudgetExceeded):
            RunnableLambda(work).invoke(1, config=using(callback))
        assert server.requests == []
        small.invoke("hi", config=using(callback))  # a run of its own has a budget of its own
        assert len(server.requests) == 1


def test_law_11_a_child_task_that_stops_does_not_stop_its_parent(governor: ab.Governor) -> None:
    model = ScriptedChatModel(script=[scripted_reply("ok", input_tokens=10, output_tokens=1)], repeat_last=True)
    with ab.task("outer", max_model_calls=5, governor=governor) as outer:
        with ab.task("inner", max_model_calls=1):
            model.invoke("a")
            with pytest.raises(ab.BudgetExceeded):
                model.invoke("b")
        model.invoke("c")
    assert outer.report.model_calls == len(model.calls) == 2
    assert outer.report.stopped_by is None


def test_law_11_a_stopped_parent_stops_its_children(governor: ab.Governor) -> None:
    model = ScriptedChatModel(script=[scripted_reply("ok", input_tokens=10, output_tokens=1)], repeat_last=True)
    with ab.task("outer", max_model_calls=1, governor=governor):
        model.invoke("a")
        with pytest.raises(ab.BudgetExceeded):
            model.invoke("b")
        with pytest.raises(ab.BudgetExceeded), ab.task("inner", max_model_calls=9):
            model.invoke("c")
    assert len(model.calls) == 1


# -- the error that stops ----------------------------------------------------------------------------------------------


class Errors(BaseTracer):
    """What a tracer is told."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[TracedRun] = []

    def _persist_run(self, run: TracedRun) -> None:
        self.roots.append(run)


def test_the_stop_bubbles_up_and_is_no_interrupt() -> None:
    assert issubclass(ab.BudgetExceeded, GraphBubbleUp)
    assert not issubclass(ab.BudgetExceeded, GraphInterrupt)
    assert issubclass(ab.BudgetExceeded, ab.BudgetError)
    assert issubclass(ab.BudgetExceeded, Exception)


# LangChain makes the coroutines of all handlers before it awaits the first; those after a stop are dropped unawaited.
@pytest.mark.filterwarnings("ignore:coroutine 'ahandle_event' was never awaited:RuntimeWarning")
@pytest.mark.parametrize("way", WAYS)
async def test_the_stop_leaves_the_run_is_an_error_to_tracers_and_no_interrupt_of_the_checkpoint(
    governor: ab.Governor, way: str
) -> None:
    saver, tracer = InMemorySaver(), Errors()
    model = ScriptedChatModel(
        script=[lambda _: scripted_reply(calls=[("search", {"query": "a"})], input_tokens=9, output_tokens=1)],
        repeat_last=True,
    )
    agent = create_agent(model, [search], checkpointer=saver)
    config: Any = {**using(metered(governor, max_model_calls=1), tracer), "configurable": {"thread_id": "t"}}
    with pytest.raises(ab.BudgetExceeded):
        await WAYS[way](agent, {"messages": [HumanMessage("go")]}, config)
    state = agent.get_state({"configurable": {"thread_id": "t"}})
    assert state.next == ("model",)
    assert state.interrupts == ()
    assert all(task.interrupts == () for task in state.tasks)
    assert [root.error is not None and "BudgetExceeded" in root.error for root in tracer.roots] == [True]


def test_the_stop_survives_pickling_with_its_numbers(governor: ab.Governor) -> None:
    import pickle

    model = ScriptedChatModel(script=[scripted_reply("ok")])
    with pytest.raises(ab.BudgetExceeded) as raised:
        model.invoke("hi", config=using(metered(governor, max_cost="$0.00000001")))
    copy = pickle.loads(pickle.dumps(raised.value))
    assert copy.stop == raised.value.stop
    assert str(copy) == str(raised.value)
    assert copy.report == raised.value.report
