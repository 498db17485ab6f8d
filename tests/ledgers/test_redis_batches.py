"""What a Redis ledger promises about verbs that go to the server together: to each it is as if it had gone alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeAlias

import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.ledger import Granted, Refused, Settled
from agentbudget.errors import AgentBudgetError, LedgerError, LedgerUnavailableError, ReservationConflictError
from agentbudget.ledgers.plan import MAX_AMOUNT
from agentbudget.ledgers.redis import AsyncRedisLedger, RedisLedger, pipeline
from agentbudget.ledgers.redis.options import options_of
from agentbudget.ledgers.redis.scripts import script
from agentbudget.ledgers.redis.verbs import Verbs
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import LEASE, TASK, TEAM, account
from agentbudget.testing.ledger_machine import ACCOUNTS, alerts, amounts, limits, lines, small
from tests.ledgers.proxy import Proxy
from tests.ledgers.servers import Server, fresh

Call: TypeAlias = tuple[str, tuple[Any, ...], dict[str, Any]]

IDS = ["r0", "r1", "r2", "r3"]


def reserve(ledger: AsyncRedisLedger, key: str, *lines: tuple[Account, int, int | None]) -> Coroutine[Any, Any, Any]:
    return ledger.reserve(key, [Posting(*line) for line in lines], lease_seconds=LEASE)


def settle(ledger: AsyncRedisLedger, key: str, *lines: tuple[Account, int, int]) -> Coroutine[Any, Any, Any]:
    return ledger.settle(key, [Charge(*line) for line in lines])


async def together(*verbs: Coroutine[Any, Any, Any]) -> list[Any]:
    """The answer of each, or its error."""
    return await asyncio.gather(*verbs, return_exceptions=True)


# -- the same as one by one --------------------------------------------------------------------------------------------

charges = lines.map(lambda drawn: [Charge(one, amount, actual or 0) for one, amount, actual in drawn])
postings = lines.map(lambda drawn: [Posting(*line) for line in drawn])
few = st.sets(st.sampled_from(ACCOUNTS), min_size=1, max_size=3).map(lambda drawn: sorted(drawn, key=str))
pairs = st.tuples(st.sampled_from(IDS), few, small, small)
calls: st.SearchStrategy[list[Call]] = st.one_of(
    st.tuples(st.sampled_from(IDS), postings).map(lambda x: [("reserve", x, {"lease_seconds": 5.0})]),
    st.tuples(st.sampled_from(IDS), charges, alerts).map(lambda x: [("settle", x[:2], {"alert_at": x[2]})]),
    pairs.map(
        lambda x: [
            ("reserve", (x[0], [Posting(one, x[2], 60) for one in x[1]]), {"lease_seconds": 5.0}),
            ("settle", (x[0], [Charge(one, x[2], x[3]) for one in x[1]]), {}),
        ]
    ),
    st.sampled_from(IDS).map(lambda key: [("release", (key,), {})]),
    st.sampled_from(IDS).map(lambda key: [("renew", (key,), {"lease_seconds": 5.0})]),
    st.sampled_from(ACCOUNTS).map(lambda one: [("balance", (one,), {})]),
    st.tuples(st.sampled_from(ACCOUNTS), limits).map(lambda x: [("set_limit", x, {})]),
    st.tuples(st.sampled_from(["g1", "g2"]), st.sampled_from(ACCOUNTS), amounts).map(lambda x: [("top_up", x, {})]),
    few.map(lambda accounts: [("collect", (accounts,), {})]),
)
worlds = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 3.0, 40.0]), st.lists(calls, min_size=1, max_size=6)), min_size=1, max_size=5
)

PINNED_TWICE: list[list[Call]] = [[("set_limit", (ACCOUNTS[0], limit), {})] for limit in (None, 5)]
KNOWN_ONLY_FROM_A_REFUSAL: list[list[Call]] = [
    [("reserve", ("r0", [Posting(ACCOUNTS[0], 1, 0), Posting(ACCOUNTS[1], 1, None)]), {"lease_seconds": 5.0})],
    [("reserve", ("r1", [Posting(ACCOUNTS[1], 1, None)]), {"lease_seconds": 5.0})],
]


@example(world=[(0.0, PINNED_TWICE)])
@example(world=[(0.0, KNOWN_ONLY_FROM_A_REFUSAL)])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=worlds)
def test_a_batch_answers_and_leaves_what_its_verbs_would_one_by_one(redis_url: str, world: list[Any]) -> None:
    asyncio.run(_compare(redis_url, world))


async def _compare(url: str, world: list[tuple[float, list[list[Call]]]]) -> None:
    clock = FakeClock()
    alone = RedisLedger(fresh(url), clock=clock)
    async with AsyncRedisLedger(fresh(url), clock=clock) as batched:
        for passed, drawn in world:
            clock.advance(passed)
            batch = [call for part in drawn for call in part]
            expected = [_outcome(alone, *call) for call in batch]
            found = await together(*[getattr(batched, verb)(*args, **more) for verb, args, more in batch])
            assert [_plain(answer) for answer in found] == expected
        journal = [entry async for entry in batched.journal()]
        assert [_entry(entry) for entry in journal] == [_entry(entry) for entry in alone.journal()]
        assert [await batched.balance(one) for one in ACCOUNTS] == [alone.balance(one) for one in ACCOUNTS]
        assert (await batched.verify()).differences == ()
    alone.close()


def _outcome(ledger: RedisLedger, verb: str, args: tuple[Any, ...], more: dict[str, Any]) -> Any:
    try:
        return getattr(ledger, verb)(*args, **more)
    except (AgentBudgetError, ValueError) as error:
        return _plain(error)


def _plain(answer: Any) -> Any:
    return (type(answer), str(answer)) if isinstance(answer, Exception) else answer


def _entry(entry: Any) -> tuple[Any, ...]:
    return (entry.sequence, entry.verb, entry.id, sorted(entry.lines), entry.at)


# -- neighbours --------------------------------------------------------------------------------------------------------


async def test_a_refusal_or_conflict_of_one_verb_leaves_its_neighbours_alone(fresh_url: str) -> None:
    async with AsyncRedisLedger(fresh_url) as ledger:
        await reserve(ledger, "held", (TASK, 5, 20))
        found = await together(
            reserve(ledger, "a", (TASK, 5, 20)),
            reserve(ledger, "too-much", (TASK, 50, 20), (TEAM, 1, None)),
            reserve(ledger, "held", (TASK, 6, 20)),
            settle(ledger, "held", (TASK, 5, 4)),
            ledger.renew("unknown", lease_seconds=1),
            ledger.release("a"),
        )
        assert found[0] == Granted()
        assert isinstance(found[1], Refused)
        assert found[1].shortfalls[0].balance == Balance(limit=20, reserved=10), "as after the verbs before it"
        assert isinstance(found[2], ReservationConflictError)
        assert found[3] == Settled()
        assert isinstance(found[4], AgentBudgetError)
        assert found[5] == "released"
        assert await ledger.balance(TASK) == Balance(limit=20, settled=4)
        assert await ledger.balance(TEAM) == Balance(limit=None)


async def test_what_one_verb_cannot_read_fails_that_verb_only(redis_url: str) -> None:
    url = fresh(redis_url)
    async with AsyncRedisLedger(url) as ledger:
        for name in ("a", "b"):
            await reserve(ledger, name, (account(name), 5, 20), (TEAM, 5, 100))
        stored = "{" + url.rpartition("=")[2] + "}:"
        with redis.Redis.from_url(redis_url) as client:
            client.set(stored + "hold:a", "text")
            client.set(stored + "account:" + account("c").key, "text")
        found = await together(
            settle(ledger, "a", (account("a"), 5, 3), (TEAM, 5, 3)),
            settle(ledger, "b", (account("b"), 5, 3), (TEAM, 5, 3)),
            reserve(ledger, "c", (TEAM, 5, 100), (account("c"), 5, 20)),
            reserve(ledger, "d", (account("d"), 5, 20), (TEAM, 5, 100)),
        )
        assert [type(answer) for answer in found] == [LedgerError, Settled, LedgerError, Granted]
        assert await ledger.balance(TEAM) == Balance(limit=100, settled=3, reserved=10)
        assert (await ledger.balance(account("d"))).reserved == 5


async def test_one_batch_never_passes_a_limit(fresh_url: str) -> None:
    async with AsyncRedisLedger(fresh_url) as ledger:
        await reserve(ledger, "first", (TASK, 0, 100))  # the account is known now
        found = await together(*[reserve(ledger, f"r{n}", (TASK, 7, 100)) for n in range(pipeline.BATCH)])
        assert found == [Granted()] * 14 + [Refused((found[-1].shortfalls[0],)) for _ in range(pipeline.BATCH - 14)]
        assert (await ledger.balance(TASK)).reserved == 98


async def test_the_same_id_twice_in_a_batch_counts_once(fresh_url: str) -> None:
    async with AsyncRedisLedger(fresh_url) as ledger:
        found = await together(
            reserve(ledger, "a", (TASK, 5, 20)),
            reserve(ledger, "a", (TASK, 5, 20)),
            settle(ledger, "a", (TASK, 5, 4)),
            settle(ledger, "a", (TASK, 5, 4)),
            settle(ledger, "a", (TASK, 5, 3)),
        )
        assert found[:4] == [Granted(), Granted(), Settled(), Settled("duplicate")]
        assert isinstance(found[4], ReservationConflictError)
        assert await ledger.balance(TASK) == Balance(limit=20, settled=4)
        assert (await ledger.verify()).ok


# -- maxmemory ---------------------------------------------------------------------------------------------------------


async def test_at_maxmemory_a_settle_in_a_batch_with_reserves_is_made(server: Server) -> None:
    async with AsyncRedisLedger(server.url) as ledger:
        for name in ("a", "b", "c"):
            await reserve(ledger, name, (TASK, 5, 100))
        with server.client() as client:
            client.config_set("maxmemory", "1")
            found = await together(
                reserve(ledger, "d", (TASK, 5, 100)),
                settle(ledger, "a", (TASK, 5, 3)),
                ledger.top_up("g", TASK, 5),
                ledger.release("b"),
                ledger.balance(TASK),
            )
            client.config_set("maxmemory", "0")
        assert isinstance(found[0], LedgerUnavailableError)
        assert isinstance(found[2], LedgerUnavailableError)
        assert found[1] == Settled()
        assert found[3] == "released"
        assert found[4] == Balance(limit=100, settled=3, reserved=5)
        assert (await ledger.verify()).ok


def test_a_ledger_can_be_opened_at_maxmemory_to_settle_what_waits(server: Server) -> None:
    first = RedisLedger(server.url)
    first.reserve("a", [Posting(TASK, 5, 100)], lease_seconds=LEASE)
    with server.client() as client:
        client.config_set("maxmemory", "1")
        second = RedisLedger(server.url)
        assert second.settle("a", [Charge(TASK, 5, 3)]) == Settled()
    first.close()
    second.close()


# -- connections and tasks ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def behind(proxy: Proxy) -> AsyncIterator[AsyncRedisLedger]:
    """A ledger behind the proxy; the server knows its scripts."""
    async with AsyncRedisLedger(f"redis://127.0.0.1:{proxy.port}?timeout=30") as ledger:
        await together(reserve(ledger, "warm", (account("warm"), 1, 1)))
        await together(settle(ledger, "warm", (account("warm"), 1, 1)))
        yield ledger


async def test_a_connection_that_is_cut_in_a_batch_charges_each_id_once(proxy: Proxy) -> None:
    async with behind(proxy) as ledger:
        await together(*[reserve(ledger, f"r{n}", (TASK, 5, 1000)) for n in range(50)])
        proxy.cuts = 1
        found = await together(*[settle(ledger, f"r{n}", (TASK, 5, 3)) for n in range(50)])
        assert proxy.cuts == 0
        assert {answer.how for answer in found} == {"settled", "duplicate"} or found == [Settled("duplicate")] * 50
        assert await ledger.balance(TASK) == Balance(limit=1000, settled=150)
        assert len([entry async for entry in ledger.journal() if entry.verb == "settle"]) == 51
        assert (await ledger.verify()).ok


async def test_a_task_of_a_batch_that_is_cancelled_takes_no_other_with_it(proxy: Proxy) -> None:
    async with behind(proxy) as ledger:
        proxy.open.clear()
        tasks = [asyncio.create_task(reserve(ledger, f"r{n}", (account(f"t{n}"), n + 1, 100))) for n in range(8)]
        await asyncio.to_thread(proxy.asked.acquire)
        for task in tasks[::3]:
            task.cancel()
        proxy.open.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer) for answer in found] == [asyncio.CancelledError, Granted, Granted] * 2 + [
            asyncio.CancelledError,
            Granted,
        ]
        for n in range(8):
            assert (await ledger.balance(account(f"t{n}"))).reserved == n + 1, "what was sent is done"


async def test_a_settle_of_a_batch_whose_task_is_cancelled_is_finished(proxy: Proxy) -> None:
    async with behind(proxy) as ledger:
        await together(*[reserve(ledger, f"r{n}", (TASK, 5, 100)) for n in range(4)])
        proxy.open.clear()
        tasks = [asyncio.create_task(settle(ledger, f"r{n}", (TASK, 5, 3))) for n in range(4)]
        await asyncio.to_thread(proxy.asked.acquire)
        tasks[1].cancel()
        proxy.cuts = 1
        proxy.open.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[1].cancelled()
    async with AsyncRedisLedger(f"redis://127.0.0.1:{proxy.port}") as ledger:
        assert await ledger.balance(TASK) == Balance(limit=100, settled=12)


async def test_a_batch_that_the_server_forgot_the_script_of_is_sent_again(server: Server) -> None:
    async with AsyncRedisLedger(server.url) as ledger:
        await reserve(ledger, "a", (TASK, 5, 100))
        with server.client() as client:
            client.script_flush()
        found = await together(*[reserve(ledger, f"r{n}", (TASK, 5, 100)) for n in range(5)])
        assert found == [Granted()] * 5
        assert (await ledger.balance(TASK)).reserved == 30


# -- bounds ------------------------------------------------------------------------------------------------------------


async def test_a_batch_has_at_most_so_many_verbs_and_accounts(server: Server) -> None:
    async with AsyncRedisLedger(server.url) as ledger:
        await reserve(ledger, "a", (TASK, 0, None))

        async def scripts(verbs: int, width: int) -> int:
            many = [(account(f"n{n}"), 1, None) for n in range(width)]
            with server.client() as client:
                client.config_resetstat()
                found = await together(*[reserve(ledger, f"{verbs}-{width}-{n}", *many) for n in range(verbs)])
                told: Any = client.info("commandstats")
            assert found == [Granted()] * verbs
            return int(told["cmdstat_evalsha"]["calls"])

        assert await scripts(pipeline.BATCH, 1) == 1
        assert await scripts(pipeline.BATCH + 1, 1) == 2
        assert await scripts(4, pipeline.BATCH_SIZE // 2) == 2
        assert await scripts(3, pipeline.BATCH_SIZE + 1) == 3


def test_one_verb_may_be_about_thousands_of_accounts(fresh_url: str) -> None:
    ledger = RedisLedger(fresh_url)
    many = [account(f"n{n}") for n in range(5_000)]
    for key in ("a", "b"):
        assert ledger.reserve(key, [Posting(one, 2, 100) for one in many], lease_seconds=LEASE) == Granted()
    assert ledger.settle("a", [Charge(one, 2, 1) for one in many]) == Settled()
    ledger.release("b")
    assert ledger.balance(many[-1]) == Balance(limit=100, settled=1)
    assert ledger.verify().ok
    ledger.close()


def test_a_settle_within_its_reservation_is_exact_where_the_sum_passes_what_a_double_holds(fresh_url: str) -> None:
    ledger = RedisLedger(fresh_url)
    for key in ("a", "b"):
        assert ledger.reserve(key, [Posting(TASK, 11, None)], lease_seconds=LEASE) == Granted()
    assert ledger.settle("a", [Charge(TASK, 11, MAX_AMOUNT - 5)]) == Settled()
    assert ledger.settle("b", [Charge(TASK, 11, 11)]) == Settled()
    assert ledger.balance(TASK) == Balance(limit=None, settled=MAX_AMOUNT + 6, overrun=MAX_AMOUNT - 16)
    assert ledger.verify().ok
    ledger.close()


def test_every_key_of_a_ledger_has_its_prefix_as_hash_tag(server: Server) -> None:
    clock = FakeClock()
    ledger = RedisLedger(f"{server.url}?prefix=mine&retain_days=0", clock=clock)
    with server.client() as client:
        for n in range(80):
            ledger.reserve(f"r{n}", [Posting(TASK, 5, 1000), Posting(TEAM, 5, 1000)], lease_seconds=LEASE)
            ledger.settle(f"r{n}", [Charge(TASK, 5, 6), Charge(TEAM, 5, 3)], alert_at={TASK: (1,)})
            clock.advance(1)
        ledger.top_up("g", TASK, 1)
        ledger.set_limit(TEAM, 5)
        made: Any = client.keys("*")
    assert {key.partition(b"}")[0] for key in made} == {b"{mine"}
    assert len({key.partition(b":")[2].partition(b":")[0] for key in made}) >= 8
    ledger.close()


def test_verbs_that_take_no_memory_for_good_run_by_themselves_at_maxmemory() -> None:
    verbs = Verbs(options_of("redis://host"))

    def digest(*plans: Any) -> Any:
        return next(verbs.exchange([next(plan) for plan in plans]))[1]

    settling = verbs.settle("a", [Charge(TASK, 5, 3)])
    reserving = verbs.reserve("a", [Posting(TASK, 5, 3)], 1.0)
    assert digest(settling, verbs.release("b"), verbs.balance(TASK)) == script(at_maxmemory=True).digest
    assert digest(verbs.settle("a", [Charge(TASK, 5, 3)]), reserving) == script(at_maxmemory=False).digest
