"""A hold: what one governor keeps for one attempt in flight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from agentbudget.governor.values import Call, Estimate

if TYPE_CHECKING:
    from agentbudget.domain.verdict import StopReport
    from agentbudget.governor.plan import Amounts, Line
    from agentbudget.governor.task import Task


class Hold(msgspec.Struct, eq=False):
    """Mutable while the attempt runs (a stream extends it); resolved exactly once."""

    call: Call
    tasks: tuple[Task, ...]
    key: str
    """Id of the reservation in the ledger: that of the call as it was drafted, which may get another when it begins."""
    estimate: Estimate
    lines: Sequence[Line]
    reserved: Amounts
    """What the ledger holds under `key`; empty where observe mode let a refused call go on."""
    first: str
    """Id of the first attempt of the operation; empty for a first attempt."""
    attempt: int
    started: float
    renewed: float
    extensions: tuple[tuple[str, Amounts], ...] = ()
    begun: bool = False
    """Whether the call is on record: it is about to run, or running."""
    resolved: bool = False

    @property
    def parts(self) -> list[tuple[str, Amounts]]:
        """Ids and amounts of the reservations behind this hold: the call's own, then its extensions."""
        return [(self.key, self.reserved), *self.extensions]


class Refusal(NamedTuple):
    """A call that was not reserved, not yet on record."""

    hold: Hold
    """What would have been reserved; it holds nothing."""
    stop: StopReport
    latch: Task
    """The task whose limit refused."""
    short: bool
    """Whether an account had no room, which a smaller call or a settled one may change."""
