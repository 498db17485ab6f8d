"""The Redis ledgers on a real server: the contract, the machine in lock step with memory, simulated worlds, races."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from agentbudget.domain.accounts import Balance
from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import Ledger
from agentbudget.errors import ReservationConflictError
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.plan import MAX_AMOUNT
from agentbudget.ledgers.redis import RedisLedger
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import TASK, LedgerContract, MakeLedger, pay, take
from agentbudget.testing.ledger_machine import ledger_machine
from agentbudget.testing.races import LedgerRaces
from agentbudget.testing.simulation import World
from tests.ledgers.blocking import BlockingLedger
from tests.ledgers.servers import fresh

Opener = Callable[[FakeClock, str], Ledger]


def opener(url: str, kind: Callable[..., Ledger]) -> Opener:
    """Opens an empty ledger of *kind* on the clock it is given."""

    def open_one(clock: Clock, on_expire: str) -> Ledger:
        return kind(f"{fresh(url)}&on_expire={on_expire}", clock=clock)

    return open_one


class TestRedisLedger(LedgerContract):
    @pytest.fixture
    def make_ledger(self, clock: FakeClock, redis_url: str) -> MakeLedger:
        return lambda on_expire="charge": opener(redis_url, RedisLedger)(clock, on_expire)


class TestAsyncRedisLedger(LedgerContract):
    @pytest.fixture
    def make_ledger(self, clock: FakeClock, redis_url: str) -> MakeLedger:
        return lambda on_expire="charge": opener(redis_url, BlockingLedger)(clock, on_expire)


@pytest.mark.race
class TestRedisLedgerRaces(LedgerRaces):
    @pytest.fixture
    def ledger(self, fresh_url: str) -> Iterator[Ledger]:
        ledger = RedisLedger(fresh_url)
        yield ledger
        ledger.close()


def test_any_sequence_of_verbs_leaves_redis_equal_to_memory_and_the_oracle(redis_url: str) -> None:
    machine = ledger_machine(MemoryLedger, opener(redis_url, RedisLedger))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


@pytest.mark.parametrize("reserved", [4, 6])
def test_a_live_reservation_is_not_settled_under_other_terms(reserved: int, fresh_url: str) -> None:
    ledger = RedisLedger(fresh_url)
    for name in ("first", "a"):  # the first makes the accounts, and is not the usual case
        take(ledger, name, (TASK, 5, 100))
    before = ledger.balance(TASK)
    with pytest.raises(ReservationConflictError):
        pay(ledger, "a", (TASK, reserved, 3))
    assert ledger.balance(TASK) == before
    ledger.close()


def test_sums_beyond_what_a_double_holds_are_exact(fresh_url: str) -> None:
    ledger = RedisLedger(fresh_url)
    take(ledger, "large", (TASK, MAX_AMOUNT, None))
    take(ledger, "odd", (TASK, 0, None))
    pay(ledger, "large", (TASK, MAX_AMOUNT, MAX_AMOUNT))
    pay(ledger, "odd", (TASK, 0, MAX_AMOUNT - 1))
    assert ledger.balance(TASK) == Balance(limit=None, settled=2 * MAX_AMOUNT - 1, overrun=MAX_AMOUNT - 1)
    assert ledger.verify().differences == ()
    ledger.close()


@pytest.mark.parametrize("seed", range(12))
def test_a_simulated_world_finds_nothing(redis_url: str, seed: int) -> None:
    World(seed, opener(redis_url, RedisLedger)).run()
