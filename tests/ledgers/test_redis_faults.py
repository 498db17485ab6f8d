"""What the Redis ledgers do when servers, connections, memory and callers fail. Every server is real."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import struct
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from agentbudget.domain.accounts import Balance, Charge, Posting
from agentbudget.domain.ledger import Granted, Ledger, Refused, Settled
from agentbudget.errors import AgentBudgetError, ConfigurationError, LedgerError, LedgerUnavailableError
from agentbudget.ledgers.redis import AsyncRedisLedger, RedisLedger
from agentbudget.ledgers.redis.replies import verification
from agentbudget.ledgers.redis.talk import Verb
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import LEASE, TASK, TEAM, account, pay, take
from agentbudget.testing.races import at_once
from tests.ledgers.blocking import BlockingLedger
from tests.ledgers.proxy import Proxy
from tests.ledgers.servers import Server, free_port, fresh

KINDS = [RedisLedger, BlockingLedger]


@pytest.fixture(params=KINDS)
def behind(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[Ledger]:
    """Each kind of ledger behind the proxy."""
    ledger = request.param(f"redis://127.0.0.1:{proxy.port}?timeout=2")
    take(ledger, "warm", (account("warm"), 1, 1))
    pay(ledger, "warm", (account("warm"), 1, 1))  # the server knows the scripts now
    yield ledger
    proxy.open.set()
    ledger.close()


# -- connections -------------------------------------------------------------------------------------------------------


def test_a_settle_whose_reply_was_lost_is_charged_once(behind: Ledger, proxy: Proxy) -> None:
    take(behind, "a", (TASK, 5, 10))
    proxy.cuts = 1
    assert pay(behind, "a", (TASK, 5, 3)) == Settled("duplicate")
    assert behind.balance(TASK) == Balance(limit=10, settled=3)
    assert behind.verify().ok


def test_a_reserve_whose_reply_was_lost_holds_once(behind: Ledger, proxy: Proxy) -> None:
    proxy.cuts = 2
    assert take(behind, "a", (TASK, 5, 10)) == Granted()
    assert behind.balance(TASK) == Balance(limit=10, reserved=5)


def test_tries_are_bounded_and_the_same_ledger_works_again_afterwards(behind: Ledger, proxy: Proxy) -> None:
    take(behind, "a", (TASK, 5, 10))
    proxy.cuts = 3
    with pytest.raises(LedgerUnavailableError, match="3 tries"):
        pay(behind, "a", (TASK, 5, 3))
    assert proxy.cuts == 0
    assert pay(behind, "a", (TASK, 5, 3)) == Settled("duplicate")


def test_killed_connections_are_made_anew(behind: Ledger, server: Server) -> None:
    take(behind, "a", (TASK, 5, 10))
    with server.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert pay(behind, "a", (TASK, 5, 3)) == Settled()


def test_scripts_that_the_server_forgot_are_sent_again(behind: Ledger, server: Server) -> None:
    take(behind, "a", (TASK, 5, 10))
    with server.client() as client:
        client.script_flush()
        assert pay(behind, "a", (TASK, 5, 3)) == Settled()
        client.script_flush()
    assert behind.balance(TASK) == Balance(limit=10, settled=3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_does_not_answer_is_out_of_reach(kind: Any, server: Server) -> None:
    ledger = kind(f"{server.url}?timeout=0.1")
    take(ledger, "a", (TASK, 5, 10))
    server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(LedgerUnavailableError, match="127.0.0.1"):
            pay(ledger, "a", (TASK, 5, 3))
    finally:
        server.signal(signal.SIGCONT)
    assert pay(ledger, "a", (TASK, 5, 3)).how in {"settled", "duplicate"}
    assert ledger.balance(TASK).settled == 3
    ledger.close()


def test_a_closed_ledger_says_so(fresh_url: str) -> None:
    ledger = RedisLedger(fresh_url)
    ledger.close()
    with pytest.raises(LedgerUnavailableError, match="closed"):
        ledger.balance(TASK)


def test_no_server_is_out_of_reach_when_the_ledger_is_opened() -> None:
    with pytest.raises(LedgerUnavailableError, match="127.0.0.1"):
        RedisLedger(f"redis://127.0.0.1:{free_port()}?timeout=0.5")


def test_an_interrupted_call_leaves_no_reply_behind_for_the_next(proxy: Proxy) -> None:
    ledger = RedisLedger(f"redis://127.0.0.1:{proxy.port}?timeout=30")
    take(ledger, "a", (TASK, 5, 10), (TEAM, 7, 10))
    ledger.balance(TEAM)  # the server knows the script now
    proxy.open.clear()
    main = threading.main_thread().ident
    assert main is not None
    raised = threading.Event()

    def raise_once(*_: object) -> None:
        if not raised.is_set():
            raised.set()
            raise KeyboardInterrupt

    def interrupt() -> None:
        proxy.asked.acquire()
        while not raised.wait(0.05):  # one that comes right before the call blocks is seen only after it
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, raise_once)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            ledger.balance(TASK)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    proxy.open.set()
    assert ledger.balance(TEAM).reserved == 7
    ledger.close()


async def test_what_is_no_redis_at_all_is_out_of_reach() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as elsewhere:
        url = f"redis://127.0.0.1:{elsewhere.sockets[0].getsockname()[1]}?timeout=1"
        with pytest.raises(LedgerUnavailableError, match="127.0.0.1"):
            await asyncio.to_thread(RedisLedger, url)
        ledger = AsyncRedisLedger(url)
        with pytest.raises(LedgerUnavailableError, match="127.0.0.1"):
            await ledger.balance(TASK)
        await ledger.close()


# -- servers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_acknowledged_survives_a_killed_server_with_an_append_only_file(kind: Any, tmp_path: Path) -> None:
    with Server(tmp_path, appendonly="yes", appendfsync="always") as server:
        ledger = kind(server.url)
        for n in range(50):
            take(ledger, f"r{n}", (TASK, 2, 1000))
            if n % 2:
                pay(ledger, f"r{n}", (TASK, 2, 1))
        server.kill()
        server.start()
        assert pay(ledger, "r0", (TASK, 2, 1)) == Settled()
        assert pay(ledger, "r1", (TASK, 2, 1)) == Settled("duplicate")
        assert ledger.balance(TASK) == Balance(limit=1000, settled=26, reserved=48)
        assert ledger.verify().ok
        ledger.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_settle_is_booked_where_a_promoted_replica_lost_the_reservation(kind: Any, tmp_path: Path) -> None:
    folders = [tmp_path / "master", tmp_path / "replica"]
    for folder in folders:
        folder.mkdir()
    with Server(folders[0]) as master, Server(folders[1]) as replica, Proxy(master.port) as proxy:
        ledger = kind(f"redis://127.0.0.1:{proxy.port}")
        take(ledger, "known", (TASK, 5, 20))
        with replica.client() as client:
            client.replicaof("127.0.0.1", str(master.port))
            while not _in_sync(client):
                pass
            client.execute_command("REPLICAOF", "NO", "ONE")
        take(ledger, "lost", (TASK, 5, 20))
        proxy.target = replica.port
        proxy.cut_all()
        assert pay(ledger, "lost", (TASK, 5, 4)) == Settled("lost")
        assert pay(ledger, "known", (TASK, 5, 4)) == Settled()
        assert ledger.balance(TASK) == Balance(limit=20, settled=8, overrun=4)
        assert ledger.verify().ok
        ledger.close()


def _in_sync(client: redis.Redis) -> bool:
    told: Any = client.info("replication")
    return told["master_link_status"] == "up" and not told["master_sync_in_progress"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_replica_that_was_not_promoted_is_out_of_reach(kind: Any, server: Server) -> None:
    ledger = kind(server.url)
    with server.client() as client:
        client.replicaof("127.0.0.1", str(free_port()))
        with pytest.raises(LedgerUnavailableError, match=r"replica|READONLY"):
            take(ledger, "a", (TASK, 5, 10))
        client.execute_command("REPLICAOF", "NO", "ONE")
    assert take(ledger, "a", (TASK, 5, 10)) == Granted()
    ledger.close()


@pytest.mark.parametrize("kind", KINDS)
def test_at_maxmemory_nothing_is_reserved_and_everything_is_settled(kind: Any, server: Server) -> None:
    ledger = kind(server.url)
    take(ledger, "a", (TASK, 5, 10))
    take(ledger, "b", (TASK, 5, 10))
    with server.client() as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(LedgerUnavailableError, match="maxmemory"):
            take(ledger, "c", (TEAM, 5, 10))
        assert pay(ledger, "a", (TASK, 5, 3), (TEAM, 0, 1)) == Settled()
        ledger.release("b")
        assert ledger.balance(TASK) == Balance(limit=10, settled=3)
        assert ledger.verify().ok
        client.config_set("maxmemory", "0")
    assert take(ledger, "c", (TEAM, 5, 10)) == Granted()
    ledger.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_may_evict_is_refused(policy: str, server: Server) -> None:
    with server.client() as client:
        client.config_set("maxmemory-policy", policy)
    with pytest.raises(ConfigurationError, match=f"{policy}.*noeviction"):
        RedisLedger(server.url)
    ledger = AsyncRedisLedger(server.url)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=f"{policy}.*noeviction"):
            await ledger.balance(TASK)
    await ledger.close()


async def test_a_password_is_in_no_message_and_no_repr(tmp_path: Path) -> None:
    with Server(tmp_path, requirepass="right-secret") as server:
        ledger = RedisLedger(server.url)
        assert take(ledger, "a", (TASK, 5, 10)) == Granted()
        ledger.close()
        wrong = server.url.replace("right", "wrong")
        with pytest.raises(ConfigurationError, match="user or password") as caught:
            RedisLedger(wrong)
        awaited = AsyncRedisLedger(wrong)
        with pytest.raises(ConfigurationError, match="user or password") as caught_too:
            await awaited.balance(TASK)
        await awaited.close()
        told = [repr(ledger), repr(ledger._options), repr(awaited)]
        for error in (caught.value, caught_too.value):
            told += traceback.format_exception(error)
        assert "secret" not in "".join(told)


def test_a_unix_socket_is_a_place_too(tmp_path: Path) -> None:
    socket = f"/tmp/agentbudget-{os.getpid()}.sock"  # a path of a socket has at most 107 bytes
    with Server(tmp_path, unixsocket=socket):
        ledger = RedisLedger(f"unix://{socket}?prefix=a")
        assert take(ledger, "a", (TASK, 5, 10)) == Granted()
        ledger.close()


# -- the stored ledger -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "damage"),
    [
        ("account:" + TASK.key, ("SET", "text")),
        ("account:" + TEAM.key, ("SET", "")),
        ("account:" + TEAM.key, ("RPUSH", "text")),
        ("hold:live", ("SET", "text")),
        ("hold:late", ("SET", "text")),
        ("journal", ("SET", "text")),
        ("leases", ("SET", "text")),
    ],
)
def test_an_error_of_a_script_leaves_what_is_stored_as_it_was(
    key: str, damage: tuple[str, ...], redis_url: str
) -> None:
    clock, url = FakeClock(), fresh(redis_url)
    ledger = RedisLedger(url, clock=clock)
    take(ledger, "live", (TASK, 5, 100), (TEAM, 5, 100))
    ledger.reserve("late", [Posting(TASK, 5, 100), Posting(TEAM, 5, 100)], lease_seconds=1)
    prefix = "{" + url.rpartition("=")[2] + "}:"
    with redis.Redis.from_url(redis_url) as client:
        verb, *values = damage
        client.delete(prefix + key)
        client.execute_command(verb, prefix + key, *values)
        before = _dump(client, prefix)
        failed = 0
        for work in (
            lambda: take(ledger, "new", (TASK, 1, 100), (TEAM, 1, 100), (account("other"), 1, 1)),
            lambda: pay(ledger, "live", (TASK, 5, 3), (TEAM, 5, 3), (account("other"), 0, 1)),
            lambda: pay(ledger, "late", (TASK, 5, 3), (TEAM, 5, 3)),
            lambda: pay(ledger, "unknown", (TASK, 5, 3), (TEAM, 5, 3)),
        ):
            try:
                work()
            except LedgerError:
                failed += 1
                assert _dump(client, prefix) == before
            else:
                before = _dump(client, prefix)
        assert failed
    ledger.close()


def _dump(client: redis.Redis, prefix: str) -> dict[bytes, Any]:
    keys: Any = client.keys(prefix.replace("{", "\\{") + "*")
    return {key: client.dump(key) for key in keys}


def test_verify_finds_a_balance_that_its_records_do_not_explain(redis_url: str) -> None:
    url = fresh(redis_url)
    ledger = RedisLedger(url)
    take(ledger, "a", (TASK, 5, 10))
    stored = "{" + url.rpartition("=")[2] + "}:account:" + TASK.key
    with redis.Redis.from_url(redis_url) as client:
        told: Any = client.get(stored)
        client.set(stored, told[:32] + struct.pack("<d", 1) + told[40:])
    assert ledger.verify().differences == (f"{TASK.key}: settled is 1, its records say 0",)
    ledger.close()


def test_a_ledger_is_read_in_pages_as_of_one_moment(fresh_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentbudget.ledgers.redis.verbs.PAGE", 7)
    ledger = RedisLedger(fresh_url)
    for n in range(20):
        take(ledger, f"r{n}", (TASK, 2, 1000))
        pay(ledger, f"r{n}", (TASK, 2, 1))
    assert [entry.sequence for entry in ledger.journal()] == list(range(1, 41))
    assert ledger.verify().ok
    ledger.close()


@pytest.mark.parametrize(("pause", "readings"), [(59.0, 1), (61.0, 2)])
def test_a_reading_is_of_one_moment_whatever_is_forgotten_meanwhile(
    pause: float, readings: int, fresh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbudget.ledgers.redis.verbs.PAGE", 50)
    clock = FakeClock()
    ledger = RedisLedger(fresh_url, clock=clock)
    _spend_forty(ledger, "a")
    clock.advance(86_401)
    reading = ledger._verbs.read()
    command, pages, found = next(reading), 0, None
    while found is None:
        assert isinstance(command, Verb)
        reply = ledger._send(command)
        pages += not isinstance(reply, Exception)
        if pages == 1:
            clock.advance(pause)
            _spend_forty(ledger, "b")
        try:
            command = reading.send(reply)
        except StopIteration as done:
            found = done.value
    assert verification(found).differences == ()
    assert (pages > 4) == (readings > 1)
    assert ledger.verify().ok
    ledger.close()


def _spend_forty(ledger: Ledger, name: str) -> None:
    for n in range(40):
        take(ledger, f"{name}{n}", (TASK, 2, 1000), (account(f"{name}{n}"), 2, None))
        pay(ledger, f"{name}{n}", (TASK, 2, 1), (account(f"{name}{n}"), 2, 1))


class SteppedClock(FakeClock):
    """A server's clock that somebody sets back."""

    back = 0.0

    def monotonic(self) -> float:
        return super().monotonic() - self.back


def test_a_clock_that_is_set_back_makes_no_time_run_backwards(fresh_url: str) -> None:
    clock = SteppedClock()
    ledger = RedisLedger(fresh_url, clock=clock)
    clock.advance(1000)
    take(ledger, "a", (TASK, 5, 100))
    clock.back = 500
    take(ledger, "b", (TASK, 5, 100))
    assert [entry.at for entry in ledger.journal()] == [clock.now(), clock.now()]
    clock.back = 0
    clock.advance(LEASE - 1)
    assert ledger.balance(TASK).reserved == 10
    clock.advance(1)
    assert ledger.balance(TASK).presumed == 10
    ledger.close()


def test_resolved_reservations_are_forgotten_after_a_day_and_the_balance_still_proves(redis_url: str) -> None:
    clock = FakeClock()
    ledger = RedisLedger(fresh(redis_url), clock=clock)
    live = [Posting(TASK, 1, None)]
    ledger.reserve("live", live, lease_seconds=10 * 86_400)
    for n in range(200):
        take(ledger, f"r{n}", (TASK, 5, 10_000), (TEAM, 5, None))
        if n % 4 == 0:
            clock.advance(LEASE)
        elif n % 4 == 1:
            ledger.release(f"r{n}")
        else:
            pay(ledger, f"r{n}", (TASK, 5, 4 + n % 3), (TEAM, 5, 4))
    before = ledger.balance(TASK)
    clock.advance(86_401)
    for n in range(200):
        take(ledger, f"s{n}", (TEAM, 1, None))
        pay(ledger, f"s{n}", (TEAM, 1, 1))
    assert ledger.balance(TASK) == before
    entries = list(ledger.journal())
    verbs = {entry.verb for entry in entries if entry.lines and entry.lines[0][0] == TASK.key}
    assert verbs == {"checkpoint", "reserve"}
    assert len(entries) < 410
    assert ledger.verify().differences == ()
    assert pay(ledger, "r2", (TASK, 5, 6), (TEAM, 5, 4)) == Settled("lost"), "forgotten ids are not deduplicated"
    assert pay(ledger, "live", (TASK, 1, 1)) == Settled(), "what is live is never forgotten"
    assert ledger.verify().differences == ()
    ledger.close()


def test_a_ledger_of_another_schema_or_another_meaning_of_expiry_is_refused(redis_url: str) -> None:
    url = fresh(redis_url)
    RedisLedger(url).close()
    with pytest.raises(ConfigurationError, match="on_expire='charge'"):
        RedisLedger(f"{url}&on_expire=release")
    for schema in ("1", "99"):
        with redis.Redis.from_url(redis_url) as client:
            client.hset("{" + url.rpartition("=")[2] + "}:meta", "schema", schema)
        with pytest.raises(LedgerError, match=f"schema {schema}, this version reads 2"):
            RedisLedger(url)


def test_leases_run_by_the_servers_clock(fresh_url: str) -> None:
    ledger = RedisLedger(fresh_url)
    ledger.reserve("a", [Posting(TASK, 5, 10)], lease_seconds=0.001)
    while ledger.balance(TASK).reserved:
        pass
    assert ledger.balance(TASK) == Balance(limit=10, presumed=5)
    ledger.close()


# -- many at once ------------------------------------------------------------------------------------------------------


def _spend(url: str, name: str) -> tuple[int, int]:
    """What a process of four threads spends before it is refused; how often it asked."""
    ledger = RedisLedger(url)

    def work(number: int) -> tuple[int, int]:
        spent = asked = 0
        while True:
            key = f"{name}-{number}-{asked}"
            asked += 1
            if isinstance(take(ledger, key, (TASK, 7, 1000), (account(name), 7, None)), Refused):
                return spent, asked
            pay(ledger, key, (TASK, 7, 5), (account(name), 7, 5))
            spent += 5

    found = at_once(4, work)
    ledger.close()
    return sum(spent for spent, _ in found), sum(asked for _, asked in found)


def test_processes_and_threads_share_one_limit_and_the_journal_explains_every_answer(redis_url: str) -> None:
    url = fresh(redis_url)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.starmap(_spend, [(url, f"p{n}") for n in range(3)])
    ledger = RedisLedger(url)
    balance = ledger.balance(TASK)
    assert (balance.settled, balance.reserved) == (sum(spent for spent, _ in found), 0)
    assert 1000 - 7 * 12 < balance.settled <= 1000
    committed, held = 0, {}
    for number, entry in enumerate(ledger.journal(), start=1):
        assert entry.sequence == number
        if entry.verb == "reserve":
            held[entry.id] = 7
            committed += 7
            assert committed <= 1000
        else:
            committed += 5 - held.pop(entry.id)
    assert ledger.verify().ok
    ledger.close()


def test_a_forked_child_does_not_use_its_parents_connections(fresh_url: str) -> None:
    ledger = RedisLedger(fresh_url)
    take(ledger, "parent", (TASK, 1, 100))
    children = []
    for n in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for turn in range(50):
                    take(ledger, f"{n}-{turn}", (account(f"c{n}"), 1, None))
                status = 0 if ledger.balance(account(f"c{n}")).reserved == 50 else 2
            finally:
                os._exit(status)
        children.append(child)
    for turn in range(50):
        take(ledger, f"p-{turn}", (TASK, 1, 100))
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert ledger.balance(TASK).reserved == 51
    assert ledger.verify().ok
    ledger.close()


async def test_tasks_share_one_connection_and_one_limit(server: Server) -> None:
    async with AsyncRedisLedger(server.url) as ledger:
        asked = [ledger.reserve(f"r{n}", [Posting(TASK, 3, 100)], lease_seconds=LEASE) for n in range(64)]
        answers = await asyncio.gather(*asked)
        assert answers.count(Granted()) == 33
        with server.client() as client:
            assert len(client.client_list(_type="normal")) == 2, "the ledger's, and this one"
        assert (await ledger.verify()).ok


async def test_a_cancelled_command_does_not_shift_the_replies_of_others(proxy: Proxy) -> None:
    async with AsyncRedisLedger(f"redis://127.0.0.1:{proxy.port}?timeout=30") as ledger:
        for n in range(10):
            await ledger.reserve(f"r{n}", [Posting(account(f"t{n}"), n, 100)], lease_seconds=LEASE)
        await ledger.balance(TASK)  # the server knows the script now
        proxy.open.clear()
        tasks = [asyncio.create_task(ledger.balance(account(f"t{n}"))) for n in range(10)]
        await asyncio.to_thread(proxy.asked.acquire)
        for task in tasks[::3]:
            task.cancel()
        proxy.open.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for n, answer in enumerate(answers):
            expected = asyncio.CancelledError if n % 3 == 0 else Balance
            assert isinstance(answer, expected)
            if isinstance(answer, Balance):
                assert answer.reserved == n


async def test_a_cancelled_settle_is_finished(proxy: Proxy) -> None:
    async with AsyncRedisLedger(f"redis://127.0.0.1:{proxy.port}?timeout=30") as ledger:
        await ledger.reserve("a", [Posting(TASK, 5, 10)], lease_seconds=LEASE)
        proxy.open.clear()
        settling = asyncio.create_task(ledger.settle("a", [Charge(TASK, 5, 3)]))
        await asyncio.to_thread(proxy.asked.acquire)
        settling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await settling
        proxy.cuts = 1
        proxy.open.set()
    async with AsyncRedisLedger(f"redis://127.0.0.1:{proxy.port}") as ledger:
        assert await ledger.balance(TASK) == Balance(limit=10, settled=3)


async def test_an_asyncio_ledger_belongs_to_one_event_loop(fresh_url: str) -> None:
    async with AsyncRedisLedger(fresh_url) as ledger:
        await ledger.balance(TASK)
        with pytest.raises(AgentBudgetError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, ledger.balance(TASK))
