"""Asking every process that works from slices of a ledger to give back what it does not use."""

from __future__ import annotations

import uuid
from contextlib import suppress

from agentbudget.domain.accounts import Account, Charge, Meter
from agentbudget.domain.ledger import Ledger
from agentbudget.errors import LedgerUnavailableError

RECALL = Account((("slices", "recall"),), Meter.MODEL_CALLS)
"""Each unit spent of it asks every process; they read it when they look after their slices."""


def recall(authority: Ledger) -> None:
    """Make all of them give back what is unused, and look at their limits anew."""
    authority.settle(f"recall {uuid.uuid4().hex}", [Charge(RECALL, 0, 1)])


def recall_slices(ledger: Ledger) -> None:
    """The same after a limit was set on *ledger*: one that has slices itself has done it, one out of reach cannot."""
    there = getattr(ledger, "primary", ledger)
    if getattr(there, "authority", None) is None:
        with suppress(LedgerUnavailableError):
            recall(there)
