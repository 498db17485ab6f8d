"""Forecasts against what most dashboards do: month-end error and how often the interval held, on five shapes of spend.

    python benchmarks/forecast.py

Synthetic: 40 series a shape, 60 days of history, then a month forecast on its days 4, 8, 15 and 22. Mean relative error
of the month's total, beside the month-to-date run rate and the mean of the last seven days; the share of intervals
that held the rest of the month (meant: 80 %); what the forecast itself reported as its coverage, measured on the
series' own past; and the middle width of the interval (upper over lower end).
"""

# ruff: noqa: PLR2004, S311 - the shapes are numbers, their chance is seeded
from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from statistics import fmean, median

from agentbudget.finops.forecasting.forecast import CONFIDENCE
from agentbudget.finops.forecasting.intervals import interval
from agentbudget.finops.forecasting.levels import level

HISTORY, MONTH, SERIES = 60, 30, 40
LEAST_COVERAGE = 0.75
"""Least share that must hold on every shape without a break in it."""

Shape = Callable[[random.Random, int, float], float]


def shapes(shift: int) -> dict[str, Shape]:
    """A day's spend, from chance, day and weekday level."""
    return {
        "steady": lambda dice, _day, base: base * dice.lognormvariate(0, 0.1),
        "bursty": lambda dice, _day, base: base * dice.lognormvariate(0, 0.6) * (4 if dice.random() < 0.05 else 1),
        "intermittent": lambda dice, _day, _base: 0.0 if dice.random() < 0.7 else 300 * dice.lognormvariate(0, 0.8),
        "growth 1.5 %/d": lambda dice, day, base: base * 1.015**day * dice.lognormvariate(0, 0.2),
        "3x shift": lambda dice, day, base: base * dice.lognormvariate(0, 0.2) * (3 if day >= shift else 1),
    }


def total(history: Sequence[float], horizon: int) -> float:
    """The forecast under test."""
    return level(history, horizon).total


def judge(name: str) -> tuple[dict[str, float], float, float, float]:
    """Mean errors by method, share held, share reported, middle width."""
    errors: dict[str, list[float]] = {"agentbudget": [], "run rate": [], "7-day mean": []}
    held, reported, widths = [], [], []
    for seed in range(SERIES):
        dice = random.Random(seed)
        make = shapes(HISTORY + dice.choice([1, 4, 9, 15]))[name]
        spend = [make(dice, day, 130.0 if day % 7 < 5 else 50.0) for day in range(HISTORY + MONTH)]
        for gone in (3, 7, 14, 21):
            past, rest = spend[: HISTORY + gone], sum(spend[HISTORY + gone :])
            month, left = sum(past[HISTORY:]), MONTH - gone
            truth = (month + rest) or 1.0
            ahead = total(past, left)
            told = {
                "agentbudget": month + ahead,
                "run rate": month / gone * MONTH,
                "7-day mean": month + fmean(past[-7:]) * left,
            }
            for method, value in told.items():
                errors[method].append(abs(value - truth) / truth)
            band = interval(past, left, total, confidence=CONFIDENCE)
            held.append(ahead * band.low <= rest <= ahead * band.high)
            widths.append(band.high / band.low)
            reported += [band.coverage] if band.coverage is not None else []
    means = {method: fmean(values) for method, values in errors.items()}
    return means, fmean(held), fmean(reported), median(widths)


def main() -> int:
    """Print the table; 1 where intervals without a break held less than `LEAST_COVERAGE`."""
    print(f"{'shape':16}{'agentbudget':>12}{'run rate':>10}{'7-day':>8}{'held':>8}{'reported':>10}{'width':>8}")
    least = 1.0
    for name in shapes(0):
        errors, held, reported, width = judge(name)
        told = "".join(f"{error:>{size}.3f}" for error, size in zip(errors.values(), (12, 10, 8), strict=True))
        print(f"{name:16}{told}{held:>8.2f}{reported:>10.2f}{width:>8.2f}")
        least = least if name == "3x shift" else min(least, held)
    return int(least < LEAST_COVERAGE)


if __name__ == "__main__":
    sys.exit(main())
