"""Tasks: opened, resumed, topped up, stopped and closed; how long closed ones are remembered."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from agentbudget.domain.accounts import Meter, check_name
from agentbudget.domain.budget import Budget
from agentbudget.domain.money import Money, nanos
from agentbudget.domain.verdict import StopReport
from agentbudget.errors import ConfigurationError
from agentbudget.governor import plan, record, retrying, stopping
from agentbudget.governor.final import Keep
from agentbudget.governor.reports import Reports
from agentbudget.governor.streams import Streams
from agentbudget.governor.task import Task
from agentbudget.governor.values import Call, Kind, Outcome, Result
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.trace import events
from agentbudget.trace.report import TaskReport
from agentbudget.trace.tally import Tally

if TYPE_CHECKING:
    from agentbudget.governor.governor import Governor

_RECENT_TASKS = 1024
_NO_LIMITS: list[dict[str, Any]] = []


class Tasks(Streams):
    """The part of a governor that opens, closes and remembers the tasks whose calls it admits."""

    reports: Reports
    """Reports of the last closed tasks, oldest first."""
    _recent: OrderedDict[str, Task]
    """Closed ones, by id."""
    _by_thread: OrderedDict[str, Task]
    """The latest of each thread."""

    def open_task(
        self,
        name: str,
        budget: Budget,
        *,
        task_id: str = "",
        parent: Task | None = None,
        tags: Mapping[str, str] | None = None,
        thread: str = "",
        scope: tuple[str, str] | None = None,
    ) -> Task:
        """Open a task; with a *parent*, a child that draws on it.

        `scope` is the scope of its own accounts, by default `("task", task_id)`.

        Raises:
            ConfigurationError: a task with this id is open.
        """
        task_id = task_id or uuid.uuid4().hex
        task = Task(
            cast("Governor", self),
            task_id,
            name,
            budget,
            parent,
            dict(tags) if tags else {},
            thread,
            scope or ("task", task_id),
            self.clock.monotonic(),
            Tally(task_id),
        )
        opened = events.TaskOpened(
            at=self.clock.now(),
            task=task_id,
            name=name,
            parent=parent.id if parent else "",
            thread=task.thread,
            tags=task.tags,
            budget=budget.terms,
            limits=[record.shared(limit) for limit in self.limits] if self.limits else _NO_LIMITS,
            scope=scope if scope != ("task", task_id) else None,
            clock=task.opened,
        )
        with self.lock:
            if task_id in self._open:
                msg = f"task_id={task_id!r} is open already; tasks that run at the same time need ids of their own."
                raise ConfigurationError(msg)
            if not task.file:
                task.file = self.recorder.file_for(task_id, name, opened.at)
            self._open[task_id] = task
            if thread:
                self._keep(self._by_thread, thread, task)
            self.recorder.record(task.chain, opened)
        return task

    def resume(self, task: Task, budget: Budget | None = None, *, lift: bool = True) -> None:
        """Go on with a task that was closed or stopped: its spend stays, *budget* replaces its limits.

        The time it was closed for does not count. With *lift*, or another budget, its latch is lifted: whether a call
        is affordable is judged anew, against everything spent so far.
        """
        with self.lock:
            other = budget is not None and budget != task.budget
            was_open = task.is_open
            if budget is not None and other:
                task.declare(budget)
            lifted = (lift or other) and stopping.unlatch(task, self._open.values())
            if not task.is_open:
                task.status = "open"
                task.opened += self.clock.monotonic() - task.closed
                self._open[task.id] = task
                self._recent.pop(task.id, None)
            if other or lifted or not was_open:
                resumed = events.TaskResumed(
                    at=self.clock.now(),
                    task=task.id,
                    budget=task.budget.to_dict() if other else {},
                    redeclared=other,
                    lifted=lift or other,
                    clock=task.opened,
                )
                self.recorder.record(task.chain, resumed)

    def enter(self, task: Task) -> None:
        """One more root run belongs to *task*."""
        with self.lock:
            task.roots += 1

    def leave(self, task: Task, status: str) -> bool:
        """A root run of *task* ended; with the last one the task is closed, which is what is returned."""
        with self.lock:
            task.roots -= 1
            return task.roots <= 0 and self.close_task(task, status)

    def close_task(self, task: Task, status: str = "completed") -> bool:
        """Close *task*: calls still in flight are charged as cancelled, its report is filed.

        Returns False where it was closed before.
        """
        with self.lock:
            if task.status != "open":
                return False
            for hold in list(task.holds.values()) if task.holds else ():
                self.settle(hold, Result(outcome=Outcome.CANCELLED, error="never ended"), flush=False)
            task.loop = None  # it came to an end by itself
            task.status = "stopped" if task.stop is not None and status != "interrupted" else status
            task.closed = self.clock.monotonic()
            closed = events.TaskClosed(
                at=self.clock.now(),
                task=task.id,
                status=task.status,
                cost=task.spent,
                seconds=task.closed - task.opened,
            )
            self.recorder.emit(task.chain, closed)
            if task.file and task.parent is None:
                self.recorder.release(task.file)
            del self._open[task.id]
            self._keep(self._recent, task.id, task)
            self.reports.file(task)
        return True

    def report(self, task: Task) -> TaskReport:
        """The report of *task* as of now."""
        return task.report()

    def find_task(self, task_id: str) -> Task | None:
        """The task with this id, open or recently closed."""
        task = self._open.get(task_id)
        return self._recent.get(task_id) if task is None else task

    def task_of_thread(self, thread: str) -> Task | None:
        """The latest task of a LangGraph thread."""
        return self._by_thread.get(thread)

    def top_up(
        self, task: Task | str, amount: Money, *, meter: Meter = Meter.COST, grant: str = "", approver: str = ""
    ) -> None:
        """Add to a limit of a task, once per *grant* id, and lift its latch. Dollars, or units of another *meter*.

        Raises:
            ConfigurationError: no such task, no limit on this meter, or an amount that cannot be one.
            ReservationConflictError: the grant was made with another amount.
        """
        found = self.find_task(task) if isinstance(task, str) else task
        if found is None:
            msg = f"task {task!r} is not known here: it was closed long ago or belongs to another process."
            raise ConfigurationError(msg)
        line = next((line for line in found.lines if line.account.meter is meter), None)
        if line is None:
            msg = f"task {found.id!r} has no limit on {meter.value} that could be raised."
            raise ConfigurationError(msg)
        raised = nanos(amount, what="amount") if meter is Meter.COST else _units(amount)
        grant = grant or uuid.uuid4().hex
        self.ledger.top_up(grant, line.account, raised)
        with self.lock:
            stopping.unlatch(found, self._open.values())
            self.recorder.emit(
                found.chain,
                events.LimitRaised(
                    at=self.clock.now(),
                    task=found.id,
                    meter=meter.value,
                    amount=raised,
                    grant=grant,
                    approver=approver,
                ),
            )

    def stop_task(self, task: Task, stop: StopReport) -> None:
        """Latch *task*: nothing more is admitted for it or its children."""
        kind, _, name = stop.call.partition(" ")
        with self.lock:
            if task.stop is None:
                task.stop = stop
                denied = events.CallDenied(
                    at=self.clock.now(), call="", tasks=(task.id,), kind=kind, name=name, stop=stop.to_dict()
                )
                self.recorder.emit((task,), denied)

    def keep_back(self, task: Task, cost: int | None = None) -> None:
        """Keep a part of the limits of *task* for a last answer.

        That is *cost* nano-dollars of its cost limit, by default a tenth of every limit, and always enough to answer
        once more from the context of the call before.

        Raises:
            ConfigurationError: *cost* without a cost limit, or not below it.
        """
        task.keep = Keep.of(task.budget, cost)

    def lift(self, task: Task) -> None:
        """Let *task* go on after a stop, by hand or at a limit: whether a call is affordable is judged anew."""
        stopping.lift(task)
        with self.lock:
            if stopping.unlatch(task, self._open.values()):
                lifted = events.TaskResumed(at=self.clock.now(), task=task.id, clock=task.opened)
                self.recorder.emit(task.chain, lifted)

    def time_left(self, task: Task, *, last: bool = False) -> float | None:
        """Seconds until *task* is out of time, less those kept for a last answer unless this is it; None: no limit."""
        most = task.budget.max_seconds
        if most is None:
            return None
        kept = 0.0 if last or task.keep is None else task.keep.seconds
        return max(0.0, most - kept - (self.clock.monotonic() - task.opened))

    def out_of_time(self, task: Task, call: str) -> StopReport:
        """Stop *task*, whose deadline passed while *call* (`"model gpt-4o"`) was running."""
        stop = plan.out_of_time(task, call, now=self.clock.monotonic())
        self.stop_task(task, stop)
        return stop

    def next_attempt(self, task: Task, *, wait_seconds: float = 0.0) -> StopReport | None:
        """Why one more attempt of what failed last in *task*, made in *wait_seconds*, would be refused; None: it has
        room now. Nothing is recorded, held or stopped; what is kept back for a last answer is not looked at.
        """
        if self.mode == "observe":
            return None
        failed = next(reversed(task.failed.values()), None)
        call = failed.call if failed is not None else Call(id="", kind=Kind.MODEL, name="call")
        stop = plan.standing_refusal(task.chain, call, now=self.clock.monotonic() + wait_seconds)
        if stop is not None or failed is None:
            return stop
        often = retrying.too_often(task.chain, call, failed.attempts + 1)
        if often is not None:
            return often[0]
        lines = plan.tightest(self._lines(task.chain, call))
        amounts = plan.estimated_amounts(call, failed.estimate, retry=True)
        probe = uuid.uuid4().hex
        refused = self._reserve(probe, call, lines, amounts, task)
        if refused is not None:
            return refused[0]
        if plan.postings_for(lines, amounts):
            self.ledger.release(probe)
        return None

    def allow_last_answer(self, task: Task) -> bool:
        """Whether *task*, which was stopped, may make one last call (`Call.final`): once, until its stop is lifted."""
        with self.lock:
            if task.last_answer:
                return False
            task.last_answer = "allowed"
            return True

    def record_outcome(self, task: Task, outcome: str, *, ok: bool | None) -> None:
        """Record what *task* was worth, for unit economics and calibration."""
        check_name(outcome, what="outcome")
        with self.lock:
            self.recorder.emit(
                task.chain, events.OutcomeRecorded(at=self.clock.now(), task=task.id, outcome=outcome, ok=ok)
            )

    def _keep(self, store: OrderedDict[str, Task], key: str, task: Task) -> None:
        """Keep *task* among the recent ones; one that is nowhere kept any more is forgotten."""
        replaced = store.pop(key, None)
        store[key] = task
        if replaced is not None and replaced is not task:
            self._forget(replaced)
        if len(store) > _RECENT_TASKS:  # one by one: as much is freed as is made, so the garbage collector sleeps
            self._forget(store.popitem(last=False)[1])

    def _forget(self, task: Task) -> None:
        """Forget a closed task. Its accounts go with it if they are its own, in memory, and nobody can go on with it:
        what a thread or a handler spent outlives the task, and a durable ledger keeps its records by its own rule."""
        if task.status == "open" or task.id in self._recent or self._by_thread.get(task.thread) is task:
            return
        resumable = task.thread and task.status in {"stopped", "interrupted"}
        task.status = "forgotten"
        if task.scope[0] == "task" and isinstance(self.ledger, MemoryLedger) and not resumable:
            self.ledger.collect(task.accounts())


def _units(amount: object) -> int:
    if isinstance(amount, bool) or not isinstance(amount, int) or amount < 1:
        msg = f"amount={amount!r}: a whole number of units from 1."
        raise ConfigurationError(msg)
    return amount
