"""Reports: the HTML page and the notebook's picture of a trace of 2,000 calls from its file, and the whole command.

    python benchmarks/reports.py

Figures are CPU seconds, medians over rounds. The floor is reading the same trace and folding it into its numbers.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from agentbudget.reports import page
from agentbudget.trace.events import SCHEMA, CallReserved, CallSettled, Event, TaskClosed, TaskOpened, TraceOpened
from agentbudget.trace.reader import Trace
from agentbudget.trace.writer import encode

CALLS = 2_000
ROUNDS = 5
MOST_SECONDS = 1.0
"""CPU that the page of such a trace may take, reading included."""
MOST_BYTES = 2_000_000
"""Of the page."""

AT = 1_767_225_600.0
PRICE = {"source": "genai-prices", "provider": "openai", "model": "gpt-4o", "prices": {"input": "2.5", "output": "10"}}


def call(number: int) -> list[Event]:
    """A model call with a long context, or a tool call inside it; every tenth is a wasted retry."""
    model = number % 2 == 0
    name = f"0198c0de-0000-7000-8000-{number:012}"
    shared: dict[str, Any] = {
        "call": name,
        "tasks": ("0123456789abcdef0123456789abcdef",),
        "kind": "model" if model else "tool",
        "name": "claude-sonnet-4-6" if model else "search_the_knowledge_base",
        "agent": f"support-agent-{number % 3}",
        "node": "model" if model else "tools",
    }
    reserved = CallReserved(at=AT + number, cost=9_000_000 if model else 0, attempt=1 + (number % 10 == 0), **shared)
    settled = CallSettled(
        at=AT + number + 1.5,
        outcome="error" if number % 10 == 0 else "ok",
        wasted=number % 10 == 0,
        retry=number % 10 == 0,
        error="RateLimitError" if number % 10 == 0 else "",
        cost=4_321_987 + number if model else 0,
        usage={"input_tokens": 3_500 + 50 * number, "output_tokens": 200, "cache_read_tokens": 3_000} if model else {},
        source="reported" if model else "none",
        price=PRICE if model else None,
        **shared,
    )
    return [reserved, settled]


def write(path: Path) -> Path:
    """The trace in a file."""
    task = "0123456789abcdef0123456789abcdef"
    events: list[Event] = [TraceOpened(at=AT, schema=SCHEMA, version="0")]
    events.append(TaskOpened(at=AT, task=task, name="resolve-ticket", budget={"max_cost_nanos": 10**10}))
    events += [event for number in range(CALLS) for event in call(number)]
    cost = sum(event.cost for event in events if isinstance(event, CallSettled))
    events.append(TaskClosed(at=AT + CALLS, task=task, status="completed", cost=cost, seconds=float(CALLS)))
    path.write_bytes(encode(events))
    return path


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of *work*, the median of some rounds."""
    times = []
    for _ in range(ROUNDS):
        start = process_time()
        work()
        times.append(process_time() - start)
    return median(times)


def command(trace: Path, target: Path) -> float:
    """CPU seconds of the command line, its start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "agentbudget.cli", "report", str(trace), "--html", str(target)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Print the figures and assert the bars."""
    with tempfile.TemporaryDirectory() as folder:
        trace = write(Path(folder) / "run.jsonl")
        floor = cpu(lambda: Trace.load(trace).report)
        paged, pictured = cpu(lambda: page(trace)), cpu(lambda: Trace.load(trace)._repr_html_())
        whole = median(command(trace, Path(folder) / "out.html") for _ in range(3))
        size, small = len(page(trace).encode()), len(Trace.load(trace)._repr_html_())
    print(f"a trace of {CALLS:,} calls, CPU seconds, medians")
    print(f"  read and counted    {floor:6.3f}")
    print(f"  HTML page           {paged:6.3f}  {paged / floor:4.1f}x  {size / 1e6:.2f} MB")
    print(f"  notebook's picture  {pictured:6.3f}  {pictured / floor:4.1f}x  {small / 1e6:.2f} MB")
    print(f"  the whole command   {whole:6.3f}  (bar: {MOST_SECONDS} s and {MOST_BYTES / 1e6:.0f} MB for the page)")
    assert size < MOST_BYTES
    assert paged < MOST_SECONDS


if __name__ == "__main__":
    main()
