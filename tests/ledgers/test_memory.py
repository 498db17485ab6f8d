"""The memory ledger: the contract, the races, and what only it promises."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from agentbudget.domain.accounts import Account, Balance, Charge, Meter, Posting
from agentbudget.domain.ledger import Granted, Settled
from agentbudget.errors import ConfigurationError
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import LEASE, TASK, TEAM, LedgerContract, MakeLedger, account, pay, take
from agentbudget.testing.races import LedgerRaces


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def make_ledger(self, clock: FakeClock) -> MakeLedger:
        return lambda on_expire="charge": MemoryLedger(clock, on_expire)


@pytest.mark.race
class TestMemoryLedgerRaces(LedgerRaces):
    @pytest.fixture
    def ledger(self) -> MemoryLedger:
        return MemoryLedger()


def test_ids_older_than_retained_are_folded_and_the_balance_still_proves() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock, retain=10)
    for n in range(500):
        take(ledger, f"r{n}", (TASK, 5, 10_000), (TEAM, 5, None))
        if n % 5 == 0:
            clock.advance(LEASE)
        elif n % 5 == 1:
            ledger.release(f"r{n}")
        if n % 10 != 0 and n % 5 != 1:
            pay(ledger, f"r{n}", (TASK, 5, 4 + n % 3), (TEAM, 5, 4))
        ledger.top_up(f"g{n}", TASK, 1)
    assert ledger.balance(TASK) == Balance(
        limit=10_500, settled=sum(4 + n % 3 for n in range(500) if n % 10 != 0 and n % 5 != 1), presumed=250,
        overrun=sum(n % 3 == 2 for n in range(500) if n % 10 != 0 and n % 5 != 1),
    )  # fmt: skip
    assert ledger.verify().differences == ()
    assert len(list(ledger.journal())) < 200
    assert pay(ledger, "r499", (TASK, 5, 5), (TEAM, 5, 4)) == Settled("duplicate")
    assert pay(ledger, "r2", (TASK, 5, 6), (TEAM, 5, 4)) == Settled("lost"), "forgotten ids are not deduplicated"
    assert ledger.verify().differences == ()


def test_an_id_used_anew_after_it_was_folded_is_not_folded_while_live() -> None:
    ledger = MemoryLedger(FakeClock(), retain=1)
    for key in ("a", "b", "c", "d"):
        ledger.release(key)
        pay(ledger, key, (TASK, 1, 1))
    take(ledger, "a", (TASK, 5, 100))
    for key in ("e", "f", "g", "h"):
        ledger.release(key)
    assert ledger.balance(TASK).reserved == 5
    assert pay(ledger, "a", (TASK, 5, 5)) == Settled()
    assert ledger.verify().differences == ()


def test_verify_sees_a_balance_that_its_records_do_not_explain() -> None:
    ledger = MemoryLedger(FakeClock())
    take(ledger, "a", (TASK, 5, 10))
    ledger._rows[TASK.key].settled += 1
    found = ledger.verify()
    assert not found.ok
    assert found.differences[0].startswith(f"{TASK.key}: settled is 1, its records say 0")


def test_memory_is_flat_over_many_tasks() -> None:
    ledger = MemoryLedger(FakeClock(), retain=100)

    def run(first: int, count: int) -> None:
        for n in range(first, first + count):
            task = account(f"t{n}")
            take(ledger, f"r{n}", (task, 5, 10), (TEAM, 5, None))
            pay(ledger, f"r{n}", (task, 5, 3), (TEAM, 5, 3))
            ledger.collect([task])

    run(0, 2000)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run(2000, 2000)
        gc.collect()
        # What was retained before was not traced, so at most the retained records of this stretch are new.
        assert tracemalloc.get_traced_memory()[0] - before < 300_000
    finally:
        tracemalloc.stop()
    assert set(ledger.accounts()) == {TEAM}
    assert ledger.verify().ok


def test_leases_of_resolved_reservations_are_let_go() -> None:
    ledger = MemoryLedger(FakeClock())
    take(ledger, "live", (TASK, 1, None))
    for n in range(5000):
        take(ledger, f"r{n}", (TASK, 1, None))
        pay(ledger, f"r{n}", (TASK, 1, 1))
    assert len(ledger._leases) < 2500
    assert ledger.balance(TASK).reserved == 1


def test_a_verb_inside_a_verb_does_not_deadlock() -> None:
    ledger = MemoryLedger(FakeClock())
    take(ledger, "stream", (TASK, 5, 10))

    class Abandoned(tuple[Posting, ...]):
        __slots__ = ()

        def __len__(self) -> int:
            pay(ledger, "stream", (TASK, 5, 1))  # as the finaliser of a stream would, wherever it is collected
            return super().__len__()

    answer = ledger.reserve("b", Abandoned([Posting(TASK, 5, 10)]), lease_seconds=LEASE)
    assert answer == Granted()
    assert ledger.balance(TASK) == Balance(limit=10, settled=1, reserved=5)
    assert ledger.verify().ok


def test_equal_accounts_and_limits_need_not_be_the_same_objects() -> None:
    ledger = MemoryLedger(FakeClock())
    for n in range(5):
        big = int("1000000000")
        fresh = Account((("task", "t1"),), Meter.COST)
        assert ledger.reserve(f"r{n}", [Posting(fresh, big // 10, big)], lease_seconds=LEASE) == Granted()
        assert ledger.settle(f"r{n}", [Charge(fresh, big // 10, big // 20)]) == Settled()
    assert ledger.balance(TASK).settled == 250_000_000


@pytest.mark.parametrize("options", [{"on_expire": "forget"}, {"retain": 0}])
def test_options_that_mean_nothing_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        MemoryLedger(**options)  # type: ignore[arg-type]  # the wrong types are the point


def test_open_ledger_knows_memory_and_its_options() -> None:
    clock = FakeClock()
    ledger = open_ledger("memory:?on_expire=release", clock=clock)
    take(ledger, "a", (TASK, 5, 10))
    clock.advance(LEASE)
    assert ledger.balance(TASK).committed == 0
    assert isinstance(open_ledger("memory:"), MemoryLedger)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memry:", r"scheme 'memry'.*known: memory:.*Did you mean 'memory:'"),
        ("spend.db", "no scheme"),
        ("", "no scheme"),
        ("mongodb://user:secret@host/db", "scheme 'mongodb'"),
        ("memory://host", "no host"),
        ("memory:?expire=charge", "unknown option 'expire'"),
        ("memory:?on_expire=keep", "on_expire='keep'"),
    ],
)
def test_a_url_that_no_ledger_knows_says_what_is_known(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        open_ledger(url)
    assert "secret" not in str(caught.value)
