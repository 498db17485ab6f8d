"""A runaway agent, stopped at its budget.

The agent has one tool whose every result asks for one more search, so nothing but the budget ends it. By default
it runs on the real `ChatOpenAI` client against a stand-in for the provider on this machine, which counts what it
truly generated:

    python examples/runaway_agent.py --max-cost '$0.05'

With a provider's key in the environment it runs on the real thing, and costs real money, up to the budget:

    python examples/runaway_agent.py --max-cost '$0.05' --model openai:gpt-4o
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

import agentbudget as ab
from agentbudget.testing import ProviderServer, Reply, Request, ToolCall

INPUT_NANOS, OUTPUT_NANOS = 2_500, 10_000
"""gpt-4o's list price in nano-dollars per token ($2.50 and $10 per million), kept apart from the price book in use."""

SHOWN_CALLS = 6

QUESTION = "How many bridges are there in Berlin? Search until two sources agree."


@tool
def search(query: str) -> str:
    """Search the web."""
    page = "The number given here differs from the one before, and the sources are not named. " * 4
    return f"Three pages about {query!r}. {page}One more search is needed to be sure."


def never_satisfied(request: Request) -> Reply:
    """What the stand-in answers: it wants to search once more, whatever it has found."""
    call = ToolCall(name="search", args={"query": f"bridges in Berlin, source {request.number + 1}"})
    return Reply(text="These sources do not agree yet. I will look for another one.", tool_calls=(call,))


def main() -> int:
    args = arguments()
    with ExitStack() as stack:
        server = None if args.model else stack.enter_context(ProviderServer(never_satisfied))
        callback = ab.BudgetCallback(max_cost=args.max_cost, governor=ab.Governor(trace=args.trace))
        model = stand_in_model(server) if server else init_chat_model(args.model, max_tokens=300)
        agent = create_agent(model, [search])
        print(f"A runaway agent on {args.model or 'gpt-4o (stand-in on this machine)'}, budget {args.max_cost}\n")
        try:
            agent.invoke({"messages": [HumanMessage(QUESTION)]}, config={"callbacks": [callback]})
        except ab.BudgetExceeded as stop:
            print(stop.report)
        else:
            print("The agent came to an end by itself, within its budget.")
            return 0 if args.model else 1
        report = callback.report
        proved = server is None or (report is not None and prove(server, args.max_cost, report.cost))
    print(f"\nTrace: {newest(args.trace)}")
    return 0 if proved else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A runaway agent, stopped at its budget.")
    parser.add_argument(
        "--max-cost", default="$0.05", metavar="DOLLARS", help="the budget of the task (default: $0.05)"
    )
    parser.add_argument("--model", metavar="PROVIDER:NAME", help="a real model, e.g. openai:gpt-4o; needs its key")
    parser.add_argument("--trace", default="traces/", metavar="FOLDER", help="where the trace goes (default: traces/)")
    return parser.parse_args()


def stand_in_model(server: ProviderServer) -> ChatOpenAI:
    key = SecretStr("none is needed here")
    return ChatOpenAI(model="gpt-4o", base_url=server.base_url, api_key=key, max_completion_tokens=300)


def prove(server: ProviderServer, max_cost: str, metered: Decimal) -> bool:
    """Print what the provider truly generated, by its own count, beside the budget and the meter."""
    total, lines = 0, []
    for number, each in enumerate(server.served, 1):
        cost = each.usage.input_tokens * INPUT_NANOS + each.usage.output_tokens * OUTPUT_NANOS
        total += cost
        usage = f"{each.usage.input_tokens:6,} in {each.usage.output_tokens:4,} out"
        lines.append(f"  call {number:3}  {usage}  {show(cost)}  total {show(total)}")
    spent, budget = Decimal(total).scaleb(-9), Decimal(max_cost.strip().removeprefix("$"))
    within, exact = spent <= budget, spent == metered
    print("\nWhat the provider generated, by its own count:")
    print("\n".join(lines if len(lines) <= SHOWN_CALLS else [*lines[:2], "  ...", *lines[2 - SHOWN_CALLS :]]))
    print(f"  {len(lines)} calls, ${spent}. The meter says ${metered}. The budget was ${budget}.")
    print(f"  Within the budget: {'yes' if within else 'NO'}. Exact to the nano-dollar: {'yes' if exact else 'NO'}.")
    return within and exact


def show(nanos: int) -> str:
    return f"${Decimal(nanos).scaleb(-9):.6f}"


def newest(folder: str) -> str:
    files = sorted(Path(folder).glob("**/*.jsonl"), key=lambda path: path.stat().st_mtime)
    return str(files[-1]) if files else f"none was written to {folder}"


if __name__ == "__main__":
    sys.exit(main())
