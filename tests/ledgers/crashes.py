"""Processes that end in the middle of things, run by `test_crash.py` away from pytest's own threads.

python crashes.py boundaries FOLDER   kills a child before each statement of a reserve and a settle, then looks
python crashes.py forks FOLDER        forks while threads write
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
from typing import Any

from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.sqlite import SqliteLedger

TASK, TEAM = Account((("task", "t"),), Meter.COST), Account((("team", "cx"),), Meter.COST)
LIMIT = 1_000
FORKS, THREADS, CALLS = 6, 4, 30


class Doomed(sqlite3.Connection):
    """Kills its process before a statement."""

    left = -1

    def _count(self) -> None:
        Doomed.left -= 1
        if Doomed.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def execute(self, *args: Any) -> sqlite3.Cursor:
        self._count()
        return super().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        self._count()
        return super().executemany(*args)


def pay(url: str, *, doomed_after: int = 0) -> None:
    """Reserve 50 of two accounts and settle 40; killed before a statement of it, if told so."""
    ledger = open_ledger(url)
    ledger.balance(TASK)  # the connection is open
    Doomed.left = doomed_after
    ledger.reserve("a", [Posting(TASK, 50, LIMIT), Posting(TEAM, 50, LIMIT)], lease_seconds=600)
    ledger.settle("a", [Charge(TASK, 50, 40), Charge(TEAM, 50, 40)])
    Doomed.left = -1
    ledger.close()


def boundaries(folder: str) -> list[dict[str, Any]]:
    """What is found after a kill before statement 1, 2, … until none is left, and what a retry makes of it."""
    connect = sqlite3.connect
    found: list[dict[str, Any]] = []
    while not found or found[-1]["killed"]:
        url = f"sqlite:///{folder}/{len(found)}.db"
        child = os.fork()
        if child == 0:
            sqlite3.connect = lambda *args, **options: connect(*args, **options, factory=Doomed)  # type: ignore[assignment]  # for one
            pay(url, doomed_after=len(found) + 1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ledger = open_ledger(url)
        after = [(ledger.balance(one).reserved, ledger.balance(one).settled) for one in (TASK, TEAM)]
        whole = ledger.verify().differences
        pay(url)
        retried = [(ledger.balance(one).reserved, ledger.balance(one).settled) for one in (TASK, TEAM)]
        healthy = connect(url.removeprefix("sqlite:///")).execute("PRAGMA integrity_check").fetchone()[0]
        proved = [*whole, *ledger.verify().differences]
        found.append(
            {"killed": os.WIFSIGNALED(status), "after": after, "retried": retried, "healthy": healthy, "proved": proved}
        )
        ledger.close()
    return found


def forks(folder: str) -> dict[str, Any]:
    """What is in the ledger after parent and children wrote at the same time; each call takes 2 and spends 1."""
    ledger = open_ledger(f"sqlite:///{folder}/forks.db?synchronous=normal")
    assert isinstance(ledger, SqliteLedger)

    def live(name: str) -> None:
        for call in range(CALLS):
            ledger.reserve(f"{name}-{call}", [Posting(TEAM, 2, None)], lease_seconds=600)
            ledger.settle(f"{name}-{call}", [Charge(TEAM, 2, 1)])

    threads = [threading.Thread(target=live, args=(f"parent{number}",)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    children = []
    for number in range(FORKS):
        child = os.fork()
        if child == 0:
            if ledger._db is not None:  # SQLite forbids to carry a connection across a fork
                os._exit(1)
            live(f"child{number}")
            os._exit(0)
        children.append(child)
    ended = [os.waitpid(child, 0)[1] for child in children]
    for thread in threads:
        thread.join()
    balance, proof = ledger.balance(TEAM), ledger.verify()
    ledger.close()
    return {"ended": ended, "settled": balance.settled, "reserved": balance.reserved, "proved": proof.differences}


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"boundaries": boundaries, "forks": forks}[sys.argv[1]](sys.argv[2])))
