"""Slices: parts of a limit that this process leased from a ledger, to admit calls from without asking it."""

from agentbudget.ledgers.slices.ledger import SlicedLedger
from agentbudget.ledgers.slices.options import SliceOptions
from agentbudget.ledgers.slices.recall import recall_slices

__all__ = ["SliceOptions", "SlicedLedger", "recall_slices"]
