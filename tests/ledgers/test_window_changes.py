"""Windows in which clocks change: each holds exactly the moments that have its key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from agentbudget.domain.windows import Window, window_end, window_start

CALENDAR = [window for window in Window if window is not Window.NEVER]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Asia/Gaza"]


def changes(timezone: str) -> list[float]:
    """The moments of some years when the clocks of *timezone* change, to the half hour."""
    zone, found = ZoneInfo(timezone), []
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    while moment.year < 2029:
        later = moment + timedelta(minutes=30)
        if later.astimezone(zone).utcoffset() != moment.astimezone(zone).utcoffset():
            found.append(later.timestamp())
        moment = later
    return found


@pytest.mark.parametrize("timezone", ZONES)
def test_a_window_holds_every_moment_that_has_its_key_and_no_other(timezone: str) -> None:
    leap_day = datetime(2028, 2, 29, 23, 59, 30, tzinfo=UTC).timestamp()
    last_week = datetime(2026, 12, 31, 12, tzinfo=UTC).timestamp()
    around = [change + seconds for change in changes(timezone) for seconds in (-5400, -1801, -1, 0, 1799, 1800, 5400)]
    for moment in [*around, leap_day, last_week]:
        for window in CALENDAR:
            key = window.key(moment, timezone)
            start, end = window_start(key), window_end(key)
            assert start is not None
            assert end is not None
            assert start <= moment < end
            assert {window.key(at, timezone) for at in (start, (start + end) / 2, end - 1)} == {key}
            assert key not in {window.key(start - 1, timezone), window.key(end, timezone)}


def test_an_hour_that_clocks_cut_short_begins_when_they_do() -> None:
    half = window_start("2026-10-04T02+1100 Australia/Lord_Howe")  # 02:00 +10:30 became 02:30 +11:00
    assert half == datetime(2026, 10, 3, 15, 30, tzinfo=UTC).timestamp()
    assert window_end("2026-10-04T02+1100 Australia/Lord_Howe") == half + 1800
