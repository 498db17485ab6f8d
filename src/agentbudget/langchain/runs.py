"""The process-wide register of runs: which tasks pay for a run, and which attempt it is.

LangChain calls every node a run. Whatever the number of handlers, governors and copies, one run is one attempt: the
first handler that hears of it resolves all of its tasks and reserves once; later ones join.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from uuid import UUID

import msgspec

from agentbudget.domain.verdict import StopReport
from agentbudget.governor.hold import Hold
from agentbudget.governor.reports import Reports
from agentbudget.governor.task import Task
from agentbudget.governor.values import Call, Kind, Outcome, Result
from agentbudget.langchain import content

Ended = tuple[tuple[Task, ...], tuple[object, ...]]
"""What is remembered of a run that ended: who pays, and which handlers it belongs to."""
_SWEEP_EVERY = 512
_ENDED_MOST = 1024


class Attempt:
    """A model or tool call in flight, with one hold for each governor or later handler that pays for it."""

    __slots__ = (
        "_watched",
        "bytes",
        "call",
        "chunks",
        "heard_by",
        "holds",
        "instead",
        "next_look",
        "refused",
        "requests",
        "sent",
        "status",
    )

    def __init__(self, call: Call, *, heard_by: object) -> None:
        self.call = call
        self.heard_by = heard_by
        """The handler that counts the chunks of a stream: the first that heard of the attempt."""
        self.holds: list[Hold] = []
        self.chunks = 0
        self.bytes = 0
        self.next_look = 0
        self.requests = 0
        """HTTP requests seen so far (`transport.watch`); 0 where nobody watches."""
        self.status: int | None = None
        """HTTP status of the answer to the last one."""
        self.sent: bool | None = None
        """Whether anything of the last one was sent, as far as its connection tells."""
        self.refused: StopReport | None = None
        """Why a repeated request was refused; then none leaves any more."""
        self.instead = ""
        """The outcome, where what was called was not run: `Outcome.CACHED` for a kept result."""
        self._watched: tuple[asyncio.Task[object], Callable[[asyncio.Task[object]], None]] | None = None

    def pays(self, task: Task) -> bool:
        """Whether *task* has reserved for this attempt."""
        return any(task in hold.tasks for hold in self.holds)

    @property
    def is_stale(self) -> bool:
        """Whether it has been in flight for longer than its lease."""
        hold = self.holds[0]
        governor = hold.tasks[0].governor
        return governor.clock.monotonic() - hold.renewed > governor.lease_seconds

    def settle(self, result: Result, *, flush: bool = True) -> None:
        """Charge every hold with what the attempt really took."""
        self._unwatch()
        if self.instead:
            result = msgspec.structs.replace(result, outcome=self.instead)
        for hold in self.holds:
            governor = hold.tasks[0].governor
            governor.settle(hold, content.for_recorder(result, governor.recorder), flush=flush)

    def repeat(self, number: int, result: Result) -> StopReport | None:
        """The client repeats the request for the *number*-th time, since it ended with *result*: charge, and reserve
        anew for the next one; the reason where it is refused."""
        again: list[Hold] = []
        for hold in self.holds:
            governor = hold.tasks[0].governor
            governor.settle(hold, content.for_recorder(result, governor.recorder), flush=False)
        for hold in self.holds:
            suffix = f":{len(again) + 1}" if again else ""
            call = msgspec.structs.replace(hold.call, id=f"{self.call.id}.{number}{suffix}", layer="sdk")
            answer = hold.tasks[0].governor.admit(hold.tasks, call)
            if not isinstance(answer, Hold):
                for taken in again:
                    taken.tasks[0].governor.release(taken)
                return answer
            again.append(answer)
        self.holds = again
        return None

    def release(self) -> None:
        """Give every hold back: the attempt never ran."""
        self._unwatch()
        for hold in self.holds:
            hold.tasks[0].governor.release(hold)

    def watch(self, task: asyncio.Task[object], lost: Callable[[asyncio.Task[object]], None]) -> None:
        """Call *lost* when the asyncio task that makes the call is over and the attempt is not."""
        task.add_done_callback(lost)
        self._watched = (task, lost)

    def _unwatch(self) -> None:
        if self._watched is not None:
            task, lost = self._watched
            task.remove_done_callback(lost)
            self._watched = None


class Run:
    """One run of the host: its place in the tree, who saw it, who pays for it."""

    __slots__ = (
        "_hex",
        "attempt",
        "blank",
        "id",
        "interrupted",
        "key",
        "node",
        "opened",
        "parent",
        "retried",
        "seen",
        "tasks",
        "within",
    )

    def __init__(self, run_id: UUID, parent: Run | None) -> None:
        self.id = run_id
        self.key = run_id.int
        """The id as a number: it is looked up several times a call, and a UUID is slow to hash."""
        self._hex = ""
        self.parent = parent
        self.tasks: tuple[Task, ...] = parent.tasks if parent is not None else ()
        """Tasks that pay, innermost first."""
        self.seen: tuple[object, ...] = parent.seen if parent is not None else ()
        """Handlers whose task this run belongs to already."""
        self.opened: list[tuple[Task, Reports]] = []
        """Tasks that end with this run."""
        self.attempt: Attempt | None = None
        self.within: str = "" if parent is None else parent.within if parent.attempt is None else parent.attempt.call.id
        """Id of the call it runs in; empty outside any."""
        self.interrupted = False
        self.blank = False
        """Whether it began without input: as a root run, it goes on with a thread and brings nobody's answer."""
        self.node = False
        """Whether it is a node of a LangGraph graph, whose run is then its parent."""
        self.retried = False
        """Whether LangChain's `with_retry` runs it for the second time or later."""

    @property
    def hex(self) -> str:
        """The id in hexadecimal, as traces have it."""
        if not self._hex:
            self._hex = self.id.hex
        return self._hex

    @property
    def root(self) -> Run:
        """The run of its tree that has no parent known here. Found anew: a run that refers to itself would be left to
        the garbage collector, with all that it holds."""
        run = self
        while run.parent is not None:
            run = run.parent
        return run

    @property
    def lane(self) -> str:
        """The agent this run belongs to: the nearest graph run around it; empty outside any graph."""
        run: Run | None = self
        while run is not None:
            if run.node and run.parent is not None:
                return run.parent.hex
            run = run.parent
        return ""

    def add(self, task: Task) -> None:
        """Let *task* and its ancestors pay for this run and everything below it."""
        self.pay(task.chain)

    def pay(self, tasks: Iterable[Task]) -> None:
        """Let *tasks*, innermost first, pay for this run too."""
        known = self.tasks
        self.tasks = (*[new for new in tasks if new not in known], *known) if known else tuple(tasks)

    def is_under(self, other: Run) -> bool:
        """Whether *other* is this run or one of its ancestors."""
        run: Run | None = self
        while run is not None and run is not other:
            run = run.parent
        return run is not None


class Runs:
    """The register. Every operation is a few dictionary accesses, each atomic by itself."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._in_flight: dict[int, Run] = {}
        self._ended: dict[int, Ended] = {}
        self._last_ended: deque[int] = deque()
        self._begun = 0
        self._local = threading.local()

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, run_id: UUID | None) -> Run | None:
        """The run, if it is known and has not ended."""
        return self._runs.get(run_id.int) if run_id is not None else None

    def find(self, run_id: UUID | None) -> Run | None:
        """The run, or what is remembered of it if it ended lately: work it left behind still belongs to its tasks."""
        if run_id is None:
            return None
        run = self._runs.get(run_id.int)
        if run is not None:
            return run
        ended = self._ended.get(run_id.int)
        if ended is None:
            return None
        run = Run(run_id, None)
        run.tasks, run.seen = ended
        return run

    def enter(self, run_id: UUID, parent: Run | None) -> Run:
        """The run with this id, made where it is new."""
        run = self._runs.get(run_id.int)
        if run is None:
            run = Run(run_id, parent)
            run = self._runs.setdefault(run.key, run)
        return run

    def leave(self, run_id: UUID) -> Run | None:
        """Take the run out; None where another handler did so before."""
        run = self._runs.pop(run_id.int, None)
        if run is not None and run.tasks and (run.attempt is None or run.attempt.call.kind is Kind.TOOL):
            self._ended[run.key] = (run.tasks, run.seen)
            self._last_ended.append(run.key)
            if len(self._last_ended) > _ENDED_MOST:
                self._ended.pop(self._last_ended.popleft(), None)
        return run

    def begin(self, run: Run, attempt: Attempt) -> None:
        """*attempt* of *run* is in flight."""
        run.attempt = attempt
        self._in_flight[run.key] = run
        self._begun += 1

    def finish(self, run: Run) -> Attempt | None:
        """The attempt of *run*, no longer in flight; None where it was finished before."""
        return run.attempt if self._in_flight.pop(run.key, None) is not None else None

    def finish_under(self, run: Run, result: Result) -> None:
        """Charge the attempts below *run* that never told their end: its own end is theirs."""
        if not self._in_flight:
            return
        for child in list(self._in_flight.values()):
            if child is not run and child.is_under(run):
                self._runs.pop(child.key, None)
                attempt = self.finish(child)
                if attempt is not None:
                    attempt.settle(result)

    def siblings(self, run: Run, batch: int) -> list[Run]:
        """The runs begun before *run* by the same `generate` of *batch* prompts.

        LangChain announces all prompts of a `generate`, one after the other in one thread, before it calls any.
        """
        if batch <= 1:
            return []
        known: tuple[Run | None, int, list[Run]] = getattr(self._local, "batch", (None, 0, []))
        parent, size, begun = known
        if (
            parent is not run.parent
            or size != batch
            or len(begun) >= batch
            or any(r.key not in self._runs for r in begun)
        ):
            begun = []
        self._local.batch = (run.parent, batch, begun)
        return begun

    def stale(self) -> list[Run]:
        """Calls in flight for longer than their lease, looked for once in a while: nobody will tell their end."""
        if self._begun < _SWEEP_EVERY:
            return []
        self._begun = 0
        return [run for run in list(self._in_flight.values()) if run.attempt is not None and run.attempt.is_stale]


def cancelled(error: str = "CancelledError") -> Result:
    """The result of an attempt nobody heard the end of."""
    return Result(outcome=Outcome.CANCELLED, error=error)


def reserve(attempt: Attempt, tasks: tuple[Task, ...]) -> StopReport | None:
    """Reserve *attempt* over *tasks*, once for each governor; a refusal or an error gives everything back."""
    for payers in by_governor(tasks):
        call = attempt.call
        if attempt.holds:
            call = msgspec.structs.replace(call, id=f"{call.id}:{len(attempt.holds) + 1}")
        governor = payers[0].governor
        try:
            answer = governor.admit(payers, content.for_recorder(call, governor.recorder))
        except BaseException:
            attempt.release()
            raise
        if not isinstance(answer, Hold):
            attempt.release()
            return answer
        attempt.holds.append(answer)
    return None


def by_governor(tasks: tuple[Task, ...]) -> Iterable[tuple[Task, ...]]:
    """*tasks*, innermost first, in one group for each governor."""
    if len(tasks) == 1:
        return (tasks,)
    groups: dict[int, tuple[Task, ...]] = {}
    for task in tasks:
        groups[id(task.governor)] = (*groups.get(id(task.governor), ()), task)
    return groups.values()


RUNS = Runs()
"""The one register of this process."""
