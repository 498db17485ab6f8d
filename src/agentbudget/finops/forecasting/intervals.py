"""Intervals from a series' own past errors, and how often such intervals held.

Rolling origins: from each day of the past the method forecasts the days that followed it, and the errors it made there
are the errors it is expected to make now (split conformal prediction). The coverage that is reported is measured the
same way: at each origin the interval is made only from errors known by then, and counted if the truth fell inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, log

MINIMUM = 14
"""Days of history below which nothing is promised."""
_LEAST_CHECKS = 6
"""Past intervals below which no coverage is reported."""
_UNSURE = 0.7
"""Logarithm of the factor, each way, where no error is known: a factor of two."""

Total = Callable[[Sequence[float], int], float]
"""Forecast of the sum of the next days, from history and horizon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Factors on a forecast."""

    low: float
    high: float
    coverage: float | None
    """Share of past intervals of this kind that held the truth; None where there were fewer than `_LEAST_CHECKS`."""
    checked: int
    """How many those were."""


def interval(history: Sequence[float], horizon: int, total: Total, *, confidence: float) -> Interval:
    """The interval that holds *confidence* of the truth if the future errs as the past did.

    Where history is too short for forecasts over *horizon* days, shorter ones stand in, widened by the square root of
    how much shorter they are.
    """
    days = len(history)
    span = max(1, min(horizon, (days - MINIMUM) // 2))
    small = sum(history) / days * span / 100 if days else 0.0
    errors = [
        log((sum(history[origin : origin + span]) + small) / (total(history[:origin], span) + small))
        for origin in range(min(MINIMUM, days - span), days - span + 1)
        if small > 0
    ]
    widening = (horizon / span) ** 0.5
    low, high = _quantiles(errors, span, confidence)
    held = checked = 0
    for index in range(span, len(errors)):
        below, above = _quantiles(errors[: index - span + 1], span, confidence)
        held += below <= errors[index] <= above
        checked += 1
    return Interval(
        low=exp(low * widening),
        high=exp(high * widening),
        coverage=held / checked if checked >= _LEAST_CHECKS else None,
        checked=checked,
    )


def _quantiles(errors: Sequence[float], span: int, confidence: float) -> tuple[float, float]:
    """The two-sided conformal quantiles of *errors*: of n the ceil((n + 1) q)-th. Where there is none, which few
    errors mean, the outermost and a part of their spread beyond it.

    Errors of origins within one *span* share most of their days, so n is the number of spans, two a span.
    """
    if not errors:
        return -_UNSURE, _UNSURE
    ordered = sorted(errors)
    tail = (1 - confidence) / 2
    count = 1 + 2 * (len(ordered) - 1) / span
    place = min(1.0, ceil((count + 1) * (1 - tail)) / count)
    steps = len(ordered) - 1
    beyond = _UNSURE / (2 * count) ** 2 if place >= 1 else 0.0
    high = ordered[ceil(place * steps)] + beyond
    low = ordered[floor((1 - place) * steps)] - beyond
    return min(low, 0.0), max(high, 0.0)
