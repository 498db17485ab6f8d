"""All that is done *before* a budget is at its end, so that a call fits: route, shrink, wait, downgrade, compact.

    python examples/steps.py                 # all of them
    python examples/steps.py wait compact    # some

It runs on the real `ChatOpenAI` client against a stand-in for the provider on this machine, which counts what it
generated. Nothing is paid. What happens when nothing helps any more is shown by `landings.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

import agentbudget as ab
from agentbudget.testing import ProviderServer, Reply, Request, ToolCall

QUESTION: Any = {"messages": [HumanMessage("How many bridges are there in Berlin?")]}
PAGES = 9


@tool
def read(page: int) -> str:
    """Read a page of the report on bridges."""
    return f"Page {page}. " + "The bridges of Berlin are counted in many ways. " * 160


def reader(request: Request) -> Reply:
    """What the stand-in answers: it reads the report page by page, and then answers."""
    read_so_far = sum(message["role"] == "tool" for message in request.messages)
    if not request.body.get("tools") or read_so_far >= PAGES:
        return Reply(text="About 960.")
    return Reply(text="I will read on.", tool_calls=(ToolCall(name="read", args={"page": read_so_far + 1}),))


def chat_model(server: ProviderServer, name: str = "gpt-4o", cap: int = 300) -> ChatOpenAI:
    key = SecretStr("none is needed here")
    return ChatOpenAI(model=name, base_url=server.base_url, api_key=key, max_completion_tokens=cap)


def run(model: ChatOpenAI, **options: Any) -> ab.TaskReport:
    budget = ab.BudgetMiddleware(governor=ab.Governor(), **options)
    create_agent(model, [read], middleware=[budget]).invoke(QUESTION)
    return budget.reports[-1]


def route(server: ProviderServer) -> ab.TaskReport:
    """By the feature it is for, a task begins with the model that is good enough for it."""
    cheap = chat_model(server, "gpt-4o-mini")
    report = run(chat_model(server), max_cost="$0.50", model_for={"triage": cheap}, tags={"feature": "triage"})
    print(f"   models called: {sorted({request.body['model'] for request in server.requests})}")
    return report


def shrink(server: ProviderServer) -> ab.TaskReport:
    """Where the budget does not pay for the longest answer, the answer is capped at what it does pay for."""
    report = run(chat_model(server, cap=16_000), max_cost="$0.15")
    caps = [request.body["max_completion_tokens"] for request in server.requests]
    print(f"   longest answers asked for: {caps[0]:,} at first, {caps[-1]:,} at last, of 16,000 wanted")
    return report


def wait(server: ProviderServer) -> ab.TaskReport:
    """32 branches that might cost ten cents each, but cost less, run within a dollar: they wait for each other."""
    model = ab.governed(chat_model(server, cap=10_000), shrink=False)

    async def fan_out() -> ab.TaskReport:
        async with ab.task("fan-out", max_cost="$1", governor=ab.Governor()) as task:
            answers = await asyncio.gather(*[model.ainvoke("Name one bridge.") for _ in range(32)])
        print(f"   answers: {len(answers)}")
        return task.report

    return asyncio.run(fan_out())


def downgrade(server: ProviderServer) -> ab.TaskReport:
    """When the rest of the task would not be paid with this model, a cheaper one takes over, once."""
    report = run(chat_model(server), max_cost="$0.15", downgrade=[chat_model(server, "gpt-4o-mini")])
    print(f"   models called: {' '.join(request.body['model'] for request in server.requests)}")
    return report


def compact(server: ProviderServer) -> ab.TaskReport:
    """When it is the context that costs, old tool outputs are sent no more, if that saves more than it costs."""
    report = run(chat_model(server), max_cost="$0.20", compact=True)
    sizes = [sum(len(str(message["content"])) for message in request.messages) for request in server.requests]
    print(f"   characters sent: {' '.join(f'{size:,}' for size in sizes)}")
    return report


STEPS: dict[str, Callable[[ProviderServer], ab.TaskReport]] = {
    "route": route,
    "shrink": shrink,
    "wait": wait,
    "downgrade": downgrade,
    "compact": compact,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="What is done before a budget is at its end.")
    parser.add_argument("names", nargs="*", metavar="STEP", help=f"one or more of: {', '.join(STEPS)}")
    names = parser.parse_args().names or list(STEPS)
    for name in names:
        step = STEPS[name]
        print(f"{name}: {(step.__doc__ or '').splitlines()[0]}")
        with ProviderServer(reader) as server:
            report = step(server)
        taken = [action for action in report.actions if action["action"] == name]
        if taken:
            print(f"   recorded {len(taken)}x, first: {taken[0]['reason']}")
        print(f"   {report.status}, {report.model_calls} model calls, ${report.cost} spent\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
