"""An asyncio ledger behind the blocking port, so that it passes the same tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt
from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import Granted, JournalEntry, Refused, ReservationState, Settled, Verification
from agentbudget.ledgers.redis import AsyncRedisLedger

Answer = TypeVar("Answer")


class BlockingLedger:
    """An `AsyncRedisLedger` in an event loop of its own thread."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._ledger = AsyncRedisLedger(url, clock=clock)

    def _wait(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        return self._wait(self._ledger.reserve(reservation_id, postings, lease_seconds=lease_seconds))

    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        return self._wait(self._ledger.settle(reservation_id, charges, alert_at=alert_at))

    def release(self, reservation_id: str) -> ReservationState:
        return self._wait(self._ledger.release(reservation_id))

    def renew(self, reservation_id: str, *, lease_seconds: float) -> ReservationState:
        return self._wait(self._ledger.renew(reservation_id, lease_seconds=lease_seconds))

    def top_up(self, grant_id: str, account: Account, amount: int) -> Balance:
        return self._wait(self._ledger.top_up(grant_id, account, amount))

    def set_limit(self, account: Account, limit: int | None) -> Balance:
        return self._wait(self._ledger.set_limit(account, limit))

    def balance(self, account: Account) -> Balance:
        return self._wait(self._ledger.balance(account))

    def accounts(self) -> Iterator[Account]:
        return iter(self._wait(_all(self._ledger.accounts())))

    def collect(self, accounts: Sequence[Account]) -> int:
        return self._wait(self._ledger.collect(accounts))

    def journal(self) -> Iterator[JournalEntry]:
        return iter(self._wait(_all(self._ledger.journal())))

    def verify(self) -> Verification:
        return self._wait(self._ledger.verify())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._wait(self._ledger.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _all(items: AsyncIterator[Answer]) -> list[Answer]:
    return [item async for item in items]
