"""CPU that the enforcing callback adds to a call, against LangChain's own `UsageMetadataCallbackHandler`.

Both with the memory ledger and a JSON Lines trace in one file; interleaved rounds in one process, medians of process
CPU time. Run: `python benchmarks/callback.py`.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

import agentbudget as ab

STEPS = 20


class Model(BaseChatModel):
    """Answers at once: asks for a tool `steps` times, then says it is done."""

    steps: int = 0

    @property
    def _llm_type(self) -> str:
        return "benchmark"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-4o", "ls_model_type": "chat"}

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kw: Any
    ) -> ChatResult:
        done = sum(isinstance(message, ToolMessage) for message in messages)
        calls = [{"name": "look", "args": {"n": done}, "id": f"c{done}"}] if done < self.steps else []
        answer = AIMessage(
            "fine",
            tool_calls=calls,
            usage_metadata={"input_tokens": 900 + 20 * len(messages), "output_tokens": 20, "total_tokens": 920},
            response_metadata={"model_name": "gpt-4o-2024-08-06"},
        )
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return self._generate(*args, **kwargs)


@tool
def look(n: int) -> str:
    """Look."""
    return f"seen {n}"


def conversation(messages: int, size: int) -> list[BaseMessage]:
    """*messages* messages of *size* bytes; answers carry usage, as real ones do."""
    history: list[BaseMessage] = []
    for n in range(messages - 1):
        if n % 2:
            used = {"input_tokens": 1000 + n * size // 4, "output_tokens": size // 4, "total_tokens": 0}
            history.append(AIMessage("x" * size, usage_metadata=used, response_metadata={"model_name": "gpt-4o"}))
        else:
            history.append(HumanMessage("x" * size))
    return [*history, HumanMessage("and now?")]


def cpu(work: Callable[[], None], calls: int) -> float:
    """Microseconds of CPU for one of *calls* calls."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) / calls * 1e6


def compare(
    name: str, case: Callable[[list[BaseCallbackHandler]], tuple[Callable[[], None], int]], rounds: int
) -> None:
    """Print what each handler adds, and the ratio."""
    folder = tempfile.mkdtemp()
    governor = ab.Governor(trace=Path(folder) / "trace.jsonl")
    ours = ab.BudgetCallback(max_cost="$9000000", governor=governor)
    variants: dict[str, list[BaseCallbackHandler]] = {
        "none": [],
        "langchain": [UsageMetadataCallbackHandler()],
        "agentbudget": [ours],
    }
    times: dict[str, list[float]] = {key: [] for key in variants}
    for handlers in variants.values():
        case(handlers)[0]()
    for _ in range(rounds):
        for key, handlers in variants.items():
            work, calls = case(handlers)
            times[key].append(cpu(work, calls))
    base, with_theirs, with_ours = (statistics.median(times[key]) for key in variants)
    theirs, added = with_theirs - base, with_ours - base
    print(f"{name:34} {base:9.1f} {theirs:10.1f} {added:12.1f} {added / theirs if theirs > 0 else 0:8.2f}x", flush=True)


def bare(messages: int, size: int, calls: int) -> Callable[[list[BaseCallbackHandler]], tuple[Callable[[], None], int]]:
    """A bare model called with a conversation; each call is a task of its own."""
    model, history = Model(), conversation(messages, size)

    def case(handlers: list[BaseCallbackHandler]) -> tuple[Callable[[], None], int]:
        def work() -> None:
            for _ in range(calls):
                model.invoke(history, config={"callbacks": handlers})

        return work, calls

    return case


def bare_async(
    messages: int, size: int, calls: int
) -> Callable[[list[BaseCallbackHandler]], tuple[Callable[[], None], int]]:
    """The same on an event loop."""
    model, history = Model(), conversation(messages, size)

    def case(handlers: list[BaseCallbackHandler]) -> tuple[Callable[[], None], int]:
        async def work() -> None:
            for _ in range(calls):
                await model.ainvoke(history, config={"callbacks": handlers})

        return lambda: asyncio.run(work()), calls

    return case


def agent(*, asynchronous: bool) -> Callable[[list[BaseCallbackHandler]], tuple[Callable[[], None], int]]:
    """An agent of `STEPS` steps; figures are per step (one model and one tool call)."""
    runnable = create_agent(Model(steps=STEPS), [look])
    question: Any = {"messages": [HumanMessage("go")]}

    def case(handlers: list[BaseCallbackHandler]) -> tuple[Callable[[], None], int]:
        config: Any = {"callbacks": handlers}

        def work() -> None:
            if asynchronous:
                asyncio.run(runnable.ainvoke(question, config))
            else:
                runnable.invoke(question, config)

        return work, STEPS

    return case


def _calls(model: Model, history: list[BaseMessage], handlers: list[BaseCallbackHandler]) -> Callable[[], None]:
    def work() -> None:
        for _ in range(100):
            model.invoke(history, {"callbacks": handlers})

    return work


def flatness() -> None:
    """One task with 1,000 steps up to 1 MB of context: what a call costs at step 10 and at step 1,000."""
    governor = ab.Governor(trace=Path(tempfile.mkdtemp()) / "trace.jsonl")
    model = Model()
    early, late = conversation(20, 1000), conversation(2000, 500)
    results: dict[str, list[float]] = {"early": [], "late": []}
    handler = ab.BudgetCallback(max_cost="$9000000", governor=governor, per="callback")
    with ab.task("flat", governor=governor):
        for _ in range(1000):
            model.invoke(early)
    for _ in range(15):
        for key, history in (("early", early), ("late", late)):
            results[key].append(cpu(_calls(model, history, [handler]), 100) - cpu(_calls(model, history, []), 100))
    first, last = (statistics.median(results[key]) for key in ("early", "late"))
    print(f"flatness: step 10 {first:.1f} us, step 1,000 at 1 MB {last:.1f} us, ratio {last / first:.2f}")


def main() -> None:
    """All rows."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(f"{'us of CPU a call':34} {'bare':>9} {'+langchain':>10} {'+agentbudget':>12} {'ratio':>9}")
    compare("bare model, 1 short message", bare(1, 20, 300), rounds)
    compare("bare model, 30 messages", bare(30, 200, 200), rounds)
    compare("bare model, 200 messages", bare(200, 500, 50), rounds)
    compare("agent of 20 steps, per step", agent(asynchronous=False), rounds)
    compare("async bare model, 1 short message", bare_async(1, 20, 200), rounds)
    compare("async bare model, 30 messages", bare_async(30, 200, 200), rounds)
    compare("async agent of 20 steps, per step", agent(asynchronous=True), rounds)
    flatness()


if __name__ == "__main__":
    main()
