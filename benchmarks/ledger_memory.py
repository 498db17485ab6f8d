"""The memory ledger: reserve + settle against a floor in the same run, and memory per open task.

Rounds of all variants are interleaved, so that a busy neighbour slows all of them; times are CPU time of the process,
medians over rounds. Ids are made outside of what is timed. Three floors: *two locked operations* are two function
calls that each take a lock and touch one dictionary entry; *as wide* touches as many entries as the ledger has
accounts; *the verbs unchecked* take the ledger's own arguments, read the clock, write the columns of each account and
note the id, but check, prove and remember nothing. The run fails only where a figure is far off (a lost fast path, a
leak), not where a machine is slow.

    python benchmarks/ledger_memory.py
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence

from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.rows import Row

CALLS = 10_000
ROUNDS = 15
TASKS = 10_000
CALLS_PER_TASK = 20
LIMIT = 10**15
LEASE = 600.0
BYTES_PER_TASK_MOST = 4_000
SCOPES = ("task", "user", "team", "tenant")
METERS = (Meter.COST, Meter.INPUT_TOKENS, Meter.OUTPUT_TOKENS, Meter.TOTAL_TOKENS, Meter.MODEL_CALLS)

Round = Callable[[Sequence[str]], None]


def floor(width: int) -> Round:
    """Two locked operations on *width* entries each, per call."""
    lock = threading.Lock()
    entries = dict.fromkeys(SCOPES[:width], 0)

    def add(amount: int) -> None:
        with lock:
            for key in entries:
                entries[key] += amount

    def add_to_one(amount: int) -> None:
        with lock:
            entries["task"] += amount

    operation = add_to_one if width == 1 else add

    def play(keys: Sequence[str]) -> None:
        for _ in keys:
            operation(1000)
            operation(-300)

    return play


class Unchecked:
    """The least that reserving and settling can be, without any law but the lock."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        self._lock = threading.RLock()
        self._rows = {account.key: Row(account) for account in accounts}
        self._times: dict[str, float] = {}

    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> None:
        """Take every posting."""
        with self._lock:
            now = time.monotonic()
            for account, amount, _ in postings:
                self._rows[account.key].committed += amount
            self._times[reservation_id] = now + lease_seconds

    def settle(self, reservation_id: str, charges: Sequence[Charge]) -> None:
        """Replace it by what was really spent."""
        with self._lock:
            time.monotonic()
            for account, reserved, actual in charges:
                row = self._rows[account.key]
                row.committed += actual - reserved
                row.settled += actual
            del self._times[reservation_id]


def ledger(width: int, *, actual: int = 700, checked: bool = True) -> Round:
    """Reserve and settle over *width* scopes, per call; *actual* of 1000 reserved is spent."""
    accounts = [Account(((kind, "name"),), Meter.COST) for kind in SCOPES[:width]]
    subject = MemoryLedger() if checked else Unchecked(accounts)
    postings = [Posting(account, 1000, LIMIT) for account in accounts]
    charges = [Charge(account, 1000, actual) for account in accounts]

    def play(keys: Sequence[str]) -> None:
        for key in keys:
            subject.reserve(key, postings, lease_seconds=LEASE)
            subject.settle(key, charges)

    return play


def measure() -> dict[str, float]:
    """Median microseconds of CPU per call of each variant."""
    variants = {
        "floor: two locked operations": floor(1),
        "floor: as wide, 4 entries": floor(4),
        "floor: the verbs unchecked, 4 accounts": ledger(4, checked=False),
        "reserve + settle, 1 account": ledger(1),
        "reserve + settle, 4 accounts": ledger(4),
        "reserve + settle, 4 accounts, each an overrun": ledger(4, actual=1300),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(ROUNDS + 1):
        for name, play in variants.items():
            keys = [f"{number}-{call}" for call in range(CALLS)]
            start = time.process_time()
            play(keys)
            if number:  # the first round warms up
                times[name].append((time.process_time() - start) / CALLS * 1e6)
    return {name: statistics.median(taken) for name, taken in times.items()}


def memory_per_task() -> tuple[float, float, float]:
    """Bytes per open task with five accounts each after its calls; p50 of a call for the first and the last tasks."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    subject = MemoryLedger()
    for number in range(TASKS):
        scope = ("task", f"task-{number:05}")
        accounts = [Account((scope,), meter) for meter in METERS]
        for call in range(CALLS_PER_TASK):
            key = f"{number:05}-{call:024}"  # as long as a UUID's hex
            subject.reserve(key, [Posting(account, 1000 + call, LIMIT) for account in accounts], lease_seconds=LEASE)
            subject.settle(key, [Charge(account, 1000 + call, 700 + call) for account in accounts])
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return used / TASKS, latency(MemoryLedger()), latency(subject)


def latency(subject: MemoryLedger) -> float:
    """Median microseconds of a call over one account of a ledger as it is."""
    account = Account((("task", "timed"),), Meter.COST)
    taken = []
    for call in range(5_000):
        start = time.perf_counter()
        subject.reserve(f"timed-{call}", [Posting(account, 1000, LIMIT)], lease_seconds=LEASE)
        subject.settle(f"timed-{call}", [Charge(account, 1000, 700)])
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e6


def main() -> None:
    """Print the table."""
    found = measure()
    one, wide = list(found.values())[:2]
    print(f"{'CPU per call':<48}{'us':>8}{'x floor':>10}{'x as wide':>12}")
    for name, taken in found.items():
        print(f"{name:<48}{taken:>8.2f}{taken / one:>10.1f}{taken / wide:>12.1f}")
    size, empty, full = memory_per_task()
    print(f"\n{TASKS:,} open tasks, 5 accounts, {CALLS_PER_TASK} settled calls each: {size:,.0f} bytes per task")
    print(f"a call in an empty ledger {empty:.2f} us, beside {TASKS:,} open tasks {full:.2f} us")
    assert found["reserve + settle, 4 accounts"] < 12 * one, "the short path is not taken"
    assert size < BYTES_PER_TASK_MOST, "a task takes too much memory"
    assert full < 2.5 * empty, "latency grows with the number of tasks"


if __name__ == "__main__":
    main()
