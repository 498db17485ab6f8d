"""Who spent what: a table of spend by any dimensions, whose rows add up to the total, untagged spend included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from agentbudget.domain.money import dollars
from agentbudget.errors import ConfigurationError
from agentbudget.finops.dimensions import TagRules, expression
from agentbudget.finops.history import History

_MEASURES = """
    count(*) FILTER (outcome <> 'denied') AS calls,
    count(*) FILTER (outcome = 'denied') AS denied,
    coalesce(sum(cost), 0)::BIGINT AS cost,
    coalesce(sum(cost) FILTER (wasted), 0)::BIGINT AS wasted,
    coalesce(sum(cost) FILTER (estimated), 0)::BIGINT AS estimated,
    coalesce(sum(avoided), 0)::BIGINT AS avoided,
    coalesce(sum(refused), 0)::BIGINT AS refused,
    coalesce(sum(input_tokens), 0)::BIGINT AS input_tokens,
    coalesce(sum(cache_read_tokens), 0)::BIGINT AS cache_read_tokens,
    coalesce(sum(output_tokens), 0)::BIGINT AS output_tokens,
    count(*) FILTER (kind = 'model' AND outcome <> 'denied' AND NOT priced) AS unpriced_calls
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Spend of one group of calls. Money in exact dollars.

    `wasted` and `estimated` are parts of `cost`; `avoided` (a cache answered) and `refused` (what denied calls would
    have reserved) are no charges and in no sum with `cost`.
    """

    key: tuple[str | None, ...]
    """The group, one value a dimension; None: the calls have none (untagged)."""
    calls: int
    denied: int
    cost: Decimal
    wasted: Decimal
    estimated: Decimal
    avoided: Decimal
    refused: Decimal
    input_tokens: int
    cache_read_tokens: int
    output_tokens: int
    unpriced_calls: int
    """Model calls without a price: their cost is missing from `cost`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars."""
        known = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in known.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Spend by `dimensions`. The rows add up to `total` to the nano-dollar."""

    dimensions: tuple[str, ...]
    rows: tuple[Share, ...]
    """Dearest first."""
    total: Share
    untagged: dict[str, Decimal]
    """Dollars of calls that have no value, by dimension."""
    contradictions: dict[str, Decimal]
    """Dollars of calls on which the rules of a tag disagree (the first one won), by tag."""

    def share(self, part: Decimal) -> float:
        """*part* of the total, from 0 to 1; 0 of nothing."""
        return float(part / self.total.cost) if self.total.cost else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars."""
        return {
            "dimensions": list(self.dimensions),
            "rows": [row.to_dict() for row in self.rows],
            "total": self.total.to_dict(),
            "untagged": {name: f"{amount:f}" for name, amount in self.untagged.items()},
            "contradictions": {name: f"{amount:f}" for name, amount in self.contradictions.items()},
        }


def attribute(history: History, by: Sequence[str], *, rules: TagRules | None = None) -> Attribution:
    """Spend of *history* by the dimensions *by* (see `agentbudget.finops.dimensions`), each call once.

    Raises:
        ConfigurationError: no dimension, the same one twice, or one that does not exist.
    """
    if not by or len(set(by)) != len(by):
        msg = f"by={list(by)!r}: at least one dimension, each once, e.g. ['feature', 'model']."
        raise ConfigurationError(msg)
    rules = rules or TagRules()
    keys = ", ".join(f"{rules.expression(name)} AS key{index}" for index, name in enumerate(by))
    found = history.rows(f"SELECT {keys}, {_MEASURES} FROM calls GROUP BY ALL")  # noqa: S608 - dimensions are known
    rows = sorted((_share(row, len(by)) for row in found), key=lambda row: (-row.cost, str(row.key)))
    (total,) = history.rows(f"SELECT {_MEASURES} FROM calls")  # noqa: S608 - constant
    return Attribution(
        dimensions=tuple(by),
        rows=tuple(rows),
        total=_share(total, 0),
        untagged={
            name: sum((row.cost for row in rows if row.key[index] is None), start=dollars(0))
            for index, name in enumerate(by)
        },
        contradictions={tag: _cost_of(history, where) for tag, where in rules.contradictions()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCost:
    """What one task took: alone, and with the tasks within it. Dollars."""

    task: str
    name: str
    parent: str
    exclusive: Decimal
    inclusive: Decimal


def task_costs(history: History) -> list[TaskCost]:
    """Exclusive and inclusive cost of every task, dearest first. Summed over all tasks, `exclusive` is the total."""
    found = history.rows("""
        WITH RECURSIVE own AS (
            SELECT task, coalesce(sum(cost), 0)::BIGINT AS cost FROM calls GROUP BY task
        ), within AS (
            SELECT task AS ancestor, task FROM tasks
            UNION
            SELECT within.ancestor, tasks.task FROM within JOIN tasks ON tasks.parent = within.task
        )
        SELECT tasks.task, tasks.name, tasks.parent,
               coalesce(any_value(alone.cost), 0)::BIGINT AS exclusive,
               coalesce(sum(own.cost), 0)::BIGINT AS inclusive
        FROM tasks
        JOIN within ON within.ancestor = tasks.task
        LEFT JOIN own ON own.task = within.task
        LEFT JOIN own AS alone ON alone.task = tasks.task
        GROUP BY tasks.task, tasks.name, tasks.parent
        ORDER BY inclusive DESC, tasks.task
    """)
    return [
        TaskCost(
            task=row["task"],
            name=row["name"],
            parent=row["parent"],
            exclusive=dollars(row["exclusive"]),
            inclusive=dollars(row["inclusive"]),
        )
        for row in found
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCost:
    """What root tasks of one outcome, user, decision … cost. Dollars."""

    unit: str | None
    """None: the root tasks that have none."""
    tasks: int
    """How many root tasks."""
    ok: int
    """Those of them that the user called good."""
    cost: Decimal

    @property
    def each(self) -> Decimal:
        """Dollars a root task."""
        return self.cost / self.tasks

    @property
    def each_ok(self) -> Decimal | None:
        """Dollars of all of them for each good one: what a success costs, failures paid. None without a good one."""
        return self.cost / self.ok if self.ok else None


def unit_costs(history: History, per: str = "outcome") -> list[UnitCost]:
    """What root tasks cost by *per*: `outcome` (what the user recorded) or a dimension such as `user`, `decision`.

    Dearest first; the costs add up to the total.

    Raises:
        ConfigurationError: *per* is neither `outcome` nor a dimension.
    """
    unit = "told" if per == "outcome" else expression(per)
    found = history.rows(f"""
        SELECT {unit} AS unit, count(DISTINCT root) AS tasks, count(DISTINCT root) FILTER (ok) AS ok,
               coalesce(sum(cost), 0)::BIGINT AS cost
        FROM calls LEFT JOIN (SELECT task AS id, outcome AS told, ok FROM tasks) ON id = root
        GROUP BY ALL ORDER BY cost DESC, unit
    """)  # noqa: S608 - dimensions are known
    return [UnitCost(unit=row["unit"], tasks=row["tasks"], ok=row["ok"], cost=dollars(row["cost"])) for row in found]


def _share(row: dict[str, Any], width: int) -> Share:
    values = {item.name: row[item.name] for item in fields(Share) if item.name != "key"}
    money = {name: dollars(values[name]) for name in ("cost", "wasted", "estimated", "avoided", "refused")}
    return Share(key=tuple(row[f"key{index}"] for index in range(width)), **{**values, **money})


def _cost_of(history: History, where: str) -> Decimal:
    (row,) = history.rows(f"SELECT coalesce(sum(cost), 0)::BIGINT AS cost FROM calls WHERE {where}")  # noqa: S608 - made of rules
    return dollars(row["cost"])
