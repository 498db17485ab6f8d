"""Recorded conversations of a real airline agent, re-enacted through `create_agent` under a budget.

A chat model plays the recorded turns of the assistant and the tools return the recorded results, so every run takes
the path that the real one took, without a provider. With a generous budget the conversation is the recorded one,
message for message; with a tight one it stops below the budget.

    python examples/airline_agents.py --data FOLDER            # the folder with tau_bench_airline_gpt4o.jsonl.gz
    python examples/airline_agents.py --data FOLDER --max-cost '$0.10'

Token counts are not part of the recording; four characters count as a token.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
from collections import defaultdict, deque
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import Field

import agentbudget as ab

FILE = "tau_bench_airline_gpt4o.jsonl.gz"
CHARACTERS_A_TOKEN = 4


class RecordedModel(BaseChatModel):
    """Says what the recorded assistant said at this point of the conversation."""

    turns: list[AIMessage] = Field(repr=False)

    @property
    def _llm_type(self) -> str:
        return "recorded"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-4o", "ls_model_type": "chat"}

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kw: Any
    ) -> ChatResult:
        number = sum(isinstance(message, AIMessage) for message in messages)
        said = self.turns[number] if number < len(self.turns) else AIMessage("(the recording ends here)")
        read, written = tokens(messages), tokens([said])
        used: Any = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
        meta = {"model_name": "gpt-4o-2024-08-06"}
        answer = said.model_copy(update={"usage_metadata": used, "response_metadata": meta})
        return ChatResult(generations=[ChatGeneration(message=answer)])


def tokens(messages: list[BaseMessage]) -> int:
    """A count in place of the provider's: four characters a token, four tokens a message."""
    size = 0
    for message in messages:
        size += len(str(message.content))
        if isinstance(message, AIMessage):
            size += sum(len(json.dumps(call["args"])) + len(call["name"]) for call in message.tool_calls)
    return size // CHARACTERS_A_TOKEN + 4 * len(messages)


def recorded_messages(row: dict[str, Any]) -> list[BaseMessage]:
    """The conversation as LangChain messages. Calls are numbered anew: some recordings use an id twice."""
    messages: list[BaseMessage] = []
    waiting: deque[str] = deque()
    for entry in row["messages"]:
        content = entry.get("content") or ""
        if entry["role"] == "system":
            messages.append(SystemMessage(content))
        elif entry["role"] == "user":
            messages.append(HumanMessage(content))
        elif entry["role"] == "tool":
            messages.append(ToolMessage(content, tool_call_id=waiting.popleft(), name=entry["name"]))
        else:
            asked = [call["function"] for call in entry.get("tool_calls") or ()]
            ids = [f"call-{len(messages)}-{number}" for number in range(len(asked))]
            waiting.extend(ids)
            calls = [
                ToolCall(name=call["name"], args=json.loads(call["arguments"]), id=call_id)
                for call, call_id in zip(asked, ids, strict=True)
            ]
            messages.append(AIMessage(content, tool_calls=calls))
    return messages


def recorded_tools(messages: list[BaseMessage]) -> list[BaseTool]:
    """One tool for every name in the recording; each call returns what the same call returned then."""
    results: dict[str, deque[str]] = defaultdict(deque)
    asked = {call["id"]: call for m in messages if isinstance(m, AIMessage) for call in m.tool_calls}
    for message in messages:
        if isinstance(message, ToolMessage):
            call = asked[message.tool_call_id]
            results[call["name"] + json.dumps(call["args"], sort_keys=True)].append(str(message.content))

    def make(name: str) -> BaseTool:
        def run(**args: Any) -> str:
            return results[name + json.dumps(args, sort_keys=True)].popleft()

        schema = {"type": "object", "properties": {}, "additionalProperties": True}
        return StructuredTool(name=name, description="recorded", args_schema=schema, func=run)

    return [make(name) for name in sorted({call["name"] for call in asked.values()})]


def enact(row: dict[str, Any], max_cost: str, governor: ab.Governor) -> tuple[ab.TaskReport, list[BaseMessage], bool]:
    """Run one conversation under a budget: its report, the messages that came to be, and whether it was stopped."""
    script = recorded_messages(row)
    turns = [message for message in script if isinstance(message, AIMessage)]
    agent = create_agent(RecordedModel(turns=turns), recorded_tools(script))
    said: list[BaseMessage] = []
    users = deque(message for message in script if isinstance(message, HumanMessage))
    said += [message for message in script[:1] if isinstance(message, SystemMessage)]
    with ab.task(f"airline-{row['traj_id']}", max_cost=max_cost, governor=governor) as task:
        try:
            while users and sum(isinstance(message, AIMessage) for message in said) < len(turns):
                said.append(users.popleft())
                question: Any = {"messages": said}
                said = agent.invoke(question)["messages"]
        except ab.BudgetExceeded:
            return task.report, said, True
    return task.report, [*said, *users], False


def same(said: list[BaseMessage], recorded: list[BaseMessage]) -> bool:
    """Whether *said* is *recorded* message for message: roles, texts, calls and results."""

    def shown(message: BaseMessage) -> tuple[object, ...]:
        calls = message.tool_calls if isinstance(message, AIMessage) else ()
        asked = [(call["name"], call["args"], call["id"]) for call in calls]
        return (message.type, message.content, asked, getattr(message, "tool_call_id", None))

    return [shown(message) for message in said[: len(recorded)]] == [shown(message) for message in recorded]


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The recorded conversations."""
    with gzip.open(folder / FILE, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("AGENTBUDGET_DATA"), help=f"folder with {FILE}")
    parser.add_argument("--max-cost", default="$5", metavar="DOLLARS", help="the budget of each task (default: $5)")
    parser.add_argument("--most", type=int, default=1000, help="how many conversations (default: all)")
    args = parser.parse_args()
    if args.data is None or not (args.data / FILE).exists():
        parser.error(f"give --data, the folder with {FILE}")
    governor = ab.Governor()
    reports, stopped, equal = [], 0, 0
    for number, row in enumerate(rows(args.data)):
        if number >= args.most:
            break
        report, said, halted = enact(row, args.max_cost, governor)
        reports.append(report)
        stopped += halted
        equal += not halted and same(said, recorded_messages(row))
        print(f"\r{number + 1} conversations", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    costs = sorted(report.cost for report in reports)
    cuts = statistics.quantiles(costs, n=100, method="inclusive")
    calls = sum(report.model_calls for report in reports), sum(report.tool_calls for report in reports)
    print(f"budget {args.max_cost}: {len(reports)} tasks, {calls[0]} model calls, {calls[1]} tool calls")
    print(f"cost   p50 ${cuts[49]:.4f}   p95 ${cuts[94]:.4f}   p99 ${cuts[98]:.4f}   dearest ${costs[-1]:.4f}")
    print(f"total  ${sum(costs, Decimal(0)):.4f}")
    print(f"unchanged message for message: {equal}   stopped at the budget: {stopped}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
