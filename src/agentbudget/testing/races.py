"""Make a missing lock visible, and the races every ledger must win.

Starting many threads and counting does not find a missing lock in pure Python: the interpreter rarely switches inside a
few lines. Sleeping on a share of those lines, by a line tracer, does. A tracer displaces coverage's own in the threads
it is set for, so these tests run outside a coverage run (mark the class, deselect the mark there).
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import pytest

from agentbudget.domain.accounts import Charge, Posting
from agentbudget.domain.ledger import Granted, Ledger, Settled
from agentbudget.errors import ReservationConflictError
from agentbudget.testing.ledger_contract import LEASE, TASK, TEAM

Answer = TypeVar("Answer")


@contextmanager
def preempted(owner: object, *, chance: float = 0.2, seconds: float = 0.0002, seed: int = 7) -> Iterator[None]:
    """Threads started inside sleep *seconds* on a *chance* of the lines of the file that defines *owner*'s class.

    Raises:
        ValueError: a class without a Python source file, where nothing could be seen.
    """
    source = sys.modules[type(owner).__module__].__file__
    if source is None or not source.endswith(".py"):
        raise ValueError(f"{type(owner).__name__} is not defined in a Python file; its lines cannot be traced.")
    dice = random.Random(seed)

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != source:
            return None
        if event == "line" and dice.random() < chance:
            time.sleep(seconds)
        return on_line

    threading.settrace(on_line)
    try:
        yield
    finally:
        threading.settrace(None)


def at_once(count: int, work: Callable[[int], Answer]) -> list[Answer]:
    """Run `work(0)` … `work(count - 1)` in as many threads that start together; their answers in order.

    Raises:
        BaseException: the first that a thread raised.
    """
    barrier = threading.Barrier(count)
    answers: dict[int, Answer] = {}
    errors: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            answers[number] = work(number)
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [answers[number] for number in range(count)]


class LedgerRaces:
    """Subclass it next to `LedgerContract`, with a fixture `ledger`: an empty ledger on a real clock."""

    @pytest.fixture
    def ledger(self) -> Iterator[Ledger]:
        """Override."""
        raise NotImplementedError(f"{type(self).__name__} overrides the fixture ledger")

    def test_concurrent_reservations_never_exceed_the_limit(self, ledger: Ledger) -> None:
        ledger.reserve("first", [Posting(TASK, 0, 5)], lease_seconds=LEASE)
        with preempted(ledger):
            answers = at_once(32, lambda n: ledger.reserve(f"r{n}", [Posting(TASK, 1, 5)], lease_seconds=LEASE))
        assert answers.count(Granted()) == 5
        assert ledger.balance(TASK).committed == 5
        assert ledger.verify().differences == ()

    def test_one_id_from_many_threads_holds_once_and_charges_once(self, ledger: Ledger) -> None:
        with preempted(ledger):
            answers = at_once(16, lambda _: ledger.reserve("a", [Posting(TASK, 3, 100)], lease_seconds=LEASE))
            assert set(answers) == {Granted()}
            assert ledger.balance(TASK).reserved == 3
            settled = at_once(16, lambda _: ledger.settle("a", [Charge(TASK, 3, 2)]))
        assert sorted(answer.how for answer in settled) == ["duplicate"] * 15 + ["settled"]
        assert ledger.balance(TASK).committed == 2

    def test_a_reservation_ends_once_whoever_comes_first(self, ledger: Ledger) -> None:
        ledger.reserve("a", [Posting(TASK, 3, 100), Posting(TEAM, 3, 100)], lease_seconds=LEASE)

        def end(number: int) -> bool:
            if number % 2:
                return ledger.release("a").value == "released"
            try:
                return ledger.settle("a", [Charge(TASK, 3, number), Charge(TEAM, 3, number)]) != Settled("duplicate")
            except ReservationConflictError:
                return False

        with preempted(ledger):
            at_once(12, end)
        task, team = ledger.balance(TASK), ledger.balance(TEAM)
        assert (task.settled, task.reserved) == (team.settled, 0)
        assert ledger.verify().differences == ()

    def test_each_threshold_is_told_to_exactly_one_of_many_who_settle_at_once(self, ledger: Ledger) -> None:
        watched = {TASK: (2_500, 5_000, 10_000)}

        def live(number: int) -> list[int]:
            ledger.reserve(f"r{number}", [Posting(TASK, 1, 24)], lease_seconds=LEASE)
            return [
                one.threshold for one in ledger.settle(f"r{number}", [Charge(TASK, 1, 1)], alert_at=watched).crossed
            ]

        with preempted(ledger):
            told = at_once(24, live)
        assert sorted(threshold for one in told for threshold in one) == [2_500, 5_000, 10_000]

    def test_mixed_verbs_keep_every_balance_provable(self, ledger: Ledger) -> None:
        def live(number: int) -> int:
            spent = 0
            for turn in range(6):
                key, limit = f"{number}-{turn}", 40
                postings = [Posting(TASK, 3, limit), Posting(TEAM, 3, 1000)]
                if not isinstance(ledger.reserve(key, postings, lease_seconds=LEASE), Granted):
                    continue
                if turn % 3 == 2:
                    ledger.release(key)
                    continue
                ledger.settle(key, [Charge(TASK, 3, 2), Charge(TEAM, 3, 2)])
                spent += 2
            return spent

        with preempted(ledger, chance=0.05):
            spent = sum(at_once(8, live))
        task, team = ledger.balance(TASK), ledger.balance(TEAM)
        assert (task.settled, task.reserved, team.settled, team.reserved) == (spent, 0, spent, 0)
        assert ledger.verify().differences == ()
