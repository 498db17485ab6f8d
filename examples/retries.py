"""Retries seen, capped and done right, on the real `ChatOpenAI` client against a stand-in for the provider.

    python examples/retries.py

First one step of a graph against a provider that is down: the node, the middleware and the client's SDK each try three
times, which makes 27 requests. Then the same with `transport.watch` and a retry budget. Then tenacity, with policies
that know the budget, around a tool, a model and a node.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.messages import AnyMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import RetryPolicy
from openai import APIStatusError
from pydantic import SecretStr
from tenacity import retry, stop_after_attempt, wait_exponential

import agentbudget as ab
from agentbudget.langchain import transport
from agentbudget.langchain.acting import current_tasks
from agentbudget.retries import retry_if_can_succeed, stop_when_unaffordable, wait_retry_after
from agentbudget.testing import ProviderServer, Reply

QUESTION: Any = {"messages": [("user", "How many bridges are there in Berlin?")]}
DOWN = Reply(status=503, headers={"retry-after-ms": "1"})

careful = retry(
    retry=retry_if_can_succeed(),
    wait=wait_retry_after(wait_exponential(multiplier=0.001, max=0.01), jitter=0.001),
    stop=stop_after_attempt(5) | stop_when_unaffordable(current_tasks),
    reraise=True,
)
"""Retry what can succeed, wait as the provider asks, and stop before the budget does."""


def main() -> int:
    with ProviderServer(lambda _: DOWN) as server:
        unbounded = outage(server, ab.BudgetCallback())
        bounded = outage(server, ab.BudgetCallback(max_retries=2))
    with ProviderServer([DOWN, DOWN, Reply(text="About 960.")]) as server:
        answered = tenacious(server)
    return 0 if (unbounded, bounded, answered) == (27, 3, True) else 1


def outage(server: ProviderServer, callback: ab.BudgetCallback) -> int:
    """One step against a provider that is down; how many requests left."""
    before = len(server.requests)
    middleware = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False, on_failure="error")
    agent = create_agent(transport.watch(client(server, max_retries=2)), [], middleware=[middleware])
    policy = RetryPolicy(max_attempts=3, initial_interval=0, jitter=False, retry_on=Exception)
    graph = graph_of(agent, policy)
    try:
        graph.invoke(QUESTION, config={"callbacks": [callback]})
    except ab.BudgetExceeded as stop:
        print(f"Stopped: {stop.stop.reason}.")
    except APIStatusError as error:
        print(f"Failed after all: {type(error).__name__}.")
    requests = len(server.requests) - before
    print(f"{requests} requests left.\n{callback.report}\n")
    return requests


def tenacious(server: ProviderServer) -> bool:
    """Tenacity around a tool, a model and a node of one task; whether it answered."""
    lines = iter([ConnectionError("line is down")])
    model = client(server, max_retries=0)

    @tool
    def archive(query: str) -> str:
        """Look into the archive."""
        for error in lines:
            raise error
        return f"Nothing about {query}."

    @careful
    def look_up(query: str) -> str:
        return str(archive.invoke({"query": query}))

    @careful
    def ask(messages: list[AnyMessage]) -> AnyMessage:
        return model.invoke(messages)

    @careful
    def node(state: MessagesState) -> dict[str, Any]:
        look_up("bridges")
        return {"messages": [ask(state["messages"])]}

    callback = ab.BudgetCallback(max_cost="$0.05", max_retries=10)
    result = graph_of(node).invoke(QUESTION, config={"callbacks": [callback]})
    print(f"Answer: {result['messages'][-1].text}\n{callback.report}")
    return bool(result["messages"][-1].text == "About 960.")


def graph_of(step: Callable[..., Any] | Any, policy: RetryPolicy | None = None) -> Any:
    """A graph of one node."""
    graph = StateGraph(MessagesState)
    graph.add_node("step", step, retry_policy=policy)
    graph.add_edge(START, "step")
    graph.add_edge("step", END)
    return graph.compile()


def client(server: ProviderServer, *, max_retries: int) -> ChatOpenAI:
    """The real client, as far as the stand-in."""
    key = SecretStr("none")
    return ChatOpenAI(
        model="gpt-4o", api_key=key, base_url=server.base_url, max_retries=max_retries, max_completion_tokens=300
    )


if __name__ == "__main__":
    sys.exit(main())
