"""A process that spends from a shared ledger until it is refused, and prints what it saw, one JSON object a line.

It also prints the alert thresholds that it was told of.

python worker.py URL NAME THREADS CALLS
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time

from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.domain.ledger import Granted
from agentbudget.ledgers import open_ledger

TEAM = Account((("team", "cx"),), Meter.COST)
LIMIT = 1_000_000_000
MOST = 3_000_000
THRESHOLDS = (1_000, 5_000, 9_000)


def spend(url: str, name: str, threads: int, calls: int) -> None:
    ledger = open_ledger(url)

    def say(verb: str, key: str, amount: int, actual: int, answer: str, start: float) -> None:
        seen = {"verb": verb, "id": key, "amount": amount, "actual": actual, "answer": answer}
        sys.stdout.write(json.dumps({**seen, "start": start, "end": time.monotonic()}) + "\n")
        sys.stdout.flush()

    def live(number: int) -> None:
        dice = random.Random(f"{name}-{number}")
        for call in range(calls):
            key, amount = f"{name}-{number}-{call}", dice.randrange(1_000_000, MOST)
            start = time.monotonic()
            granted = ledger.reserve(key, [Posting(TEAM, amount, LIMIT)], lease_seconds=600) == Granted()
            say("reserve", key, amount, 0, "granted" if granted else "refused", start)
            if not granted:
                return
            actual, start = dice.randrange(amount // 3, amount + 1), time.monotonic()
            settled = ledger.settle(key, [Charge(TEAM, amount, actual)], alert_at={TEAM: THRESHOLDS})
            say("settle", key, amount, actual, settled.how, start)
            for crossing in settled.crossed:
                sys.stdout.write(f"crossed {crossing.threshold}\n")

    workers = [threading.Thread(target=live, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ledger.close()


if __name__ == "__main__":
    spend(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
