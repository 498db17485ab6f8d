"""Which layer repeated an attempt, for each of those that LangChain has and those that it does not see."""

from __future__ import annotations

from typing import Any

import pytest
import tenacity
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware, ToolRetryMiddleware
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

import agentbudget as ab
from agentbudget.testing import ScriptedChatModel, scripted_reply
from tests.langchain.actors import HELLO, answer
from tests.langchain.support import metered, report_of, using

POLICY = RetryPolicy(max_attempts=3, initial_interval=0.0, jitter=False, retry_on=Exception)


class FlakyError(Exception):
    """An error of a provider or a tool that passes."""


def flaky(failures: int = 2, *turns: Any, **options: Any) -> ScriptedChatModel:
    """A model that fails so often, then answers."""
    return ScriptedChatModel(script=[*[FlakyError()] * failures, *(turns or [answer()])], max_tokens=20, **options)


def repeated(governor: ab.Governor, work: Any, given: Any = "hi") -> dict[str, int]:
    """Attempts beyond the first by layer, of a run of *work*."""
    callback = metered(governor)
    work.invoke(given, using(callback))
    report = report_of(callback)
    assert sum(row.calls for row in report.by_layer.values()) == report.retries
    assert sum(row.cost for row in report.by_layer.values()) <= report.cost
    return {name: row.calls for name, row in report.by_layer.items()}


def node(step: Any, **options: Any) -> Any:
    graph: Any = StateGraph(MessagesState)
    graph.add_node("step", step, **options)
    graph.add_edge(START, "step")
    return graph.compile()


def test_with_retry_around_the_model(governor: ab.Governor) -> None:
    model = flaky().with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    assert repeated(governor, model) == {"with_retry": 2}


def test_with_retry_around_a_chain_with_the_model(governor: ab.Governor) -> None:
    chain = RunnableLambda(lambda given: given) | flaky() | RunnableLambda(lambda given: given)
    retrying = chain.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    assert repeated(governor, retrying) == {"with_retry": 2}


def test_the_retry_policy_of_a_node(governor: ab.Governor) -> None:
    model = flaky()
    work = node(lambda state: {"messages": [model.invoke(state["messages"])]}, retry_policy=POLICY)
    assert repeated(governor, work, HELLO) == {"node": 2}


def test_the_retry_policy_of_a_node_that_is_an_agent(governor: ab.Governor) -> None:
    assert repeated(governor, node(create_agent(flaky(), []), retry_policy=POLICY), HELLO) == {"node": 2}


def test_the_retry_middleware_of_models(governor: ab.Governor) -> None:
    retrying = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False)
    assert repeated(governor, create_agent(flaky(), [], middleware=[retrying]), HELLO) == {"middleware": 2}


def test_the_retry_middleware_of_tools(governor: ab.Governor) -> None:
    tried: list[int] = []

    @tool
    def search() -> str:
        """Search."""
        tried.append(1)
        if len(tried) < 3:
            raise FlakyError
        return "found"

    model = ScriptedChatModel(script=[scripted_reply("", calls=[("search", {})]), answer()], max_tokens=20)
    retrying = ToolRetryMiddleware(max_retries=2, initial_delay=0, jitter=False)
    assert repeated(governor, create_agent(model, [search], middleware=[retrying]), HELLO) == {"middleware": 2}


def test_a_fallback_of_a_runnable_and_of_the_middleware(governor: ab.Governor) -> None:
    failing, other = flaky(1), flaky(0, model_name="gpt-4o-mini")
    assert repeated(governor, failing.with_fallbacks([other])) == {"fallback": 1}
    failing, other = flaky(1), flaky(0, model_name="gpt-4o-mini")
    agent = create_agent(failing, [], middleware=[ModelFallbackMiddleware(other)])
    assert repeated(governor, agent, HELLO) == {"fallback": 1}


@pytest.mark.parametrize("around", ["in a chain", "in a node"])
def test_a_caller_that_langchain_does_not_see(governor: ab.Governor, around: str) -> None:
    model = flaky()

    def ask(state: Any) -> Any:
        found = tenacity.Retrying(stop=tenacity.stop_after_attempt(3))(model.invoke, "hi")
        return {"messages": [found]}

    work, given = (RunnableLambda(ask), "hi") if around == "in a chain" else (node(ask), HELLO)
    assert repeated(governor, work, given) == {"caller": 2}


def test_layers_within_each_other_are_told_apart(governor: ab.Governor) -> None:
    retrying = ModelRetryMiddleware(max_retries=1, initial_delay=0, jitter=False, on_failure="error")
    agent = create_agent(flaky(3), [], middleware=[retrying])
    assert repeated(governor, node(agent, retry_policy=POLICY), HELLO) == {"middleware": 2, "node": 1}


def test_without_a_retry_there_is_no_layer(governor: ab.Governor) -> None:
    assert repeated(governor, flaky(0).with_retry()) == {}
