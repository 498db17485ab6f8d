"""CPU of an agent step with `BudgetMiddleware`, against one with an empty `wrap_model_call` + `wrap_tool_call`.

A step is one model and one tool call. Interleaved rounds in one process, medians of process CPU time; the ratio is of
whole steps. What the middleware alone adds to an agent that is metered anyway is shown beside it: the callback meters
in both. Run: `python benchmarks/middleware.py [rounds]`.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

import agentbudget as ab

STEPS = 20


class Model(BaseChatModel):
    """Answers at once: asks for a tool `STEPS` times, then says it is done."""

    @property
    def _llm_type(self) -> str:
        return "benchmark"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-4o", "ls_model_type": "chat"}

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[])

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kw: Any
    ) -> ChatResult:
        done = sum(isinstance(message, ToolMessage) for message in messages)
        calls = [{"name": "look", "args": {"n": done}, "id": f"c{done}"}] if done < STEPS else []
        usage: Any = {"input_tokens": 900 + 20 * len(messages), "output_tokens": 20, "total_tokens": 0}
        meta = {"model_name": "gpt-4o-2024-08-06"}
        answer = AIMessage("fine", tool_calls=calls, usage_metadata=usage, response_metadata=meta)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return self._generate(*args, **kwargs)


@tool
def look(n: int) -> str:
    """Look."""
    return f"seen {n}"


class Empty(AgentMiddleware[Any, Any, Any]):
    """Hands everything on."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        return handler(request)

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)


def cases() -> dict[str, tuple[Any, list[Any]]]:
    """Each agent with its callbacks. The budgets are limits that hold and are never reached."""
    governor = ab.Governor()
    limits: dict[str, Any] = {"max_cost": "$9000000", "max_model_calls": 10**6}
    callback = ab.BudgetCallback(governor=governor, **limits)
    plain = {"on_limit": "end", "shrink": False, "governor": governor, **limits}
    stacks: dict[str, tuple[list[Any], list[Any]]] = {
        "no middleware": ([], []),
        "empty middleware": ([Empty()], []),
        "empty + callback": ([Empty()], [callback]),
        "budget, end": ([ab.BudgetMiddleware(**plain)], []),
        "budget, finish": ([ab.BudgetMiddleware(governor=governor, **limits)], []),
    }
    return {name: (create_agent(Model(), [look], middleware=s), handlers) for name, (s, handlers) in stacks.items()}


def step(agent: Any, handlers: list[Any], *, asynchronous: bool) -> float:
    """Microseconds of CPU for one step."""
    given = {"messages": [HumanMessage("go")]}
    begun = time.process_time()
    if asynchronous:
        asyncio.run(agent.ainvoke(given, {"callbacks": handlers}))
    else:
        agent.invoke(given, {"callbacks": handlers})
    return (time.process_time() - begun) / STEPS * 1e6


def measure(rounds: int, *, asynchronous: bool) -> None:
    agents = cases()
    times: dict[str, list[float]] = {name: [] for name in agents}
    run: Callable[..., float] = step
    for _ in range(rounds):
        for name, (agent, handlers) in agents.items():
            times[name].append(run(agent, handlers, asynchronous=asynchronous))
    empty, metered = times["empty middleware"], times["empty + callback"]
    for name, each in times.items():
        ratio = statistics.median(a / b for a, b in zip(each, empty, strict=True))
        beside = statistics.median(a / b for a, b in zip(each, metered, strict=True))
        face = "async" if asynchronous else "sync"
        print(f"{face:6} {name:20} {statistics.median(each):9.1f} us   {ratio:5.2f}x empty   {beside:5.2f}x metered")


def main() -> None:
    """Both faces."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    for asynchronous in (False, True):
        measure(rounds, asynchronous=asynchronous)


if __name__ == "__main__":
    main()
