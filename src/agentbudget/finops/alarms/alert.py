"""What is told to people: one alert, the same whoever carries it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from agentbudget.domain.alerts import WHOLE, Crossing
from agentbudget.domain.money import format_dollars
from agentbudget.errors import ConfigurationError

Severity = Literal["critical", "error", "warning", "info"]
Status = Literal["firing", "resolved"]
Kind = Literal["threshold", "burn", "exhaustion", "forecast", "spike"]

MAX_KEY = 255
"""Longest dedup key that every receiver takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alarm as it stands. Equal keys are one alarm, whoever raised it and however often."""

    key: str
    kind: Kind
    severity: Severity
    scope: str
    """Whose budget it is: `team=cx`."""
    summary: str
    """One sentence with the numbers, for the night."""
    at: float
    """Seconds since 1970 UTC when it was raised or resolved."""
    status: Status = "firing"
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.key or len(self.key) > MAX_KEY:
            msg = f"alert key {self.key[:60]!r}: from 1 to {MAX_KEY} characters."
            raise ConfigurationError(msg)

    @property
    def time(self) -> str:
        """`at` in ISO 8601, UTC."""
        return datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        told = {name: getattr(self, name) for name in ("key", "kind", "severity", "status", "scope", "summary")}
        return {**told, "at": self.time, "details": self.details}


def of_crossing(crossing: Crossing) -> Alert:
    """The alert of a threshold that a settlement reached: a page at the whole limit, a warning below it."""
    account = crossing.account
    scope = ", ".join(f"{kind}={name}" for kind, name in account.scope)
    return Alert(
        key=f"threshold/{crossing.key}"[:MAX_KEY],
        kind="threshold",
        severity="error" if crossing.threshold >= WHOLE else "warning",
        scope=scope,
        summary=str(crossing),
        at=crossing.at,
        details={
            "threshold": crossing.percent,
            "window": account.window,
            "spent": account.meter.show(crossing.settled),
            "limit": account.meter.show(crossing.limit),
        },
    )


def money(nanos: float) -> str:
    """*nanos* for people: `$12.34`."""
    return format_dollars(round(nanos))
