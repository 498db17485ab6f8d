"""Group commit: of threads that wait to write one leads, and who is interrupted or gives up holds nobody up."""

from __future__ import annotations

import threading

import pytest

from agentbudget.errors import LedgerUnavailableError
from agentbudget.ledgers.group_commit import GroupCommit, Request


def test_who_waits_shares_the_next_commit() -> None:
    batches: list[list[int]] = []
    busy, go_on = threading.Event(), threading.Event()

    def commit(batch: list[Request[int]]) -> None:
        batches.append([request.work for request in batch])
        if batch[0].work == 0:
            busy.set()
            go_on.wait()
        for request in batch:
            request.answer(-request.work)

    writer = GroupCommit(commit, lambda _: None, patience=60)
    answers: dict[int, int] = {}
    threads = [threading.Thread(target=lambda n=n: answers.update({n: writer.run(n)})) for n in range(6)]
    threads[0].start()
    busy.wait()
    for thread in threads[1:]:
        thread.start()
    while len(writer._waiting) < 5:
        pass
    go_on.set()
    for thread in threads:
        thread.join()
    assert answers == {n: -n for n in range(6)}
    assert [sorted(batch) for batch in batches] == [[0], [1, 2, 3, 4, 5]]


def test_an_interrupted_writer_leaves_its_group_to_the_next() -> None:
    busy, go_on = threading.Event(), threading.Event()
    batches: list[int] = []

    def commit(batch: list[Request[int]]) -> None:
        batches.append(len(batch))
        if len(batches) == 1:
            busy.set()
            go_on.wait()
        elif len(batches) == 2:
            raise KeyboardInterrupt
        for request in batch:
            request.answer(request.work)

    writer = GroupCommit(commit, lambda _: None, patience=60)
    answers: list[int] = []

    def run(work: int) -> None:
        try:
            answers.append(writer.run(work))
        except KeyboardInterrupt:
            answers.append(-1)

    threads = [threading.Thread(target=run, args=(work,)) for work in range(4)]
    threads[0].start()
    busy.wait()
    for thread in threads[1:]:
        thread.start()
    while len(writer._waiting) < 3:
        pass
    go_on.set()
    for thread in threads:
        thread.join()
    assert batches == [1, 3, 2]
    assert (len(answers), answers.count(-1), writer._leader, writer._waiting) == (4, 1, 0, [])


def test_who_waits_too_long_is_told_that_the_outcome_is_unknown() -> None:
    go_on, busy = threading.Event(), threading.Event()

    def commit(batch: list[Request[int]]) -> None:
        busy.set()
        go_on.wait()
        for request in batch:
            request.answer(request.work)

    writer = GroupCommit(commit, lambda _: None, patience=0.01)
    leader = threading.Thread(target=lambda: writer.run(0))
    leader.start()
    busy.wait()
    with pytest.raises(LedgerUnavailableError, match="safe to try it again"):
        writer.run(1)
    go_on.set()
    leader.join()
    assert writer._leader == 0
    assert writer.run(2) == 2
