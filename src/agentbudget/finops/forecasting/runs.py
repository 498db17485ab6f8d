"""Where a running task will end, from tasks of its kind that ended."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from math import ceil, floor

from agentbudget.domain.money import dollars, format_dollars
from agentbudget.errors import ConfigurationError
from agentbudget.finops.dimensions import quoted
from agentbudget.finops.history import History

MINIMUM = 20
"""Past tasks that had come as far; below, nothing is promised."""
CONFIDENCE = 0.8
"""Share of tasks that an interval is meant to hold."""
_NEAREST = 200
"""Past tasks compared with, the nearest in cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunForecast:
    """Cost of a task at its end, in dollars."""

    spent: Decimal
    expected: Decimal | None
    """The middle of the past; None: fewer than `MINIMUM` past tasks had come as far. Likewise `low` and `high`."""
    low: Decimal | None
    high: Decimal | None
    tasks: int
    """Past tasks that it rests on."""

    def __str__(self) -> str:
        if self.expected is None or self.low is None or self.high is None:
            return f"${self.spent:.4f} so far; no forecast: {self.tasks} past tasks came as far, {MINIMUM} are needed"
        return (
            f"this task will end at about ${self.expected:.2f}, between ${self.low:.2f} and ${self.high:.2f} "
            f"(from {self.tasks} of its kind)"
        )


class RunForecaster:
    """Past tasks of one kind, as their running costs.

    A task that has spent c after k model calls is compared with past tasks that made more than k calls, the nearest in
    cost after k calls; what those still spent from there is what it may still spend.
    """

    def __init__(self, trajectories: Sequence[Sequence[int]]) -> None:
        """*trajectories*: for each past task its cost after each model call, in nano-dollars, ascending.

        Raises:
            ConfigurationError: a trajectory that falls: running costs only grow.
        """
        for costs in trajectories:
            if any(later < earlier for earlier, later in pairwise(costs)):
                msg = f"a trajectory falls ({[format_dollars(cost) for cost in costs[:4]]} …): give running costs."
                raise ConfigurationError(msg)
        self._past = [tuple(costs) for costs in trajectories if costs]
        self._at: dict[int, list[tuple[int, int]]] = {}

    @classmethod
    def of(cls, history: History, name: str) -> RunForecaster:
        """From the root tasks called *name* in *history* that ended by themselves: stopped ones say too little."""
        found = history.rows(f"""
            SELECT list(running ORDER BY ended, call) AS costs FROM (
                SELECT root, ended, call,
                       (sum(cost) OVER (PARTITION BY root ORDER BY ended, call))::BIGINT AS running
                FROM calls JOIN (SELECT task AS id FROM tasks WHERE parent = '' AND name = {quoted(name)}
                                 AND status = 'completed') ON id = root
                WHERE kind = 'model' AND outcome <> 'denied'
            ) GROUP BY root
        """)  # noqa: S608 - the name is quoted
        return cls([row["costs"] for row in found])

    def at(self, cost: int, model_calls: int) -> RunForecast:
        """The forecast for a task that has spent *cost* nano-dollars in *model_calls* calls."""
        past = self._remaining(model_calls)
        if len(past) < MINIMUM:
            return RunForecast(spent=dollars(cost), expected=None, low=None, high=None, tasks=len(past))
        middle = bisect_left(past, (cost, -1))
        first = max(0, min(middle - _NEAREST // 2, len(past) - _NEAREST))
        rest = sorted(remaining for _, remaining in past[first : first + _NEAREST])
        count, tail = len(rest), (1 - CONFIDENCE) / 2
        low = rest[max(0, floor((count + 1) * tail) - 1)]
        high = rest[min(count - 1, ceil((count + 1) * (1 - tail)) - 1)]
        return RunForecast(
            spent=dollars(cost),
            expected=dollars(cost + rest[count // 2]),
            low=dollars(cost + low),
            high=dollars(cost + high),
            tasks=count,
        )

    def _remaining(self, model_calls: int) -> list[tuple[int, int]]:
        """Cost after *model_calls* calls and what came after, of the past tasks that came as far, cheapest first."""
        if model_calls not in self._at:
            reached = [costs for costs in self._past if len(costs) >= max(1, model_calls)]
            before = model_calls - 1
            self._at[model_calls] = sorted(
                (costs[before] if model_calls else 0, costs[-1] - (costs[before] if model_calls else 0))
                for costs in reached
            )
        return self._at[model_calls]
