"""Every way an agent can land at its limit, shown on an agent that would go on searching for ever.

    python examples/landings.py             # all of them
    python examples/landings.py ask finish  # some

It runs on the real `ChatOpenAI` client against a stand-in for the provider on this machine, which refuses histories
that the real one refuses, and counts what it generated. Nothing is paid.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import SecretStr

import agentbudget as ab
from agentbudget.testing import ProviderServer, Reply, Request, ToolCall, assert_valid_history

QUESTION: Any = {"messages": [HumanMessage("How many bridges are there in Berlin?")]}
THREAD: Any = {"configurable": {"thread_id": "example"}}
ARTICLES = {"bridges": "Bridges of Berlin", "rivers": "The Spree"}


@tool
def search(query: str) -> str:
    """Search the web."""
    return f"Three pages about {query!r}. They disagree: one more search is needed to be sure."


def restless(request: Request) -> Reply:
    """What the stand-in answers: it searches twice at once while it has a tool, and answers once it has none."""
    if not request.body.get("tools"):
        return Reply(text="About 960. The sources disagree, and I could not check the newest one.")
    calls = [ToolCall(name="search", args={"query": f"bridges, {request.number}{part}"}) for part in "ab"]
    return Reply(text="I will look further.", tool_calls=tuple(calls))


def agent_within(server: ProviderServer, **options: Any) -> tuple[Any, ab.BudgetMiddleware]:
    budget = ab.BudgetMiddleware(governor=ab.Governor(), **options)
    key = SecretStr("none is needed here")
    model = ChatOpenAI(model="gpt-4o", base_url=server.base_url, api_key=key, max_completion_tokens=300)
    return create_agent(model, [search], middleware=[budget], checkpointer=InMemorySaver()), budget


def finish(server: ProviderServer) -> Any:
    """One last answer, without tools, from what was kept back for it (the default)."""
    agent, _ = agent_within(server, max_cost="$0.03")
    return agent.invoke(QUESTION, THREAD)


def ask(server: ProviderServer) -> Any:
    """A person is asked before the call is made; here they grant two cents, and next time want an answer now."""
    agent, _ = agent_within(server, max_cost="$0.02", on_limit="ask")
    paused = agent.invoke(QUESTION, THREAD)["__interrupt__"][0].value
    print(f"   asked: {paused['question']}")
    print(f"   a person may answer: {', '.join(paused['options'])}")
    agent.invoke(Command(resume={"grant": "$0.02", "approver": "ann"}), THREAD)
    return agent.invoke(Command(resume="finish"), THREAD)


def end(server: ProviderServer) -> Any:
    """The agent ends with a message that says why."""
    agent, _ = agent_within(server, max_model_calls=3, on_limit="end")
    return agent.invoke(QUESTION, THREAD)


def raise_(server: ProviderServer) -> Any:
    """`BudgetExceeded`; the checkpoint is kept, and `invoke(None)` goes on once the limit is raised."""
    agent, budget = agent_within(server, max_cost="$0.02", on_limit="raise")
    try:
        agent.invoke(QUESTION, THREAD)
    except ab.BudgetExceeded as stop:
        print(f"   raised: {stop.stop.reason}")
        print(f"   spent so far: ${budget.reports[-1].cost}, by call: {'; '.join(stop.stop.last_calls[-2:])}")
    return agent.get_state(THREAD).values


def keyword_search(server: ProviderServer) -> Any:
    """A callable answers in place of the model: low-priority work falls back from the model to keyword search."""

    def by_keyword(stop: Any, request: Any) -> str:
        question = request.messages[0].text.lower()
        found = [title for word, title in ARTICLES.items() if word in question]
        return f"The budget ({stop.limit}) is used up; these articles match: {', '.join(found)}."

    agent, _ = agent_within(server, max_model_calls=2, on_limit=by_keyword)
    return agent.invoke(QUESTION, THREAD)


def tools(server: ProviderServer) -> Any:
    """Of a batch of tool calls what fits runs; the rest is answered without being run, and the tool is withdrawn."""
    agent, _ = agent_within(server, max_model_calls=9, tools={"search": 3})
    result = agent.invoke(QUESTION, THREAD)
    answers = [message.status for message in result["messages"] if isinstance(message, ToolMessage)]
    print(f"   tool calls: {answers.count('success')} run, {answers.count('error')} answered without being run")
    return result


LANDINGS: dict[str, Callable[[ProviderServer], Any]] = {
    "finish": finish,
    "ask": ask,
    "end": end,
    "raise": raise_,
    "callable": keyword_search,
    "tools": tools,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Every way an agent can land at its limit.")
    parser.add_argument("names", nargs="*", metavar="LANDING", help=f"one or more of: {', '.join(LANDINGS)}")
    names = parser.parse_args().names or list(LANDINGS)
    for name in names:
        landing = LANDINGS[name]
        print(f"{name}: {(landing.__doc__ or '').splitlines()[0]}")
        with ProviderServer(restless) as server:
            messages = landing(server)["messages"]
            refused = len(server.requests) - len(server.served)
        assert_valid_history(messages)
        print(f"   {len(server.served)} model calls, {refused} refused by the provider; the history is valid")
        print(f"   last message: {messages[-1].text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
