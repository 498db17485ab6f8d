"""Windows: keys that sort in time, and where each of them ends, in every time zone and across changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentbudget.domain.budget import Limit
from agentbudget.domain.windows import Window, window_end
from agentbudget.errors import ConfigurationError

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Santiago",
         "Africa/Cairo", "Pacific/Auckland", "Pacific/Chatham", "America/Havana"]  # fmt: skip
"""Whole, half and quarter hours; clocks that change by half an hour, and at midnight."""
instants = st.integers(
    int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2031, 1, 1, tzinfo=UTC).timestamp())
)
calendar = st.sampled_from([window for window in Window if window is not Window.NEVER])


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> float:
    """Seconds since 1970 of a moment in UTC."""
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()


@given(instants, calendar, st.sampled_from(ZONES))
@example(int(at(2026, 10, 25, 0, 30)), Window.HOUR, "Europe/Berlin")
@example(int(at(2026, 10, 25, 0, 30)), Window.DAY, "Europe/Berlin")
@example(int(at(2026, 9, 6, 3, 59)), Window.DAY, "America/Santiago")
@example(int(at(2026, 4, 4, 14, 59)), Window.HOUR, "Australia/Lord_Howe")
def test_a_window_ends_where_its_key_ends_and_the_next_begins(moment: int, window: Window, timezone: str) -> None:
    key = window.key(moment, timezone)
    end = window_end(key)
    assert end is not None
    assert end > moment
    assert window.key(end - 1, timezone) == key
    assert window.key(end, timezone) != key


@given(instants, st.integers(0, 40_000_000), st.sampled_from([Window.DAY, Window.WEEK, Window.MONTH]),
       st.sampled_from(ZONES))  # fmt: skip
def test_keys_of_days_weeks_and_months_sort_in_time(moment: int, later: int, window: Window, timezone: str) -> None:
    assert window.key(moment, timezone) <= window.key(moment + later, timezone)


@pytest.mark.parametrize(
    ("day", "hours"),
    [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 11, 22), 24)],
)
def test_a_day_has_the_hours_that_the_clock_gives_it(day: tuple[int, int, int], hours: int) -> None:
    noon = at(*day, 11)
    end = window_end(Window.DAY.key(noon, "Europe/Berlin"))
    assert end is not None
    before = window_end(Window.DAY.key(noon - 86_400, "Europe/Berlin"))
    assert before is not None
    assert end - before == hours * 3600


def test_the_hour_that_is_repeated_when_clocks_go_back_is_two_windows() -> None:
    first, second = at(2026, 10, 25, 0, 30), at(2026, 10, 25, 1, 30)  # 02:30 in Berlin, twice
    assert Window.HOUR.key(first, "Europe/Berlin") == "2026-10-25T02+0200 Europe/Berlin"
    assert Window.HOUR.key(second, "Europe/Berlin") == "2026-10-25T02+0100 Europe/Berlin"


def test_a_month_of_a_time_zone_begins_at_its_own_midnight() -> None:
    new_year = at(2026, 12, 31, 23, 30)
    assert Window.MONTH.key(new_year, "Europe/Berlin") == "2027-01 Europe/Berlin"
    assert Window.MONTH.key(new_year, "America/New_York") == "2026-12 America/New_York"


def test_what_never_restarts_has_no_key_and_no_end() -> None:
    assert Window.NEVER.key(0.0) == ""
    assert window_end("") is None


def test_a_clock_that_jumps_moves_a_call_to_the_window_it_says_and_back_without_a_new_budget() -> None:
    limit = Limit("cost", "$1", scope="user", window="day")
    monday, tuesday = at(2026, 11, 23, 12), at(2026, 11, 24, 12)
    seen = [limit.account({"user": "u"}, at=moment) for moment in (monday, tuesday, monday)]
    assert seen[0] == seen[2] != seen[1]


def test_an_unknown_time_zone_is_refused_when_the_limit_is_made() -> None:
    with pytest.raises(ConfigurationError, match="Europe/Berlin"):
        Limit("cost", "$1", scope="user", window="day", timezone="Mars/Olympus")
