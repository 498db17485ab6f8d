"""Spend and calls by minute. Immutable; every question takes a time that grows with the logarithm of the minutes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from math import ceil

MINUTE = 60
_BUCKET = 5
"""Minutes of one count in the baseline of calls."""
_DAY = 24 * 60


class Activity:
    """What happened, by minute since 1970 UTC."""

    def __init__(self, minutes: Mapping[int, tuple[int, int]]) -> None:
        """*minutes*: nano-dollars and calls of each minute that had any."""
        self._minutes = sorted(minutes)
        self._cost = [0, *accumulate(minutes[minute][0] for minute in self._minutes)]
        self._calls = [0, *accumulate(minutes[minute][1] for minute in self._minutes)]
        self._baselines: dict[tuple[int, int], float] = {}

    @property
    def first(self) -> float:
        """When the first minute began, in seconds since 1970; infinity where there is none."""
        return self._minutes[0] * MINUTE if self._minutes else float("inf")

    def cost(self, until: float, seconds: float) -> int:
        """Nano-dollars of the *seconds* before *until*, whole minutes."""
        first, last = self._span(until, seconds)
        return self._cost[last] - self._cost[first]

    def calls(self, until: float, seconds: float) -> int:
        """Calls of the *seconds* before *until*, whole minutes."""
        first, last = self._span(until, seconds)
        return self._calls[last] - self._calls[first]

    def usual_calls(self, until: float, *, days: int) -> float:
        """Most calls that five minutes of this hour of the day had on the *days* before *until*: the 99th percentile,
        and at least the mean over all hours. Today does not count, so that a spike is not its own baseline."""
        hour = int(until // 3600)
        key = (hour, days)
        if key not in self._baselines:
            counts: list[int] = []
            for back in range(1, days + 1):
                start = hour * MINUTE - back * _DAY
                ends = range(start + _BUCKET, start + MINUTE + _BUCKET, _BUCKET)
                counts.extend(self.calls(end * MINUTE, _BUCKET * MINUTE) for end in ends)
            counts.sort()
            top = counts[min(len(counts) - 1, ceil(0.99 * len(counts)) - 1)]
            span = days * _DAY * MINUTE
            mean = self.calls(until - _DAY * MINUTE, span) / (days * _DAY / _BUCKET)
            self._baselines[key] = max(float(top), mean)
        return self._baselines[key]

    def _span(self, until: float, seconds: float) -> tuple[int, int]:
        last = int(until // MINUTE)
        first = last - round(seconds / MINUTE)
        return bisect_left(self._minutes, first), bisect_left(self._minutes, last)
