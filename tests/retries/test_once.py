"""Work that is done once: claimed, kept, waited for, and never repeated blindly."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.memory import InMemoryStore

from agentbudget.errors import AgentBudgetError, ConfigurationError, UnknownOutcomeError
from agentbudget.langchain.results import GraphResults
from agentbudget.retries import owners
from agentbudget.retries.once import LEASE_SECONDS, Claim, Once
from agentbudget.retries.results import MOST_IN_MEMORY, MemoryResults, ResultStore, Row, State, open_results
from agentbudget.retries.results_sqlite import SqliteResults
from agentbudget.retries.sameness import digest
from agentbudget.testing import FakeClock


class Json:
    """Plain values as JSON."""

    def encode(self, value: Any) -> bytes:
        return json.dumps(value).encode()

    def decode(self, payload: bytes) -> Any:
        return json.loads(payload)


CODEC = Json()


@pytest.fixture(params=["memory", "sqlite", "graph"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ResultStore]:
    if request.param == "memory":
        yield MemoryResults()
    elif request.param == "graph":
        yield GraphResults(InMemoryStore())
    else:
        results = SqliteResults(tmp_path / "results.db")
        yield results
        results.close()


@pytest.fixture
def once(store: ResultStore) -> Once:
    return Once(store)


def counted(result: Any = "found") -> tuple[Callable[[], Any], list[int]]:
    """Work that counts how often it is done."""
    done: list[int] = []

    def work() -> Any:
        done.append(1)
        if isinstance(result, BaseException):
            raise result
        return result

    return work, done


def test_a_second_run_gets_the_kept_result(once: Once) -> None:
    work, done = counted({"a": [1, None]})
    assert once.run("k", work, CODEC) == ({"a": [1, None]}, False)
    assert once.run("k", work, CODEC) == ({"a": [1, None]}, True)
    assert once.run("other", work, CODEC) == ({"a": [1, None]}, False)
    assert len(done) == 2


def test_an_error_is_never_kept(once: Once) -> None:
    work, done = counted(ConnectionError("no route"))
    for _ in range(3):
        with pytest.raises(ConnectionError):
            once.run("k", work, CODEC)
    assert len(done) == 3
    assert once.unknown() == {}


@pytest.mark.parametrize("cut", [KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_work_that_was_cut_off_is_not_repeated_blindly(once: Once, cut: BaseException) -> None:
    work, done = counted(cut)
    with pytest.raises(type(cut)):
        once.run("pay/invoice", work, CODEC)
    with pytest.raises(UnknownOutcomeError, match=r"pay/invoice.*cut off.*results\.forget\('pay/invoice'\)") as told:
        once.run("pay/invoice", work, CODEC)
    assert (len(done), told.value.key, list(once.unknown())) == (1, "pay/invoice", ["pay/invoice"])


def test_work_that_bears_it_is_repeated_after_an_unknown_end(once: Once) -> None:
    with pytest.raises(KeyboardInterrupt):
        once.run("k", counted(KeyboardInterrupt())[0], CODEC)
    assert once.run("k", counted("found")[0], CODEC, repeatable=True) == ("found", False)
    assert once.run("k", counted("other")[0], CODEC) == ("found", True)


def test_a_person_decides_what_became_of_it(once: Once) -> None:
    for key in ("not done", "done"):
        with pytest.raises(KeyboardInterrupt):
            once.run(key, counted(KeyboardInterrupt())[0], CODEC)
    once.forget("not done")
    once.resolve("done", CODEC.encode("paid"))
    assert once.run("not done", counted("now")[0], CODEC) == ("now", False)
    assert once.run("done", counted("again")[0], CODEC) == ("paid", True)
    assert once.unknown() == {}


def test_forgetting_does_not_let_a_second_one_in_while_the_first_is_at_it(once: Once) -> None:
    claim = once.claim("k")
    assert isinstance(claim, Claim)
    once.forget("k")
    claim.done(b'"first"')
    assert once.run("k", counted()[0], CODEC) == ("first", True)


def test_a_result_that_cannot_be_kept_is_given_once_and_is_unknown_after(once: Once) -> None:
    work, done = counted(object())
    assert once.run("k", work, CODEC).again is False
    with pytest.raises(UnknownOutcomeError, match="cannot be kept"):
        once.run("k", work, CODEC)
    assert len(done) == 1


def test_threads_that_ask_for_the_same_wait_for_the_first(once: Once) -> None:
    begun, go = threading.Event(), threading.Event()
    done: list[int] = []

    def work() -> str:
        done.append(1)
        begun.set()
        assert go.wait(20)
        return "found"

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(once.run, "k", work, CODEC)
        assert begun.wait(20)
        others = [pool.submit(once.run, "k", work, CODEC) for _ in range(7)]
        go.set()
        assert [each.result(20).again for each in (first, *others)] == [False, *[True] * 7]
    assert len(done) == 1


def test_when_the_first_fails_one_of_those_who_wait_tries(once: Once) -> None:
    begun, go = threading.Event(), threading.Event()
    done: list[int] = []

    def work() -> str:
        done.append(1)
        begun.set()
        assert go.wait(20)
        if len(done) == 1:
            raise ConnectionError
        return "found"

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(once.run, "k", work, CODEC)
        assert begun.wait(20)
        others = [pool.submit(once.run, "k", work, CODEC) for _ in range(3)]
        go.set()
        assert isinstance(first.exception(20), ConnectionError)
        assert sorted(each.result(20).again for each in others) == [False, True, True]
    assert len(done) == 2


def test_asyncio_tasks_that_ask_for_the_same_wait_for_the_first(once: Once) -> None:
    done: list[int] = []

    async def main() -> list[bool]:
        begun, go = asyncio.Event(), asyncio.Event()

        async def work() -> str:
            done.append(1)
            begun.set()
            await go.wait()
            return "found"

        asked = [asyncio.create_task(once.arun("k", work, CODEC)) for _ in range(8)]
        await begun.wait()
        leaving = asyncio.create_task(once.arun("k", work, CODEC))
        await asyncio.sleep(0)
        leaving.cancel()  # who stops waiting stops nobody else
        go.set()
        return [each.again for each in await asyncio.gather(*asked)]

    assert sorted(asyncio.run(main())) == [False, *[True] * 7]
    assert len(done) == 1


def test_work_within_itself_does_not_wait_for_itself(once: Once) -> None:
    depth: list[int] = []

    def work() -> str:
        depth.append(1)
        return "bottom" if len(depth) == 3 else once.run("k", work, CODEC).value

    assert once.run("k", work, CODEC) == ("bottom", False)

    async def awork() -> str:
        depth.append(1)
        if len(depth) == 6:
            return "bottom"
        return str((await asyncio.gather(once.arun("a", awork, CODEC)))[0].value)

    assert asyncio.run(once.arun("a", awork, CODEC)) == ("bottom", False)


def test_waiting_on_the_event_loop_that_does_the_work_is_refused(once: Once) -> None:
    async def main() -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def work() -> str:
            begun.set()
            await go.wait()
            return "found"

        asked = asyncio.create_task(once.arun("k", work, CODEC))
        await begun.wait()
        with pytest.raises(AgentBudgetError, match="ainvoke"):
            once.run("k", counted()[0], CODEC)
        go.set()
        assert (await asked).value == "found"

    asyncio.run(main())


def test_a_claim_of_another_machine_counts_until_its_lease_is_over(store: ResultStore) -> None:
    clock = FakeClock()
    row = Row(state=State.CLAIMED, at=clock.now(), owner="elsewhere/7/x", until=clock.now() + LEASE_SECONDS)
    store.change("k", lambda _: row)
    once = Once(store, now=clock.now)
    steps = once._claiming("k", repeatable=False)
    assert isinstance(next(steps), float), "it waits"
    clock.advance(LEASE_SECONDS)
    with pytest.raises(UnknownOutcomeError):
        next(steps)


def test_who_waits_for_another_process_gets_its_result(store: ResultStore) -> None:
    row = Row(state=State.CLAIMED, at=0.0, owner="elsewhere/7/x", until=1e12)
    store.change("k", lambda _: row)
    steps = Once(store)._claiming("k", repeatable=False)
    next(steps)
    store.change("k", lambda _: Row(state=State.DONE, at=1.0, payload=b'"theirs"'))
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == b'"theirs"'


def test_a_claim_that_was_taken_over_is_not_overwritten_by_its_first_owner(once: Once, store: ResultStore) -> None:
    claim = once.claim("k")
    assert isinstance(claim, Claim)
    store.change("k", lambda _: Row(state=State.DONE, at=1.0, payload=b'"decided"'))
    claim.done(b'"late"')
    assert once.run("k", counted()[0], CODEC).value == "decided"


def test_whether_an_owner_is_gone() -> None:
    owner = owners.Owner()
    machine, process, _ = owner.id.split("/")
    assert owners.is_gone(owner.id) is False
    assert owners.is_gone(f"{machine}/{process}/another") is True, "this process never had it"
    assert owners.is_gone(f"{machine}/{os.getppid()}/x") is None
    assert owners.is_gone("elsewhere/1/x") is None
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    assert owners.is_gone(f"{machine}/{ended.stdout.decode().strip()}/x") is True


CHILD = """
import os, signal, sys
sys.path[:0] = {path!r}
from agentbudget.retries.once import Once
from agentbudget.retries.results_sqlite import SqliteResults
from tests.retries.test_once import CODEC
once = Once(SqliteResults({file!r}))
once.run("kept", lambda: "paid once", CODEC)
once.run("cut", lambda: os.kill(os.getpid(), signal.SIGKILL), CODEC)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_after_kill_9_what_returned_is_kept_and_what_did_not_is_unknown(tmp_path: Path) -> None:
    file = str(tmp_path / "results.db")
    child = subprocess.run([sys.executable, "-c", CHILD.format(path=sys.path, file=file)], check=False)
    assert child.returncode == -9
    results = SqliteResults(file)
    once = Once(results)
    work, done = counted()
    assert once.run("kept", work, CODEC) == ("paid once", True)
    with pytest.raises(UnknownOutcomeError, match="whoever began it is gone"):
        once.run("cut", work, CODEC)
    assert done == []
    once.forget("cut")
    assert once.run("cut", work, CODEC) == ("found", False)
    results.close()


def test_stores_keep_what_they_were_told_and_drop_only_results(store: ResultStore) -> None:
    for place, state in enumerate(State):
        row = Row(state=state, at=float(place), owner="o", until=2.0, payload=b"\x00p", note="n")
        store.change(state.value, lambda _, row=row: row)  # type: ignore[misc]  # bound now
        assert store.rows(state) == {state.value: row}
    assert store.prune(100.0) == 1
    assert [bool(store.rows(state)) for state in State] == [True, False, True]
    store.change("claimed", lambda _: None)
    assert store.rows(State.CLAIMED) == {}


def test_a_change_that_fails_changes_nothing(store: ResultStore) -> None:
    row = Row(state=State.DONE, at=1.0)
    store.change("k", lambda _: row)
    with pytest.raises(ZeroDivisionError):
        store.change("k", lambda _: 1 // 0)  # type: ignore[arg-type,return-value]  # it never returns
    assert store.rows(State.DONE) == {"k": row}


def test_memory_is_bounded_and_keeps_claims() -> None:
    store = MemoryResults()
    store.change("claim", lambda _: Row(state=State.CLAIMED, at=0.0))
    for number in range(MOST_IN_MEMORY + 10):
        store.change(str(number), lambda _: Row(state=State.DONE, at=0.0))
    assert len(store.rows(State.DONE)) == MOST_IN_MEMORY - 1
    assert "0" not in store.rows(State.DONE)
    assert "claim" in store.rows(State.CLAIMED)


def test_what_names_a_store(tmp_path: Path) -> None:
    assert isinstance(open_results("memory:"), MemoryResults)
    in_a_file = open_results(f"sqlite:///{tmp_path}/r.db")
    assert isinstance(in_a_file, SqliteResults)
    in_a_file.close()
    mine = MemoryResults()
    assert open_results(mine) is mine
    for wrong in ("redis://x", "results.db", "sqlite:", "memory://host", 7):
        with pytest.raises(ConfigurationError, match="results"):
            open_results(wrong)  # type: ignore[arg-type]  # what a user may try
    (tmp_path / "text.db").write_text("not a database, but long enough to be looked at" * 50)
    for path in (tmp_path / "text.db", tmp_path / "none" / "r.db"):
        with pytest.raises(ConfigurationError, match="cannot be used"):
            SqliteResults(path)


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE theirs (a)")
    db.close()
    with pytest.raises(ConfigurationError, match="holds something else"):
        SqliteResults(tmp_path / "other.db")


def test_same_requests_have_one_hash_and_others_another() -> None:
    long = "x" * 1_000_000
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    assert digest({"a": 1, "b": {2, 3}}) == digest({"b": {3, 2}, "a": 1})
    differing = [1, "1", 1.0, True, None, b"1", [1], {"a": 1}, long + "y" + long, long + "z" + long, 1.5, {"a": None}]
    assert len({digest(each) for each in differing}) == len(differing)
    for beyond in (cyclic, iter([]), object(), sys.stdout, 1 << 80):
        with pytest.raises(TypeError, match="cannot be compared"):
            digest(beyond)


FORKED = """
import os, sys, threading, warnings
from agentbudget.langchain.repeats import CODEC
from agentbudget.retries.once import Once
from agentbudget.retries.results import open_results
warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads
once = Once(open_results(sys.argv[1]))
begun, go_on = threading.Event(), threading.Event()
first = threading.Thread(target=once.run, args=("k", lambda: begun.set() or go_on.wait() and "found", CODEC))
first.start()
begun.wait()
child = os.fork()
if not child:
    os._exit(0 if once.run("k", lambda: "again", CODEC).value == "found" else 1)
go_on.set()
first.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_waits_for_what_its_parent_does_and_gets_the_result(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKED, f"sqlite:///{tmp_path}/results.db"]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
