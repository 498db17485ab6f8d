"""What an adviser says: levers with money attached, and how sure each of them is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from agentbudget.domain.money import dollars
from agentbudget.errors import ConfigurationError

Confidence = Literal["exact", "estimate", "upper bound"]
"""`exact`: the recorded tokens at known prices. `estimate`: it rests on what `reason` says. `upper bound`: no more than
that can be saved, and perhaps nothing."""

Kind = Literal["model", "caching", "repeats", "batch", "context", "retries", "loops", "ceiling", "machines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """Nano-dollars, from `low` to `high`; `expected` lies between. Negative where the change costs more."""

    low: int
    expected: int
    high: int

    def __post_init__(self) -> None:
        if not self.low <= self.expected <= self.high:
            msg = f"Saving(low={self.low}, expected={self.expected}, high={self.high}): in this order."
            raise ConfigurationError(msg)

    @classmethod
    def exactly(cls, amount: int) -> Saving:
        """*amount*, no less and no more."""
        return cls(low=amount, expected=amount, high=amount)

    @classmethod
    def up_to(cls, amount: int) -> Saving:
        """Anything up to *amount*; ranked by it."""
        return cls(low=min(0, amount), expected=amount, high=amount)

    @classmethod
    def between(cls, *amounts: int) -> Saving:
        """The first of *amounts* is expected; the others widen the range."""
        return cls(low=min(amounts), expected=amounts[0], high=max(amounts))

    def times(self, factor: float) -> Saving:
        """So many times as much."""
        return Saving(
            low=round(self.low * factor), expected=round(self.expected * factor), high=round(self.high * factor)
        )

    def to_dict(self) -> dict[str, str]:
        """Dollars as decimal strings."""
        return {item.name: f"{dollars(getattr(self, item.name)):f}" for item in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """One change, and what it would save."""

    kind: Kind
    title: str
    saving: Saving
    """Over the recorded time."""
    month: Saving | None
    """Over a month of 30.44 days at the recorded rate; None where less than a day, or no times, are recorded."""
    confidence: Confidence
    reason: str
    """Why it is no surer than that."""
    computed: str
    """How the number came about."""
    change: str
    """Code or a setting."""
    verify: str
    """A command that shows it, or whether it held."""
    risk: str

    def __post_init__(self) -> None:
        if self.confidence not in get_args(Confidence) or self.kind not in get_args(Kind):
            msg = f"Lever(kind={self.kind!r}, confidence={self.confidence!r}): no such kind or confidence."
            raise ConfigurationError(msg)
        if self.confidence == "exact" and self.saving.low != self.saving.high:
            msg = f"Lever({self.title!r}): what is exact has no range."
            raise ConfigurationError(msg)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars."""
        known = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value.to_dict() if isinstance(value, Saving) else value for name, value in known.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """All levers of a history, dearest first. They overlap: their savings must not be added up."""

    path: str
    recorded: int
    """Nano-dollars that were recorded."""
    days: float | None
    """Days from the first call to the last; None where no times were recorded."""
    levers: tuple[Lever, ...]
    notes: tuple[str, ...]
    """What the numbers leave out, and what could not be judged, each with its share."""
    unread: int = 0
    """Lines and files that could not be read."""

    @property
    def at_most(self) -> int:
        """Nano-dollars that all levers together cannot exceed: the sum of their upper ends, and never more than was
        spent. It is no saving: levers on the same calls count twice in the sum. Machines are paid beside the calls."""
        tokens = sum(max(0, lever.saving.high) for lever in self.levers if lever.kind != "machines")
        machines = sum(max(0, lever.saving.high) for lever in self.levers if lever.kind == "machines")
        return min(tokens, self.recorded) + machines

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars."""
        return {
            "path": self.path,
            "recorded": f"{dollars(self.recorded):f}",
            "days": self.days,
            "at_most": f"{dollars(self.at_most):f}",
            "levers": [lever.to_dict() for lever in self.levers],
            "notes": list(self.notes),
            "unread": self.unread,
        }

    def __str__(self) -> str:
        from agentbudget.finops.advisor.rendering import text  # noqa: PLC0415 - it reads these values

        return text(self)
