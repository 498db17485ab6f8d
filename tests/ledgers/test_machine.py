"""Every sequence of verbs leaves the memory ledger equal to the naive oracle."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.testing.ledger_machine import ledger_machine

TestMemoryLedgerMachine = ledger_machine(MemoryLedger).TestCase
TestMemoryLedgerMachine.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
