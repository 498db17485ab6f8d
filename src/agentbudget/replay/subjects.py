"""Tasks of a replay, and the way of a call through their limits, worked out once for calls alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from agentbudget.domain.budget import Budget
from agentbudget.domain.verdict import StopReport
from agentbudget.errors import ConfigurationError
from agentbudget.governor.final import Keep
from agentbudget.governor.plan import NOTHING, Amounts, Line
from agentbudget.governor.task import Task
from agentbudget.governor.values import Estimate, Kind
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.trace.events import TaskOpened
from agentbudget.trace.tally import Tally

if TYPE_CHECKING:
    from agentbudget.governor.governor import Governor
    from agentbudget.replay.book import Entry

KINDS = {"model": Kind.MODEL, "tool": Kind.TOOL}
"""The rules compare kinds by identity; a decoded string is equal, but another object."""


class _Nobody:
    """Stands for the governor of a recorded task: no other process can stop it, which its ledger says."""

    ledger = MemoryLedger()


_NOBODY = _Nobody()


class Named(NamedTuple):
    """A recorded call as far as the rules look at it."""

    kind: str
    name: str


class Route(NamedTuple):
    """What is the same for all calls of one kind and name within the same tasks."""

    tasks: tuple[Subject, ...]
    called: Named
    lines: Sequence[Line]
    entries: tuple[Entry, ...]
    looped: bool
    """Whether a budget among them has loop rules: others only report."""


class Held(msgspec.Struct, frozen=True, gc=False):
    """A replayed call in flight."""

    route: Route
    lines: Sequence[Line]
    entries: tuple[Entry, ...]
    amounts: Amounts
    estimate: Estimate
    unreserved: bool = False
    """Whether observe mode let it go on although it was refused: nothing was held, so nothing is an overrun."""


class Used(NamedTuple):
    """What the last model call of a task read and wrote, in tokens."""

    input: int
    output: int
    cached: bool


class Counts(msgspec.Struct, frozen=True, gc=False):
    """The counts of a recorded usage that limits know of."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0


class Subject(Task):
    """A recorded task under replay: a live task's state, without a governor behind it."""

    recorded: Budget = Budget()
    """The budget of the recording."""
    offset: float = 0.0
    """Recorded time less the monotonic reading that deadlines are judged by."""
    closed_at: float = 0.0
    pending: StopReport | None = None
    """A tool call was refused that the task can do without: its next model call is refused for it."""
    landed: bool = False
    """Whether what a last answer may cost was counted."""
    routes: dict[tuple[Any, ...], Route] = msgspec.field(default_factory=dict)
    rung: int = 0
    """Its place on a ladder of models."""
    model_calls: int = 0
    """The calls made so far."""
    used: Used | None = None
    """What the last of them took."""
    decisions: int = 0
    diverged: bool = False

    @classmethod
    def of(cls, event: TaskOpened, *, parent: Subject | None, budget: Budget, recorded: Budget) -> Subject:
        """The task that *event* opened, under *budget* instead of the *recorded* one."""
        opened = event.at if event.clock is None else event.clock
        return cls(
            cast("Governor", _NOBODY),  # only a live report asks its governor for more
            event.task,
            event.name,
            budget,
            parent,
            event.tags,
            event.thread,
            event.scope or ("task", event.task),
            opened,
            Tally(event.task),
            recorded=recorded,
            offset=event.at - opened,
            closed_at=event.at,
        )

    @property
    def root_diverged(self) -> bool:
        """Whether its root task left the recording."""
        return cast("Subject", self.root).diverged

    def kept_of(self, stored: dict[str, Any]) -> Amounts:
        """What a call must leave for the last answer: as recorded, and where that is the tenth of a limit that is
        another one here, the tenth of this one."""
        kept = Amounts(**{name: stored[name] for name in Amounts._fields if name in stored})
        if self.budget is self.recorded:
            return kept
        before, now = Keep.of(self.recorded).least, Keep.of(self.budget).least
        return Amounts(*[new if was == old else was for was, old, new in zip(kept, before, now, strict=True)])

    def keep_seconds(self, stored: dict[str, Any]) -> None:
        """Keep time back for the last answer, as recorded, or the same part of another deadline."""
        seconds = float(stored.get("seconds", 0.0))
        if self.budget is not self.recorded and seconds == Keep.of(self.recorded).seconds:
            seconds = Keep.of(self.budget).seconds
        if self.keep is None or self.keep.seconds != seconds:
            self.keep = Keep(least=NOTHING, seconds=seconds)


def budget_from(stored: dict[str, Any]) -> Budget | None:
    """The recorded budget; None where a foreign or damaged trace has one that cannot be read."""
    try:
        return Budget.from_dict(stored)
    except (ConfigurationError, TypeError):
        return None
