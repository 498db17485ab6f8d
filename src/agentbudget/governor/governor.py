"""The governor: the one place that decides, reserves, settles and emits."""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from os import PathLike
from pathlib import Path
from typing import Any, Never

from agentbudget.domain.accounts import Meter, check_name
from agentbudget.domain.budget import Budget, Limit
from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import Ledger, Refused
from agentbudget.domain.money import Money, nanos
from agentbudget.domain.options import refuse_unknown
from agentbudget.domain.verdict import StopReport
from agentbudget.errors import ConfigurationError, LedgerUnavailableError
from agentbudget.governor import plan, record
from agentbudget.governor.appraisal import Appraiser
from agentbudget.governor.hold import Hold
from agentbudget.governor.record import Recorder
from agentbudget.governor.reports import Reports
from agentbudget.governor.task import Task
from agentbudget.governor.values import Call, Estimate, Outcome, Result
from agentbudget.ledgers import open_ledger
from agentbudget.trace import events
from agentbudget.trace.report import TaskReport
from agentbudget.version import VERSION

_OPTIONS = (
    "ledger",
    "trace",
    "prices",
    "price_file",
    "aliases",
    "limits",
    "on_unpriced",
    "fail",
    "mode",
    "trace_content",
    "sinks",
    "clock",
    "lease_seconds",
)
_RECENT_TASKS = 1024


class Governor:
    """Where money is kept and what is shared. Thread-safe; one per process is the usual number.

    Args:
        ledger: URL of a ledger or a `Ledger`; `memory:` lives and dies with the process.
        trace: a `.jsonl` file or a folder (one file a task); None writes none.
        prices: overrides in front of the price data: a mapping, or a TOML or YAML file.
        price_file: a LiteLLM-format JSON file behind the price data.
        aliases: names as your deployment calls them to names the price data knows.
        limits: shared limits (`Limit`), which every task with their scope must pass.
        on_unpriced: a model without a price under a cost limit is `"refuse"`d, `"estimate"`d at the dearest known
            price, or `"allow"`ed and counted as unpriced.
        fail: with the ledger out of reach, `"closed"` refuses every call.
        mode: `"enforce"`, or `"observe"`: nothing is stopped, everything that would have been is recorded.
        trace_content: `"hashes"` (default: lengths, keyed hashes and names) or `"full"`.
        sinks: called with every event; an error in one is reported once and never reaches the agent.
        clock: for tests.
        lease_seconds: how long a call may be in flight before its reservation is presumed spent.

    Raises:
        TypeError: an unknown option. ConfigurationError: a value that cannot mean anything, a path that cannot be
            written, a price that cannot be read: before anything is paid.
    """

    def __init__(  # noqa: PLR0913 - one keyword per choice is the public face
        self,
        *,
        ledger: str | Ledger = "memory:",
        trace: str | PathLike[str] | None = None,
        prices: Mapping[str, Any] | str | Path | None = None,
        price_file: str | Path | None = None,
        aliases: Mapping[str, str] | None = None,
        limits: Iterable[Limit] = (),
        on_unpriced: str = "refuse",
        fail: str = "closed",
        mode: str = "enforce",
        trace_content: str = "hashes",
        sinks: Sequence[Callable[[events.Event], None]] = (),
        clock: Clock | None = None,
        lease_seconds: float = 900,
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, _OPTIONS, where="Governor")
        _one_of("mode", mode, ("enforce", "observe"))
        _one_of("fail", fail, ("closed",))
        self.clock: Clock = clock or SystemClock()
        self.mode = mode
        self.limits = _shared(limits)
        self.ledger: Ledger = open_ledger(ledger, clock=self.clock) if isinstance(ledger, str) else ledger
        self.appraiser = Appraiser.build(prices=prices, price_file=price_file, aliases=aliases, on_unpriced=on_unpriced)
        self.recorder = Recorder(
            trace,
            content=trace_content,
            sinks=sinks,
            header=events.TraceOpened(
                at=self.clock.now(),
                schema=events.SCHEMA,
                version=VERSION,
                prices=self.appraiser.book.version,
                mode=mode,
                ledger=type(self.ledger).__name__,
            ),
        )
        self.lease_seconds = _positive("lease_seconds", lease_seconds)
        self.reports = Reports()
        """Reports of the last closed tasks, oldest first."""
        self.lock = threading.RLock()
        self._day = (0, date(1970, 1, 1))
        self._open: dict[str, Task] = {}
        self._recent: OrderedDict[str, Task] = OrderedDict()
        self._by_thread: OrderedDict[str, Task] = OrderedDict()

    # -- tasks ---------------------------------------------------------------------------------------------------

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
            self,
            task_id=task_id,
            name=name,
            budget=budget,
            parent=parent,
            tags=tags or {},
            thread=thread,
            scope=scope or ("task", task_id),
            opened=self.clock.monotonic(),
        )
        opened = events.TaskOpened(
            at=self.clock.now(),
            task=task_id,
            name=name,
            parent=parent.id if parent else "",
            thread=task.thread,
            tags=task.tags,
            budget=budget.to_dict(),
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
            if budget is not None and other:
                task.declare(budget)
            if lift or other:
                task.stop = None
            if not task.is_open:
                task.status = "open"
                task.opened += self.clock.monotonic() - task.closed
                self._open[task.id] = task
                self._recent.pop(task.id, None)
                limits = task.budget.to_dict() if other else {}
                resumed = events.TaskResumed(at=self.clock.now(), task=task.id, budget=limits)
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
            if not task.is_open:
                return False
            for hold in list(task.holds.values()):
                self.settle(hold, Result(outcome=Outcome.CANCELLED, error="never ended"), flush=False)
            task.status = "stopped" if task.stop is not None and status != "interrupted" else status
            task.closed = self.clock.monotonic()
            closed = events.TaskClosed(
                at=self.clock.now(),
                task=task.id,
                status=task.status,
                cost=task.tally.cost,
                seconds=task.closed - task.opened,
            )
            self.recorder.record(task.chain, closed)
            self.recorder.flush(task.chain)
            if task.parent is None:
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
        return self._open.get(task_id) or self._recent.get(task_id)

    def task_of_thread(self, thread: str) -> Task | None:
        """The latest task of a LangGraph thread."""
        return self._by_thread.get(thread)

    def top_up(self, task: Task | str, amount: Money, *, grant: str = "", approver: str = "") -> None:
        """Add dollars to the cost limit of a task, once per *grant* id, and lift its latch.

        Raises:
            ConfigurationError: no such task, or an amount that is not money.
        """
        found = self.find_task(task) if isinstance(task, str) else task
        if found is None:
            msg = f"task {task!r} is not known here: it was closed long ago or belongs to another process."
            raise ConfigurationError(msg)
        raised = nanos(amount, what="amount")
        grant = grant or uuid.uuid4().hex
        self.ledger.top_up(grant, found.lines[0].account, raised)
        with self.lock:
            found.stop = None
            self._emit(
                found.chain,
                events.LimitRaised(
                    at=self.clock.now(),
                    task=found.id,
                    meter=Meter.COST.value,
                    amount=raised,
                    grant=grant,
                    approver=approver,
                ),
            )

    def stop_task(self, task: Task, stop: StopReport) -> None:
        """Latch *task*: nothing more is admitted for it or its children."""
        with self.lock:
            if task.stop is None:
                task.stop = stop

    # -- calls ---------------------------------------------------------------------------------------------------

    def admit(self, tasks: tuple[Task, ...], call: Call) -> Hold | StopReport:
        """Reserve the worst case of *call* over every limit of *tasks*, or say why not. Nothing is half reserved.

        A refusal latches the task whose limit refused, so that whatever re-attempts the call is refused too. In
        observe mode the refusal is only recorded and the call goes on unreserved.
        """
        lines = self._lines(tasks, call)
        estimate, stop = Estimate(), plan.standing_refusal(tasks, call, now=self.clock.monotonic())
        if stop is None or self.mode == "observe":
            appraised = self.appraiser.estimate(call, cost_limited=plan.limits_cost(lines), on=self._today())
            if isinstance(appraised, str):
                estimate = Estimate(priced=False)
                stop = stop or plan.refusal(call, "unpriced", tasks[0], remedy=appraised)
            else:
                estimate = appraised
        first, attempt = plan.attempt_of(tasks, call)
        amounts = plan.estimated_amounts(call, estimate, retry=attempt > 1)
        latch = tasks[0]
        if stop is None:
            stop, latch = self._reserve(call.id, call, lines, amounts, tasks[0])
        if stop is not None and self._refused(tasks, call, stop, estimate, latch):
            return stop
        hold = Hold(
            call,
            tasks,
            estimate=estimate,
            lines=lines,
            reserved=amounts if stop is None else plan.NOTHING,
            first=first,
            attempt=attempt,
            started=self.clock.monotonic(),
        )
        with self.lock:
            for task in tasks:
                task.holds[call.id] = hold
            self._emit(tasks, record.reserved(hold, self.clock.now()))
        return hold

    def extend(self, hold: Hold, output_tokens: int) -> StopReport | None:
        """Reserve a stream's growth to *output_tokens* in total; the reason if there is no room.

        What the stream already produced stays charged; the caller ends the stream.
        """
        if hold.resolved or output_tokens <= hold.estimate.output_tokens:
            return None
        after = self.appraiser.with_output(hold.call, hold.estimate, output_tokens)
        growth = plan.growth(hold.call, hold.estimate, after)
        key = f"{hold.call.id}+{len(hold.extensions) + 1}"
        stop, latch = self._reserve(key, hold.call, hold.lines, growth, hold.tasks[0])
        if stop is not None and self._refused(hold.tasks, hold.call, stop, after, latch):
            return stop
        if stop is None:
            hold.extensions.append((key, growth))
        hold.estimate = after
        with self.lock:
            self._emit(hold.tasks, record.extended(hold, self.clock.now()))
        return None

    def grow(self, hold: Hold, *, chunks: int, size: int) -> StopReport | None:
        """A stream has produced *chunks* and *size* bytes: extend its reservation where it comes near its end."""
        name = hold.call.name
        produced = self.appraiser.estimator.output_so_far(name, chunks=chunks, bytes=size)
        held = hold.estimate.output_tokens
        if produced < held:
            return None
        return self.extend(hold, self.appraiser.estimator.next_extension(name, held, produced))

    def keep_alive(self, hold: Hold) -> None:
        """Renew the leases of a call that is still running once half of the lease has passed."""
        now = self.clock.monotonic()
        if hold.resolved or now < hold.renewed + self.lease_seconds / 2:
            return
        hold.renewed = now
        for key in hold.keys:
            self.ledger.renew(key, lease_seconds=self.lease_seconds)

    def settle(self, hold: Hold, result: Result, *, flush: bool = True) -> int:
        """Charge what the attempt really took, in nano-dollars. The first end counts, later ones change nothing."""
        with self.lock:
            if hold.resolved:
                return 0
            hold.resolved = True
        at = self.clock.now()
        bill = self.appraiser.bill(hold.call, hold.estimate, result, at=at, on=self._today())
        actual = plan.actual_amounts(hold.call.kind, bill.cost, bill.usage, retry=hold.retry)
        self._book(hold, actual)
        settled = record.settled(hold, result, bill, at=at, seconds=self.clock.monotonic() - hold.started)
        failed = result.outcome not in {Outcome.OK, Outcome.CACHED}
        with self.lock:
            for task in hold.tasks:
                task.holds.pop(hold.call.id, None)
                task.last.append((hold.call.kind, hold.call.name, bill.cost))
                if hold.call.fingerprint is not None:
                    if failed:
                        task.remember_failure(hold.call.fingerprint, hold.first or hold.call.id, hold.attempt)
                    else:
                        task.failed.pop(hold.call.fingerprint, None)
            self.recorder.record(hold.tasks, settled)
            for kind, detail in bill.discrepancies:
                self.discrepancy(hold.tasks, kind, detail, call=hold.call.id)
            if flush:
                self.recorder.flush(hold.tasks)
        return bill.cost

    def release(self, hold: Hold) -> None:
        """Give the hold back: the call never ran (a denied sibling, another handler's refusal)."""
        with self.lock:
            if hold.resolved:
                return
            hold.resolved = True
            for task in hold.tasks:
                task.holds.pop(hold.call.id, None)
            released = events.CallReleased(at=self.clock.now(), call=hold.call.id, tasks=record.ids(hold.tasks))
            self._emit(hold.tasks, released)
        for key in hold.keys:
            self.ledger.release(key)

    def discrepancy(self, tasks: tuple[Task, ...], kind: str, detail: str, *, call: str = "") -> None:
        """Record something that the meter did not see or that cannot be right."""
        found = events.Discrepancy(at=self.clock.now(), tasks=record.ids(tasks), kind=kind, detail=detail, call=call)
        with self.lock:
            self._emit(tasks, found)

    def record_outcome(self, task: Task, outcome: str, *, ok: bool | None) -> None:
        """Record what *task* was worth, for unit economics and calibration."""
        check_name(outcome, what="outcome")
        with self.lock:
            self._emit(task.chain, events.OutcomeRecorded(at=self.clock.now(), task=task.id, outcome=outcome, ok=ok))

    def close(self) -> None:
        """Close every open task, the trace and the ledger. Idempotent."""
        for task in list(self._open.values()):
            self.close_task(task, "cancelled")
        self.recorder.close()
        self.ledger.close()

    # -- inside --------------------------------------------------------------------------------------------------

    def _reserve(
        self, key: str, call: Call, lines: list[plan.Line], amounts: plan.Amounts, innermost: Task
    ) -> tuple[StopReport | None, Task]:
        """Take *amounts* from every line or none; the reason, and the task it stops, where there was no room."""
        postings = plan.postings_for(lines, amounts)
        if not postings:
            return None, innermost
        try:
            answer = self.ledger.reserve(key, postings, lease_seconds=self.lease_seconds)
        except LedgerUnavailableError as error:
            return plan.refusal(call, "ledger", innermost, remedy=f"bring the ledger back: {error}"), innermost
        if not isinstance(answer, Refused):
            return None, innermost
        shortfall = answer.shortfalls[0]
        line = next(line for line in lines if line.account == shortfall.account)
        stopped = self._open.get(line.owner, innermost)
        return plan.explain(call, shortfall, line, stopped), stopped

    def _refused(self, tasks: tuple[Task, ...], call: Call, stop: StopReport, estimate: Estimate, latch: Task) -> bool:
        """Record the refusal; whether it holds: in observe mode it does not."""
        enforced = self.mode == "enforce"
        with self.lock:
            if enforced and latch.stop is None:
                latch.stop = stop
            self._emit(tasks, record.denied(tasks, call, stop, estimate, at=self.clock.now(), enforced=enforced))
        return enforced

    def _book(self, hold: Hold, actual: plan.Amounts) -> None:
        parts = [hold.reserved, *(growth for _, growth in hold.extensions)]
        dealt = [actual] if len(parts) == 1 else plan.split(parts, actual)
        for key, held, spent in zip(hold.keys, parts, dealt, strict=True):
            charges = plan.charges_for(hold.lines, held, spent)
            if charges:
                self.ledger.settle(key, charges)

    def _today(self) -> date:
        """The day, in UTC, whose prices hold now; made anew once a day."""
        day = int(self.clock.now() // 86_400)
        if day != self._day[0]:
            self._day = (day, date(1970, 1, 1) + timedelta(days=day))
        return self._day[1]

    def _lines(self, tasks: tuple[Task, ...], call: Call) -> list[plan.Line]:
        lines = plan.lines_for(tasks, call)
        if self.limits:
            lines += self._shared_lines(tasks, call)
        return lines

    def _shared_lines(self, tasks: tuple[Task, ...], call: Call) -> list[plan.Line]:
        at = self.clock.now()
        names: dict[str, str] = {}
        for task in reversed(tasks):
            names |= {**task.tags, "thread": task.thread} if task.thread else task.tags
        names |= {"task": tasks[0].root.id, call.kind: call.name}
        lines = []
        for limit in self.limits:
            account = limit.account(names, at=at)
            if account is not None:
                label = f"the {'/'.join(limit.scope)} limit on {limit.meter.value}"
                lines.append(plan.Line.of(account, limit.amount, label))
        return lines

    def _emit(self, tasks: tuple[Task, ...], event: events.Event) -> None:
        self.recorder.record(tasks, event)
        self.recorder.flush(tasks)

    def _keep(self, store: OrderedDict[str, Task], key: str, task: Task) -> None:
        """Keep *task* among the recent ones; one that is nowhere kept any more is forgotten."""
        replaced = store.get(key)
        store[key] = task
        store.move_to_end(key)
        if replaced is not None and replaced is not task:
            self._forget(replaced)
        if len(store) > _RECENT_TASKS:
            self._forget(store.popitem(last=False)[1])

    def _forget(self, task: Task) -> None:
        """Forget a closed task, and its accounts if they are its own: what a thread or a handler spent outlives it."""
        if task.is_open or task.id in self._recent or self._by_thread.get(task.thread) is task:
            return
        task.status = "forgotten"
        if task.scope[0] == "task":
            self.ledger.collect(task.accounts())


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> float:
        """Seconds since 1970 UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        return time.monotonic()


def _shared(limits: Iterable[object]) -> tuple[Limit, ...]:
    shared = []
    for limit in limits:
        if not isinstance(limit, Limit):
            msg = f"limits: {limit!r} is not a Limit, e.g. Limit(meter='cost', amount='$200', scope='team')."
            raise ConfigurationError(msg)
        shared.append(limit)
    return tuple(shared)


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        msg = f"{option}={value!r}: one of {', '.join(map(repr, known))}."
        raise ConfigurationError(msg)
    return value


def _positive(option: str, seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        msg = f"{option}={seconds!r}: a positive, finite number of seconds."
        raise ConfigurationError(msg)
    return float(seconds)
