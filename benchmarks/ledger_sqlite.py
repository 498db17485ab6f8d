"""The SQLite ledger: reserve + settle against two bare single-row commits in the same run, and group commit.

Rounds of all variants are interleaved, so that a busy neighbour slows all of them. One call is a reserve and a settle,
so two commits; the floor is two commits of one `UPDATE` of one row. Times are wall time, since most of a `FULL` commit
is waiting for the disk; CPU time of the process stands beside it.


    python benchmarks/ledger_sqlite.py
"""

from __future__ import annotations

import itertools
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.ledgers import open_ledger

CALLS = {"normal": 400, "full": 60}
ROUNDS = 9
CALLERS = 32
CALLS_PER_CALLER = 15
LIMIT = 10**15
SCOPES = ("task", "user", "team", "tenant")
BARS = {"normal": 3.0, "full": 1.5}
GROUP_BAR = 3.0

Round = Callable[[int], None]


def bare(folder: Path, synchronous: str) -> Round:
    """Two commits of one row each, per call."""
    db = _file(folder / f"bare-{synchronous}.db", synchronous)

    def play(_: int) -> None:
        for _call in range(CALLS[synchronous]):
            for amount in (1000, -300):
                db.execute("BEGIN IMMEDIATE")
                db.execute("UPDATE counter SET amount = amount + ? WHERE id = ?", (amount, 1))
                db.execute("COMMIT")

    return play


def ledger(folder: Path, synchronous: str, width: int) -> Round:
    """Reserve and settle over *width* accounts, per call."""
    subject = open_ledger(f"sqlite:///{folder}/ledger-{synchronous}-{width}.db?synchronous={synchronous}")
    accounts = [Account(((kind, "name"),), Meter.COST) for kind in SCOPES[:width]]
    postings = [Posting(account, 1000, LIMIT) for account in accounts]
    charges = [Charge(account, 1000, 700) for account in accounts]

    def play(number: int) -> None:
        for call in range(CALLS[synchronous]):
            subject.reserve(f"{number}-{call}", postings, lease_seconds=600)
            subject.settle(f"{number}-{call}", charges)

    return play


def group(folder: Path, synchronous: str, callers: int) -> Callable[[int], float]:
    """Calls a second of so many threads on one ledger, each over four accounts of which one is its own."""
    subject = open_ledger(f"sqlite:///{folder}/group-{synchronous}-{callers}.db?synchronous={synchronous}")
    shared = [Account(((kind, "name"),), Meter.COST) for kind in SCOPES[1:]]

    def live(number: int, caller: int) -> None:
        accounts = [Account((("task", f"t{caller}"),), Meter.COST), *shared]
        postings = [Posting(account, 1000, LIMIT) for account in accounts]
        charges = [Charge(account, 1000, 700) for account in accounts]
        for call in range(CALLS_PER_CALLER):
            subject.reserve(f"{number}-{caller}-{call}", postings, lease_seconds=600)
            subject.settle(f"{number}-{caller}-{call}", charges)

    def play(number: int) -> float:
        threads = [threading.Thread(target=live, args=(number, caller)) for caller in range(callers)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return callers * CALLS_PER_CALLER / (time.perf_counter() - start)

    return play


def latencies(folder: Path) -> None:
    """Print microseconds a call, and check the bars."""
    variants: dict[str, tuple[str, Round]] = {}
    for synchronous in CALLS:
        variants[f"{synchronous}: two bare commits"] = (synchronous, bare(folder, synchronous))
        for width in (1, 4):
            name = f"{synchronous}: reserve + settle, {width} account{'s' * (width > 1)}"
            variants[name] = (synchronous, ledger(folder, synchronous, width))
    walls: dict[str, list[float]] = {name: [] for name in variants}
    cpus: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(ROUNDS + 1):
        for name, (synchronous, play) in variants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            play(number)
            if number:  # the first round warms up
                walls[name].append((time.perf_counter() - wall) / CALLS[synchronous] * 1e6)
                cpus[name].append((time.process_time() - cpu) / CALLS[synchronous] * 1e6)
    print(f"{'microseconds per call':<40}{'wall':>9}{'x floor':>9}{'CPU':>9}{'x floor':>9}{'bar':>6}")
    for name, (synchronous, _) in variants.items():
        floor = f"{synchronous}: two bare commits"
        wall, cpu = statistics.median(walls[name]), statistics.median(cpus[name])
        slower = statistics.median(taken / least for taken, least in zip(walls[name], walls[floor], strict=True))
        print(
            f"{name:<40}{wall:>9.1f}{slower:>9.2f}{cpu:>9.1f}"
            f"{cpu / statistics.median(cpus[floor]):>9.2f}{'' if name == floor else BARS[synchronous]:>6}"
        )
        assert name == floor or slower < 2 * BARS[synchronous], f"{name} is far above its bar"


def groups(folder: Path) -> None:
    """Print calls a second of one caller and of many."""
    print(f"\n{'calls per second, 4 accounts':<40}{'1 caller':>9}{f'{CALLERS} callers':>12}{'ratio':>8}{'bar':>6}")
    for synchronous in CALLS:
        one, many = group(folder, synchronous, 1), group(folder, synchronous, CALLERS)
        rates = [(one(number), many(number)) for number in range(ROUNDS)]
        ratio = statistics.median(fast / slow for slow, fast in rates)
        slow, fast = (statistics.median(each) for each in zip(*rates, strict=True))
        print(
            f"{synchronous:<40}{slow:>9,.0f}{fast:>12,.0f}{ratio:>8.1f}{GROUP_BAR if synchronous == 'full' else '':>6}"
        )
        assert synchronous != "full" or ratio > GROUP_BAR / 2, "callers do not share commits"


def _file(path: Path, synchronous: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute("CREATE TABLE counter (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL) STRICT")
    db.executemany("INSERT INTO counter VALUES (?, 1000)", itertools.product(range(10)))
    return db


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        latencies(Path(folder))
        groups(Path(folder))


if __name__ == "__main__":
    main()
