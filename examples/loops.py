"""Loops caught for what they are, on the real `ChatOpenAI` client against a stand-in for the provider.

    python examples/loops.py

Three agents ask the same tool again and again. The first waits for a job whose answer changes each time: that is work,
and it is left alone. The second gets the same answer each time, is told so by a nudge, and finds another way. The third
goes on all the same: it is halted before its next call, and gives its last answer.
"""

from __future__ import annotations

import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

import agentbudget as ab
from agentbudget.testing import ProviderServer, Reply, Request, ToolCall

QUESTION: Any = {"messages": [("user", "Is the report ready, and what does it say?")]}


def main() -> int:
    working = run("working", most=8, progress=True)
    helped = run("helped", heeds=True)
    stuck = run("stuck")
    return 0 if (working, helped, stuck) == (("completed", 8), ("completed", 3), ("stopped", 4)) else 1


def run(name: str, *, most: int = 99, heeds: bool = False, progress: bool = False) -> tuple[str, int]:
    """An agent whose model asks for the report at most so often, and stops when it is told to if it *heeds* that."""
    asked: list[str] = []

    @tool
    def report(of: str) -> str:
        """Fetch the report."""
        asked.append(of)
        return f"{12 * len(asked)} % done" if progress else "It is not ready, and nothing is known about it."

    def model(request: Request) -> Reply:
        told = "Note: report was called" in str(request.body["messages"])
        if request.body.get("tools") and len(asked) < most and not (told and heeds):
            return Reply(tool_calls=(ToolCall(name="report", args={"of": "today"}),))
        if not request.body.get("tools"):
            return Reply(text="The report was not ready however often I asked.")
        return Reply(text="Not ready yet; yesterday's says 42." if told else "It is ready.")

    with ProviderServer(model) as server:
        middleware = ab.BudgetMiddleware(max_cost="$0.50", loops=ab.Loops(), name=name)
        agent = create_agent(client(server), [report], middleware=[middleware])
        answer = agent.invoke(QUESTION)["messages"][-1].text
    done = middleware.report
    assert done is not None
    print(f"{name}: {len(asked)} calls, {done.status}: {answer}")
    for action in done.actions:
        print(f"  {action['action']:<6} {action['reason']}")
    return done.status, len(asked)


def client(server: ProviderServer) -> ChatOpenAI:
    """The real client, as far as the stand-in."""
    return ChatOpenAI(model="gpt-4o", api_key=SecretStr("none"), base_url=server.base_url, max_completion_tokens=300)


if __name__ == "__main__":
    sys.exit(main())
