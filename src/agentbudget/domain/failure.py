"""What to do while the ledger is out of reach."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from agentbudget.domain.money import MAX_NANOS, Money, nanos
from agentbudget.errors import ConfigurationError

OPEN_COST: Money = "$5"
OPEN_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailOpen:
    """Go on without the ledger, up to *max_cost* dollars and *max_seconds* seconds per outage and process.

    What was admitted meanwhile is journalled, and booked in the ledger when it is back.

    Raises:
        ConfigurationError: an amount or a time that is not above 0, or not finite.
    """

    max_cost: Money = OPEN_COST
    max_seconds: float = OPEN_SECONDS
    max_nanos: int = field(init=False)
    """`max_cost` in nano-dollars."""

    def __post_init__(self) -> None:
        most = nanos(self.max_cost, what="FailOpen(max_cost)")
        if not 0 < most <= MAX_NANOS:
            raise ConfigurationError(f"FailOpen(max_cost={self.max_cost!r}): an amount above 0; or use fail='closed'.")
        seconds = self.max_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise ConfigurationError(f"FailOpen(max_seconds={seconds!r}): a finite number of seconds above 0.")
        object.__setattr__(self, "max_nanos", most)


@dataclass(frozen=True, slots=True)
class FailSlice:
    """Go on without the ledger from what this process leased before, and refuse when that is used up.

    Every call that is admitted so was reserved in the ledger, so the limits hold.
    """


def failure_mode(fail: object) -> FailOpen | FailSlice | None:
    """What an option `fail=` means: None refuses every call.

    Raises:
        ConfigurationError: neither `"closed"`, `"slice"`, `"open"` nor a `FailOpen`.
    """
    if fail == "closed":
        return None
    if fail == "slice":
        return FailSlice()
    if fail == "open":
        return FailOpen()
    if isinstance(fail, FailOpen):
        return fail
    raise ConfigurationError(f"fail={fail!r}: 'closed', 'slice', 'open' or FailOpen(max_cost='$5', max_seconds=300).")
