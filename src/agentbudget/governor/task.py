"""A live task: its budget, its place in the tree and what is in flight."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from agentbudget.domain.accounts import Account, Meter
from agentbudget.domain.budget import Budget
from agentbudget.domain.verdict import StopReport
from agentbudget.governor.plan import NOTHING, Amounts, Line
from agentbudget.governor.stopping import marks_of
from agentbudget.policies.loops import MOST_LANES, LoopWatch
from agentbudget.trace.report import TaskReport
from agentbudget.trace.tally import Tally

if TYPE_CHECKING:
    from agentbudget.governor.final import Keep
    from agentbudget.governor.governor import Governor
    from agentbudget.governor.hold import Hold
    from agentbudget.governor.values import Call, Estimate

_REMEMBERED_FAILURES = 256
LAST_CALLS = 5
"""Calls a refusal shows."""


class Failed(NamedTuple):
    """An operation whose last attempt failed."""

    first: str
    """Id of its first attempt."""
    attempts: int
    """Attempts so far."""
    call: Call
    """The last one, without what it said."""
    estimate: Estimate


class Task:
    """One task of a governor. Mutable, guarded by the governor's lock; compared by identity."""

    __slots__ = (
        "__weakref__",
        "_tool_lines",
        "ancestors",
        "block",
        "budget",
        "closed",
        "failed",
        "file",
        "governor",
        "holds",
        "id",
        "keep",
        "kept",
        "last",
        "last_answer",
        "lenient",
        "lines",
        "loop",
        "marks",
        "name",
        "nudges",
        "opened",
        "parent",
        "replied",
        "roots",
        "scope",
        "status",
        "stop",
        "tags",
        "tally",
        "thread",
        "watch",
    )

    def __init__(  # noqa: PLR0913 - the facts of a task, each named
        self,
        governor: Governor,
        *,
        task_id: str,
        name: str,
        budget: Budget,
        parent: Task | None,
        tags: Mapping[str, str],
        thread: str,
        scope: tuple[str, str],
        opened: float,
    ) -> None:
        self.governor = governor
        self.id = task_id
        self.name = name
        self.parent = parent
        self.ancestors: tuple[Task, ...] = () if parent is None else (parent, *parent.ancestors)
        self.tags: dict[str, str] = {**(parent.tags if parent else {}), **tags}
        self.thread: str = thread or (parent.thread if parent else "")
        self.opened = opened
        self.closed = opened
        self.block = False
        """Whether a block of code opens and closes it, whatever runs join in."""
        self.roots = 0
        self.status = "open"
        self.stop: StopReport | None = None
        self.tally = Tally(task_id)
        self.holds: dict[str, Hold] = {}
        self.failed: dict[object, Failed] = {}
        """Operations whose last attempt failed, by fingerprint."""
        self.last: tuple[tuple[str, str, int], ...] = ()
        """Kind, name and cost of the last calls, oldest first."""
        self.keep: Keep | None = None
        """What ordinary calls leave for a last answer; None where nobody will ask for one."""
        self.kept = NOTHING
        """What the last admitted model call left for it."""
        self.last_answer = ""
        """Of a stopped task: empty, `"allowed"` once somebody lands it with an answer, `"used"` after that."""
        self.lenient = False
        """Whether a tool call without room is only refused, not the end of the task: whoever set it lands the task."""
        self.watch: LoopWatch | None = None
        """What its loop rules remember; None before the first tool call."""
        self.loop: StopReport | None = None
        """Why its next call is refused: a loop was found."""
        self.replied = False
        """Whether a model has replied: from then on, tool calls between two replies are one decision."""
        self.nudges: dict[str, str] = {}
        """What its agents should be told about their loops, by graph run."""
        self.file: str = parent.file if parent else ""
        self.scope = scope
        self.declare(budget)

    def declare(self, budget: Budget) -> None:
        """Take *budget* as the limits from now on; what was spent stays spent."""
        self.budget = budget
        self.marks = marks_of(self.id, self.governor.ledger)
        """What its calls take so that a stop from another process is seen."""
        scope = (self.scope,)
        self.lines = tuple(
            [Line(Account(scope, meter), place, most, label, self.id) for meter, place, most, label in _kinds(budget)]
        )
        self._tool_lines: dict[str, Line | None] = {}

    def tool_line(self, tool: str) -> Line | None:
        """The limit on calls of *tool*, if the budget has one."""
        try:
            return self._tool_lines[tool]
        except KeyError:
            most = self.budget.tool_limit(tool)
            line = None
            if most is not None:
                account = Account((self.scope, ("tool", tool)), Meter.TOOL_CALLS)
                line = Line.of(account, most, f"tools[{tool!r}]", self.id)
            self._tool_lines[tool] = line
            return line

    @property
    def chain(self) -> tuple[Task, ...]:
        """The task and those it draws on, innermost first."""
        return (self, *self.ancestors)

    @property
    def root(self) -> Task:
        """The outermost task this one draws on."""
        return self.ancestors[-1] if self.ancestors else self

    @property
    def spent(self) -> int:
        """Nano-dollars settled, tasks within it included."""
        return self.tally.cost

    @property
    def is_open(self) -> bool:
        """Whether the task has not been closed."""
        return self.status == "open"

    def report(self) -> TaskReport:
        """The report as of now."""
        governor = self.governor
        seconds = governor.clock.monotonic() - self.opened if self.is_open else None
        with governor.lock:
            return self.tally.report(seconds=seconds, trace_path=governor.recorder.path(self.file))

    def accounts(self) -> list[Account]:
        """Every account that only this task uses."""
        return [line.account for line in (*self.marks, *self.lines, *self._tool_lines.values()) if line is not None]

    @property
    def pending_nudge(self) -> str:
        """What the next model call should be told about a loop, the latest of all its agents; empty: nothing."""
        return next(reversed(self.nudges.values()), "")

    def nudge(self, lane: str, text: str) -> None:
        """Let the agent *lane* be told *text*."""
        self.nudges.pop(lane, None)
        self.nudges[lane] = text
        if len(self.nudges) > MOST_LANES:
            del self.nudges[next(iter(self.nudges))]

    def take_nudge(self, lane: str) -> str:
        """The text for the agent *lane* (`Run.lane`), which is delivered by whoever takes it; empty: there is none."""
        with self.governor.lock:
            return self.nudges.pop(lane, "")

    def ended(self, hold: Hold, cost: int, *, failed: bool) -> None:
        """The call of *hold* was settled at *cost* nano-dollars."""
        self.forget(hold)
        call = hold.call
        self.last = (*self.last[1 - LAST_CALLS :], (call.kind, call.name, cost))
        if call.fingerprint is not None:
            if failed:
                self._remember_failure(hold)
            elif self.failed:
                self.failed.pop(call.fingerprint, None)

    def forget(self, hold: Hold) -> None:
        """The call of *hold* is no longer in flight."""
        self.holds.pop(hold.call.id, None)
        if not self.holds:
            self.holds = {}  # an empty dictionary keeps the memory it once had

    def _remember_failure(self, hold: Hold) -> None:
        """The call of *hold* failed; its next attempt is a retry. Bounded: the oldest is forgotten."""
        call = replace(hold.call, texts=None, content=None)
        self.failed.pop(call.fingerprint, None)
        if len(self.failed) >= _REMEMBERED_FAILURES:
            del self.failed[next(iter(self.failed))]
        self.failed[call.fingerprint] = Failed(hold.first or call.id, hold.attempt, call, hold.estimate)

    def next_attempt(self, wait_seconds: float = 0.0) -> StopReport | None:
        """Why one more attempt of what failed last would be refused in *wait_seconds*; None: it has room now."""
        return self.governor.next_attempt(self, wait_seconds=wait_seconds)

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.name!r} {self.status}>"


def _kinds(budget: Budget) -> tuple[tuple[Meter, int, int | None, str], ...]:
    """The limits of *budget* that the ledger keeps, as lines have them. Cost is kept without a limit, too."""
    return _kinds_of(budget.limits())


@lru_cache(maxsize=256)
def _kinds_of(limits: tuple[tuple[Meter, int], ...]) -> tuple[tuple[Meter, int, int | None, str], ...]:
    most: dict[Meter, int | None] = {Meter.COST: None, **dict(limits)}
    return tuple(
        (meter, Amounts._fields.index(meter.value), amount, f"max_{meter.value}") for meter, amount in most.items()
    )
