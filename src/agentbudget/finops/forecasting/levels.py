"""Point forecasts of daily spend. Pure arithmetic; a series is one number a day, oldest first, none negative.

Methods: the mean of the weekday over four weeks, blended with an exponentially weighted mean and a damped drift; for
series that are mostly zero the method of Teunter, Syntetos and Babai (TSB), which forecasts the chance of spend and its
size apart. Where the last week differs from the three before it by more than `REGIME`, only the last week counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

WEEK = 7
MEMORY = 28
"""Days of history that a weekday's mean is taken over."""
SMOOTHING = 0.15
"""Weight of the newest day in exponentially weighted means."""
INTERMITTENT = 0.4
"""Share of days without spend from which a series is forecast by TSB."""
REGIME = 2.0
"""Factor between the last week and the three before it from which older days are left out."""
_DAMPING = 0.93
"""How much of the drift is left each day further."""
_MOST_DRIFT = 1.03
"""Largest daily drift, up or down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Expected spend of the days to come."""

    days: tuple[float, ...]
    method: str
    """`weekday`, `intermittent` or `regime change`."""

    @property
    def total(self) -> float:
        """Their sum."""
        return sum(self.days)


def level(history: Sequence[float], horizon: int) -> Level:
    """The next *horizon* days after *history*, which ends on the day before the first of them."""
    recent = list(history[-MEMORY:])
    if has_new_regime(recent):
        week = recent[-WEEK:]
        return Level(days=(fmean(week),) * horizon, method="regime change")
    if recent.count(0) > INTERMITTENT * len(recent):
        return Level(days=(_intermittent(recent),) * horizon, method="intermittent")
    return Level(days=_weekly(recent, horizon), method="weekday")


def has_new_regime(recent: Sequence[float]) -> bool:
    """Whether the last week is another world than the three weeks before it."""
    if len(recent) < MEMORY:
        return False
    before, now = fmean(recent[:-WEEK]), fmean(recent[-WEEK:])
    quiet = min(sum(value > 0 for value in recent[-WEEK:]), sum(value > 0 for value in recent[:WEEK]))
    return quiet >= WEEK - 2 and (now > REGIME * before or now * REGIME < before)


def _weekly(recent: Sequence[float], horizon: int) -> tuple[float, ...]:
    overall = fmean(recent)
    smoothed = recent[0]
    for value in recent:
        smoothed += SMOOTHING * (value - smoothed)
    drift = _drift(recent)
    days, growth, step = [], 1.0, drift
    for ahead in range(horizon):
        weekday = recent[-1 - (WEEK - 1 - ahead) % WEEK :: -WEEK]
        share = fmean(weekday) / overall if overall and len(recent) >= 2 * WEEK else 1.0
        growth *= step
        step = 1 + (step - 1) * _DAMPING
        days.append(share * (overall + smoothed) / 2 * growth)
    return tuple(days)


def _drift(recent: Sequence[float]) -> float:
    """Daily growth: median of the week-over-week factors, shrunk by half and bounded."""
    weeks = [sum(recent[end - WEEK : end]) for end in range(len(recent), WEEK - 1, -WEEK)][::-1]
    factors = sorted(after / before for before, after in pairwise(weeks) if before > 0)
    if len(factors) < 3 or not (factors[0] > 1 or factors[-1] < 1):  # noqa: PLR2004 - four weeks of one direction
        return 1.0
    daily: float = factors[len(factors) // 2] ** (1 / WEEK)
    return min(max(daily, 1 / _MOST_DRIFT), _MOST_DRIFT)


def _intermittent(recent: Sequence[float]) -> float:
    """TSB: smoothed chance of a day with spend, times smoothed size of one."""
    sizes = [value for value in recent if value > 0]
    if not sizes:
        return 0.0
    chance, size = len(sizes) / len(recent), fmean(sizes)
    for value in recent:
        chance += SMOOTHING * ((value > 0) - chance)
        if value > 0:
            size += SMOOTHING * (value - size)
    return chance * size
