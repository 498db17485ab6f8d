"""A process that spends from slices and is killed with one call in flight; it prints what it did first.

python slice_worker.py URL
"""

from __future__ import annotations

import json
import os
import signal
import sys

from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.ledgers import open_ledger

TEAM = Account((("team", "cx"),), Meter.COST)
LIMIT = 1_000_000_000


def spend(url: str) -> None:
    ledger = open_ledger(url)
    settled = []
    for call in range(25):
        ledger.reserve(f"c{call}", [Posting(TEAM, 3, LIMIT)], lease_seconds=600)
        ledger.settle(f"c{call}", [Charge(TEAM, 3, 1)])
        settled.append(f"c{call}")
    ledger.reserve("live", [Posting(TEAM, 2, LIMIT)], lease_seconds=600)
    told = {"spent": len(settled), "settled": settled, "live": "live", "held": 2}
    sys.stdout.write(json.dumps(told))
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    spend(sys.argv[1])
