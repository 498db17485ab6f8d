"""Law 11 in a matrix: after a stop no call leaves the process but the last answer, whatever middleware stands around.

Counted by the provider's stand-in, which refuses histories that the real ones refuse. The matrix is printed with
`pytest -s`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ContextEditingMiddleware,
    HumanInTheLoopMiddleware,
    LLMToolEmulator,
    LLMToolSelectorMiddleware,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
    TodoListMiddleware,
    ToolCallLimitMiddleware,
    ToolErrorMiddleware,
    ToolRetryMiddleware,
)
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

import agentbudget as ab
from agentbudget.testing import ProviderServer, Reply, Request, ToolCall, assert_valid_history
from tests.langchain.support import openai, search

HELLO: Any = {"messages": [("user", "hello")]}
APPROVE: Any = Command(resume={"decisions": [{"type": "approve"}]})
MOST = 6


def _thread() -> Any:
    return {"configurable": {"thread_id": "t"}, "recursion_limit": 150}


def _settled(agent: Any, result: Any, config: Any, run: Callable[[Any, Any, Any], Any]) -> Any:
    """Approve whatever a person is asked, until the agent ends."""
    for _ in range(30):
        if "__interrupt__" not in result:
            return result
        result = run(agent, APPROVE, config)
    msg = "the agent never ended"
    raise AssertionError(msg)


def _invoke(agent: Any, given: Any, config: Any) -> Any:
    return agent.invoke(given, config)


def _ainvoke(agent: Any, given: Any, config: Any) -> Any:
    return asyncio.run(agent.ainvoke(given, config))


def _stream(agent: Any, given: Any, config: Any) -> Any:
    for mode, _ in agent.stream(given, config, stream_mode=["messages", "updates"]):
        assert mode
    state = agent.get_state(config)
    return {**state.values, **({"__interrupt__": state.interrupts} if state.interrupts else {})}


RUNS = {"sync": _invoke, "async": _ainvoke, "stream": _stream}


def _helper_tool(server: ProviderServer, stack: list[Any]) -> Any:
    helper = create_agent(openai(server), [search])

    @tool
    def delegate(question: str) -> str:
        """Ask the helper."""
        given: Any = {"messages": [("user", question)]}
        return str(helper.invoke(given)["messages"][-1].content)

    return create_agent(openai(server), [delegate], middleware=stack, checkpointer=InMemorySaver())


AGENTS: dict[str, Callable[[ProviderServer, list[Any]], Any]] = {
    "agent": lambda server, stack: create_agent(
        openai(server), [search], middleware=stack, checkpointer=InMemorySaver()
    ),
    "deep": lambda server, stack: create_deep_agent(
        openai(server), [search], middleware=stack, checkpointer=InMemorySaver()
    ),
    "sub-agent": _helper_tool,
}

HOSTS: dict[str, Callable[[ProviderServer], Any]] = {
    "ModelRetry": lambda _: ModelRetryMiddleware(max_retries=3, initial_delay=0),
    "ModelFallback": lambda server: ModelFallbackMiddleware(openai(server, model="gpt-4o-mini")),
    "ToolRetry": lambda _: ToolRetryMiddleware(max_retries=3, initial_delay=0),
    "ToolError": lambda _: ToolErrorMiddleware(lambda error, request: "it failed"),
    "Summarization": lambda server: SummarizationMiddleware(
        model=openai(server), trigger=("messages", 5), keep=("messages", 3)
    ),
    "ContextEditing": lambda _: ContextEditingMiddleware(),
    "HumanInTheLoop": lambda _: HumanInTheLoopMiddleware(interrupt_on={"search": True, "delegate": True}),
    "TodoList": lambda _: TodoListMiddleware(),
    "PII": lambda _: PIIMiddleware("email"),
    "ToolSelector": lambda server: LLMToolSelectorMiddleware(model=openai(server), max_tools=1),
    "ToolEmulator": lambda server: LLMToolEmulator(model=openai(server)),
    "ModelCallLimit": lambda _: ModelCallLimitMiddleware(run_limit=50),
    "ToolCallLimit": lambda _: ToolCallLimitMiddleware(run_limit=50),
}


def _restless(request: Request) -> Reply:
    """Calls a tool for ever while there is one; picks a tool where it is asked to; else it answers."""
    if "response_format" in request.body:
        return Reply(text='{"tools": ["search"]}')
    names = [each["function"]["name"] for each in request.body.get("tools") or ()]
    if "search" in names:
        return Reply(text="Looking.", tool_calls=(ToolCall(name="search", args={"query": "a"}),))
    if "delegate" in names:
        return Reply(text="Asking.", tool_calls=(ToolCall(name="delegate", args={"question": "a"}),))
    return Reply(text="This is all I know.")


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(_restless) as running:
        yield running


def _supported(kind: str, host: str) -> bool:
    """A deep agent brings its own to-do list and summariser, and a selector cannot choose among its built-in tools."""
    return not (kind == "deep" and host in {"TodoList", "Summarization", "ToolSelector"}) and not (
        kind == "sub-agent" and host == "ToolSelector"
    )


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("how", RUNS)
@pytest.mark.parametrize(("kind", "host"), [(k, h) for k in AGENTS for h in HOSTS if _supported(k, h)])
def test_law_11_zero_calls_after_the_stop_but_the_last_answer(
    governor: ab.Governor, server: ProviderServer, kind: str, host: str, how: str, *, first: bool
) -> None:
    middleware = ab.BudgetMiddleware(max_model_calls=MOST, governor=governor)
    stack = [middleware, HOSTS[host](server)]
    agent = AGENTS[kind](server, stack if first else stack[::-1])
    config, run = _thread(), RUNS[how]
    escaped = ""
    try:
        result = _settled(agent, run(agent, HELLO, config), config, run)
    except ab.BudgetExceeded as error:  # another middleware's own call was refused where nobody can land it
        escaped = error.stop.call
        result = agent.get_state(config).values
    calls = len(server.served)
    assert calls <= MOST
    report = middleware.report
    assert report is not None
    assert (report.status, report.model_calls) == ("stopped", calls)
    assert report.reserved == 0
    assert len(server.requests) == calls, "a history was refused"
    if not escaped:
        assert_valid_history(result["messages"])
        assert calls == MOST
        assert not server.requests[-1].body.get("tools"), "the last call was no last answer"
    assert not escaped or host in {"Summarization", "ToolSelector", "ToolEmulator"}
    print(f"{kind:10} {how:7} {host:15} {'first' if first else 'last':6} calls {calls} {escaped or 'landed'}")  # noqa: T201 - the matrix
