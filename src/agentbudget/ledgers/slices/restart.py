"""Go on with the slices of processes that are gone, by what their journals say."""

from __future__ import annotations

from agentbudget.domain.accounts import Charge, Posting
from agentbudget.errors import LedgerUnavailableError
from agentbudget.ledgers.keys import account_of
from agentbudget.ledgers.outbox import Delivery
from agentbudget.ledgers.slices.journal import Left
from agentbudget.ledgers.slices.leasing import Leasing
from agentbudget.ledgers.slices.pool import Pool, Slice


def adopt(leasing: Leasing, past: set[str]) -> None:
    """Make what processes before this one held this one's own, then settle what no call in flight needs.

    Calls that were in flight are held for one more lease, so that a settlement which comes late is exact; after it
    they are presumed spent. Ids of settled calls are added to *past*.
    """
    for left in leasing.journal.take_over():
        _adopt(leasing, left)
        past |= left.settled
    if leasing.book.slices or leasing.book.owed:
        try:
            leasing.keep()
        except LedgerUnavailableError:
            return  # it is done later


def _adopt(leasing: Leasing, left: Left) -> None:
    book = leasing.book
    for name, charges in left.owed.items():
        lines = tuple(Charge(account_of(key), reserved, actual) for key, reserved, actual in charges)
        book.owed[name] = Delivery(id=name, charges=lines)
    for name, amounts in left.slices.items():
        book.owners.add(name.split(" ")[1])
        lines_of = {Pool(account_of(key)): amount for key, amount in amounts.items()}
        book.opened(
            Slice(id=name, lines=lines_of),
            dict.fromkeys(lines_of),
            asked_at=leasing.monotonic() - book.options.lease_seconds,
        )
    for key, amount in left.unreported.items():
        book.owe_for(account_of(key), amount)
    for name, (amounts, lease) in left.held.items():
        postings = [Posting(account_of(key), amount) for key, amount in amounts.items()]
        book.harden(postings)
        book.reserve(name, postings, lease_seconds=lease)
