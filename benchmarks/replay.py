"""Replay: recorded calls a second through ceilings and the ledger's arithmetic, against loading them; and its memory.

    python benchmarks/replay.py

Figures are CPU seconds, medians over interleaved rounds. The replayed trace is in memory already; what reading it from
disk adds is shown beside. Loading is compared with msgspec parsing the bytes of the same files, already in memory, into
the same events and into plain objects. Memory is the peak that replaying a folder adds, with more traces than a
governor remembers tasks, and with three times as many.
"""

from __future__ import annotations

import gc
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import msgspec

from agentbudget.domain.budget import Budget
from agentbudget.domain.loops import Loops
from agentbudget.replay.whatif import replay
from agentbudget.trace.events import (
    SCHEMA,
    AnyEvent,
    CallReserved,
    CallSettled,
    Event,
    Signed,
    TaskClosed,
    TaskOpened,
    TraceOpened,
)
from agentbudget.trace.reader import Trace
from agentbudget.trace.writer import encode

TASKS = 500
CALLS = 40
ROUNDS = 7
BAR = 200_000
"""Recorded calls a second that a replay with ceilings must reach on one core."""
SLACK = 0.7
"""The run fails only below this part of the bar: where the fast path is lost, not where a neighbour is busy."""
LEAST_LOADING = 0.5
"""Least part of the speed of bare parsing that loading must reach."""
MOST_MEMORY = 1.2
"""Most that three times as many traces may add to the peak memory of a replay."""

AT = 1_767_225_600.0
BUDGET = {"max_cost_nanos": 10**9, "max_model_calls": 400, "max_tool_calls": 400}
PRICE = {"source": "genai-prices", "provider": "openai", "model": "gpt-4o", "prices": {"input": "2.5", "output": "10"}}


def task(number: int) -> list[Event]:
    """A task of model and tool calls in turn, as the governor records it."""
    name, at = f"{number:032x}", AT + number * 100
    events: list[Event] = [TaskOpened(at=at, task=name, name="ticket", budget=BUDGET, clock=at)]
    for turn in range(CALLS):
        call, model = f"0198c0de-0000-7000-{turn:04}-{number:012}", turn % 2 == 0
        kind, named, cost = ("model", "gpt-4o", 2_000_000 + turn) if model else ("tool", "search", 0)
        events += [
            CallReserved(
                at=at + turn,
                call=call,
                tasks=(name,),
                kind=kind,
                name=named,
                estimate_input=4_000 if model else 0,
                estimate_output=500 if model else 0,
                cost=cost * 2,
                request="0123456789abcdef",
                node="agent",
            ),
            CallSettled(
                at=at + turn + 0.5,
                call=call,
                tasks=(name,),
                kind=kind,
                name=named,
                outcome="ok",
                cost=cost,
                usage={"input_tokens": 3_500, "output_tokens": 200, "cache_read_tokens": 3_000} if model else {},
                source="reported" if model else "none",
                price=PRICE if model else None,
                seconds=0.5,
                result="0123456789abcdef",
                node="agent",
                lane="0198c0de-0000-7000-8000-00000000aaaa",
                signed=() if model else (signed(turn),),
            ),
        ]
    events.append(TaskClosed(at=at + CALLS, task=name, status="completed", seconds=float(CALLS)))
    return events


def signed(turn: int) -> Signed:
    """What loop rules see of a tool call: a new question each time, and every third answer as before."""
    call = turn.to_bytes(8, "big")
    return Signed(call, call, (turn // 6).to_bytes(8, "big"))


def write(folder: Path, tasks: int) -> Path:
    """*tasks* traces, a file each."""
    folder.mkdir()
    header: list[Event] = [TraceOpened(at=AT, schema=SCHEMA, version="0")]
    for number in range(tasks):
        (folder / f"{number}.jsonl").write_bytes(encode([*header, *task(number)]))
    return folder


def rates(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Recorded calls a second of each work: medians of interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = process_time()
            work()
            times[name].append(process_time() - start)
    return {name: TASKS * CALLS / median(values) for name, values in times.items()}


def peak(path: Path) -> int:
    """Bytes that replaying *path* adds at most."""
    tracemalloc.start()
    replay(path, budget=Budget(max_cost="$1"))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def load(path: Path) -> int:
    """Events of a loaded trace."""
    return len(Trace.load(path))


def parse(blocks: list[bytes], decoder: msgspec.json.Decoder[Any]) -> int:
    """Events of *blocks* of lines, and nothing else."""
    return len([event for block in blocks for event in decoder.decode_lines(block)])


def main() -> None:
    """Print the figures and assert the bars."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "traces", TASKS)
        trace = Trace.load(path)
        assert len(trace.events) > TASKS * CALLS
        looping = replay(trace, budget=Budget(max_cost="$1", loops=Loops()))
        assert looping.stopped_by is None, "the loops bench must not end early"
        blocks = [file.read_bytes() for file in sorted(path.iterdir())]
        gc.collect()
        gc.freeze()  # what the benchmark itself holds is no part of the work
        typed, plain = msgspec.json.Decoder(AnyEvent), msgspec.json.Decoder()
        found = rates(
            {
                "as recorded": lambda: replay(trace),
                "another budget": lambda: replay(trace, budget=Budget(max_cost="$1", max_model_calls=500)),
                "all loop rules": lambda: replay(trace, budget=Budget(max_cost="$1", loops=Loops())),
                "with its report": lambda: replay(trace).report,
                "another model": lambda: replay(trace, model={"gpt-4o": "gpt-4o-mini"}),
                "loading": lambda: load(path),
                "bare parsing": lambda: parse(blocks, typed),
                "parsing, plain": lambda: parse(blocks, plain),
                "from disk": lambda: replay(path),
            }
        )
        few, many = peak(write(Path(folder) / "few", 1_100)), peak(write(Path(folder) / "many", 3_300))
    print(f"recorded calls a second, medians of {ROUNDS} rounds of {TASKS * CALLS:,} calls in {TASKS} traces")
    for name, rate in found.items():
        print(f"  {name:18} {rate:10,.0f}   {1e6 / rate:5.2f} us a call")
    print(f"  bar: {BAR:,} as recorded and with another budget")
    part = found["loading"] / found["bare parsing"]
    print(f"loading is {part:.0%} of the speed of bare parsing; bar: {LEAST_LOADING:.0%}")
    print(f"peak memory: {few / 1e6:.1f} MB for 1,100 traces, {many / 1e6:.1f} MB for 3,300")
    assert found["as recorded"] >= BAR * SLACK
    assert part >= LEAST_LOADING * SLACK
    assert many <= few * MOST_MEMORY


if __name__ == "__main__":
    main()
