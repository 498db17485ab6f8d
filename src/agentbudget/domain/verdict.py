"""Verdicts and stops: what was decided, with the numbers seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentbudget.domain.accounts import Meter

_CALLS = frozenset({Meter.MODEL_CALLS, Meter.TOOL_CALLS, Meter.RETRIES})
"""What is known exactly before a call."""
_WITHOUT_NUMBERS = {
    "unpriced": "it has no price",
    "ledger": "the ledger is out of reach",
    "closed": "its task was closed long ago",
}
"""Refusals without numbers, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReport:
    """Why a task was stopped, in numbers. Money is in nano-dollars, times in seconds, the rest in units.

    `limit` names what refused: a limit of the budget (`"max_cost"`), a tool limit (`"tools['search']"`), a shared
    limit, or one of `"unpriced"`, `"deadline"`, `"ledger"`, `"loops"`, `"stopped"`.
    """

    limit: str
    scope: str = "task"
    window: str = ""
    meter: str = ""
    requested: int = 0
    settled: int = 0
    reserved: int = 0
    presumed: int = 0
    limit_amount: int | None = None
    kept: int = 0
    """How much of `limit_amount` was out of reach, kept for the last answer of the task."""
    call: str = ""
    """What was refused: `"model gpt-4o"` or `"tool search"`."""
    last_calls: tuple[str, ...] = ()
    """The last calls of the task before the stop, oldest first."""
    detail: str = ""
    """What was seen, where no amount says it: the calls of a loop and what they cost."""
    remedy: str = ""
    """What would have let it go on."""
    resets_at: float | None = None
    """When the window of the limit ends and counting restarts, in seconds since 1970 UTC; None where it never does."""
    task_id: str = ""
    task: str = ""

    @property
    def reason(self) -> str:
        """One sentence with the numbers."""
        if self.detail:
            return f"{self.call} refused: {self.detail}"
        if self.limit_amount is None or not self.meter:
            return f"{self.call} refused: {_WITHOUT_NUMBERS.get(self.limit, self.limit)}"
        meter, where = Meter(self.meter), self.scope + (f" in {self.window}" if self.window else "")
        show = "{:,} s".format if meter is Meter.SECONDS else meter.show
        kept = f", {show(self.kept)} kept for the last answer" if self.kept else ""
        if meter is Meter.SECONDS:
            most, passed = show(self.limit_amount), show(self.settled)
            return f"{self.call} is out of time: {self.limit} of {where} is {most}, {passed} have passed{kept}"
        needs = f"{show(self.requested)} more" if meter in _CALLS else f"up to {show(self.requested)}"
        unsettled = f", {show(self.reserved)} reserved by calls in flight" if self.reserved else ""
        presumed = f", {show(self.presumed)} presumed spent" if self.presumed else ""
        return (
            f"{self.call} needs {needs}, but {self.limit} of {where} is "
            f"{show(self.limit_amount)}: {show(self.settled)} spent{unsettled}{presumed}{kept}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `reason` included."""
        known = {name: getattr(self, name) for name in self.__slots__}
        return {**known, "last_calls": list(self.last_calls), "reason": self.reason}

    def __str__(self) -> str:
        lines = [f"Stopped: {self.reason}."]
        if self.last_calls:
            lines.append(f"  last calls: {'; '.join(self.last_calls)}")
        if self.remedy:
            lines.append(f"  to go on:   {self.remedy}")
        return "\n".join(lines)
