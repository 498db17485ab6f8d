"""Windows: when counting restarts. A window is a key, so nothing is ever reset."""

from __future__ import annotations

from bisect import bisect_left
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agentbudget.errors import ConfigurationError


class Window(StrEnum):
    """A calendar period in a named time zone, or never."""

    NEVER = "never"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    def key(self, at: float, timezone: str = "UTC") -> str:
        """The key of the window that holds *at* (seconds since 1970 UTC).

        Keys sort in time. An hour repeated when clocks go back gets two keys, since its offset is part of them;
        a day has 23 or 25 hours then.
        """
        if self is Window.NEVER:
            return ""
        local = datetime.fromtimestamp(at, zone(timezone))
        if self is Window.WEEK:
            year, week, _ = local.isocalendar()
            text = f"{year}-W{week:02}"
        elif self is Window.MONTH:
            text = f"{local:%Y-%m}"
        elif self is Window.DAY:
            text = f"{local:%Y-%m-%d}"
        else:
            text = f"{local:%Y-%m-%dT%H%z}" if self is Window.HOUR else f"{local:%Y-%m-%dT%H:%M%z}"
        return text if timezone == "UTC" else f"{text} {timezone}"


def window_end(key: str) -> float | None:
    """When the window with this *key* ends, in seconds since 1970 UTC; None for the one that never does.

    Days, weeks and months end at local midnight, however many hours they had.
    """
    if not key:
        return None
    text, _, timezone = key.partition(" ")
    if "T" in text:
        return _of_clock(text, timezone)[1]
    if "W" in text:
        year, week = map(int, text.split("-W"))
        day = date.fromisocalendar(year, week, 1) + timedelta(days=7)
    elif text.count("-") == 1:
        year, month = map(int, text.split("-"))
        day = date(year + month // 12, month % 12 + 1, 1)
    else:
        day = date.fromisoformat(text) + timedelta(days=1)
    return datetime(day.year, day.month, day.day, tzinfo=zone(timezone or "UTC")).timestamp()


def window_start(key: str) -> float | None:
    """When the window with this *key* began, in seconds since 1970 UTC; None for the one that never did."""
    if not key:
        return None
    text, _, timezone = key.partition(" ")
    if "T" in text:
        return _of_clock(text, timezone)[0]
    if "W" in text:
        year, week = map(int, text.split("-W"))
        day = date.fromisocalendar(year, week, 1)
    else:
        day = date.fromisoformat(f"{text}-01" if text.count("-") == 1 else text)
    return datetime(day.year, day.month, day.day, tzinfo=zone(timezone or "UTC")).timestamp()


def _of_clock(text: str, timezone: str) -> tuple[float, float]:
    """Start and end of a minute or an hour. Where clocks change within it, it is only the part with its offset."""
    if ":" in text:
        local, seconds = datetime.strptime(text, "%Y-%m-%dT%H:%M%z"), 60
    else:
        local, seconds = datetime.strptime(text, "%Y-%m-%dT%H%z"), 3600
    start, offset = int(local.timestamp()), local.utcoffset()
    place = zone(timezone or "UTC")

    def holds(at: int) -> bool:
        return datetime.fromtimestamp(at, place).utcoffset() == offset

    begins, ends = holds(start), holds(start + seconds - 1)
    change = start + seconds
    if begins != ends:
        change = start + bisect_left(range(start, change), 1, key=lambda at: holds(at) == ends)
    return (float(change), float(start + seconds)) if ends and not begins else (float(start), float(change))


@lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    """The time zone *name*.

    Raises:
        ConfigurationError: no such IANA zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError) as error:
        msg = f"timezone={name!r}: not an IANA time zone such as 'Europe/Berlin'."
        raise ConfigurationError(msg) from error
