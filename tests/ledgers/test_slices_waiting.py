"""An event loop stands still once for a ledger that does not answer, however many of its tasks need a slice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress

import pytest

from agentbudget.domain.accounts import Account, Meter, Posting
from agentbudget.domain.ledger import Granted, Refused
from agentbudget.errors import LedgerUnavailableError
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.slices import SlicedLedger, SliceOptions


class Slow(MemoryLedger):
    """Answers a reservation only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = threading.Event()

    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        self.may_answer.wait()
        return super().reserve(reservation_id, postings, lease_seconds=lease_seconds)


def task(number: int) -> Posting:
    return Posting(Account((("task", f"t{number}"),), Meter.COST), 1, 10)


async def test_while_one_call_of_a_loop_waits_in_vain_no_other_waits() -> None:
    shared = Slow()
    ledger = SlicedLedger(shared, SliceOptions(wait_seconds=0.01))
    said = []
    for number in range(4):
        with pytest.raises(LedgerUnavailableError) as refused:
            ledger.reserve(f"r{number}", [task(number)], lease_seconds=60)
        said.append("did not lease another within" in str(refused.value))
    shared.may_answer.set()
    ledger.options = SliceOptions(wait_seconds=60)
    answer: Granted | Refused | None = None
    while answer is None:  # until what was asked for before is there
        with suppress(LedgerUnavailableError):
            answer = ledger.reserve("later", [task(5)], lease_seconds=60)
        await asyncio.sleep(0)
    assert answer == Granted()
    await asyncio.to_thread(ledger.close)
    assert said == [True, False, False, False]
