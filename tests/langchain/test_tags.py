"""Whose spend: tags of tasks, and limits that tasks share by them."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

import agentbudget as ab
from agentbudget.testing import FakeClock
from tests.langchain.actors import CALL, HELLO, calling, graph_of, repeatedly, scripted
from tests.langchain.support import report_of, using

DAY = 86_400


def _limit(amount: int, **options: Any) -> ab.Limit:
    return ab.Limit("model_calls", amount, **{"scope": "team", **options})


def test_a_task_carries_its_tags_and_its_children_inherit_them(governor: ab.Governor) -> None:
    with (
        ab.task("outer", governor=governor, feature="support", team="cx", tags={"lang": "de"}) as outer,
        ab.task("inner", team="billing", user="u42") as inner,
    ):
        scripted().invoke("go")
    assert outer.report.tags == {"feature": "support", "team": "cx", "lang": "de"}
    assert inner.report.tags == {"feature": "support", "team": "billing", "lang": "de", "user": "u42"}


def test_tags_of_a_run_come_from_its_metadata_and_those_of_the_handler_win(governor: ab.Governor) -> None:
    callback = ab.BudgetCallback(governor=governor, tags={"team": "cx"})
    config: Any = {**using(callback), "metadata": {"feature": "search", "team": "other", "tenant": 7, "colour": "red"}}
    graph_of(only=calling(scripted())).compile().invoke(HELLO, config)
    assert report_of(callback).tags == {"feature": "search", "team": "cx", "tenant": "7"}


def test_the_tasks_of_one_team_share_its_limit(new_governor: Any) -> None:
    governor, model = new_governor(limits=[_limit(3)]), scripted()
    for _ in range(3):
        with ab.task("ticket", governor=governor, team="cx"):
            model.invoke("go")
    with pytest.raises(ab.BudgetExceeded, match="team limit on model_calls of team cx") as stopped:
        (RunnableLambda(str) | model).invoke("go", using(ab.BudgetCallback(governor=governor, tags={"team": "cx"})))
    assert stopped.value.stop.scope == "team cx"
    with ab.task("ticket", governor=governor, team="other"):
        model.invoke("go")
    with ab.task("no team", governor=governor):
        model.invoke("go")
    assert len(model.calls) == 5


@pytest.mark.parametrize("per", ["run", "thread", "callback"])
def test_a_shared_limit_holds_for_a_callback_inside_a_tagged_task(new_governor: Any, per: str) -> None:
    governor, model = new_governor(limits=[_limit(2)]), scripted()
    callback = ab.BudgetCallback(governor=governor, per=per)
    config: Any = {**using(callback), "metadata": {"thread_id": "t"}}
    with ab.task("ticket", governor=governor, team="cx") as task:
        for _ in range(2):
            model.invoke("go", config)
        with pytest.raises(ab.BudgetExceeded, match="team cx"):
            model.invoke("go", config)
    assert task.report.model_calls == 2


def test_a_window_is_a_key_and_a_new_day_counts_from_nothing(new_governor: Any, clock: FakeClock) -> None:
    governor, model = new_governor(limits=[_limit(1, window="day")]), scripted()

    def once() -> None:
        with ab.task("ticket", governor=governor, team="cx"):
            model.invoke("go")

    once()
    with pytest.raises(ab.BudgetExceeded, match="2026-01-01"):
        once()
    clock.advance(DAY)
    once()
    assert len(model.calls) == 2


def test_a_call_over_midnight_counts_in_the_day_it_was_reserved(new_governor: Any, clock: FakeClock) -> None:
    governor = new_governor(limits=[_limit(5, window="day")])

    def overnight(messages: Any) -> Any:
        clock.advance(DAY)
        return scripted().script[0]

    with ab.task("ticket", governor=governor, team="cx"):
        scripted(overnight).invoke("go")
    windows = {account.window for account in governor.ledger.accounts() if account.scope == (("team", "cx"),)}
    assert len(windows) == 1
    assert next(iter(windows)).endswith("2026-01-01")


def test_a_limit_of_money_is_shared_to_the_nano_dollar(new_governor: Any) -> None:
    governor = new_governor(limits=[ab.Limit("cost", "$0.005", scope="team")])
    model = scripted()

    def ticket() -> None:
        with ab.task("ticket", governor=governor, team="cx"):
            model.invoke("go")

    with pytest.raises(ab.BudgetExceeded, match="team limit on cost"):
        repeatedly(ticket, 100)
    account = next(each for each in governor.ledger.accounts() if each.scope == (("team", "cx"),))
    balance = governor.ledger.balance(account)
    assert balance.settled == len(model.calls) * int(CALL * 10**9)
    assert balance.settled <= 5_000_000


def test_what_a_task_was_worth_is_in_its_report(governor: ab.Governor) -> None:
    with ab.task("ticket", governor=governor) as task:
        scripted().invoke("go")
        task.outcome("resolved", ok=True)
    assert (task.report.outcome, task.report.ok) == ("resolved", True)
