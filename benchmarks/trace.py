"""What the trace costs: a written event against a bare write of a finished line, a folded event, a loaded one.

Run `python benchmarks/trace.py`. Figures are CPU microseconds an event, medians over interleaved rounds; the ratios
hold across machines, the microseconds do not. Loading is compared with parsing the same lines into plain dicts.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time

import msgspec

from agentbudget.trace.events import SCHEMA, CallSettled, Event, TraceOpened
from agentbudget.trace.reader import Trace
from agentbudget.trace.redaction import Hasher
from agentbudget.trace.tally import Tally
from agentbudget.trace.writer import TraceWriter, encode

EVENTS = 4000
ROUNDS = 9
MAX_FOLD = 3.0
"""CPU microseconds that folding a settled call may take."""
MAX_WRITE = 4.0
"""Most that encoding and writing an event may cost, in bare writes of its line."""
MAX_LOAD = 2.0
"""Most that loading may cost, in bare parses of the same lines."""

TASK = "0198c0de-1111-7000-8000-000000000000"
PRICE = {"source": "genai-prices", "version": "2026.01", "model": "gpt-4o", "input": "2.5", "output": "10"}


def settled(number: int) -> CallSettled:
    """A settlement as the governor writes it."""
    return CallSettled(
        at=1_767_225_600.0 + number,
        call=f"0198c0de-0000-7000-8000-{number:012}",
        tasks=(TASK,),
        kind="model",
        name="gpt-4o",
        outcome="ok",
        cost=1_234_567 + number,
        usage={"input_tokens": 12_345, "output_tokens": 321, "cache_read_tokens": 10_240},
        tier="default",
        price=PRICE,
        seconds=1.25,
        result="0123456789abcdef",
        result_size=1200,
        node="model",
    )


def measure(works: dict[str, Callable[[], None]]) -> dict[str, float]:
    """CPU microseconds an event of each work: the median of interleaved rounds, so that noise hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = process_time()
            work()
            times[name].append((process_time() - start) / EVENTS * 1e6)
    return {name: median(values) for name, values in times.items()}


class Works:
    """What is measured, each over `EVENTS` events."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Event] = [settled(number) for number in range(EVENTS)]
        self.lines = [encode([event]) for event in self.events]
        self.stored = folder / "stored.jsonl"
        self.stored.write_bytes(b"".join(self.lines))
        self.writer = TraceWriter(folder / "written", header=TraceOpened(at=0.0, schema=SCHEMA, version="0"))
        self.bare = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.hasher, self.parser = Hasher(), msgspec.json.Decoder()

    def all(self) -> dict[str, Callable[[], None]]:
        """The works by name, floors first."""
        return {
            "bare write": self.write_bare,
            "bare parse": self.parse,
            "write": self.write,
            "build": self.build,
            "fold": self.fold,
            "load": self.load,
            "hash": self.hash,
        }

    def write_bare(self) -> None:
        """The floor of writing."""
        for line in self.lines:
            os.write(self.bare, line)

    def parse(self) -> None:
        """The floor of loading."""
        self.parser.decode_lines(self.stored.read_bytes())

    def write(self) -> None:
        """Encode and append, event by event."""
        for event in self.events:
            self.writer.write("f", [event])

    def build(self) -> None:
        """Build the events."""
        for number in range(EVENTS):
            settled(number)

    def fold(self) -> None:
        """Fold the events into one tally."""
        tally = Tally(TASK)
        for event in self.events:
            tally.apply(event)

    def load(self) -> None:
        """Read the events from disk."""
        Trace.load(self.stored)

    def hash(self) -> None:
        """Hash the arguments of a tool."""
        for number in range(EVENTS):
            self.hasher.hash({"query": "the refund policy", "limit": number})


def main() -> None:
    """Print the figures and assert the bars."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Works(Path(folder)).all())
    size = len(encode([settled(0)]))
    write, load = found["write"] / found["bare write"], found["load"] / found["bare parse"]
    print(f"CPU microseconds an event (a settled call, {size} bytes), medians of {ROUNDS} rounds of {EVENTS:,}")
    print(f"  build the event           {found['build']:6.2f}")
    print(f"  encode and append it      {found['write']:6.2f}   {write:.2f}x a bare write of its line")
    print(f"  fold it into a tally      {found['fold']:6.2f}")
    print(f"  hash a tool's arguments   {found['hash']:6.2f}")
    print(f"  load it                   {found['load']:6.2f}   {load:.2f}x a bare parse to dicts")
    assert write <= MAX_WRITE
    assert found["fold"] <= MAX_FOLD
    assert load <= MAX_LOAD


if __name__ == "__main__":
    main()
