"""Whether what several clients saw of one ledger can have happened one after the other.

The journal gives the order. Replayed through the oracle it must give every answer that a client got; it must not
contradict the time in which calls did not overlap; and a refusal, which leaves no entry, must have been right at some
moment between its request and its answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agentbudget.domain.accounts import Account, Charge, Posting
from agentbudget.domain.ledger import Granted, JournalEntry, Settled
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.oracle import Oracle


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One call as a client saw it; times are of one clock for all clients."""

    verb: str
    id: str
    amount: int
    """Reserved."""
    actual: int
    answer: str
    """`granted`, `refused` or how it settled."""
    start: float
    end: float

    @classmethod
    def read(cls, record: dict[str, Any]) -> Seen:
        return cls(**record)


def check(journal: Iterable[JournalEntry], seen: Iterable[Seen], account: Account, limit: int) -> int:
    """Assert it for calls that each take *amount* of *account* and of nothing else; how many refusals there were."""
    calls = {(one.verb, one.id): one for one in seen if one.answer != "refused"}
    refused = [one for one in seen if one.answer == "refused"]
    oracle, order, committed, latest_start = Oracle(FakeClock()), [], [0], 0.0
    for entry in journal:
        call = calls.pop((entry.verb, entry.id))
        assert latest_start <= call.end, f"{call} was answered before a call that it follows was made"
        latest_start = max(latest_start, call.start)
        if entry.verb == "reserve":
            answer: Any = oracle.reserve(entry.id, [Posting(account, call.amount, limit)], lease_seconds=1e6)
            assert (answer, call.answer) == (Granted(), "granted")
        else:
            answer = oracle.settle(entry.id, [Charge(account, call.amount, call.actual)])
            assert answer == Settled(call.answer)
        order.append(call)
        committed.append(oracle.balance(account).committed)
    assert calls == {}, "answers without an entry in the journal"
    for one in refused:
        first = max((place + 1 for place, call in enumerate(order) if call.end < one.start), default=0)
        last = min((place for place, call in enumerate(order) if call.start > one.end), default=len(order))
        assert any(spent + one.amount > limit for spent in committed[first : last + 1]), f"{one} had room"
    return len(refused)
