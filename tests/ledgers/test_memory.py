"""The memory ledger: the contract, the races, and what only it promises."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from agentbudget.domain.accounts import Account, Balance, Charge, Meter, Posting
from agentbudget.domain.ledger import Granted, Settled
from agentbudget.errors import ConfigurationError, ReservationConflictError
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.memory_store import BRIEF_SECONDS
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import (
    LEASE,
    TASK,
    TEAM,
    LedgerContract,
    MakeLedger,
    account,
    pay,
    take,
    told,
)
from agentbudget.testing.races import LedgerRaces

Line = TypeVar("Line")


class Interrupted(list[Line]):
    """Lines of a verb. After the first something else happens in the same thread, as where the collector closes a
    stream that was abandoned."""

    def __init__(self, what: Callable[[], object], *lines: Line) -> None:
        super().__init__(lines)
        self.what = what

    def __iter__(self) -> Iterator[Line]:
        for number, line in enumerate(super().__iter__()):
            yield line
            if not number:
                what, self.what = self.what, lambda: None
                what()


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


@pytest.mark.parametrize("retain", [1, 2, 3])
def test_an_id_used_anew_after_it_was_folded_is_not_folded_while_live(retain: int) -> None:
    ledger = MemoryLedger(FakeClock(), retain=retain)
    for key in ("b", "c", "d", "a"):
        ledger.release(key)
        pay(ledger, key, (TASK, 1, 1))
    while "a" in ledger._records:
        ledger.release(f"x{ledger._sequence}")
    take(ledger, "a", (TASK, 5, 100))
    for key in ("e", "f", "g", "h"):
        ledger.release(key)
    assert ledger.balance(TASK).reserved == 5
    assert pay(ledger, "a", (TASK, 5, 5)) == Settled()
    assert ledger.verify().differences == ()


def test_an_id_used_anew_is_not_told_the_thresholds_of_its_former_use() -> None:
    ledger = MemoryLedger(FakeClock(), retain=1)
    take(ledger, "a", (TASK, 5, 10))
    assert told(pay(ledger, "a", (TASK, 5, 5), alert_at={TASK: (5_000,)})) == [(5_000, 10, 5)]
    ledger.release("b")
    take(ledger, "a", (TASK, 1, 10))
    pay(ledger, "a", (TASK, 1, 1))
    assert pay(ledger, "a", (TASK, 1, 1)) == Settled("duplicate")


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
    for n in range(3000):
        take(ledger, f"r{n}", (TASK, 1, None))
        pay(ledger, f"r{n}", (TASK, 1, 1)) if n % 2 else ledger.release(f"r{n}")
        ledger.reserve(f"s{n}", [Posting(TASK, 1, None)], lease_seconds=LEASE + n)
        pay(ledger, f"s{n}", (TASK, 1, 1))
    assert sum(map(len, ledger._leases.values())) == 1
    assert len(ledger._leases) <= 2
    assert ledger.balance(TASK).reserved == 1


def test_leases_of_any_length_and_order_end_each_in_its_time() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock)
    lengths = [50, 10, 40, 10, 30, 50, 20]
    for n, seconds in enumerate(lengths):
        ledger.reserve(f"r{n}", [Posting(TASK, 1, None)], lease_seconds=seconds)
    ledger.renew("r1", lease_seconds=45)
    ends = [50, 45, 40, 10, 30, 50, 20]
    for now in range(1, 60):
        clock.advance(1)
        assert ledger.balance(TASK).presumed == sum(end <= now for end in ends)
    assert ledger.verify().ok


def test_a_verb_inside_a_verb_does_not_deadlock() -> None:
    ledger = MemoryLedger(FakeClock())
    take(ledger, "stream", (TASK, 5, 10))
    postings = Interrupted(lambda: pay(ledger, "stream", (TASK, 5, 1)), Posting(TASK, 5, 10))
    assert ledger.reserve("b", postings, lease_seconds=LEASE) == Granted()
    assert ledger.balance(TASK) == Balance(limit=10, settled=1, reserved=5)
    assert ledger.verify().ok


@pytest.mark.parametrize("end", ["settle", "release", "expire"])
def test_a_reservation_that_ends_within_its_own_settle_ends_once(end: str) -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock)
    take(ledger, "a", (TASK, 5, 10), (TEAM, 5, 10))

    def other() -> None:
        if end == "settle":
            pay(ledger, "a", (TASK, 5, 3), (TEAM, 5, 3))
        elif end == "release":
            ledger.release("a")
        else:
            clock.advance(LEASE)
            ledger.balance(TASK)

    answer = ledger.settle("a", Interrupted(other, Charge(TASK, 5, 3), Charge(TEAM, 5, 3)))
    assert answer.how == ("duplicate" if end == "settle" else "late")
    for known in (TASK, TEAM):
        balance = ledger.balance(known)
        assert (balance.settled, balance.reserved, balance.presumed) == (3, 0, 0)
    assert ledger.verify().ok


def test_a_verb_that_is_interrupted_has_done_nothing() -> None:
    ledger = MemoryLedger(FakeClock())
    take(ledger, "a", (TASK, 5, 10), (TEAM, 5, 10))
    before = list(ledger.journal()), ledger.balance(TASK), ledger.balance(TEAM)

    def stop() -> None:
        raise KeyboardInterrupt

    fresh = account("fresh")
    with pytest.raises(KeyboardInterrupt):
        ledger.reserve("b", Interrupted(stop, Posting(TASK, 1, 10), Posting(fresh, 1, 10)), lease_seconds=LEASE)
    with pytest.raises(KeyboardInterrupt):
        ledger.settle("a", Interrupted(stop, Charge(TASK, 5, 7), Charge(TEAM, 5, 2)))
    assert (list(ledger.journal()), ledger.balance(TASK), ledger.balance(TEAM)) == before
    assert set(ledger.accounts()) == {TASK, TEAM}
    assert pay(ledger, "a", (TASK, 5, 7), (TEAM, 5, 2)) == Settled()
    assert ledger.verify().ok


def test_charges_that_name_one_account_twice_instead_of_another_are_refused_before_any_write() -> None:
    ledger = MemoryLedger(FakeClock())
    take(ledger, "a", (TASK, 5, 10), (TEAM, 5, 10))
    with pytest.raises(ValueError, match="twice"):
        pay(ledger, "a", (TASK, 5, 3), (TASK, 5, 3))
    with pytest.raises(ReservationConflictError):
        pay(ledger, "a", (TASK, 5, 7), (account("other"), 5, 3))
    assert ledger.balance(TASK) == ledger.balance(TEAM) == Balance(limit=10, reserved=5)
    assert pay(ledger, "a", (TEAM, 5, 3), (TASK, 5, 6)) == Settled(), "in any order"
    assert ledger.balance(TASK) == Balance(limit=10, settled=6, overrun=1)
    assert ledger.verify().ok


def test_calls_leave_nothing_to_the_garbage_collector() -> None:
    ledger = MemoryLedger(FakeClock(), retain=100)

    def run(first: int, count: int) -> None:
        for n in range(first, first + count):
            task = account(f"t{n}")
            take(ledger, f"r{n}", (task, 5, 10), (TEAM, 5, None))
            pay(ledger, f"r{n}", (task, 5, 3), (TEAM, 5, 3))
            take(ledger, f"s{n}", (task, 5, 10), (TEAM, 5, None))
            ledger.release(f"s{n}")
            ledger.collect([task])

    run(0, 500)
    gc.collect()
    gc.disable()
    try:
        before = gc.get_count()[0]
        run(500, 2_000)
        assert gc.get_count()[0] - before < 100, "as much is freed as is made"
        assert gc.collect() < 100
    finally:
        gc.enable()


def test_equal_accounts_and_limits_need_not_be_the_same_objects() -> None:
    ledger = MemoryLedger(FakeClock())
    for n in range(5):
        big = int("1000000000")
        fresh = Account((("task", "t1"),), Meter.COST)
        assert ledger.reserve(f"r{n}", [Posting(fresh, big // 10, big)], lease_seconds=LEASE) == Granted()
        assert ledger.settle(f"r{n}", [Charge(fresh, big // 10, big // 20)]) == Settled()
    assert ledger.balance(TASK).settled == 250_000_000


def test_a_bool_is_no_limit_even_where_it_equals_the_declared_one() -> None:
    ledger = MemoryLedger(FakeClock())
    take(ledger, "a", (TASK, 0, 1))
    with pytest.raises(ValueError, match="limit"):
        take(ledger, "b", (TASK, 0, True))


def test_a_minute_stays_while_something_of_it_is_held_or_retained() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock, retain=10)
    used, held = (Account((("user", name),), Meter.MODEL_CALLS, "2026-11-22T18:05+0000") for name in ("u", "v"))
    take(ledger, "a", (used, 5, 10))
    pay(ledger, "a", (used, 5, 3))
    ledger.reserve("b", [Posting(held, 5, 10)], lease_seconds=10 * BRIEF_SECONDS)
    clock.advance(2 * BRIEF_SECONDS)
    assert set(ledger.accounts()) == {used, held}
    assert pay(ledger, "a", (used, 5, 3)) == Settled("duplicate")
    for n in range(20):
        take(ledger, f"r{n}", (TASK, 1, None))
        pay(ledger, f"r{n}", (TASK, 1, 1))
    clock.advance(BRIEF_SECONDS)
    assert set(ledger.accounts()) == {held, TASK}
    assert ledger.balance(held).reserved == 5
    assert ledger.verify().ok


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
