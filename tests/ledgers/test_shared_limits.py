"""Shared limits as users declare them: whom they apply to, which of several holds, what is all or nothing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool

import agentbudget as ab
from agentbudget.domain.accounts import Account, Meter
from agentbudget.domain.alerts import Crossing, thresholds_of
from agentbudget.domain.ledger import Settled
from agentbudget.errors import ConfigurationError
from agentbudget.governor.explanation import RULE
from agentbudget.testing import FakeClock
from agentbudget.trace.events import ThresholdReached


def governor(*limits: ab.Limit, clock: FakeClock | None = None, **options: Any) -> ab.Governor:
    """A governor with these limits, in May 2026."""
    return ab.Governor(limits=limits, clock=clock or FakeClock(1_780_000_000.0), **options)


def call(gov: ab.Governor, *, cost: str = "$0.001", max_cost: str | None = None, **scopes: Any) -> ab.StopReport | None:
    """One tool call that costs exactly this much, in a task of its own; why it was refused."""

    @ab.price_tool(cost)
    @tool(f"shared_limits_{cost.strip('$')}")  # prices are declared for the whole process, by name
    def look_up(what: str) -> str:
        """Look something up."""
        return what

    if max_cost is not None:
        scopes["max_cost"] = max_cost
    try:
        with ab.task("t", governor=gov, **scopes):
            look_up.invoke({"what": "x"})
    except ab.BudgetExceeded as stop:
        return stop.stop
    return None


# -- which limit holds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_limits_that_count_the_same_the_smallest_holds(order: int) -> None:
    limits = [ab.Limit("tool_calls", 1, scope="user"), ab.Limit("tool_calls", 5, scope="user", where={"plan": "pro"})]
    gov = governor(*limits[::order])
    assert call(gov, user="u", tags={"plan": "pro"}) is None
    stop = call(gov, user="u", tags={"plan": "pro"})
    assert stop is not None
    assert (stop.limit_amount, stop.settled) == (1, 1)


@pytest.mark.parametrize(
    ("own", "shared", "label"), [("$0.002", "$5", "max_cost"), ("$5", "$0.002", "the task limit on cost")]
)
def test_a_shared_limit_on_tasks_and_the_budget_of_the_task_hold_together(own: str, shared: str, label: str) -> None:
    gov = governor(ab.Limit("cost", shared, scope="task"))
    stop = call(gov, cost="$0.003", max_cost=own)
    assert stop is not None
    assert stop.limit == label
    assert stop.limit_amount == 2_000_000


def test_a_pinned_limit_wins_over_what_is_declared_and_top_ups_add_to_it() -> None:
    gov = governor(ab.Limit("tool_calls", 5, scope="user"))
    account = Account((("user", "u"),), Meter.TOOL_CALLS)
    gov.ledger.set_limit(account, 0)
    assert call(gov, user="u") is not None
    gov.ledger.top_up("gift", account, 1)
    assert call(gov, user="u") is None
    assert call(gov, user="u") is not None
    assert call(gov, user="other") is None


def test_a_limit_with_where_applies_to_tasks_with_these_tags_only() -> None:
    gov = governor(ab.Limit("tool_calls", 1, scope="user", where={"plan": "free"}))
    assert call(gov, user="u", tags={"plan": "free"}) is None
    assert call(gov, user="u", tags={"plan": "free"}) is not None
    assert call(gov, user="u", tags={"plan": "pro"}) is None
    assert call(gov, user="u") is None


def test_a_hierarchy_is_all_or_nothing(tmp_path: Path) -> None:
    gov = governor(
        ab.Limit("cost", "$10", scope="tenant", window="month", timezone="Europe/Berlin"),
        ab.Limit("cost", "$5", scope="team"),
        ab.Limit("cost", "$0.0015", scope="user", window="day"),
        ledger=f"sqlite:///{tmp_path}/spend.db",
    )
    scopes = {"tenant": "acme", "team": "cx", "user": "u"}
    assert call(gov, max_cost="$1", **scopes) is None
    before = {
        account: gov.ledger.balance(account) for account in gov.ledger.accounts() if account.scope[0][0] != "task"
    }
    stop = call(gov, max_cost="$1", **scopes)
    assert stop is not None
    assert stop.scope == "user u"
    assert {account: gov.ledger.balance(account) for account in before} == before
    assert {one.settled for one in before.values()} == {1_000_000}
    assert len(before) == 3
    gov.close()


def test_the_first_calls_of_an_unknown_user_at_once_meet_its_default_limit(tmp_path: Path) -> None:
    """LiteLLM 40095: the first requests of an unknown user all bypassed the default budget."""
    gov = governor(ab.Limit("tool_calls", 3, scope="user", window="day"), ledger=f"sqlite:///{tmp_path}/spend.db")
    barrier, stops = threading.Barrier(12), []

    def one() -> None:
        barrier.wait()
        stops.append(call(gov, user="nobody-knows-me"))

    threads = [threading.Thread(target=one) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stops.count(None) == 3
    gov.close()


def test_a_stop_says_when_its_window_ends() -> None:
    clock = FakeClock(1_780_000_030.0)
    gov = governor(ab.Limit("tool_calls", 1, scope="user", window="minute"), clock=clock)
    assert call(gov, user="u") is None
    stop = call(gov, user="u")
    assert stop is not None
    assert stop.resets_at == 1_780_000_080.0
    clock.advance(stop.resets_at - clock.now())
    assert call(gov, user="u") is None


# -- alert thresholds --------------------------------------------------------------------------------------------------


WATCHED = ab.Limit("cost", "$0.010", scope="team", alert_at=("50%", "80%", "100%"))


def test_each_threshold_is_told_once_over_several_governors_of_one_ledger(tmp_path: Path) -> None:
    told: list[tuple[int, Crossing]] = []
    governors = [
        governor(WATCHED, ledger=f"sqlite:///{tmp_path}/spend.db", on_threshold=lambda one, n=n: told.append((n, one)))
        for n in range(2)
    ]
    for n in range(10):
        assert call(governors[n % 2], team="cx") is None
        governors[n % 2].alarms.drain()
    assert [(n, one.percent, one.settled) for n, one in told] == [
        (0, "50%", 5_000_000), (1, "80%", 8_000_000), (1, "100%", 10_000_000),
    ]  # fmt: skip
    assert str(told[1][1]) == "cost of team 'cx' reached 80% of $0.01: $0.0080 spent"
    assert len({one.key for _, one in told}) == 3
    for gov in governors:
        gov.close()


def test_a_threshold_is_an_event_of_the_trace_that_any_reader_may_meet(tmp_path: Path) -> None:
    found: list[Any] = []
    gov = governor(WATCHED, trace=tmp_path / "run.jsonl", sinks=[found.append])
    assert call(gov, cost="$0.006", team="cx") is None
    gov.close()
    (event,) = [event for event in found if isinstance(event, ThresholdReached)]
    assert (event.scope, event.meter, event.threshold) == ((("team", "cx"),), "cost", 5_000)
    assert (event.limit, event.settled) == (10_000_000, 6_000_000)
    trace = ab.Trace.load(tmp_path / "run.jsonl")
    assert not trace.problems
    assert [event for event in trace.events if isinstance(event, ThresholdReached)] == [event]
    assert trace.replay().diverged_at is None


def test_a_listener_that_fails_or_hangs_costs_the_agent_nothing() -> None:
    begun, go_on, told = threading.Event(), threading.Event(), []

    def listen(crossing: Crossing) -> None:
        begun.set()
        go_on.wait(20)
        told.append(crossing.percent)
        raise RuntimeError("the pager is down")

    gov = governor(WATCHED, on_threshold=listen)
    assert call(gov, cost="$0.006", team="cx") is None
    assert begun.wait(20)
    assert call(gov, cost="$0.003", team="cx") is None, "the agent goes on while the listener hangs"
    assert told == []
    go_on.set()
    with pytest.warns(ab.BudgetWarning, match="the pager is down"):
        gov.close()
    assert told == ["50%", "80%"]


def test_thresholds_of_limits_that_count_the_same_are_all_told_by_the_one_that_holds() -> None:
    told: list[str] = []
    wider = ab.Limit("cost", "$1", scope="team", alert_at="60%")
    gov = governor(wider, WATCHED, on_threshold=lambda crossing: told.append(str(crossing)))
    assert call(gov, cost="$0.007", team="cx") is None
    gov.close()
    assert [line.partition(": ")[0] for line in told] == [f"cost of team 'cx' reached {n}% of $0.01" for n in (50, 60)]


def test_without_thresholds_a_settle_is_asked_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    gov = governor(ab.Limit("cost", "$1", scope="team"))
    asked: list[dict[str, Any]] = []
    settle = gov.ledger.settle

    def settled(*args: Any, **options: Any) -> Settled:
        asked.append(options)
        return settle(*args, **options)

    monkeypatch.setattr(gov.ledger, "settle", settled)
    assert call(gov, team="cx") is None
    assert asked == [{}]


@pytest.mark.parametrize(("text", "points"), [("50%", 5_000), ("99.5%", 9_950), (" 0.01 %", 1), ("1000%", 100_000)])
def test_a_threshold_is_a_percentage_exact_to_a_hundredth(text: str, points: int) -> None:
    assert thresholds_of(text) == (points,)
    assert Crossing(account=Account((("a", "b"),), Meter.COST), threshold=points, limit=1, settled=1).percent == (
        text.strip().replace(" ", "")
    )


def test_thresholds_are_sorted_and_each_once() -> None:
    assert ab.Limit("cost", "$1", scope="team", alert_at=["80%", "50%", "80.0%"]).alert_at == (5_000, 8_000)


@pytest.mark.parametrize("bad", ["0%", "80", 0.8, 80, "1001%", "-5%", "0.001%", "eighty", None, [["50%"]]])
def test_what_is_no_percentage_is_refused_when_the_limit_is_made(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="alert_at"):
        ab.Limit("cost", "$1", scope="team", alert_at=bad if isinstance(bad, list) else [bad])


def test_more_thresholds_than_any_ledger_keeps_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="16"):
        ab.Limit("cost", "$1", scope="team", alert_at=[f"{n}%" for n in range(1, 18)])


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [9_007_200, "$9007199.254740992", "1e400"])
def test_a_limit_beyond_what_every_ledger_holds_exactly_is_refused_when_it_is_made(amount: Any) -> None:
    with pytest.raises(ConfigurationError, match="largest amount|money is"):
        ab.Limit("cost", amount, scope="team")
    with pytest.raises(ConfigurationError, match="9007199254740991"):
        ab.Limit("tool_calls", 2**53, scope="team")


@pytest.mark.parametrize("name", ["", "x" * 201, "é" * 101, "a\nb", "a\x1b[31m", "\u202egnp", None, 7])
def test_a_scope_that_no_ledger_could_keep_is_refused_and_nothing_is_paid(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        ab.Limit("cost", "$1", scope=(name,))
    if isinstance(name, str) and name:
        gov = governor(ab.Limit("cost", "$1", scope="team"))
        with pytest.raises(ConfigurationError, match="name"):
            call(gov, team=name)
        assert list(gov.ledger.accounts()) == []


@pytest.mark.parametrize("where", [{"plan": 3}, {"": "x"}, {"plan": ""}, "plan=free"])
def test_a_where_that_no_task_can_match_is_refused_when_the_limit_is_made(where: Any) -> None:
    with pytest.raises(ConfigurationError, match="where"):
        ab.Limit("cost", "$1", scope="team", where=where)


# -- explain -----------------------------------------------------------------------------------------------------------


def explained() -> ab.Governor:
    return governor(
        ab.Limit("cost", "$10", scope="tenant", window="month", timezone="Europe/Berlin"),
        ab.Limit("cost", "$0.004", scope="user", window="day"),
        ab.Limit("cost", "$0.010", scope="user", window="day", where={"plan": "pro"}),
        ab.Limit("tool_calls", 9, scope="user", where={"plan": "free"}),
        ab.Limit("cost", "$1", scope="team"),
    )


def test_explain_says_which_limits_apply_which_is_tightest_and_why() -> None:
    gov = explained()
    assert call(gov, user="u", tenant="acme", tags={"plan": "pro"}) is None
    told = gov.explain(user="u", tenant="acme", plan="pro")
    assert [(one.account.scope[0], one.available) for one in told.limits] == [
        (("user", "u"), 3_000_000), (("tenant", "acme"), 9_999_000_000),
    ]  # fmt: skip
    assert told.tightest is told.limits[0]
    spent, june = "$0.0010 spent", "2026-06-01 00:00 Europe/Berlin"
    assert str(told).splitlines() == [
        "2 limits apply to user 'u', tenant 'acme', plan 'pro', the tightest first (75 % of it is left):",
        "  1. cost of user 'u' in 2026-05-28: $0.0030 left of $0.0040 ($0.0010 spent), until 2026-05-29 00:00 UTC",
        f"  2. cost of tenant 'acme' in 2026-05 Europe/Berlin: $9.9990 left of $10.00 ({spent}), until {june}",
        RULE,
        "Does not apply: 9 tool_calls for each user where plan is 'free', since plan is 'pro'.",
        "Does not apply: $1.00 for each team, since no team is named.",
        "Does not apply: $0.01 a day for each user where plan is 'pro', since $0.0040 for the same is smaller.",
    ]


def test_explain_leaves_no_record_and_shows_what_was_set_in_the_ledger() -> None:
    gov = explained()
    assert gov.explain(user="u").limits[0].balance.limit == 4_000_000
    assert list(gov.ledger.accounts()) == []
    account = Account((("user", "u"),), Meter.COST, "2026-05-28")
    gov.ledger.top_up("g", account, 1_000_000)
    (told,) = gov.explain(user="u").limits
    assert (told.balance.limit, told.declared) == (5_000_000, 4_000_000)
    assert "declared as $0.0040" in str(told)
    assert str(gov.explain()).startswith("No limit applies to a call without scopes.")


def test_explain_of_a_task_counts_its_own_limits_too() -> None:
    gov = explained()
    with ab.task("t", governor=gov, user="u", max_cost="$0.002") as task:
        told = gov.explain(task.id)
        assert {one.account.scope[0][0] for one in told.limits} == {"task", "user"}
        assert told.to_dict()["limits"][0]["limit"] in {2_000_000, 4_000_000}
    with pytest.raises(ConfigurationError, match="not known here"):
        gov.explain("some-other-task")
