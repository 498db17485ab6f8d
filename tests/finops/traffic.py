"""Calls by minute as services have them, and what the alarm rules say of them: for tests and benchmarks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import pi, sin
from typing import Any

from agentbudget.domain.budget import Limit
from agentbudget.domain.windows import window_start
from agentbudget.finops.alarms.activity import Activity
from agentbudget.finops.alarms.alert import Alert
from agentbudget.finops.alarms.rules import Watched, judge, standing
from tests.finops.traces import START

MINUTES = 24 * 60
Minutes = dict[int, tuple[int, int]]
"""Nano-dollars and calls by minute since 1970."""
PRICE = 2_000_000
"""Nano-dollars of a call."""
BUG_AT = 25 * MINUTES + 10 * 60
"""Minutes after `START`: the 26th at 10 in the morning."""


def traffic(days: int, *, seed: int, bug: float = 1.0, bug_at: int = BUG_AT) -> Minutes:
    """Calls by minute from `START`, with the shape of a day, bursts, and *bug* times as many from *bug_at* on."""
    dice = random.Random(seed)
    first, minutes, burst = int(START // 60), {}, 1.0
    for minute in range(days * MINUTES):
        hour = minute % MINUTES / 60
        if minute % 20 == 0:
            burst = dice.lognormvariate(0, 0.5)
        wanted = 4 * (1.1 + sin((hour - 9) / 12 * pi)) * burst * (bug if minute >= bug_at else 1)
        calls = max(0, round(dice.gauss(wanted, wanted**0.5)))
        if calls:
            minutes[first + minute] = (sum(round(PRICE * dice.lognormvariate(0, 0.3)) for _ in range(calls)), calls)
    return minutes


def watched(dollars: float, **options: Any) -> Watched:
    limit = Limit("cost", round(dollars, 2), scope="team", window="month")
    return Watched(limit=limit, names={"team": "cx"}, **options)


def watch(budget: Watched, minutes: Minutes, start: int, end: int) -> Iterator[tuple[int, list[Alert]]]:
    """What the rules say each minute from *start* to *end* (after `START`), with hysteresis but no forecast."""
    activity, firing = Activity(minutes), set[str]()
    for minute in range(start, end):
        at = START + minute * 60
        begun = window_start(budget.window(at))
        assert begun is not None
        now = standing(budget, at=at, spent=activity.cost(at, at - begun))
        alerts = judge(budget, now, activity, forecast=None, firing=firing)
        firing = {alert.key for alert in alerts}
        yield minute, alerts


def month(minutes: Minutes) -> float:
    """Dollars of 30 days like these."""
    days = (max(minutes) - min(minutes)) / MINUTES
    return sum(cost for cost, _ in minutes.values()) / 10**9 * 30 / days
