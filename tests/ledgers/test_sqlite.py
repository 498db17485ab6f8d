"""The SQLite ledger: the contract, the races, the machine in lock step with memory, simulated worlds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings

from agentbudget.domain.ledger import Ledger
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import LedgerContract, MakeLedger
from agentbudget.testing.ledger_machine import ledger_machine
from agentbudget.testing.races import LedgerRaces
from agentbudget.testing.simulation import World

FOLDER = TemporaryDirectory()
FILES = itertools.count()


def new_ledger(clock: FakeClock, on_expire: str = "charge") -> Ledger:
    url = f"sqlite:///{FOLDER.name}/{next(FILES)}.db?synchronous=normal&on_expire={on_expire}"
    return open_ledger(url, clock=clock)


class TestSqliteLedger(LedgerContract):
    @pytest.fixture
    def make_ledger(self, clock: FakeClock, tmp_path: Path) -> MakeLedger:
        def make(on_expire: str = "charge") -> Ledger:
            return open_ledger(f"sqlite:///{tmp_path}/{on_expire}.db?on_expire={on_expire}", clock=clock)

        return make


@pytest.mark.race
class TestSqliteLedgerRaces(LedgerRaces):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[Ledger]:
        ledger = open_ledger(f"sqlite:///{tmp_path}/spend.db?synchronous=normal")
        yield ledger
        ledger.close()


TestSqliteLedgerMachine = ledger_machine(MemoryLedger, new_ledger).TestCase
TestSqliteLedgerMachine.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.parametrize("seed", range(8))
def test_no_law_breaks_in_a_simulated_world(seed: int) -> None:
    World(seed, new_ledger).run()
