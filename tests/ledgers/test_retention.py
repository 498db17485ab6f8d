"""What is collected by itself, when, and that every balance is still proved afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import agentbudget as ab
from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.domain.ledger import Ledger
from agentbudget.errors import ConfigurationError
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.keys import is_passing
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.testing import FakeClock
from tests.ledgers.servers import fresh

DAY = 86_400.0
TEAM = Account((("team", "cx"),), Meter.COST, "2026-11")
Open = Callable[[FakeClock, str], Ledger]


@pytest.fixture(params=["sqlite", "redis"])
def open_one(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a durable ledger with more options; a second time, the same one."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/spend.db?synchronous=normal"
    else:
        url = fresh(request.getfixturevalue("redis_url"))
    return lambda clock, options: open_ledger(f"{url}&{options}", clock=clock)


def task(number: int) -> Account:
    return Account((("task", f"t{number}"),), Meter.COST)


def use(ledger: Ledger, key: str, *accounts: Account) -> None:
    ledger.reserve(key, [Posting(account, 5, 10**6) for account in accounts], lease_seconds=60)
    ledger.settle(key, [Charge(account, 5, 3) for account in accounts])


def work_on(ledger: Ledger, clock: FakeClock, calls: int = 600) -> None:
    """Enough calls for the ledger to look for what is old."""
    for number in range(calls):
        use(ledger, f"{clock.now()}-{number}", TEAM)


def test_a_task_that_nobody_used_for_the_time_retained_is_collected_and_its_team_keeps_the_spend(
    open_one: Open,
) -> None:
    clock = FakeClock()
    ledger = open_one(clock, "retain_days=1&retain_tasks_days=5")
    for number in range(3):
        use(ledger, f"early-{number}", task(number), TEAM)
    ledger.top_up("g", task(1), 7)
    clock.advance(4 * DAY)
    use(ledger, "still-used", task(2), TEAM)
    work_on(ledger, clock)
    assert {task(0), task(1), task(2), TEAM} == set(ledger.accounts()), "ids are forgotten, what was spent is not"
    assert ledger.balance(task(0)).settled == 3
    clock.advance(2 * DAY)
    work_on(ledger, clock)
    assert set(ledger.accounts()) == {task(2), TEAM}
    assert ledger.balance(TEAM).settled == 3 * (4 + 600 + 600)
    assert ledger.verify().differences == ()
    use(ledger, "anew", task(0))
    assert ledger.balance(task(0)).settled == 3
    ledger.close()


def test_minutes_and_hours_are_collected_days_and_months_and_what_is_reserved_stay(open_one: Open) -> None:
    clock = FakeClock()
    ledger = open_one(clock, "retain_days=0.01&retain_tasks_days=1")
    user = (("user", "u"),)
    windows = ["2026-11-22T18+0000", "2026-11-22T18:05+0100 America/Toronto", "2026-11-22", "2026-W47", "2026-11",
               "2026-11-22 America/Toronto", ""]  # fmt: skip
    accounts = [Account(user, Meter.MODEL_CALLS, window) for window in windows]
    use(ledger, "a", *accounts)
    held = Account(user, Meter.COST, "2026-11-22T18+0000")
    use(ledger, "b", held)
    ledger.reserve("c", [Posting(held, 5, 100)], lease_seconds=100 * DAY)
    for _ in range(2):
        clock.advance(3 * DAY)
        work_on(ledger, clock)
    assert set(ledger.accounts()) == {*accounts[2:], held, TEAM}
    assert ledger.verify().differences == ()
    ledger.close()


def test_the_memory_ledger_forgets_minutes_and_hours_that_are_over() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock, retain=10)
    minutes = [Account((("user", "u"),), Meter.MODEL_CALLS, f"2026-11-22T18:{n:02}+0000") for n in range(60)]
    for number, minute in enumerate(minutes):
        use(ledger, f"m{number}", minute, TEAM)
        clock.advance(60)
    work_on(ledger, clock, 200)
    assert set(minutes) <= set(ledger.accounts()), "an hour may not be over yet"
    clock.advance(7_200)
    work_on(ledger, clock, 400)
    assert set(ledger.accounts()) == {TEAM}
    assert ledger.verify().differences == ()


@pytest.mark.parametrize(
    ("account", "passing"),
    [
        (task(1), True),
        (Account((("task", "t"), ("tool", "search")), Meter.TOOL_CALLS), True),
        (Account((("user", "task:x"),), Meter.COST), False),
        (Account((("subtask", "t"),), Meter.COST), False),
        (Account((("thread", "t"),), Meter.COST), False),
        (Account((("user", "2026-11-22T18"),), Meter.COST), False),
    ],
    ids=str,
)
def test_tasks_are_of_passing_interest_whatever_others_are_called(account: Account, passing: bool) -> None:
    assert is_passing(account.key) is passing


@pytest.mark.parametrize("days", ["0", "0.5", "-1", "nan", "soon"])
def test_less_than_a_day_would_forget_the_hour_that_runs_and_is_refused(open_one: Open, days: str) -> None:
    with pytest.raises(ConfigurationError, match="retain_tasks_days"):
        open_one(FakeClock(), f"retain_tasks_days={days}")


def test_a_task_that_is_still_open_keeps_its_spend_as_long_as_it_is_used(open_one: Open) -> None:
    clock = FakeClock()
    ledger = open_one(clock, "retain_days=1&retain_tasks_days=3")
    with ab.task("long", task_id="t7", max_cost="$1", governor=ab.Governor(ledger=ledger, clock=clock)):
        for day in range(8):
            use(ledger, f"day-{day}", task(7))
            clock.advance(2 * DAY)
            work_on(ledger, clock, 300)
        assert ledger.balance(task(7)).settled == 24
    ledger.close()
