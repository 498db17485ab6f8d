"""Go on with the slices of a process that is gone, by what its journal says."""

from __future__ import annotations

from collections.abc import Mapping

from agentbudget.domain.accounts import Charge, Posting
from agentbudget.domain.ledger import ReservationState
from agentbudget.ledgers.keys import account_of
from agentbudget.ledgers.outbox import Delivery
from agentbudget.ledgers.slices.book import Book
from agentbudget.ledgers.slices.journal import Left
from agentbudget.ledgers.slices.pool import Pool, Slice


def take_up(book: Book, left: Left, states: Mapping[str, ReservationState], *, asked_at: float) -> None:
    """Make what another process *left* behind this one's own. *states* are those of its slices, renewed at *asked_at*.

    Only what the authority counts covers anything. Calls that were in flight are held for one more lease, so that a
    settlement which comes late is exact; after it they are presumed spent.
    """
    for name, charges in left.owed.items():
        lines = tuple(Charge(account_of(key), reserved, actual) for key, reserved, actual in charges)
        book.owe(Delivery(id=name, charges=lines))
    for name, amounts in left.slices.items():
        book.owners.add(name.split(" ")[1])
        expired = states[name] is ReservationState.EXPIRED
        if states[name] is ReservationState.LIVE or (expired and book.charges_expired):
            lines_of = {Pool(account_of(key)): amount for key, amount in amounts.items()}
            book.opened(Slice(id=name, lines=lines_of, expired=expired), dict.fromkeys(lines_of), asked_at=asked_at)
    for key, amount in left.unreported.items():
        book.owe_for(account_of(key), amount)
    for name, (amounts, lease) in left.held.items():
        postings = [Posting(account_of(key), amount) for key, amount in amounts.items()]
        book.hold(name, postings, lease)
