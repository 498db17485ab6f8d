"""Windows: when counting restarts. A window is a key, so nothing is ever reset."""

from __future__ import annotations

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
        if ":" in text:
            return datetime.strptime(text, "%Y-%m-%dT%H:%M%z").timestamp() + 60
        return datetime.strptime(text, "%Y-%m-%dT%H%z").timestamp() + 3600
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
        end = window_end(key) or 0.0
        return end - (60 if ":" in text else 3600)
    if "W" in text:
        year, week = map(int, text.split("-W"))
        day = date.fromisocalendar(year, week, 1)
    else:
        day = date.fromisoformat(f"{text}-01" if text.count("-") == 1 else text)
    return datetime(day.year, day.month, day.day, tzinfo=zone(timezone or "UTC")).timestamp()


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
