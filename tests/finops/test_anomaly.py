from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.domain.budget import Limit
from agentbudget.errors import ConfigurationError
from agentbudget.finops.alarms import watch as watching
from agentbudget.finops.alarms.rules import Watched
from agentbudget.finops.alarms.sources import TraceSource
from agentbudget.finops.alarms.state import AlarmState
from agentbudget.finops.anomaly import Cut, Sums, decompose, explain, unusual
from agentbudget.finops.changes import anomalies, compare
from agentbudget.finops.forecasting.forecast import PlannedEvent
from agentbudget.finops.history import History, Period
from tests.finops.traces import DAY, START, called, opened, write

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
COUNTS = st.integers(0, 10**7)
SUMS = st.builds(Sums, calls=COUNTS, tokens=COUNTS, cost=st.integers(0, 10**15), other=st.integers(0, 10**12))


@given(SUMS, SUMS)
def test_the_parts_of_a_change_add_up_to_the_nano_dollar(before: Sums, now: Sums) -> None:
    assert decompose(before, now).total == now.total - before.total


@given(SUMS, SUMS)
def test_a_change_back_is_the_same_parts_the_other_way(before: Sums, now: Sums) -> None:
    there, back = decompose(before, now), decompose(now, before)
    for part in ("volume", "tokens", "price", "other"):
        assert abs(getattr(there, part) + getattr(back, part)) <= 2


@pytest.mark.parametrize(
    ("now", "part"),
    [
        (Sums(calls=100, tokens=10_000, cost=1000), "volume"),
        (Sums(calls=10, tokens=10_000, cost=1000), "tokens"),
        (Sums(calls=10, tokens=1_000, cost=1000), "price"),
        (Sums(calls=10, tokens=1_000, cost=100, other=900), "other"),
    ],
)
def test_what_alone_changed_has_all_of_the_change(now: Sums, part: str) -> None:
    split = decompose(Sums(calls=10, tokens=1_000, cost=100), now)
    assert {name: getattr(split, name) for name in ("volume", "tokens", "price", "other")} == {
        **dict.fromkeys(("volume", "tokens", "price", "other"), 0),
        part: 900,
    }


def test_two_factors_of_two_share_equally() -> None:
    split = decompose(Sums(calls=1, tokens=10, cost=1_000_000), Sums(calls=2, tokens=40, cost=4_000_000))
    assert (split.volume, split.tokens, split.price) == (1_500_000, 1_500_000, 0)


def test_the_largest_contributors_come_first_and_those_without_a_value_count() -> None:
    before = {"user": {"a": Sums(calls=1, tokens=9, cost=10**9), None: Sums(calls=1, tokens=9, cost=10**9)}}
    now = {"user": {"a": Sums(calls=1, tokens=9, cost=10**9), None: Sums(calls=9, tokens=81, cost=9 * 10**9)}}
    change = explain(before, now, start=NOON, end=NOON + timedelta(hours=1))
    assert [str(each) for each in change.contributors] == ["no user (+$8.00)"]
    assert str(change) == ("$10.00 instead of $2.00 (+$8.00, +400%): calls x5.00 (+$8.00); most from no user (+$8.00)")
    assert change.to_dict()["impact"] == "8.000000000"


def test_of_many_the_three_that_changed_most_are_named_up_or_down() -> None:
    before: Cut = {"user": {name: Sums(calls=1, tokens=9, cost=50) for name in "abcdef"}}
    costs = {"a": 51, "b": 52, "c": 90, "d": 1, "e": 50, "f": 99}
    now: Cut = {"user": {name: Sums(calls=1, tokens=9, cost=cost) for name, cost in costs.items()}}
    change = explain(before, now, start=NOON, end=NOON + timedelta(hours=1))
    assert [(each.value, each.impact) for each in change.contributors] == [("d", -49), ("f", 49), ("c", 40)]


def test_new_spend_is_volume_and_has_no_share_of_nothing() -> None:
    change = explain({}, {"model": {"m": Sums(calls=2, tokens=5, cost=7)}}, start=NOON, end=NOON + timedelta(hours=1))
    assert (change.split.volume, change.impact, change.share) == (7, 7, None)
    assert "calls where there were none" in change.because


def usual(hours: int, seed: int = 1) -> list[int]:
    dice = random.Random(seed)
    return [round(10**10 * dice.lognormvariate(0, 0.3)) for _ in range(hours)]


def test_tenfold_hours_are_found_and_are_no_baseline_for_the_next() -> None:
    hours = usual(30 * 24)
    for hour in (*range(400, 406), *range(500, 503)):
        hours[hour] *= 10
    assert unusual(hours, minimum=10**9) == [(400, 406), (500, 503)]
    assert unusual(hours, minimum=10**12) == []


@pytest.mark.parametrize("seed", range(10))
def test_ordinary_bursts_are_no_anomaly(seed: int) -> None:
    assert unusual(usual(28 * 24, seed), minimum=10**9) == []


def test_nothing_is_judged_before_two_weeks_and_a_new_level_is_normal_after_one() -> None:
    assert unusual([10**9] * 200 + [10**12], minimum=1) == []
    ((first, last),) = unusual([10**9] * 400 + [10**11] * 600, minimum=1)
    assert (first, last) == (400, 400 + 7 * 24)


@contextmanager
def history(tmp_path: Path) -> Iterator[History]:
    """Three weeks of a call an hour, of 1 dollar; on the 20th at noon the feature `chat` makes ten for two hours."""
    for day in range(21):
        events = [*opened(f"a{day}", at=START + day * DAY, feature="triage", user="u1")]
        events += opened(f"b{day}", at=START + day * DAY, parent="", feature="chat", user="u2")[1:]
        for hour in range(24):
            at = START + day * DAY + hour * 3600
            task = f"{'ab'[hour % 2]}{day}"
            times = 10 if day == 20 and hour in {12, 13} else 1
            task = f"b{day}" if times > 1 else task
            for number in range(times):
                events += called(f"c{day}-{hour}-{number}", task, at=at + number, cost=10**9)
        write(tmp_path / "traces" / f"{day}.jsonl", events)
    with History.open(tmp_path / "traces") as opened_history:
        yield opened_history


def test_unusual_hours_of_a_history_are_explained(tmp_path: Path) -> None:
    end = datetime(2026, 11, 22, tzinfo=UTC)
    launch = PlannedEvent(start=date(2026, 11, 21), end=date(2026, 11, 21), factor=10, name="launch")
    with history(tmp_path) as found:
        (change,) = anomalies(found, until=end, planned=[launch])
    assert (change.start, change.end) == (
        datetime(2026, 11, 21, 12, tzinfo=UTC),
        datetime(2026, 11, 21, 14, tzinfo=UTC),
    )
    assert (change.before.total, change.now.total) == (2 * 10**9, 20 * 10**9)
    assert change.split.volume == change.impact == 18 * 10**9
    assert str(change.contributors[0]) in {"feature=chat (+$19.00)", "user=u2 (+$19.00)"}
    assert (change.planned, change.to_dict()["feedback"]) == ("launch", "planned_activity")


def test_two_periods_are_compared_by_their_length(tmp_path: Path) -> None:
    day = datetime(2026, 11, 20, tzinfo=UTC)
    with history(tmp_path) as found:
        now, before = Period(since=day, until=day + timedelta(days=2)), Period(since=day - timedelta(days=6), until=day)
        change = compare(found, now, before)
        with pytest.raises(ConfigurationError, match="begin and end"):
            compare(found, now, Period(until=day))
    assert (change.before.total, change.now.total) == (48 * 10**9, 66 * 10**9)
    assert sum(each.impact for each in change.contributors if each.dimension == "feature") == change.impact


def test_an_alarm_says_what_is_behind_it(tmp_path: Path) -> None:
    budget = Watched(limit=Limit("cost", "$432", scope="team", window="month"), names={"team": "cx"})
    at, cent = START + 9 * DAY, 10**7
    for name, first, minutes, times in (("calm", at - 2 * DAY, 120, 1), ("bug", at - 3600, 60, 60)):
        events = opened(name, at=first, team="cx", feature=name)
        for minute in range(minutes):
            for number in range(times):
                when = first + 60 * minute + number / 2
                events += called(f"{name}{minute}-{number}", name, at=when, cost=cent, model="gpt-4o")
        write(tmp_path / f"{name}.jsonl", events)
    events = opened("noon", at=at - DAY - 3600, team="cx", feature="calm")
    for minute in range(60):
        events += called(f"noon{minute}", "noon", at=at - DAY - 3600 + 60 * minute, cost=cent)
    write(tmp_path / "noon.jsonl", events)
    with AlarmState() as state:
        source = TraceSource(state.db, tmp_path, [budget])
        told = watching.Watch([budget], traces=source, state=state).look(at, on_problem=print).told
    burn = next(alert for alert in told if alert.kind == "burn" and alert.details["window_seconds"] == 3600)
    assert "calls x" in burn.details["because"]
    assert burn.details["contributors"].startswith("feature=bug (+$3")
    assert all(isinstance(value, str | int | float) for value in burn.details.values())
