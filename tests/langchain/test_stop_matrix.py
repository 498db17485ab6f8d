"""Law 11 in a matrix: after a stop no call leaves the process, however it is called and whatever repeats its calls.

{sync, async, stream, astream} x {agent, graph, deep agent, sub-agent in a tool} x {all that repeats or swallows errors}
x {guard, governed model, middleware} as they fit. Counted by the provider's stand-in, on both wires, which refuses
histories that the real ones refuse. The matrix is printed with `pytest -s`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware, ToolErrorMiddleware, ToolRetryMiddleware
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy

import agentbudget as ab
from agentbudget.testing import ProviderServer, Reply, Request, ToolCall, assert_valid_history
from tests.langchain.support import anthropic, metered, openai, report_of, search, using

HELLO: Any = {"messages": [("user", "hello")]}
MOST = 4
MORE = 2
PASSES: Any = RetryPolicy(max_attempts=3, initial_interval=0.001, jitter=False, retry_on=Exception)
CLIENTS: dict[str, Callable[..., Any]] = {"openai": openai, "anthropic": anthropic}
_ORDINAL = itertools.count()


# -- how it is called --------------------------------------------------------------------------------------------------


def _invoke(app: Any, given: Any, config: Any) -> None:
    app.invoke(given, config)


def _ainvoke(app: Any, given: Any, config: Any) -> None:
    asyncio.run(app.ainvoke(given, config))


def _stream(app: Any, given: Any, config: Any) -> None:
    for _ in app.stream(given, config, stream_mode=["messages", "updates"]):
        pass


def _astream(app: Any, given: Any, config: Any) -> None:
    async def consume() -> None:
        async for _ in app.astream(given, config, stream_mode=["messages", "updates"]):
            pass

    asyncio.run(consume())


RUNS = {"sync": _invoke, "async": _ainvoke, "stream": _stream, "astream": _astream}


# -- what repeats or swallows ------------------------------------------------------------------------------------------


class Host:
    """What one row of the matrix puts around models, nodes and tools."""

    def __init__(self, name: str, model: Callable[..., Any]) -> None:
        self.name = name
        self._model = model

    def model(self, tools: list[Any], act: Callable[[Any], Any]) -> Any:
        """The model as a node calls it: *act* governs it, where it is governed."""
        first = act(self._model()).bind_tools(tools)
        if self.name == "with_retry":
            return first.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
        if self.name == "with_fallbacks":
            return first.with_fallbacks([act(self._model()).bind_tools(tools)])
        return first

    def middleware(self) -> list[Any]:
        """What is in the agent's list."""
        lists: dict[str, list[Any]] = {
            "ModelRetry": [ModelRetryMiddleware(max_retries=2, initial_delay=0)],
            "ToolRetry": [ToolRetryMiddleware(max_retries=2, initial_delay=0)],
            "ToolError": [ToolErrorMiddleware(lambda error, request: "it failed")],
        }
        return lists.get(self.name, [])

    def tool_node(self, tools: list[BaseTool]) -> ToolNode:
        return ToolNode(tools, handle_tool_errors=self.name != "none")

    def node_options(self) -> dict[str, Any]:
        if self.name == "RetryPolicy":
            return {"retry_policy": PASSES}
        if self.name == "error_handler":
            return {"error_handler": lambda state, error: {"messages": [AIMessage("it failed")]}}
        return {}

    def around(self, call: Callable[[], Any]) -> Any:
        """A tool's own code around the agent that it calls."""
        if self.name == "except Exception":
            for _ in range(3):
                try:
                    return call()
                except Exception:  # noqa: BLE001 - what is tried
                    continue
            return "it failed"
        if self.name == "ToolException":
            try:
                return call()
            except Exception as error:
                raise ToolException(str(error)) from error
        return call()


# -- agents ------------------------------------------------------------------------------------------------------------

Act = Callable[[Any], Any]


def _agent(host: Host, tools: list[Any], act: Act, stack: list[Any], **options: Any) -> Any:
    return create_agent(act(host._model()), tools, middleware=[*stack, *host.middleware()], **options)


def _deep(host: Host, tools: list[Any], act: Act, stack: list[Any], **options: Any) -> Any:
    return create_deep_agent(act(host._model()), tools, middleware=[*stack, *host.middleware()], **options)


def _graph(host: Host, tools: list[Any], act: Act, stack: list[Any], **options: Any) -> Any:
    """A loop of a model node and a tool node, as written by hand; sync and async."""
    model = host.model(tools, act)

    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask, **host.node_options())
    builder.add_node("tools", host.tool_node(tools), **host.node_options())
    builder.add_edge(START, "ask")
    builder.add_conditional_edges("ask", lambda state: "tools" if state["messages"][-1].tool_calls else END)
    builder.add_edge("tools", "ask")
    return builder.compile(**options)


def _delegating(host: Host, tools: list[Any], act: Act, stack: list[Any], **options: Any) -> Any:
    """An agent with another one in a tool; the row's swallowing is around the inner one."""
    helper: Any = create_agent(host._model(), tools)

    def delegate(question: str) -> str:
        """Ask the helper."""
        return str(host.around(lambda: helper.invoke(HELLO)["messages"][-1].content))

    inner = tool(delegate)
    inner.handle_tool_error = True
    if host.name in {"RetryPolicy", "error_handler", "handle_tool_errors", "with_retry", "with_fallbacks"}:
        return _graph(host, [inner], act, stack, **options)
    return _agent(host, [inner], act, stack, **options)


AGENTS: dict[str, Callable[..., Any]] = {"agent": _agent, "graph": _graph, "deep": _deep, "sub-agent": _delegating}
HOSTS = {
    "agent": ("none", "ModelRetry", "ToolRetry", "ToolError"),
    "deep": ("ModelRetry", "ToolRetry", "ToolError"),
    "graph": ("none", "with_retry", "with_fallbacks", "RetryPolicy", "error_handler", "handle_tool_errors"),
    "sub-agent": (
        "with_retry", "with_fallbacks", "RetryPolicy", "error_handler", "handle_tool_errors", "ModelRetry", "ToolRetry",
        "ToolError", "ToolException", "except Exception",
    ),
}  # fmt: skip
KEPT_BY = {"agent": ("guard", "governed"), "deep": ("guard",), "graph": ("guard", "governed"),
           "sub-agent": ("guard", "middleware")}  # fmt: skip
"""`middleware` for the rest is tests/langchain/test_middleware_matrix.py."""


def _restless(request: Request) -> Reply:
    """Calls a tool for ever while there is one."""
    offered = [each.get("function", each)["name"] for each in request.body.get("tools") or ()]
    for name, args in (("delegate", {"question": "a"}), ("search", {"query": "a"})):
        if name in offered:
            return Reply(text="Looking.", tool_calls=(ToolCall(name=name, args=args),))
    return Reply(text="This is all I know.")


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(_restless) as running:
        yield running


def _cells() -> Iterator[tuple[str, str, str, str]]:
    for kind, hosts in HOSTS.items():
        for host, by in itertools.product(hosts, KEPT_BY[kind]):
            if by == "middleware" and _delegates_by_hand(host):
                continue
            yield kind, host, by, ("openai", "anthropic")[next(_ORDINAL) % 2]


def _delegates_by_hand(host: str) -> bool:
    return host in {"RetryPolicy", "error_handler", "handle_tool_errors", "with_retry", "with_fallbacks"}


@pytest.mark.filterwarnings("ignore:coroutine 'ahandle_event' was never awaited:RuntimeWarning")  # docs/limits.md
@pytest.mark.parametrize("how", RUNS)
@pytest.mark.parametrize(("kind", "host", "by", "wire"), list(_cells()))
def test_law_11_zero_calls_after_the_stop_and_law_12_a_history_to_go_on_with(
    governor: ab.Governor, server: ProviderServer, kind: str, host: str, by: str, wire: str, how: str
) -> None:
    """`guard` and `governed` stop with the error, and the run goes on once the limit is higher; middleware lands."""
    run, middleware = RUNS[how], None
    if by == "middleware":
        middleware = ab.BudgetMiddleware(max_model_calls=MOST, governor=governor)
    act: Act = ab.governed if by == "governed" else lambda model: model
    row = Host(host, lambda: CLIENTS[wire](server))
    app = AGENTS[kind](row, [search], act, [middleware] if middleware else [], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 100}
    if middleware is not None:
        run(app, HELLO, config)
        assert_valid_history(app.get_state(config).values["messages"])
        assert not server.requests[-1].body.get("tools"), "the last call was no last answer"
        _assert_stopped(middleware.report, server, MOST)
    else:
        for given, most in ((HELLO, MOST), (None, MOST + MORE)):
            callback = metered(governor, max_model_calls=most)
            with pytest.raises(ab.BudgetExceeded):
                run(app, given, {**config, **using(callback)})
            _assert_stopped(report_of(callback), server, most)
    print(f"{kind:10} {how:8} {host:19} {by:10} {wire:10} calls {len(server.served)}")  # noqa: T201 - the matrix


def _assert_stopped(report: ab.TaskReport | None, server: ProviderServer, most: int) -> None:
    assert report is not None
    assert len(server.served) == most
    assert len(server.requests) == most, "a history was refused"
    assert (report.status, report.model_calls, report.reserved) == ("stopped", most, Decimal(0))


@pytest.mark.filterwarnings("ignore:coroutine 'ahandle_event' was never awaited:RuntimeWarning")  # docs/limits.md
@pytest.mark.parametrize("how", RUNS)
@pytest.mark.parametrize(
    ("kind", "host"),
    [
        ("agent", "ToolRetry"),
        ("agent", "ToolError"),
        ("deep", "ToolRetry"),
        ("graph", "RetryPolicy"),
        ("graph", "error_handler"),
        ("graph", "handle_tool_errors"),
        ("sub-agent", "ToolException"),
        ("sub-agent", "except Exception"),
    ],
)
def test_law_11_a_refused_tool_is_a_stop_too(
    governor: ab.Governor, server: ProviderServer, kind: str, host: str, how: str
) -> None:
    """Two tools run, the third is refused: nobody makes a message of that and goes on."""
    callback = metered(governor, max_tool_calls=2)
    app = AGENTS[kind](Host(host, lambda: openai(server)), [search], lambda model: model, [])
    with pytest.raises(ab.BudgetExceeded):
        RUNS[how](app, HELLO, {"recursion_limit": 100, **using(callback)})
    report = report_of(callback)
    assert (report.status, report.tool_calls, report.model_calls) == ("stopped", 2, 3)
    assert len(server.served) == len(server.requests) == 3
