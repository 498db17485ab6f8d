"""A folder of runs in one picture: by kind, by how they ended, and the dearest. Memory: a few bytes a run."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from heapq import heappush, heapreplace
from typing import Any

from agentbudget.cli.tables import money, share, table
from agentbudget.domain.money import NANOS_PER_DOLLAR, dollars
from agentbudget.trace.report import TaskReport

MOST_KINDS = 500
"""Kinds that are told apart; further ones are one kind called `OTHERS`."""
OTHERS = "(others)"
_DAY_SECONDS = 86_400


@dataclass(slots=True)
class Kind:
    """Runs of one kind."""

    name: str
    costs: array[int] = field(default_factory=lambda: array("q"))
    """Nano-dollars of each run."""
    model_calls: int = 0
    tool_calls: int = 0
    wasted: Decimal = Decimal(0)
    stopped: int = 0
    unpriced: int = 0
    """Model calls without a price: what they cost is missing."""
    ok: int = 0
    judged: int = 0

    def add(self, report: TaskReport) -> None:
        """One more run."""
        self.costs.append(int(report.cost * NANOS_PER_DOLLAR))
        self.model_calls += report.model_calls
        self.tool_calls += report.tool_calls
        self.wasted += report.wasted
        self.stopped += report.stopped_by is not None
        self.unpriced += report.unpriced_calls
        self.ok += report.ok is True
        self.judged += report.ok is not None

    @property
    def cost(self) -> Decimal:
        """All of them together, in dollars."""
        return dollars(sum(self.costs))

    def quantile(self, part: float) -> Decimal:
        """The cost that *part* of the runs do not exceed, in dollars."""
        ordered = sorted(self.costs)
        return dollars(ordered[max(0, -int(-part * len(ordered) // 1) - 1)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars."""
        return {
            "name": self.name,
            "runs": len(self.costs),
            "cost": f"{self.cost:f}",
            "p50": f"{self.quantile(0.5):f}",
            "p95": f"{self.quantile(0.95):f}",
            "most": f"{self.quantile(1.0):f}",
            "model_calls": self.model_calls,
            "tool_calls": self.tool_calls,
            "wasted": f"{self.wasted:f}",
            "unpriced_calls": self.unpriced,
            "stopped": self.stopped,
            "ok": self.ok,
            "judged": self.judged,
        }


class Runs:
    """What is kept of the runs: `by` is `name` or a tag."""

    def __init__(self, by: str = "name", *, worst: int = 10) -> None:
        self.by = by
        self.kinds: dict[str, Kind] = {}
        self.stops: Counter[str] = Counter()
        self._most = worst
        self._worst: list[tuple[Decimal, int, TaskReport]] = []
        self._number = 0

    def add(self, report: TaskReport) -> None:
        """One more run."""
        name = report.name if self.by == "name" else report.tags.get(self.by, "")
        if name not in self.kinds and len(self.kinds) >= MOST_KINDS:
            name = OTHERS
        self.kinds.setdefault(name, Kind(name)).add(report)
        if report.stopped_by is not None:
            self.stops[report.stopped_by.limit] += 1
        self._number += 1
        entry = (report.cost, -self._number, report)
        if len(self._worst) < self._most:
            heappush(self._worst, entry)
        elif self._most and entry > self._worst[0]:
            heapreplace(self._worst, entry)

    @property
    def worst(self) -> list[TaskReport]:
        """The dearest runs, dearest first."""
        return [report for _, _, report in sorted(self._worst, reverse=True)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        kinds = sorted(self.kinds.values(), key=lambda kind: kind.cost, reverse=True)
        return {
            "by": self.by,
            "kinds": [kind.to_dict() for kind in kinds],
            "stopped_by": dict(self.stops.most_common()),
            "worst": [report.to_dict() for report in self.worst],
        }

    def lines(self) -> list[str]:
        """Tables for a terminal."""
        whole = sum((kind.cost for kind in self.kinds.values()), start=Decimal(0))
        kinds = sorted(self.kinds.values(), key=lambda kind: (-kind.cost, kind.name))
        found = ["", *_kinds(kinds, self.by, whole)]
        if self.stops:
            found += ["", *table(("stopped by", "runs"), [(name, f"{n:,}") for name, n in self.stops.most_common()])]
        found += ["", *_worst(self.worst)]
        if any(kind.unpriced for kind in kinds):
            found += ["", "≥: calls without a price are missing; unknown: none of them has one"]
        return found


def priced(cost: Decimal, unpriced: int) -> str:
    """*cost*, which is only a part of it where *unpriced* calls are missing."""
    if not unpriced:
        return money(cost)
    return f"≥{money(cost)}" if cost else "unknown"


def _kinds(kinds: list[Kind], by: str, whole: Decimal) -> list[str]:
    head = ("kind" if by == "name" else by, "runs", "cost", "of all", "p50", "p95", "most", "wasted", "stopped", "ok")
    rows = [
        (
            kind.name or "(none)",
            f"{len(kind.costs):,}",
            priced(kind.cost, kind.unpriced),
            share(kind.cost, whole),
            *(money(kind.quantile(part)) if kind.cost or not kind.unpriced else "" for part in (0.5, 0.95, 1.0)),
            money(kind.wasted),
            f"{kind.stopped:,}",
            f"{kind.ok:,} of {kind.judged:,}" if kind.judged else "",
        )
        for kind in kinds
    ]
    return table(head, rows)


def _worst(reports: list[TaskReport]) -> list[str]:
    head = ("dearest runs", "task", "cost", "model calls", "tool calls", "status")
    rows = [
        (
            report.name or "(none)",
            report.task_id,
            priced(report.cost, report.unpriced_calls),
            f"{report.model_calls:,}",
            f"{report.tool_calls:,}",
            report.status,
        )
        for report in reports
    ]
    return table(head, rows, left=2)
