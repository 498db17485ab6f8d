from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from agentbudget.domain.budget import Limit
from agentbudget.domain.windows import Window, window_end, window_start
from agentbudget.errors import ConfigurationError
from agentbudget.finops.alarms.activity import Activity
from agentbudget.finops.alarms.rules import Watched, judge, standing
from agentbudget.finops.forecasting.forecast import PlannedEvent, forecast
from tests.finops.traces import DAY, START
from tests.finops.traffic import BUG_AT, MINUTES, Minutes, month, traffic, watch, watched


@pytest.mark.parametrize("seed", range(3))
def test_a_tenfold_bug_is_paged_while_there_is_budget_left_to_save(seed: int) -> None:
    budget = watched(1.3 * month(traffic(25, seed=seed)))
    minutes = traffic(30, seed=seed, bug=10.0)
    paged, broke = None, None
    for minute, alerts in watch(budget, minutes, BUG_AT, 30 * MINUTES):
        if paged is None and any(alert.severity in {"critical", "error"} for alert in alerts):
            paged = minute
        spent = Activity(minutes).cost(START + minute * 60, minute * 60) if minute % 30 == 0 else 0
        if spent >= budget.limit.amount:
            broke = minute
            break
    assert paged is not None
    assert broke is not None
    assert paged - BUG_AT <= 75
    assert broke - paged >= 24 * 60, (
        f"paged {paged - BUG_AT} minutes after the bug, {broke - paged} before the budget broke"
    )


@pytest.mark.parametrize("seed", range(3))
def test_fourteen_days_of_normal_bursty_traffic_page_nobody(seed: int) -> None:
    minutes = traffic(28, seed=seed)
    budget = watched(1.3 * month(minutes))
    said = [alert.summary for _, alerts in watch(budget, minutes, 14 * MINUTES, 28 * MINUTES) for alert in alerts]
    assert said == []


def test_planned_activity_is_no_spike() -> None:
    quiet = traffic(25, seed=9)
    minutes = traffic(26, seed=9, bug=5.0)
    launch = PlannedEvent(start=date(2026, 11, 26), end=date(2026, 11, 26), factor=5.0)
    for planned, spikes in (((), True), ((launch,), False)):
        budget = watched(50 * month(quiet), planned=planned)
        told = [alert.kind for _, alerts in watch(budget, minutes, BUG_AT, BUG_AT + 30) for alert in alerts]
        assert ("spike" in told) is spikes


def flat(days: int, per_minute: int) -> Minutes:
    first = int(START // 60)
    return {first + minute: (per_minute, 1) for minute in range(days * MINUTES)}


def test_a_burn_rate_is_against_what_is_left_and_ends_only_when_clearly_over() -> None:
    budget = watched(432)  # a cent a minute
    minutes = flat(10, 25 * 10_000_000)
    at = START + 9 * DAY
    now = standing(budget, at=at, spent=0)
    (burn,) = [alert for alert in judge(budget, now, Activity(minutes), forecast=None) if "14.4" in alert.key]
    assert burn.severity == "critical"
    assert "spends 18 times faster than the $432.00 that are left can last: $15.00 in 60 minutes" in burn.summary
    slower = Activity(flat(10, 17 * 10_000_000))  # 14.4 times what is affordable are 20.6 cents a minute
    for firing in ([], [burn.key]):
        keys = {alert.key for alert in judge(budget, now, slower, forecast=None, firing=firing)}
        assert (burn.key in keys) is bool(firing)
    calm = Activity(flat(10, 10_000_000))
    assert judge(budget, now, calm, forecast=None, firing=[burn.key]) == []


def test_a_short_burst_that_is_over_pages_nobody() -> None:
    minutes = flat(10, 10_000_000)
    first = int(START // 60)
    for minute in range(9 * MINUTES - 100, 9 * MINUTES - 70):
        minutes[first + minute] = (100 * 10_000_000, 1)
    budget = watched(432)
    now = standing(budget, at=START + 9 * DAY, spent=90 * 10**9)
    assert judge(budget, now, Activity(minutes), forecast=None) == []


def test_a_budget_that_breaks_before_anyone_can_react_is_paged_with_the_lead_time() -> None:
    budget = watched(432, minimum="$0.10")
    at = START + 9 * DAY
    now = standing(budget, at=at, spent=431 * 10**9)
    told = {alert.kind: alert for alert in judge(budget, now, Activity(flat(10, 10_000_000)), forecast=None)}
    assert told["exhaustion"].details["lead_seconds"] == 6000
    assert "breaks in 100 minutes at $0.60 an hour: $1.00 of $432.00 left" in told["exhaustion"].summary


def test_below_the_least_money_nobody_is_woken() -> None:
    at = START + 9 * DAY
    activity = Activity(flat(10, 10_000_000))
    for minimum, alarms in (("$0.50", 3), ("$1000", 0)):
        budget = watched(432, minimum=minimum)
        assert len(judge(budget, standing(budget, at=at, spent=431 * 10**9), activity, forecast=None)) == alarms


def test_a_forecast_above_the_budget_is_a_warning_until_it_is_clearly_below() -> None:
    days = {date.fromordinal(date(2026, 10, 1).toordinal() + number): 10**10 for number in range(45)}
    told = forecast(days, today=date(2026, 11, 15), start=date(2026, 11, 1), until=date(2026, 11, 30))
    quiet = Activity({})
    for dollars, firing, alarms in ((290, False, 1), (310, False, 0), (310, True, 1), (340, True, 0)):
        budget = watched(dollars)
        now = standing(budget, at=START + 14 * DAY, spent=140 * 10**9)
        key = f"forecast/team=cx/{budget.window(now.at)}"
        alerts = judge(budget, now, quiet, forecast=told, firing=[key] if firing else [])
        assert [alert.key for alert in alerts] == [key] * alarms
        assert all(alert.severity == "warning" for alert in alerts)


@pytest.mark.parametrize("window", ["hour", "day", "week", "month"])
@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "Asia/Kathmandu"])
def test_a_window_holds_the_moment_it_was_made_from(window: str, timezone: str) -> None:
    for at in (START, START + 12345, 1_774_748_000.0, 1_792_890_000.0):  # clocks go forward, and back
        key = Window(window).key(at, timezone)
        start, end = window_start(key), window_end(key)
        assert start is not None
        assert end is not None
        assert start <= at < end
        assert Window(window).key(start, timezone) == key
        assert Window(window).key(end, timezone) != key


@pytest.mark.parametrize(
    ("limit", "names", "options", "said"),
    [
        (Limit("model_calls", 5, scope="team", window="day"), {"team": "x"}, {}, "of cost"),
        (Limit("cost", 5, scope="team", window="minute"), {"team": "x"}, {}, "of cost"),
        (Limit("cost", 5, scope="team", window="day"), {"user": "x"}, {}, "must name exactly"),
        (Limit("cost", 5, scope="team", window="day"), {"team": "x"}, {"react": 0}, "react"),
        (Limit("cost", 5, scope="team", window="day"), {"team": "x"}, {"minimum": "-1"}, "minimum"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    limit: Limit, names: dict[str, str], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Watched(limit=limit, names=names, **options)
