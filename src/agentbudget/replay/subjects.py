"""Tasks of a replay, and the way of a call through their limits, worked out once for calls alike."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from agentbudget.domain.budget import Budget
from agentbudget.domain.verdict import StopReport
from agentbudget.errors import ConfigurationError
from agentbudget.governor.final import Keep
from agentbudget.governor.plan import NOTHING, Amounts, Line
from agentbudget.governor.task import LAST_CALLS, Task
from agentbudget.governor.values import Estimate, Kind
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.trace.events import TaskOpened

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
    lines: list[Line]
    entries: tuple[Entry, ...]
    looped: bool
    """Whether a budget among them has loop rules: others only report."""


class Held(msgspec.Struct, frozen=True, gc=False):
    """A replayed call in flight."""

    route: Route
    lines: list[Line]
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

    __slots__ = (
        "_recent", "closed_at", "decisions", "diverged", "landed", "model_calls", "offset", "pending", "recorded",
        "routes", "rung", "spent", "used",
    )  # fmt: skip

    def __init__(self, event: TaskOpened, *, parent: Subject | None, budget: Budget, recorded: Budget) -> None:
        opened = event.at if event.clock is None else event.clock
        super().__init__(
            cast("Governor", _NOBODY),  # only a live report asks its governor for more
            task_id=event.task,
            name=event.name,
            budget=budget,
            parent=parent,
            tags=event.tags,
            thread=event.thread,
            scope=event.scope or ("task", event.task),
            opened=opened,
        )
        self.offset = event.at - opened
        """Recorded time less the monotonic reading that deadlines are judged by."""
        self.closed_at = event.at
        self.recorded = recorded
        """The budget of the recording."""
        self.pending: StopReport | None = None
        """A tool call was refused that the task can do without: its next model call is refused for it."""
        self.landed = False
        """Whether what a last answer may cost was counted."""
        self.routes: dict[tuple[Any, ...], Route] = {}
        self.rung = self.model_calls = 0
        """Its place on a ladder of models, and the calls made so far; `used` is what the last one took."""
        self.used: Used | None = None
        self.decisions = 0
        self.diverged = False
        self.spent: int = 0
        """Nano-dollars settled, tasks within it included."""

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

    def remember_call(self, kind: str, name: str, cost: int) -> None:
        """A call was settled at *cost* nano-dollars."""
        self._recent.append((kind, name, cost))

    @property
    def last(self) -> tuple[tuple[str, str, int], ...]:
        """The last calls, oldest first: put together only when a refusal shows them."""
        return tuple(self._recent)

    @last.setter
    def last(self, calls: tuple[tuple[str, str, int], ...]) -> None:
        self._recent = deque(calls, maxlen=LAST_CALLS)


def budget_from(stored: dict[str, Any]) -> Budget | None:
    """The recorded budget; None where a foreign or damaged trace has one that cannot be read."""
    try:
        return Budget.from_dict(stored)
    except (ConfigurationError, TypeError):
        return None
