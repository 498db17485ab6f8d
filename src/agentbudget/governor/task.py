"""A live task: its budget, its place in the tree and what is in flight."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import msgspec
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


class Task(msgspec.Struct, eq=False, weakref=True):
    """One task of a governor. Mutable, guarded by the governor's lock; compared by identity."""

    governor: Governor
    id: str
    name: str
    budget: Budget
    """Replaced by `declare` alone."""
    parent: Task | None
    tags: dict[str, str]
    thread: str
    scope: tuple[str, str]
    opened: float
    tally: Tally
    closed: float = 0.0
    ancestors: tuple[Task, ...] = ()
    """The tasks it draws on, innermost first."""
    lines: tuple[Line, ...] = ()
    """Its limits, as the ledger keeps them."""
    marks: tuple[Line, ...] = ()
    """What its calls take so that a stop from another process is seen."""
    tool_lines: dict[str, Line | None] = {}
    """Limits of single tools, as far as they were asked for."""
    spent: int = 0
    """Nano-dollars settled, tasks within it included."""
    block: bool = False
    """Whether a block of code opens and closes it, whatever runs join in."""
    roots: int = 0
    status: str = "open"
    stop: StopReport | None = None
    holds: dict[str, Hold] = {}
    failed: dict[object, Failed] = {}
    """Operations whose last attempt failed, by fingerprint."""
    recent: list[tuple[str, str, int]] = []
    """Kind, name and cost of the last calls, oldest first."""
    keep: Keep | None = None
    """What ordinary calls leave for a last answer; None where nobody will ask for one."""
    kept: Amounts = NOTHING
    """What the last admitted model call left for it."""
    last_answer: str = ""
    """Of a stopped task: empty, `"allowed"` once somebody lands it with an answer, `"used"` after that."""
    lenient: bool = False
    """Whether a tool call without room is only refused, not the end of the task: whoever set it lands the task."""
    watch: LoopWatch | None = None
    """What its loop rules remember; None before the first tool call."""
    loop: StopReport | None = None
    """Why its next call is refused: a loop was found."""
    replied: bool = False
    """Whether a model has replied: from then on, tool calls between two replies are one decision."""
    nudges: dict[str, str] = {}
    """What its agents should be told about their loops, by graph run."""
    file: str = ""

    def __post_init__(self) -> None:
        parent = self.parent
        if parent is not None:
            self.ancestors = (parent, *parent.ancestors)
            self.tags = {**parent.tags, **self.tags}
            self.thread = self.thread or parent.thread
            self.file = parent.file
        self.declare(self.budget)

    def declare(self, budget: Budget) -> None:
        """Take *budget* as the limits from now on; what was spent stays spent."""
        self.budget = budget
        self.marks = marks_of(self.id, self.governor.ledger)
        scope, lines = (self.scope,), []
        for meter, place, most, label in _kinds(budget.limits()):
            lines.append(Line(Account(scope, meter), place, most, label, self.id))
        self.lines = tuple(lines)
        self.tool_lines = {}

    def tool_line(self, tool: str) -> Line | None:
        """The limit on calls of *tool*, if the budget has one."""
        try:
            return self.tool_lines[tool]
        except KeyError:
            most = self.budget.tool_limit(tool)
            line = None
            if most is not None:
                account = Account((self.scope, ("tool", tool)), Meter.TOOL_CALLS)
                line = Line.of(account, most, f"tools[{tool!r}]", self.id)
            self.tool_lines[tool] = line
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
        return [line.account for line in (*self.marks, *self.lines, *self.tool_lines.values()) if line is not None]

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
        call = hold.call
        self.charged(call.kind, call.name, cost)
        self.holds.pop(call.id, None)
        if not self.holds:
            self.holds = {}  # an empty dictionary keeps the memory it once had
        if call.fingerprint is not None:
            if failed:
                self._remember_failure(hold)
            elif self.failed:
                self.failed.pop(call.fingerprint, None)

    def charged(self, kind: str, name: str, cost: int) -> None:
        """A call was settled at *cost* nano-dollars."""
        self.spent += cost
        recent = self.recent
        recent.append((kind, name, cost))
        if len(recent) > LAST_CALLS:
            del recent[0]

    def forget(self, hold: Hold) -> None:
        """The call of *hold* never ran."""
        self.holds.pop(hold.call.id, None)

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


@lru_cache(maxsize=256)
def _kinds(limits: tuple[tuple[Meter, int], ...]) -> tuple[tuple[Meter, int, int | None, str], ...]:
    """The *limits* that the ledger keeps, as lines have them. Cost is kept without a limit, too."""
    most: dict[Meter, int | None] = {Meter.COST: None, **dict(limits)}
    return tuple(
        (meter, Amounts._fields.index(meter.value), amount, f"max_{meter.value}") for meter, amount in most.items()
    )
