"""The governor: the one place that decides, reserves, settles and emits."""

from __future__ import annotations

import math
import threading
import time
import uuid
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from os import PathLike
from pathlib import Path
from typing import Any, Never

import msgspec

from agentbudget.domain.accounts import Account, Balance, Meter, Posting, check_name
from agentbudget.domain.alerts import Crossing
from agentbudget.domain.budget import Budget, Limit
from agentbudget.domain.clock import Clock
from agentbudget.domain.failure import FailOpen, failure_mode
from agentbudget.domain.ledger import Granted, Ledger, ReservationState
from agentbudget.domain.money import Money, nanos
from agentbudget.domain.options import refuse_unknown
from agentbudget.domain.verdict import StopReport
from agentbudget.errors import BudgetWarning, ConfigurationError, LedgerUnavailableError, ReservationConflictError
from agentbudget.governor import looping, plan, record, stopping
from agentbudget.governor.alarms import Alarms
from agentbudget.governor.appraisal import Appraiser
from agentbudget.governor.final import ANSWER_TOKENS, Keep, leaving, wanted
from agentbudget.governor.hold import Hold, Refusal
from agentbudget.governor.looping import Looping
from agentbudget.governor.record import Recorder
from agentbudget.governor.reports import Reports
from agentbudget.governor.task import Task
from agentbudget.governor.values import Call, Estimate, Kind, Outcome, Result
from agentbudget.governor.waiting import Waiting
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.failover import guarded
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.ledgers.plan import MAX_AMOUNT
from agentbudget.trace import events
from agentbudget.trace.redaction import Hasher
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
    "outbox",
    "mode",
    "trace_content",
    "sinks",
    "on_threshold",
    "clock",
    "lease_seconds",
)
_RECENT_TASKS = 1024
GOVERNORS: weakref.WeakSet[Governor] = weakref.WeakSet()
"""Every governor of this process that is in use."""


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
        fail: with the ledger out of reach, `"closed"` refuses every call; `"open"` goes on for up to $5 and 300 s, a
            `FailOpen` for as much as it says.
        outbox: folder for settlements that the ledger could not take yet; by default beside a SQLite file.
        mode: `"enforce"`, or `"observe"`: nothing is stopped, everything that would have been is recorded.
        trace_content: `"hashes"` (default: lengths, keyed hashes and names) or `"full"`.
        sinks: called with every event; an error in one is reported once and never reaches the agent.
        on_threshold: called with a `Crossing` when a settlement of this governor reaches a share of a limit
            (`Limit(alert_at=...)`), in a thread of its own; an error in it never reaches the agent.
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
        fail: str | FailOpen = "closed",
        outbox: str | Path | None = None,
        mode: str = "enforce",
        trace_content: str = "hashes",
        sinks: Sequence[Callable[[events.Event], None]] = (),
        on_threshold: Callable[[Crossing], None] | None = None,
        clock: Clock | None = None,
        lease_seconds: float = 900,
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, _OPTIONS, where="Governor")
        _one_of("mode", mode, ("enforce", "observe"))
        fail_open = failure_mode(fail)
        self.clock: Clock = clock or SystemClock()
        self.mode = mode
        self.limits = _shared(limits)
        self.alarms = Alarms(on_threshold)
        self._watches = any(limit.alert_at for limit in self.limits)
        primary = open_ledger(ledger, clock=self.clock) if isinstance(ledger, str) else ledger
        self.ledger: Ledger = guarded(
            primary, fail_open=fail_open, outbox=outbox, tell=self._ledger_trouble, clock=self.clock
        )
        self.appraiser = Appraiser.build(prices=prices, price_file=price_file, aliases=aliases, on_unpriced=on_unpriced)
        hasher = Hasher()
        self.recorder = Recorder(
            trace,
            content=trace_content,
            sinks=sinks,
            hasher=hasher,
            header=events.TraceOpened(
                at=self.clock.now(),
                schema=events.SCHEMA,
                version=VERSION,
                prices=self.appraiser.book.version,
                key_id=hasher.key_id,
                content=trace_content,
                mode=mode,
                ledger=type(primary).__name__,
            ),
        )
        self.lease_seconds = _positive("lease_seconds", lease_seconds)
        self.reports = Reports()
        """Reports of the last closed tasks, oldest first."""
        self.lock = threading.RLock()
        GOVERNORS.add(self)
        self.looping = Looping()
        self.waiting = Waiting()
        """Calls that wait for others to settle."""
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
            limits=[record.shared(limit) for limit in self.limits],
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
            lifted = task.stop is not None and (lift or other)
            was_open = task.is_open
            if budget is not None and other:
                task.declare(budget)
            if lift or other:
                task.stop, task.last_answer = None, ""
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
            if not task.is_open:
                return False
            for hold in list(task.holds.values()):
                self.settle(hold, Result(outcome=Outcome.CANCELLED, error="never ended"), flush=False)
            task.loop = None  # it came to an end by itself
            task.status = "stopped" if task.stop is not None and status != "interrupted" else status
            task.closed = self.clock.monotonic()
            closed = events.TaskClosed(
                at=self.clock.now(),
                task=task.id,
                status=task.status,
                cost=task.tally.cost,
                seconds=task.closed - task.opened,
            )
            self.recorder.emit(task.chain, closed)
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
            found.stop, found.last_answer = None, ""
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

    def acted(
        self, tasks: tuple[Task, ...], action: str, reason: str, *, call: str = "", **numbers: str | float
    ) -> None:
        """Record that a verdict other than proceed was carried out: `"finish"`, `"ask"`, `"shrink"` and so on."""
        taken = events.ActionTaken(
            at=self.clock.now(), tasks=record.ids(tasks), action=action, reason=reason, call=call, numbers=numbers
        )
        with self.lock:
            self.recorder.emit(tasks, taken)

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
            task.stop, task.last_answer = None, ""

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
        lines = self._tightest(self._lines(task.chain, call))
        amounts = plan.estimated_amounts(call, failed.estimate, retry=True)
        probe = uuid.uuid4().hex
        stop, _ = self._reserve(probe, call, lines, amounts, task)
        if stop is None and plan.postings_for(lines, amounts):
            self.ledger.release(probe)
        return stop

    def allow_last_answer(self, task: Task) -> bool:
        """Whether *task*, which was stopped, may make one last call (`Call.final`): once, until its stop is lifted."""
        with self.lock:
            if task.last_answer:
                return False
            task.last_answer = "allowed"
            return True

    # -- calls ---------------------------------------------------------------------------------------------------

    def admit(self, tasks: tuple[Task, ...], call: Call) -> Hold | StopReport:
        """Reserve the worst case of *call* over every limit of *tasks*, or say why not. Nothing is half reserved.

        A refusal latches the task whose limit refused, so that whatever re-attempts the call is refused too. In
        observe mode the refusal is only recorded and the call goes on unreserved.
        """
        answer = self.offer(tasks, call)
        if isinstance(answer, Refusal):
            if self.refuse(answer):
                return answer.stop
            answer = answer.hold
        self.begin(answer)
        return answer

    def draft(self, tasks: tuple[Task, ...], call: Call) -> Hold | Refusal:
        """What *call* would reserve over the limits of *tasks*, or why it is refused whatever room there is."""
        if looping.found_in(tasks):
            with self.lock:
                looping.latch(tasks, call)
        lines, now = self._lines(tasks, call), self.clock.monotonic()
        answered = _answered(tasks, call)
        stop = plan.standing_refusal(tasks, call, now=now, answered=answered, caught=call.caught)
        estimate = Estimate()
        if stop is None or self.mode == "observe":
            appraised = self.appraiser.estimate(call, cost_limited=plan.limits_cost(lines), on=self._today())
            if isinstance(appraised, str):
                estimate = Estimate(priced=False)
                stop = stop or plan.refusal(call, "unpriced", tasks[0], remedy=appraised)
            else:
                estimate = appraised
        first, attempt = plan.attempt_of(tasks, call)
        hold = Hold(
            call,
            tasks,
            estimate=estimate,
            lines=self._tightest(self._leaving(lines, tasks, call, estimate)),
            reserved=plan.NOTHING,
            first=first,
            attempt=attempt,
            started=now,
        )
        return hold if stop is None else Refusal(hold, stop, tasks[0], short=False)

    def offer(self, tasks: tuple[Task, ...], call: Call) -> Hold | Refusal:
        """`admit` that tells nobody yet: `begin` the hold when the call does, or `release` it; or `refuse`."""
        drafted = self.draft(tasks, call)
        if isinstance(drafted, Refusal):
            return drafted
        amounts = plan.estimated_amounts(call, drafted.estimate, retry=drafted.retry)
        try:
            stop, latch = self._reserve(call.id, call, drafted.lines, amounts, tasks[0])
        except ReservationConflictError:  # the host gave the id of an earlier attempt to this one
            return self.offer(tasks, msgspec.structs.replace(call, id=uuid.uuid4().hex))
        if stop is not None:
            return Refusal(drafted, stop, latch, short=stop.limit_amount is not None)
        drafted.reserved = amounts
        return drafted

    def begin(self, hold: Hold, call: Call | None = None) -> None:
        """The call of *hold* begins: it goes on record, as *call* where more is known of it by now."""
        if call is not None:
            hold.call = call
        with self.lock:
            hold.begun = True
            self._last_answer_used(hold.tasks, hold.call)
            for task in hold.tasks:
                task.holds[hold.call.id] = hold
            self.recorder.emit(hold.tasks, record.reserved(hold, self.clock.now()))

    def refuse(self, refusal: Refusal) -> bool:
        """Put a refusal on record and latch its task; whether it holds: in observe mode it does not."""
        hold, stop, latch, _ = refusal
        self._last_answer_used(hold.tasks, hold.call)
        return self._refused(
            hold.tasks, hold.call, stop, hold.estimate, latch, attempt=hold.attempt, started=hold.started
        )

    def balances(self, hold: Hold) -> dict[Account, Balance]:
        """The limited accounts that the call of *hold* touches, as of one moment, limits raised or pinned included.

        Asked of the ledger as a reservation of everything, which is refused with the balances and leaves no record.
        """
        probe = uuid.uuid4().hex
        postings = [Posting(line.account, MAX_AMOUNT, line.most) for line in hold.lines]
        if not postings:
            return {}
        try:
            answer = self.ledger.reserve(probe, postings, lease_seconds=self.lease_seconds)
        except LedgerUnavailableError:  # the reservation itself will be refused for it
            return {}
        if isinstance(answer, Granted):
            self.ledger.release(probe)
            return {}
        return {short.account: short.balance for short in answer.shortfalls if short.balance.limit is not None}

    def fits(self, hold: Hold, output_tokens: int, room: Mapping[Account, int]) -> bool:
        """Whether the call of *hold*, with *output_tokens* in total, would fit into *room* of each limited account."""
        estimate = self.appraiser.with_output(hold.call, hold.estimate, output_tokens)
        amounts = plan.estimated_amounts(hold.call, estimate, retry=hold.retry)
        lines = self._leaving(hold.lines, hold.tasks, hold.call, estimate)
        return all(
            amounts[line.place] + line.kept <= room[line.account]
            for line in lines
            if amounts[line.place] and line.account in room
        )

    def extend(self, hold: Hold, output_tokens: int) -> StopReport | None:
        """Reserve a stream's growth to *output_tokens* in total; the reason if there is no room.

        What the stream already produced stays charged; the caller ends the stream.
        """
        if hold.resolved or output_tokens <= hold.estimate.output_tokens:
            return None
        after = self.appraiser.with_output(hold.call, hold.estimate, output_tokens)
        growth = plan.growth(hold.call, hold.estimate, after)
        key = f"{hold.key}+{len(hold.extensions) + 1}"
        stop, latch = self._reserve(key, hold.call, hold.lines, growth, hold.tasks[0])
        if stop is not None and self._refused(
            hold.tasks, hold.call, stop, after, latch, attempt=hold.attempt, started=hold.started
        ):
            return stop
        if stop is None:
            hold.extensions.append((key, growth))
        hold.estimate = after
        with self.lock:
            self.recorder.emit(hold.tasks, record.extended(hold, self.clock.now()))
        return None

    def grow(self, hold: Hold, *, chunks: int, size: int) -> StopReport | None:
        """A stream has produced *chunks* and *size* bytes: extend its reservation where it comes near its end.

        A declared cap is reserved in full from the start, so a stream under one never asks for more.
        """
        if hold.call.cap is not None:
            return None
        name, held = hold.call.name, hold.estimate.output_tokens
        produced = self.appraiser.estimator.output_so_far(name, chunks=chunks, bytes=size)
        more = self.appraiser.estimator.next_extension(name, held, produced)
        return self.extend(hold, held + more) if more else None

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
        crossed = self._book(hold, actual)
        ended = self._ended(hold, result)
        seconds = self.clock.monotonic() - hold.started
        settled = record.settled(hold, result, bill, ended, at=at, seconds=seconds)
        failed = result.outcome not in {Outcome.OK, Outcome.CACHED}
        with self.lock:
            for task in hold.tasks:
                task.ended(hold.call.id)
                task.remember_call(hold.call.kind, hold.call.name, bill.cost)
                if hold.call.fingerprint is not None:
                    if failed:
                        task.remember_failure(hold)
                    else:
                        task.failed.pop(hold.call.fingerprint, None)
            if flush:
                self.recorder.emit(hold.tasks, settled)
            else:
                self.recorder.record(hold.tasks, settled)
            for kind, detail in bill.discrepancies:
                self.discrepancy(hold.tasks, kind, detail, call=hold.call.id)
            for crossing in crossed:
                self.recorder.emit(hold.tasks, record.reached(hold, crossing))
                self.alarms.tell(crossing)
            if ended is not None:
                self.looping.watch(self, hold, ended, at=at)
        self.waiting.changed()
        return bill.cost

    def release(self, hold: Hold) -> None:
        """Give the hold back: the call never ran (a denied sibling, another handler's refusal)."""
        with self.lock:
            if hold.resolved:
                return
            hold.resolved = True
            for task in hold.tasks:
                task.ended(hold.call.id)
            if hold.begun:
                released = events.CallReleased(at=self.clock.now(), call=hold.call.id, tasks=record.ids(hold.tasks))
                self.recorder.emit(hold.tasks, released)
        for key in hold.keys:
            self.ledger.release(key)
        self.waiting.changed()

    def discrepancy(self, tasks: tuple[Task, ...], kind: str, detail: str, *, call: str = "") -> None:
        """Record something that the meter did not see or that cannot be right."""
        found = events.Discrepancy(at=self.clock.now(), tasks=record.ids(tasks), kind=kind, detail=detail, call=call)
        with self.lock:
            self.recorder.emit(tasks, found)

    def record_outcome(self, task: Task, outcome: str, *, ok: bool | None) -> None:
        """Record what *task* was worth, for unit economics and calibration."""
        check_name(outcome, what="outcome")
        with self.lock:
            self.recorder.emit(
                task.chain, events.OutcomeRecorded(at=self.clock.now(), task=task.id, outcome=outcome, ok=ok)
            )

    def close(self) -> None:
        """Close every open task, the trace and the ledger. Idempotent."""
        for task in list(self._open.values()):
            self.close_task(task, "cancelled")
        self.alarms.drain()
        self.recorder.close()
        self.ledger.close()
        GOVERNORS.discard(self)

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
        if isinstance(answer, Granted):
            if answer.state is not ReservationState.LIVE:
                raise ReservationConflictError(f"reservation {key!r} is {answer.state} already.")
            return None, innermost
        shortfall = answer.shortfalls[0]
        line = next(line for line in lines if line.account == shortfall.account)
        stopped = self._open.get(line.owner, innermost)
        return plan.explain(call, shortfall, line, stopped), stopped

    def _refused(
        self,
        tasks: tuple[Task, ...],
        call: Call,
        stop: StopReport,
        estimate: Estimate,
        latch: Task,
        *,
        attempt: int,
        started: float,
    ) -> bool:
        """Record the refusal; whether it holds: in observe mode it does not."""
        enforced = self.mode == "enforce"
        with self.lock:
            if enforced and call.kind is Kind.TOOL and latch.lenient and latch.id in call.caught:
                done_without = record.refused(
                    tasks, call, stop, estimate, attempt=attempt, started=started, at=self.clock.now()
                )
                self.recorder.emit(tasks, done_without)
                return True
            if enforced and latch.stop is None:
                latch.stop = stop
            denied = record.denied(
                tasks, call, stop, estimate, attempt=attempt, started=started, at=self.clock.now(), enforced=enforced
            )
            self.recorder.emit(tasks, denied)
        self.waiting.changed()
        return enforced

    def _last_answer_used(self, tasks: tuple[Task, ...], call: Call) -> None:
        """A last answer is one attempt, whatever becomes of it."""
        if call.final and (answered := _answered(tasks, call)) is not None:
            answered.last_answer = "used"

    def _leaving(
        self, lines: list[plan.Line], tasks: tuple[Task, ...], call: Call, estimate: Estimate
    ) -> list[plan.Line]:
        """*lines* without what *call* must leave for the last answers of *tasks*."""
        for task in tasks:
            if task.keep is not None and task.id in call.caught and call.final != task.id:
                answer = min(ANSWER_TOKENS, estimate.output_tokens)
                cost = self.appraiser.answer_cost(call, estimate, answer)
                task.kept = wanted(task.keep, call, estimate, answer, cost, task.kept)
                lines = leaving(lines, task, task.kept)
        return lines

    def _ended(self, hold: Hold, result: Result) -> looping.Ended | None:
        """What the loop rules see of it; a value that cannot be looked at costs nobody the settlement."""
        try:
            return self.looping.look(hold, result)
        except Exception as error:  # noqa: BLE001 - as above
            self.discrepancy(hold.tasks, "loops", f"a result could not be compared: {error!r}", call=hold.call.id)
            return None

    def _book(self, hold: Hold, actual: plan.Amounts) -> list[Crossing]:
        """Settle every reservation of *hold*; the alert thresholds that this reached."""
        alert_at = plan.watched(hold.lines) if self._watches else None
        crossed: list[Crossing] = []
        parts = [hold.reserved, *(growth for _, growth in hold.extensions)]
        dealt = [actual] if len(parts) == 1 else plan.split(parts, actual)
        for key, held, spent in zip(hold.keys, parts, dealt, strict=True):
            charges = plan.charges_for(hold.lines, held, spent)
            if charges and not alert_at:
                self.ledger.settle(key, charges)
            elif charges:
                crossed += self.ledger.settle(key, charges, alert_at=alert_at).crossed
        return crossed

    def _today(self) -> date:
        """The day, in UTC, whose prices hold now; made anew once a day."""
        day = int(self.clock.now() // 86_400)
        if day != self._day[0]:
            self._day = (day, date(1970, 1, 1) + timedelta(days=day))
        return self._day[1]

    def _lines(self, tasks: tuple[Task, ...], call: Call) -> list[plan.Line]:
        lines = plan.lines_for(tasks, call)
        if self.limits:
            lines += plan.shared_lines(self.limits, tasks, call, at=self.clock.now())
        return lines

    def _tightest(self, lines: list[plan.Line]) -> list[plan.Line]:
        """One line an account; without shared limits no two can have the same."""
        return plan.tightest(lines) if self.limits else lines

    def _keep(self, store: OrderedDict[str, Task], key: str, task: Task) -> None:
        """Keep *task* among the recent ones; one that is nowhere kept any more is forgotten."""
        replaced = store.get(key)
        store[key] = task
        store.move_to_end(key)
        if replaced is not None and replaced is not task:
            self._forget(replaced)
        if len(store) > _RECENT_TASKS:
            self._forget(store.popitem(last=False)[1])

    def _ledger_trouble(self, detail: str) -> None:
        """The ledger went out of reach or came back: warn, and tell it in every open task."""
        with self.lock:
            for task in list(self._open.values()):
                self.discrepancy((task,), "ledger", detail)
        warnings.warn(detail, BudgetWarning, stacklevel=2)

    def _forget(self, task: Task) -> None:
        """Forget a closed task. Its accounts go with it if they are its own, in memory, and nobody can go on with it:
        what a thread or a handler spent outlives the task, and a durable ledger keeps its records by its own rule."""
        if task.is_open or task.id in self._recent or self._by_thread.get(task.thread) is task:
            return
        resumable = task.thread and task.status in {"stopped", "interrupted"}
        task.status = "forgotten"
        if task.scope[0] == "task" and isinstance(self.ledger, MemoryLedger) and not resumable:
            self.ledger.collect(task.accounts())


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> float:
        """Seconds since 1970 UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        return time.monotonic()


def _answered(tasks: tuple[Task, ...], call: Call) -> Task | None:
    """The stopped task whose last answer *call* is."""
    if not call.final:
        return None
    return next((task for task in tasks if task.id == call.final and task.last_answer == "allowed"), None)


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


def _units(amount: object) -> int:
    if isinstance(amount, bool) or not isinstance(amount, int) or amount < 1:
        msg = f"amount={amount!r}: a whole number of units from 1."
        raise ConfigurationError(msg)
    return amount


def _positive(option: str, seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        msg = f"{option}={seconds!r}: a positive, finite number of seconds."
        raise ConfigurationError(msg)
    return float(seconds)
