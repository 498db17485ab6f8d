"""Bugs that gateways and proxies shipped in their budgets, each by the number of its report: none of them is here.

The numbers are issues and pull requests of BerriAI/litellm; the same laws are tested in general elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

import agentbudget as ab
from agentbudget.domain.accounts import Account, Balance, Charge, Meter, Posting
from agentbudget.domain.budget import Limit
from agentbudget.domain.ledger import Granted, Ledger, Refused, Settled
from agentbudget.domain.money import nanos
from agentbudget.errors import ReservationConflictError
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.redis import AsyncRedisLedger
from agentbudget.testing import FakeClock, ScriptedChatModel, scripted_reply
from agentbudget.testing.races import at_once
from tests.ledgers.servers import fresh

KEY, TEAM, USER = (Account(((kind, "x"),), Meter.COST) for kind in ("key", "team", "user"))
CENT = 10_000_000
Open = Callable[[], Ledger]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["sqlite", "redis"])
def open_one(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Open:
    """Opens the same durable ledger again and again."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/spend.db?synchronous=normal"
    else:
        url = fresh(request.getfixturevalue("redis_url"))
    return lambda: open_ledger(url, clock=clock)


@pytest.fixture
def ledger(open_one: Open) -> Iterator[Ledger]:
    ledger = open_one()
    yield ledger
    assert ledger.verify().differences == ()
    ledger.close()


def reserve(ledger: Ledger, key: str, amount: int, limit: int, *accounts: Account) -> Granted | Refused:
    return ledger.reserve(key, [Posting(account, amount, limit) for account in accounts or (KEY,)], lease_seconds=60)


def settle(ledger: Ledger, key: str, reserved: int, actual: int, *accounts: Account) -> Settled:
    return ledger.settle(key, [Charge(account, reserved, actual) for account in accounts or (KEY,)])


def ask(gov: ab.Governor, reply: Any, prompt: str = "hello", user: str = "u", **model: Any) -> ab.TaskReport:
    """One model call in a task of its own."""
    with ab.task("t", governor=gov, user=user) as task:
        ScriptedChatModel(script=[reply], **model).invoke([HumanMessage(prompt)])
    return task.report


def test_34732_parallel_calls_of_a_session_do_not_all_pass_a_check_that_none_has_paid_for(ledger: Ledger) -> None:
    answers = at_once(16, lambda n: reserve(ledger, f"r{n}", 3, 10))
    assert answers.count(Granted()) == 3


def test_40095_the_first_calls_of_an_unknown_user_do_not_bypass_the_default_budget(ledger: Ledger) -> None:
    answers = at_once(16, lambda n: reserve(ledger, f"r{n}", 1, 2, USER))
    assert answers.count(Granted()) == 2


UNPRICED: dict[str, Any] = {"model_name": "in-house-7b", "provider": "acme", "max_tokens": 100}


def test_35524_a_call_whose_cost_cannot_be_estimated_does_not_go_on_unreserved() -> None:
    gov = ab.Governor(limits=[Limit("cost", "$1", scope="user")])
    with pytest.raises(ab.BudgetExceeded) as stop:
        ask(gov, scripted_reply("x"), **UNPRICED)
    assert stop.value.stop.limit == "unpriced"


def test_37927_the_success_of_an_unpriced_call_does_not_release_its_reservation_to_nothing() -> None:
    gov = ab.Governor(limits=[Limit("cost", "$1", scope="user")], on_unpriced="estimate")
    assert ask(gov, scripted_reply("x", input_tokens=1_000, output_tokens=10), **UNPRICED).cost > 0
    assert gov.ledger.balance(Account((("user", "u"),), Meter.COST)).settled > 0


def test_27639_a_process_killed_in_flight_does_not_pin_its_reservation_for_ever(
    open_one: Open, clock: FakeClock
) -> None:
    killed = open_one()
    reserve(killed, "r", 10, 10)
    clock.advance(60)
    other = open_one()
    assert other.balance(KEY) == Balance(limit=10, presumed=10), "nothing is reserved any more, nothing is given away"
    assert settle(other, "r", 10, 4) == Settled("late")
    assert isinstance(reserve(other, "s", 6, 10), Granted)
    for one in (killed, other):
        one.close()


def test_30330_a_reset_in_flight_does_not_drive_the_counter_below_zero(ledger: Ledger) -> None:
    limit = Limit("cost", "$1", scope="key", window="day")
    before, after = (limit.account({"key": "x"}, at=at) for at in (86_000.0, 87_000.0))
    assert before is not None
    assert after is not None
    reserve(ledger, "r", 10, 100, before)
    reserve(ledger, "s", 5, 100, after)
    settle(ledger, "r", 10, 7, before)
    assert (ledger.balance(before).settled, ledger.balance(after)) == (7, Balance(limit=100, reserved=5))


@pytest.mark.parametrize("number", [30460, 30734])
def test_30460_30734_a_write_that_the_client_sends_again_counts_once(ledger: Ledger, number: int) -> None:
    reserve(ledger, f"r{number}", 10, 100)
    assert [settle(ledger, f"r{number}", 10, 7).how for _ in range(3)] == ["settled", "duplicate", "duplicate"]
    assert ledger.balance(KEY).settled == 7


def test_28247_28283_36926_processes_that_start_do_not_add_what_was_spent_again(open_one: Open) -> None:
    first = open_one()
    reserve(first, "r", 10, 100)
    settle(first, "r", 10, 7)
    others = [open_one() for _ in range(5)]
    for number, other in enumerate(others):
        reserve(other, f"s{number}", 1, 100)
    assert {other.balance(KEY) for other in others} == {Balance(limit=100, settled=7, reserved=5)}
    for one in (first, *others):
        one.close()


def test_35569_a_settle_that_fails_leaves_no_scope_charged_and_none_released(ledger: Ledger) -> None:
    reserve(ledger, "r", 10, 100, KEY, TEAM, USER)
    with pytest.raises(ReservationConflictError):
        ledger.settle("r", [Charge(KEY, 10, 4), Charge(TEAM, 10, 4), Charge(USER, 11, 4)])
    assert {ledger.balance(one).reserved for one in (KEY, TEAM, USER)} == {10}
    settle(ledger, "r", 10, 4, KEY, TEAM, USER)
    assert {ledger.balance(one) for one in (KEY, TEAM, USER)} == {Balance(limit=100, settled=4)}


def test_27020_what_is_left_can_be_spent_to_the_last_unit_and_not_one_more(ledger: Ledger) -> None:
    assert isinstance(reserve(ledger, "r", 10, 10), Granted)
    settle(ledger, "r", 10, 7)
    assert isinstance(reserve(ledger, "s", 4, 10), Refused)
    assert isinstance(reserve(ledger, "t", 3, 10), Granted)


def test_26845_a_reservation_is_refused_not_made_smaller_to_fit(ledger: Ledger) -> None:
    limit = 45 * CENT
    answers = at_once(5, lambda n: reserve(ledger, f"r{n}", 15 * CENT, limit))
    assert answers.count(Granted()) == 3
    assert isinstance(reserve(ledger, "big", 50 * CENT, limit), Refused)
    assert ledger.balance(KEY).reserved == limit


def test_40002_a_long_prompt_is_held_at_the_tier_that_it_is_billed_at() -> None:
    """Held at the base tier, four of five concurrent long prompts were admitted and $0.60 spent on a cap of $0.45."""
    gov = ab.Governor(limits=[Limit("cost", "$5", scope="user")])
    reply = scripted_reply("x", input_tokens=250_000, output_tokens=10)
    model: dict[str, Any] = {"model_name": "gemini-2.5-pro", "provider": "google_genai", "max_tokens": 100}
    report = ask(gov, reply, prompt="word " * 250_000, **model)
    base = gov.appraiser.book.rates("gemini-2.5-pro", on=date(2026, 11, 22)).ref
    assert report.cost > 250_000 * Decimal(dict(base.prices)["input"]) / 10**6, "the long prompt is dearer"
    assert report.overrun == 0


def test_38647_reservations_that_fill_the_budget_exactly_fit_and_starve_nobody(ledger: Ledger) -> None:
    """Held as doubles, 250 times $0.10 was $25.000000000000004 of $25, and nothing fitted any more."""
    limit, part = nanos("$25", what="limit"), nanos(0.1, what="part")
    for number in range(250):
        assert isinstance(reserve(ledger, f"r{number}", part, limit), Granted)
    assert ledger.balance(KEY).available == 0
    settle(ledger, "r0", part, part - 1)
    assert isinstance(reserve(ledger, "last", 1, limit), Granted)


def test_40715_a_reservation_cancelled_half_way_still_ends(redis_url: str) -> None:
    """INCR and EXPIRE were two awaits; a cancellation between them left a counter that never ended."""

    async def run() -> tuple[int, int]:
        clock = FakeClock()
        async with AsyncRedisLedger(fresh(redis_url), clock=clock) as ledger:
            for number in range(20):
                work = asyncio.create_task(ledger.reserve(f"r{number}", [Posting(KEY, 1, 100)], lease_seconds=60))
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
            before = (await ledger.balance(KEY)).reserved
            clock.advance(60)
            assert (await ledger.verify()).ok
            return before, (await ledger.balance(KEY)).reserved

    before, after = asyncio.run(run())
    assert before > 0, "some were made before they were cancelled"
    assert after == 0


@pytest.mark.parametrize("tokens", [-5_000, float("nan"), float("-inf"), -1, 10**30])
def test_38010_16051_usage_that_cannot_be_neither_credits_nor_poisons_the_budget(tokens: Any) -> None:
    gov = ab.Governor(limits=[Limit("cost", "$1", scope="user")])
    for _ in range(2):
        reply = scripted_reply("x", input_tokens=1_000, output_tokens=10)
        assert reply.usage_metadata is not None
        reply.usage_metadata["output_tokens"] = tokens
        report = ask(gov, reply)
        assert 0 < report.cost < 1
    balance = gov.ledger.balance(Account((("user", "u"),), Meter.COST))
    assert 0 < balance.settled < nanos("$1", what="limit")
    assert gov.ledger.verify().ok
