"""The Redis ledger for asyncio: the same verbs, awaited, on one connection that all tasks share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt
from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import Granted, JournalEntry, Refused, ReservationState, Settled, Verification
from agentbudget.errors import AgentBudgetError, ConfigurationError, LedgerUnavailableError
from agentbudget.ledgers.redis import replies
from agentbudget.ledgers.redis.options import options_of
from agentbudget.ledgers.redis.pipeline import Pipeline
from agentbudget.ledgers.redis.talk import Plan
from agentbudget.ledgers.redis.verbs import Verbs

Answer = TypeVar("Answer")


class AsyncRedisLedger:
    """The verbs of `RedisLedger`, awaited; it belongs to the event loop in which it is first used.

    A settle or release whose task is cancelled is finished in the background; `close` waits for it.

    ```python
    async with AsyncRedisLedger("redis://localhost") as ledger:
        await ledger.reserve("call-1", postings, lease_seconds=60)
    ```

    Raises:
        ConfigurationError: a URL that cannot be read; on first use what `RedisLedger` raises.
    """

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self._options = options_of(url)
        self._verbs = Verbs(self._options, clock)
        self._pipeline: Pipeline | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[None] | None = None
        self._ready = False
        self._finishing: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options.place!r}, prefix={self._options.prefix!r})"

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def reserve(
        self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float
    ) -> Granted | Refused:
        """Take every posting or none; see `Ledger.reserve`."""
        return await self._carry_out(self._verbs.reserve(reservation_id, postings, lease_seconds))

    async def settle(
        self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None
    ) -> Settled:
        """Replace the reservation by what was really spent; see `Ledger.settle`."""
        try:
            return await self._carry_out(self._verbs.settle(reservation_id, charges, alert_at))
        except asyncio.CancelledError:
            self._finish(self._carry_out(self._verbs.settle(reservation_id, charges, alert_at)))
            raise

    async def release(self, reservation_id: str) -> ReservationState:
        """Give the reservation back; see `Ledger.release`."""
        try:
            return await self._carry_out(self._verbs.release(reservation_id))
        except asyncio.CancelledError:
            self._finish(self._carry_out(self._verbs.release(reservation_id)))
            raise

    async def renew(self, reservation_id: str, *, lease_seconds: float) -> ReservationState:
        """Start the lease anew; see `Ledger.renew`."""
        return await self._carry_out(self._verbs.renew(reservation_id, lease_seconds))

    async def top_up(self, grant_id: str, account: Account, amount: int) -> Balance:
        """Add *amount* to the limit, once per *grant_id*; see `Ledger.top_up`."""
        return await self._carry_out(self._verbs.top_up(grant_id, account, amount))

    async def set_limit(self, account: Account, limit: int | None) -> Balance:
        """Pin the limit of *account*; see `Ledger.set_limit`."""
        return await self._carry_out(self._verbs.set_limit(account, limit))

    async def balance(self, account: Account) -> Balance:
        """The balance now; an unknown account has spent nothing."""
        return await self._carry_out(self._verbs.balance(account))

    async def accounts(self) -> AsyncIterator[Account]:
        """Every account with a record, as of this moment."""
        for account in await self._carry_out(self._verbs.accounts()):
            yield account

    async def collect(self, accounts: Sequence[Account]) -> int:
        """Forget *accounts* of which nothing is reserved; see `Ledger.collect`."""
        return await self._carry_out(self._verbs.collect(accounts))

    async def journal(self) -> AsyncIterator[JournalEntry]:
        """Every retained entry in order, as of this moment; all of them are read first."""
        for entry in replies.journal(await self._carry_out(self._verbs.read())):
            yield entry

    async def verify(self) -> Verification:
        """Recompute every balance from the journal, as of this moment; other tasks go on meanwhile."""
        return await asyncio.to_thread(replies.verification, await self._carry_out(self._verbs.read()))

    async def close(self) -> None:
        """Finish settles of cancelled tasks, then close the connection. Idempotent."""
        while self._finishing:
            await asyncio.gather(*self._finishing, return_exceptions=True)
        self._closed = True
        if self._pipeline is not None:
            await self._pipeline.close()

    async def _open(self) -> Pipeline:
        """The connection, its server checked once by whoever comes first."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise LedgerUnavailableError(f"{self!r} is closed; open another.")
        if self._loop is not loop:
            if self._loop is not None:
                raise ConfigurationError(f"{self!r} belongs to another event loop; open one in each.")
            self._loop, self._pipeline = loop, Pipeline(self._options, self._verbs.exchange)
        assert self._pipeline is not None  # noqa: S101 - made together with the loop
        if self._opening is None or self._opening.done():
            self._opening = loop.create_task(self._step_through(self._pipeline, self._verbs.open()))
        await asyncio.shield(self._opening)
        self._ready = True
        return self._pipeline

    def _carry_out(self, plan: Plan[Answer]) -> Coroutine[Any, Any, Answer]:
        pipeline = self._pipeline
        if pipeline is None or not self._ready or self._closed or self._loop is not asyncio.get_running_loop():
            return self._open_and_step_through(plan)
        return self._step_through(pipeline, plan)

    async def _open_and_step_through(self, plan: Plan[Answer]) -> Answer:
        return await self._step_through(await self._open(), plan)

    async def _step_through(self, pipeline: Pipeline, plan: Plan[Answer]) -> Answer:
        try:
            step = next(plan)
            while True:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                    step = next(plan)
                else:
                    step = plan.send(await pipeline.send(step))
        except StopIteration as done:
            answer: Answer = done.value
            return answer

    def _finish(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(_quietly(work))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)


async def _quietly(work: Coroutine[Any, Any, Any]) -> None:
    """Nobody waits for the outcome; a ledger out of reach leaves the reservation to its lease."""
    try:
        await work
    except AgentBudgetError:
        return
