"""Memory and latency with 10,000 open tasks in one process, and memory after 100,000 tasks through one handler.

Drives the callback with the events that LangChain would send, memory ledger, no trace. Memory is the growth of the
resident set; latency is CPU time, the median of blocks of 1,000 calls. Run: `python benchmarks/open_tasks.py`.

Bars: under 4 kB for each open task after 20 settled calls; a call with 10,000 tasks open at most 1.2 times one of 100;
100,000 closed tasks add less than 5 MB to 20,000 closed ones.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

import agentbudget as ab

OPEN_TASKS, CALLS = 10_000, 20
CLOSED_TASKS, WARM_TASKS = 100_000, 20_000
BLOCK = 1_000
BYTES_BAR, LATENCY_BAR, GROWTH_BAR = 4_096, 1.2, 5_000_000

MESSAGES: list[list[BaseMessage]] = [[HumanMessage("hi")]]
PARAMS = {"model": "gpt-4o", "max_tokens": 20}
META = {"ls_provider": "openai", "ls_model_name": "gpt-4o", "ls_max_tokens": 20}
ANSWER = LLMResult(
    generations=[
        [
            ChatGeneration(
                message=AIMessage(
                    "ok",
                    usage_metadata={"input_tokens": 20, "output_tokens": 5, "total_tokens": 25},
                    response_metadata={"model_name": "gpt-4o"},
                )
            )
        ]
    ]
)


def main() -> int:
    callback = ab.BudgetCallback(governor=ab.Governor(), max_cost="$1")
    missed = open_tasks(callback) + closed_tasks(callback)
    print("\nAll bars met." if not missed else f"\n{missed} bar(s) missed.")
    return 1 if missed else 0


def open_tasks(callback: ab.BudgetCallback) -> int:
    """Memory of each open task, and whether a call gets slower by the others."""
    for _ in range(2_000):  # fill what is kept of recent tasks and calls
        root = begin(callback)
        for _ in range(10):
            call(callback, root)
        end(callback, root)
    few = [begin(callback) for _ in range(100)]
    alone = latency(callback, few)
    before = resident()
    roots = [begin(callback) for _ in range(OPEN_TASKS)]
    for _ in range(CALLS):
        for root in roots:
            call(callback, root)
    each = (resident() - before) / OPEN_TASKS
    crowded = latency(callback, roots)
    for root in (*few, *roots):
        end(callback, root)
    print(f"{OPEN_TASKS:,} open tasks after {CALLS} calls each: {each:,.0f} bytes a task (bar {BYTES_BAR:,})")
    print(f"a call: {alone:.1f} us with 100 tasks open, {crowded:.1f} us with {OPEN_TASKS:,}", end=" ")
    print(f"({crowded / alone:.2f} times, bar {LATENCY_BAR})")
    return (each > BYTES_BAR) + (crowded / alone > LATENCY_BAR)


def closed_tasks(callback: ab.BudgetCallback) -> int:
    """Whether tasks that are over leave anything behind."""
    warm = 0
    for number in range(CLOSED_TASKS):
        if number == WARM_TASKS:
            warm = resident()
        root = begin(callback)
        call(callback, root)
        end(callback, root)
    growth = resident() - warm
    print(f"{CLOSED_TASKS:,} closed tasks: {growth / 1e6:+.2f} MB since {WARM_TASKS:,} (bar {GROWTH_BAR / 1e6:.0f} MB)")
    return growth > GROWTH_BAR


def latency(callback: ab.BudgetCallback, roots: list[UUID]) -> float:
    """Median microseconds of CPU of one call, over ten blocks."""
    blocks = []
    for block in range(10):
        began = time.process_time()
        for number in range(BLOCK):
            call(callback, roots[(block * BLOCK + number) % len(roots)])
        blocks.append((time.process_time() - began) / BLOCK * 1e6)
    return statistics.median(blocks)


def begin(callback: ab.BudgetCallback) -> UUID:
    root = uuid4()
    callback.on_chain_start({}, {}, run_id=root, metadata={}, name="task")
    return root


def call(callback: ab.BudgetCallback, root: UUID) -> None:
    run = uuid4()
    callback.on_chat_model_start({}, MESSAGES, run_id=run, parent_run_id=root, metadata=META, invocation_params=PARAMS)
    callback.on_llm_end(ANSWER, run_id=run)


def end(callback: ab.BudgetCallback, root: UUID) -> None:
    callback.on_chain_end({}, run_id=root)


def resident() -> int:
    """Bytes of the process's resident set."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
