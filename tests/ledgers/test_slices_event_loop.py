"""Agents on an event loop whose ledger is a real server behind a proxy that holds its replies back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx

import agentbudget as ab
from agentbudget.domain.ledger import Granted
from agentbudget.ledgers.slices import book as books
from agentbudget.testing import ScriptedChatModel, scripted_reply
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.ledger_contract import account, pay, take
from tests.ledgers.proxy import Proxy
from tests.ledgers.servers import fresh
from tests.ledgers.test_slices import sliced


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    with Proxy(int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])) as found:
        yield found


async def test_calls_of_a_task_with_slices_never_wait_for_the_ledger_nor_touch_a_socket(
    proxy: Proxy, redis_url: str
) -> None:
    url = fresh(f"redis://127.0.0.1:{proxy.port}/0?timeout=0.3&slice=20&slice_wait=10")
    limits = [ab.Limit("cost", "$50", scope="team", window="month")]
    governor = await asyncio.to_thread(lambda: ab.Governor(ledger=url, limits=limits, fail="slice"))
    model = ScriptedChatModel(script=[scripted_reply("ok")] * 6)
    async with ab.task("busy", max_cost="$10", team="cx", governor=governor) as task:
        await model.ainvoke("hi")  # leases
        proxy.open.clear()
        with blockbuster_ctx("agentbudget"):
            for _ in range(5):
                await model.ainvoke("hi")
        proxy.open.set()
    assert task.report.model_calls == 6
    await asyncio.to_thread(governor.close)


def test_a_task_leases_what_is_left_of_its_own_limit_at_once() -> None:
    ledger = sliced(FakeClock(), calls=1, share=8)
    own = account("t1")
    assert take(ledger, "a", (own, 5, 100)) == Granted()
    assert ledger.balance(own).leased == 95


def test_accounts_of_which_nothing_is_held_are_forgotten_here_when_there_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(books, "MOST_POOLS", 10)
    ledger = sliced(FakeClock(), calls=1)
    for number in range(30):
        own = account(f"t{number}")
        take(ledger, f"c{number}", (own, 5, 100))
        pay(ledger, f"c{number}", (own, 5, 3))
        ledger.give_back()
    take(ledger, "open", (account("open"), 5, 100))
    ledger.give_back()
    assert len(ledger._book.pools()) <= 11
    assert ledger.balance(account("t0")).settled == 3
    assert ledger.verify().differences == ()
