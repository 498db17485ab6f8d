"""A hold: what one governor keeps for one attempt in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agentbudget.governor.values import Call, Estimate

if TYPE_CHECKING:
    from agentbudget.domain.verdict import StopReport
    from agentbudget.governor.plan import Amounts, Line
    from agentbudget.governor.task import Task


class Hold:
    """Mutable while the attempt runs (a stream extends it); resolved exactly once."""

    __slots__ = (
        "attempt",
        "begun",
        "call",
        "estimate",
        "extensions",
        "first",
        "key",
        "lines",
        "renewed",
        "reserved",
        "resolved",
        "retry",
        "started",
        "tasks",
    )

    def __init__(
        self,
        call: Call,
        tasks: tuple[Task, ...],
        *,
        estimate: Estimate,
        lines: list[Line],
        reserved: Amounts,
        first: str,
        attempt: int,
        started: float,
    ) -> None:
        self.call = call
        self.key = call.id
        """Id of the reservation in the ledger; the call itself may get another id when it begins."""
        self.tasks = tasks
        self.estimate = estimate
        self.lines = lines
        self.reserved = reserved
        """What the ledger holds under `key`; empty where observe mode let a refused call go on."""
        self.first = first
        """Id of the first attempt of the operation; empty for a first attempt."""
        self.attempt = attempt
        self.retry = attempt > 1
        """Whether this attempt repeats an operation."""
        self.started = started
        self.renewed = started
        self.extensions: list[tuple[str, Amounts]] = []
        self.begun = False
        """Whether the call is on record: it is about to run, or running."""
        self.resolved = False

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
