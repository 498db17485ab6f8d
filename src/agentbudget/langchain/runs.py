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
_TOOL = Kind.TOOL


class Attempt(msgspec.Struct, eq=False):
    """A model or tool call in flight, with one hold for each governor or later handler that pays for it."""

    call: Call
    heard_by: object
    """The handler that counts the chunks of a stream: the first that heard of the attempt."""
    holds: tuple[Hold, ...] = ()
    chunks: int = 0
    bytes: int = 0
    next_look: int = 0
    requests: int = 0
    """HTTP requests seen so far (`transport.watch`); 0 where nobody watches."""
    status: int | None = None
    """HTTP status of the answer to the last one."""
    sent: bool | None = None
    """Whether anything of the last one was sent, as far as its connection tells."""
    refused: StopReport | None = None
    """Why a repeated request was refused; then none leaves any more."""
    instead: str = ""
    """The outcome, where what was called was not run: `Outcome.CACHED` for a kept result."""
    watched: tuple[asyncio.Task[object], Callable[[asyncio.Task[object]], None]] | None = None
    """The asyncio task that makes the call, and what is called when it is over before the attempt is."""

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
        if self.watched is not None:
            self._unwatch()
        if self.instead:
            result = msgspec.structs.replace(result, outcome=self.instead)
        for hold in self.holds:
            governor = hold.tasks[0].governor
            told = result if result.content is None else content.for_recorder(result, governor.recorder)
            governor.settle(hold, told, flush=flush)

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
        self.holds = tuple(again)
        return None

    def release(self) -> None:
        """Give every hold back: the attempt never ran."""
        self._unwatch()
        for hold in self.holds:
            hold.tasks[0].governor.release(hold)

    def watch(self, task: asyncio.Task[object], lost: Callable[[asyncio.Task[object]], None]) -> None:
        """Call *lost* when the asyncio task that makes the call is over and the attempt is not."""
        task.add_done_callback(lost)
        self.watched = (task, lost)

    def _unwatch(self) -> None:
        if self.watched is not None:
            task, lost = self.watched
            task.remove_done_callback(lost)
            self.watched = None


class Run(msgspec.Struct, eq=False):
    """One run of the host: its place in the tree, who saw it, who pays for it."""

    id: UUID
    key: int
    """The id as a number: it is looked up several times a call, and a UUID is slow to hash."""
    parent: Run | None = None
    tasks: tuple[Task, ...] = ()
    """Tasks that pay, innermost first."""
    seen: tuple[object, ...] = ()
    """Handlers whose task this run belongs to already."""
    within: str = ""
    """Id of the call it runs in; empty outside any."""
    opened: tuple[tuple[Task, Reports], ...] = ()
    """Tasks that end with this run."""
    attempt: Attempt | None = None
    interrupted: bool = False
    blank: bool = False
    """Whether it began without input: as a root run, it goes on with a thread and brings nobody's answer."""
    node: bool = False
    """Whether it is a node of a LangGraph graph, whose run is then its parent."""
    retried: bool = False
    """Whether LangChain's `with_retry` runs it for the second time or later."""

    @property
    def hex(self) -> str:
        """The id in hexadecimal, as traces have it."""
        return f"{self.key:032x}"

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
        tasks, seen = ended
        return Run(run_id, run_id.int, tasks=tasks, seen=seen)

    def enter(self, run_id: UUID, parent: Run | None) -> Run:
        """The run with this id, made where it is new."""
        key = run_id.int
        run = self._runs.get(key)
        if run is not None:
            return run
        if parent is None:
            run = Run(run_id, key)
        else:
            around = parent.attempt
            within = parent.within if around is None else around.call.id
            run = Run(run_id, key, parent, parent.tasks, parent.seen, within)
        return self._runs.setdefault(key, run)

    def leave(self, run_id: UUID) -> Run | None:
        """Take the run out; None where another handler did so before."""
        run = self._runs.pop(run_id.int, None)
        if run is not None and run.tasks and (run.attempt is None or run.attempt.call.kind is _TOOL):
            self._ended[run.key] = (run.tasks, run.seen)
            self._last_ended.append(run.key)
            if len(self._last_ended) > _ENDED_MOST:
                self._ended.pop(self._last_ended.popleft(), None)
        return run

    def end(self, run_id: UUID) -> tuple[Run, Attempt] | None:
        """Take out the call with this id, which ended; None where another handler did so before."""
        run = self.leave(run_id)
        if run is None or run.attempt is None or self._in_flight.pop(run.key, None) is None:
            return None
        return run, run.attempt

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
        """The runs begun before *run* by the same `generate` of *batch* prompts, more than one.

        LangChain announces all prompts of a `generate`, one after the other in one thread, before it calls any.
        """
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
    for payers in (tasks,) if len(tasks) == 1 else by_governor(tasks):
        call = attempt.call
        if attempt.holds:
            call = msgspec.structs.replace(call, id=f"{call.id}:{len(attempt.holds) + 1}")
        governor = payers[0].governor
        if call.content is not None:
            call = content.for_recorder(call, governor.recorder)
        try:
            answer = governor.admit(payers, call)
        except BaseException:
            attempt.release()
            raise
        if not isinstance(answer, Hold):
            attempt.release()
            return answer
        attempt.holds = (*attempt.holds, answer)
    return None


def by_governor(tasks: tuple[Task, ...]) -> Iterable[tuple[Task, ...]]:
    """*tasks*, innermost first, in one group for each governor."""
    groups: dict[int, tuple[Task, ...]] = {}
    for task in tasks:
        groups[id(task.governor)] = (*groups.get(id(task.governor), ()), task)
    return groups.values()


RUNS = Runs()
"""The one register of this process."""
