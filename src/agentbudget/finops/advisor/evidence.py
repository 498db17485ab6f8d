"""Whether recorded outcomes say that one model does a kind of task as well as another.

The difference of two success rates is judged by Newcombe's interval (method 10): R. G. Newcombe, "Interval estimation
for the difference between independent proportions", Statistics in Medicine 17 (1998), from E. B. Wilson's score limits
(1927). One-sided at 95 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from math import sqrt

from agentbudget.finops.advisor.record import RAN, Record

LEAST_RUNS = 30
"""Judged runs of each model below which nothing is recommended."""
_Z = 1.6449
"""95 %, one-sided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Judged root tasks of one name that one model alone served."""

    name: str
    model: str
    provider: str
    runs: int
    ok: int
    cost: int
    """Nano-dollars of those tasks' model calls."""

    @property
    def rate(self) -> float:
        """Share that succeeded."""
        return self.ok / self.runs

    def __str__(self) -> str:
        return f"{self.model} {self.ok:,} of {self.runs:,} ({self.rate:.0%})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models on one kind of task."""

    now: Judged
    other: Judged

    @property
    def worst_difference(self) -> float:
        """The success rate of `other` less that of `now` is at least this, with 95 % confidence."""
        return least_difference(self.other.ok, self.other.runs, self.now.ok, self.now.runs)

    def holds(self, margin: float) -> bool:
        """Whether `other` is shown to be worse by at most *margin*."""
        return min(self.now.runs, self.other.runs) >= LEAST_RUNS and self.worst_difference >= -margin


def judged(record: Record, ok: str) -> list[Judged]:
    """The judged runs of *record* by name and model; *ok* is SQL over `tasks`."""
    found = record.history.rows(f"""
        WITH used AS (
            SELECT root, coalesce(nullif(model, ''), name) AS model, any_value(provider) AS provider, sum(cost) AS cost
            FROM calls WHERE {RAN} GROUP BY ALL
        ), alone AS (
            SELECT root, any_value(model) AS model, any_value(provider) AS provider, sum(cost) AS cost
            FROM used GROUP BY root HAVING count(*) = 1
        )
        SELECT coalesce(told.name, '') AS name, model, any_value(provider) AS provider, count(*) AS runs,
               count(*) FILTER (good) AS ok, sum(cost)::BIGINT AS cost
        FROM alone JOIN (SELECT task, name, {ok} AS good FROM tasks) AS told ON told.task = root
        WHERE good IS NOT NULL GROUP BY ALL ORDER BY ALL
    """)  # noqa: S608 - constants, and a condition made of known dimensions
    return [Judged(**row) for row in found]


def comparisons(runs: list[Judged]) -> Iterator[Comparison]:
    """Every two models that served the same kind of task, both ways round."""
    by_name: dict[str, list[Judged]] = {}
    for each in runs:
        by_name.setdefault(each.name, []).append(each)
    for found in by_name.values():
        yield from (Comparison(now=now, other=other) for now, other in permutations(found, 2))


def least_difference(ok: int, runs: int, other_ok: int, other_runs: int, *, z: float = _Z) -> float:
    """Lower limit of `ok/runs - other_ok/other_runs` at *z* standard deviations (95 %); -1 without any run.

    Raises:
        ValueError: not 0 <= ok <= runs.
    """
    if not 0 <= ok <= runs or not 0 <= other_ok <= other_runs:
        raise ValueError(f"{ok} of {runs}, {other_ok} of {other_runs}: from 0 to all of them.")
    if not runs or not other_runs:
        return -1.0
    rate, other = ok / runs, other_ok / other_runs
    low, high = _wilson(ok, runs, z)[0], _wilson(other_ok, other_runs, z)[1]
    return rate - other - sqrt((rate - low) ** 2 + (high - other) ** 2)


def _wilson(ok: int, runs: int, z: float) -> tuple[float, float]:
    rate, square = ok / runs, z**2
    middle = (rate + square / (2 * runs)) / (1 + square / runs)
    half = z * sqrt(rate * (1 - rate) / runs + square / (4 * runs**2)) / (1 + square / runs)
    return middle - half, middle + half
