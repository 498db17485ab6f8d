"""A live task: its budget, its place in the tree and what is in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agentbudget.domain.accounts import Account, Meter
from agentbudget.domain.budget import Budget
from agentbudget.domain.verdict import StopReport
from agentbudget.governor.plan import Line
from agentbudget.trace.report import TaskReport
from agentbudget.trace.tally import Tally

if TYPE_CHECKING:
    from agentbudget.governor.governor import Governor
    from agentbudget.governor.hold import Hold

_REMEMBERED_FAILURES = 256
_LAST_CALLS = 5


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
        "last",
        "lines",
        "name",
        "opened",
        "parent",
        "roots",
        "scope",
        "status",
        "stop",
        "tags",
        "tally",
        "thread",
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
        self.failed: dict[object, tuple[str, int]] = {}
        """Operations whose last attempt failed: fingerprint to (id of the first attempt, attempts so far)."""
        self.last: deque[tuple[str, str, int]] = deque(maxlen=_LAST_CALLS)
        self.file: str = parent.file if parent else ""
        self.scope = scope
        self.declare(budget)

    def declare(self, budget: Budget) -> None:
        """Take *budget* as the limits from now on; what was spent stays spent."""
        self.budget = budget
        most = dict(budget.limits())
        limits = [(Meter.COST, most.pop(Meter.COST, None)), *most.items()]
        self.lines = tuple(
            Line.of(Account((self.scope,), meter), amount, f"max_{meter.value}", self.id) for meter, amount in limits
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
        return [line.account for line in (*self.lines, *self._tool_lines.values()) if line is not None]

    def remember_failure(self, fingerprint: object, first: str, attempts: int) -> None:
        """The operation failed; its next attempt is a retry. Bounded: the oldest is forgotten."""
        if len(self.failed) >= _REMEMBERED_FAILURES:
            del self.failed[next(iter(self.failed))]
        self.failed[fingerprint] = (first, attempts)

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.name!r} {self.status}>"
