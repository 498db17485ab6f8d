"""What the core knows of a replay: its answers. The replay itself is an edge, which nothing here imports."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Protocol

from agentbudget.domain.verdict import StopReport
from agentbudget.trace.report import TaskReport


class Replayed(Protocol):
    """A trace under other rules; `agentbudget.replay.whatif.WhatIf` is one. Money is in exact dollars."""

    @property
    def cost(self) -> Decimal:
        """What would have been settled."""

    @property
    def recorded(self) -> Decimal:
        """What was settled."""

    @property
    def saved(self) -> Decimal:
        """`recorded` less `cost`; may be negative."""

    @property
    def cost_range(self) -> tuple[Decimal, Decimal]:
        """`cost` at the fewest and the most tokens that another tokenizer may count."""

    @property
    def diverged_at(self) -> Any:
        """The first decision that is not the recorded one; None: exact."""

    @property
    def stopped_by(self) -> StopReport | None:
        """The first refusal that would have stopped a task."""

    @property
    def label(self) -> str:
        """What may be claimed of `cost`: `exact`, `lower bound` or `estimate`."""

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What an estimate rests on."""

    @property
    def unpriced(self) -> frozenset[str]:
        """Models and tools that new prices do not know."""

    @property
    def verdicts(self) -> list[Any]:
        """Every decision, in order."""

    @property
    def report(self) -> TaskReport:
        """The numbers of the trajectory as it would have been."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""

    def _repr_html_(self) -> str:
        """What a notebook shows."""
