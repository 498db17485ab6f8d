"""Recorded calls at today's, dated or declared prices: what they would cost, and which records were wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Never

from agentbudget.domain.money import dollars
from agentbudget.domain.options import refuse_unknown
from agentbudget.replay.importers import Source, events_of
from agentbudget.replay.policy import Policy
from agentbudget.replay.prices import Repricer
from agentbudget.trace.events import CallSettled
from agentbudget.trace.files import OnProblem

MAX_KEPT = 1000
"""Wrong records kept one by one; further ones are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """A call whose recorded cost is not what the prices say. Dollars."""

    call: str
    task: str
    at: float
    """Seconds since 1970 UTC."""
    model: str
    recorded: Decimal
    priced: Decimal
    usage: Mapping[str, int]
    recorded_prices: Mapping[str, Any]
    """The prices it was recorded with, where they are known."""

    @property
    def ratio(self) -> float | None:
        """Recorded over priced."""
        return float(self.recorded / self.priced) if self.priced else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars."""
        known = {name: getattr(self, name) for name in self.__slots__}
        shown = {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in known.items()}
        return {**shown, "ratio": self.ratio}


@dataclass(slots=True)
class ModelTotals:
    """One model in a repricing. Nano-dollars."""

    calls: int = 0
    recorded: int = 0
    priced: int = 0
    wrong: int = 0


class Repriced:
    """The outcome: totals in exact dollars, by model, and the calls that were recorded otherwise."""

    def __init__(self, prices: str) -> None:
        self.prices = prices
        """Version of the price book."""
        self.by_model: dict[str, ModelTotals] = {}
        self.wrong: list[Wrong] = []
        """Model calls of which the recorded cost differs by more than a nano-dollar; at most a thousand are kept."""
        self.wrong_count = 0
        self.unpriced: frozenset[str] = frozenset()
        """Models without a price: their calls keep the recorded cost."""
        self.estimated = 0
        """Calls whose usage was not reported: nothing to check, they keep the recorded cost."""

    @property
    def recorded(self) -> Decimal:
        """What the model calls were recorded to cost."""
        return dollars(sum(total.recorded for total in self.by_model.values()))

    @property
    def cost(self) -> Decimal:
        """What they cost at these prices."""
        return dollars(sum(total.priced for total in self.by_model.values()))

    @property
    def difference(self) -> Decimal:
        """`cost` less `recorded`."""
        return self.cost - self.recorded

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars."""
        return {
            "prices": self.prices,
            "recorded": f"{self.recorded:f}",
            "cost": f"{self.cost:f}",
            "difference": f"{self.difference:f}",
            "wrong_count": self.wrong_count,
            "wrong": [wrong.to_dict() for wrong in self.wrong],
            "unpriced": sorted(self.unpriced),
            "estimated": self.estimated,
            "by_model": {
                model: {
                    "calls": total.calls,
                    "recorded": f"{dollars(total.recorded):f}",
                    "cost": f"{dollars(total.priced):f}",
                    "wrong": total.wrong,
                }
                for model, total in sorted(self.by_model.items())
            },
        }

    def __str__(self) -> str:
        lines = [f"recorded ${self.recorded:f}, at these prices ${self.cost:f} ({self.prices})"]
        for model, total in sorted(self.by_model.items()):
            shown = f"${dollars(total.recorded):f} -> ${dollars(total.priced):f}"
            lines.append(f"  {model:32} {total.calls:8,} calls  {shown}  {total.wrong:,} recorded otherwise")
        if self.unpriced:
            lines.append(f"  no price, recorded cost kept: {', '.join(sorted(self.unpriced))}")
        if self.estimated:
            lines.append(f"  {self.estimated:,} calls without reported usage keep their recorded cost")
        return "\n".join(lines)


def reprice(
    traces: Source,
    *,
    prices: Mapping[str, Any] | str | Path | None = None,
    on: date | None = None,
    on_problem: OnProblem | None = None,
    **unknown: Never,
) -> Repriced:
    """Price every model call of a file, folder, glob, Trace or of events anew, in bounded memory.

    Args:
        traces: what was recorded, in any format that an importer reads.
        prices: overrides in front of the price data.
        on: the day whose prices hold, `date.today()` for today's. By default each call's own day: what then differs was
            recorded with other prices, or wrongly.
        on_problem: is told what was skipped.
    """
    refuse_unknown(unknown, ("prices", "on", "on_problem"), where="reprice")
    repricer = Repricer(Policy(prices={} if prices is None else prices, on=on))
    found = Repriced(repricer.version)
    for event in events_of(traces, on_problem=on_problem):
        if isinstance(event, CallSettled) and event.kind == "model":
            _take(found, event, repricer)
    found.unpriced = frozenset(repricer.unpriced)
    return found


def _take(found: Repriced, event: CallSettled, repricer: Repricer) -> None:
    total = found.by_model.setdefault(event.name, ModelTotals())
    total.calls += 1
    total.recorded += event.cost
    if event.source != "reported" and event.outcome not in {"refused", "cached"}:
        found.estimated += 1
        total.priced += event.cost
        return
    cost = repricer.settled(event, None, 0).cost
    total.priced += cost
    if abs(cost - event.cost) <= 1:
        return
    total.wrong += 1
    found.wrong_count += 1
    if len(found.wrong) < MAX_KEPT:
        found.wrong.append(
            Wrong(
                call=event.call,
                task=event.tasks[0] if event.tasks else "",
                at=event.at,
                model=event.name,
                recorded=dollars(event.cost),
                priced=dollars(cost),
                usage=event.usage,
                recorded_prices=event.price or {},
            )
        )
