"""Calls: what one attempt may take, whether there is room, and what it took. Decides, reserves, settles and emits."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, timedelta
from typing import TYPE_CHECKING

import msgspec

from agentbudget.domain.accounts import Account, Balance, Posting
from agentbudget.domain.alerts import Crossing
from agentbudget.domain.budget import Limit
from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import Granted, Ledger, ReservationState
from agentbudget.domain.retries import RetryRatio
from agentbudget.domain.verdict import StopReport
from agentbudget.errors import LedgerUnavailableError, ReservationConflictError
from agentbudget.governor import looping, plan, record, retrying
from agentbudget.governor.alarms import Alarms
from agentbudget.governor.appraisal import Appraiser, Bill
from agentbudget.governor.final import ANSWER_TOKENS, leaving, wanted
from agentbudget.governor.hold import Hold, Refusal
from agentbudget.governor.looping import Ended, Looping
from agentbudget.governor.record import Recorder
from agentbudget.governor.task import Task
from agentbudget.governor.values import FREE, UNPRICED, Call, Estimate, Kind, Result
from agentbudget.governor.waiting import Waiting
from agentbudget.ledgers.plan import MAX_AMOUNT
from agentbudget.trace import events

if TYPE_CHECKING:
    from threading import RLock


_TOOL = Kind.TOOL
_DAY = 86_400
"""Seconds."""


class Calls:
    """The part of a governor that admits, settles and releases calls, over the tasks that pay for them.

    Its parts are put together by `Governor`.
    """

    clock: Clock
    ledger: Ledger
    appraiser: Appraiser
    recorder: Recorder
    limits: tuple[Limit, ...]
    """Shared ones."""
    ratios: tuple[RetryRatio, ...]
    alarms: Alarms
    mode: str
    lease_seconds: float
    looping: Looping
    waiting: Waiting
    """Calls that wait for others to settle."""
    lock: RLock
    """Guards the tasks and everything that goes on record."""
    _in_order: AbstractContextManager[object]
    """Held from a decision of the ledger until it is on record, where the ledger is in memory: the trace then has
    the order in which was decided. Other ledgers may block, so that nobody can wait for them."""
    _watches: bool
    """Whether a shared limit has alert thresholds."""
    _open: dict[str, Task]
    """The tasks that may make calls, by id."""
    _day: tuple[int, date]

    def admit(self, tasks: tuple[Task, ...], call: Call) -> Hold | StopReport:
        """Reserve the worst case of *call* over every limit of *tasks*, or say why not. Nothing is half reserved.

        A refusal latches the task whose limit refused, so that whatever re-attempts the call is refused too. In
        observe mode the refusal is only recorded and the call goes on unreserved.
        """
        drafted = self.draft(tasks, call)
        with self._in_order:
            answer = self._take(drafted)
            if isinstance(answer, Refusal):
                if self.refuse(answer):
                    return answer.stop
                answer = answer.hold
            self.begin(answer)
        return answer

    def draft(self, tasks: tuple[Task, ...], call: Call) -> Hold | Refusal:
        """What *call* would reserve over the limits of *tasks*, or why it is refused whatever room there is."""
        lines, now = self._lines(tasks, call), self.clock.monotonic()
        first, attempt, latch = "", 1, tasks[0]
        stop = None
        for task in tasks:
            if call.again.attempt > 1 or task.failed or plan.may_refuse(task):
                first, attempt = plan.attempt_of(tasks, call)
                stop = self._standing(tasks, call, now)
                if stop is None and attempt > 1 and (often := retrying.too_often(tasks, call, attempt)) is not None:
                    stop, latch = often
                break
        estimate = FREE
        if stop is None or self.mode == "observe":
            estimate = self.appraiser.estimate(call, on=self._today(self.clock.now()))
            if estimate.remedy and plan.limits_cost(lines):
                stop = stop or plan.refusal(call, "unpriced", tasks[0], remedy=estimate.remedy)
                estimate = UNPRICED
        if call.caught and (estimate.cost or call.kind is not _TOOL):  # what is kept is money and tokens
            lines = self._leaving(lines, tasks, call, estimate)
        if self.limits or self.ratios:
            lines = plan.tightest(lines)
        hold = Hold(call, tasks, call.id, estimate, lines, plan.NOTHING, first, attempt, now, now)
        return hold if stop is None else Refusal(hold, stop, latch, short=False)

    def offer(self, tasks: tuple[Task, ...], call: Call) -> Hold | Refusal:
        """`admit` that tells nobody yet: `begin` the hold when the call does, or `release` it; or `refuse`."""
        return self._take(self.draft(tasks, call))

    def _take(self, drafted: Hold | Refusal) -> Hold | Refusal:
        """Reserve what was *drafted*, unless a task of it was stopped meanwhile."""
        if isinstance(drafted, Refusal):
            return drafted
        call, tasks = drafted.call, drafted.tasks
        for task in tasks:
            if task.stop is not None or task.loop is not None:
                if self.mode != "enforce":
                    break
                stopped = self._standing(tasks, call, drafted.started)
                if stopped is not None:
                    return Refusal(drafted, stopped, tasks[0], short=False)
        amounts = plan.estimated_amounts(call, drafted.estimate, retry=drafted.attempt > 1)
        try:
            refused = self._reserve(call.id, call, drafted.lines, amounts, tasks[0])
        except ReservationConflictError:  # the host gave the id of an earlier attempt to this one
            drafted.call = msgspec.structs.replace(call, id=uuid.uuid4().hex)
            drafted.key = drafted.call.id
            return self._take(drafted)
        if refused is not None:
            stop, latch = refused
            return Refusal(drafted, stop, latch, short=stop.limit_amount is not None)
        drafted.reserved = amounts
        return drafted

    def _standing(self, tasks: tuple[Task, ...], call: Call, now: float) -> StopReport | None:
        """Why *call* is refused whatever it costs. A loop that was found stops its task with this call."""
        if looping.found_in(tasks):
            with self.lock:
                looping.latch(tasks, call)
        answered = _answered(tasks, call) if call.final else None
        return plan.standing_refusal(tasks, call, now=now, answered=answered, caught=call.caught)

    def begin(self, hold: Hold, call: Call | None = None) -> None:
        """The call of *hold* begins: it goes on record, as *call* where more is known of it by now."""
        if call is not None:
            hold.call = call
        with self.lock:
            hold.begun = True
            if hold.call.final:
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
        amounts = plan.estimated_amounts(hold.call, estimate, retry=hold.attempt > 1)
        lines = self._leaving(hold.lines, hold.tasks, hold.call, estimate)
        return all(
            amounts[line.place] + line.kept <= room[line.account]
            for line in lines
            if amounts[line.place] and line.account in room
        )

    def settle(self, hold: Hold, result: Result, *, flush: bool = True) -> int:
        """Charge what the attempt really took, in nano-dollars. The first end counts, later ones change nothing."""
        with self.lock:
            if hold.resolved:
                return 0
            hold.resolved = True
        call, tasks, at = hold.call, hold.tasks, self.clock.now()
        bill = self.appraiser.bill(call, hold.estimate, result, at=at, on=self._today(at))
        ended = self._ended(hold, result)
        seconds = self.clock.monotonic() - hold.started
        settled = record.settled(hold, result, bill, ended, at=at, seconds=seconds)
        with self._in_order:
            crossed = self._book(hold, bill)
            with self.lock:
                for task in tasks:
                    task.ended(hold, bill.cost, failed=settled.wasted)
                if flush:
                    self.recorder.emit(tasks, settled)
                    for task in tasks:
                        task.tally.fold()  # a task at rest holds numbers, not events
                else:
                    self.recorder.record(tasks, settled)
                for kind, detail in bill.discrepancies:
                    self.discrepancy(tasks, kind, detail, call=call.id)
                for crossing in crossed:
                    self.recorder.emit(tasks, record.reached(hold, crossing))
                    self.alarms.tell(crossing)
                if ended is not None:
                    self.looping.watch(self, hold, ended, at=at)
        if self.waiting.queue:
            self.waiting.changed()
        return bill.cost

    def release(self, hold: Hold) -> None:
        """Give the hold back: the call never ran (a denied sibling, another handler's refusal)."""
        with self._in_order:
            with self.lock:
                if hold.resolved:
                    return
                hold.resolved = True
                for task in hold.tasks:
                    task.forget(hold)
                if hold.begun:
                    released = events.CallReleased(at=self.clock.now(), call=hold.call.id, tasks=record.ids(hold.tasks))
                    self.recorder.emit(hold.tasks, released)
            for key, held in hold.parts:
                if self.ledger.release(key) == ReservationState.EXPIRED:  # presumed spent, and known not to be
                    self.ledger.settle(key, plan.charges_for(hold.lines, held, plan.NOTHING))
        self.waiting.changed()

    def discrepancy(self, tasks: tuple[Task, ...], kind: str, detail: str, *, call: str = "") -> None:
        """Record something that the meter did not see or that cannot be right."""
        found = events.Discrepancy(at=self.clock.now(), tasks=record.ids(tasks), kind=kind, detail=detail, call=call)
        with self.lock:
            self.recorder.emit(tasks, found)

    def acted(
        self, tasks: tuple[Task, ...], action: str, reason: str, *, call: str = "", **numbers: str | float
    ) -> None:
        """Record that a verdict other than proceed was carried out: `"finish"`, `"ask"`, `"shrink"` and so on."""
        taken = events.ActionTaken(
            at=self.clock.now(), tasks=record.ids(tasks), action=action, reason=reason, call=call, numbers=numbers
        )
        with self.lock:
            self.recorder.emit(tasks, taken)

    def _reserve(
        self, key: str, call: Call, lines: Sequence[plan.Line], amounts: plan.Amounts, innermost: Task
    ) -> tuple[StopReport, Task] | None:
        """Take *amounts* from every line or none; the reason, and the task it stops, where there was no room."""
        postings = plan.postings_for(lines, amounts)
        if not postings:
            return None
        try:
            answer = self.ledger.reserve(key, postings, lease_seconds=self.lease_seconds)
        except LedgerUnavailableError as error:
            return plan.refusal(call, "ledger", innermost, remedy=f"bring the ledger back: {error}"), innermost
        if isinstance(answer, Granted):
            if answer.state is not ReservationState.LIVE:
                raise ReservationConflictError(f"reservation {key!r} is {answer.state} already.")
            return None
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
        self, lines: Sequence[plan.Line], tasks: tuple[Task, ...], call: Call, estimate: Estimate
    ) -> Sequence[plan.Line]:
        """*lines* without what *call* must leave for the last answers of *tasks*."""
        for task in tasks:
            if task.keep is not None and task.id in call.caught and call.final != task.id:
                answer = min(ANSWER_TOKENS, estimate.output_tokens)
                cost = self.appraiser.answer_cost(call, estimate, answer)
                task.kept = wanted(task.keep, call, estimate, answer, cost, task.kept)
                lines = leaving(lines, task, task.kept)
        return lines

    def _ended(self, hold: Hold, result: Result) -> Ended | None:
        """What the loop rules see of it; a value that cannot be looked at costs nobody the settlement."""
        try:
            return self.looping.look(hold, result)
        except Exception as error:  # noqa: BLE001 - as above
            self.discrepancy(hold.tasks, "loops", f"a result could not be compared: {error!r}", call=hold.call.id)
            return None

    def _book(self, hold: Hold, bill: Bill) -> Sequence[Crossing]:
        """Settle every reservation of *hold* by what *bill* says; the alert thresholds that this reached."""
        actual = plan.actual_amounts(hold.call.kind, bill.cost, bill.usage, retry=hold.attempt > 1)
        alert_at = plan.watched(hold.lines) if self._watches else None
        if not alert_at and not hold.extensions:
            charges = plan.charges_for(hold.lines, hold.reserved, actual)
            if charges:
                self.ledger.settle(hold.key, charges)
            return ()
        crossed: list[Crossing] = []
        dealt = plan.split([held for _, held in hold.parts], actual)
        for (key, held), spent in zip(hold.parts, dealt, strict=True):
            charges = plan.charges_for(hold.lines, held, spent)
            if charges:
                crossed += self.ledger.settle(key, charges, alert_at=alert_at).crossed
        return crossed

    def _today(self, at: float) -> date:
        """The day, in UTC, whose prices hold *at* that moment; made anew once a day."""
        begins, day = self._day
        if not begins <= at < begins + _DAY:
            number = int(at // _DAY)
            begins, day = self._day = (number * _DAY, date(1970, 1, 1) + timedelta(days=number))
        return day

    def _lines(self, tasks: tuple[Task, ...], call: Call) -> Sequence[plan.Line]:
        lines = plan.lines_for(tasks, call)
        if not self.limits and not self.ratios:
            return lines
        at = self.clock.now()
        lines = [*lines, *plan.shared_lines(self.limits, tasks, call, at=at)]
        if self.ratios:
            retry = plan.attempt_of(tasks, call)[1] > 1
            lines += retrying.ratio_lines(self.ratios, tasks, call, retry=retry, ledger=self.ledger, at=at)
        return lines


def _answered(tasks: tuple[Task, ...], call: Call) -> Task | None:
    """The stopped task whose last answer *call* is."""
    if not call.final:
        return None
    return next((task for task in tasks if task.id == call.final and task.last_answer == "allowed"), None)
