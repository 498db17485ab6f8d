"""From decisions to evidence: builds the events, keeps every task's tally and writes the trace."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from os import PathLike
from typing import Any

from agentbudget.domain.alerts import Crossing
from agentbudget.domain.budget import Limit
from agentbudget.domain.verdict import StopReport
from agentbudget.errors import BudgetWarning, ConfigurationError, PricingError
from agentbudget.governor.appraisal import Bill
from agentbudget.governor.hold import Hold
from agentbudget.governor.looping import Ended
from agentbudget.governor.plan import NOTHING, Amounts
from agentbudget.governor.task import Task
from agentbudget.governor.values import Call, Estimate, Kind, Outcome, Result
from agentbudget.trace import events
from agentbudget.trace.redaction import Hasher
from agentbudget.trace.writer import TraceWriter, stem

Sink = Callable[[events.Event], None]


_NOTED_MOST = 16
"""Events that wait for somebody to read the numbers of their task, at most."""


class Recorder:
    """Where events go: the tallies of the tasks they concern, the trace file, the sinks.

    Events that are only recorded are written, in order, with the next one that is emitted. Guarded by the lock of the
    governor.
    """

    def __init__(
        self,
        trace: str | PathLike[str] | None,
        *,
        content: str,
        sinks: Sequence[Sink],
        header: events.TraceOpened,
        hasher: Hasher | None = None,
    ) -> None:
        if content not in {"hashes", "full"}:
            msg = f"trace_content={content!r}: 'hashes' or 'full'."
            raise ConfigurationError(msg)
        self.full = content == "full"
        self.hasher = hasher or Hasher()
        self._sinks = tuple(sinks)
        self._broken: set[Sink] = set()
        self._pending: dict[str, list[events.Event]] = {}
        self._writer = None
        if trace is not None:
            self._writer = TraceWriter(trace, header=header)
        self.wants_content = self._writer is not None or bool(self._sinks)
        """Whether anyone will see hashes or content at all."""

    def file_for(self, task_id: str, name: str, at: float) -> str:
        """The file of a new root task."""
        return "" if self._writer is None or self._writer.single else stem(task_id, name, at)

    def path(self, file: str) -> str:
        """Where that file lies; empty without a trace."""
        return str(self._writer.path(file)) if self._writer is not None else ""

    def record(self, tasks: Sequence[Task], event: events.Event) -> None:
        """Take *event* into the tallies of *tasks* and queue it for the trace."""
        for task in tasks:
            noted = task.tally.noted
            noted.append(event)
            if len(noted) > _NOTED_MOST:
                task.tally.fold()
        if self._sinks:
            self._tell(event)
        if self._writer is not None:
            for file in _files(tasks):
                self._pending.setdefault(file, []).append(event)

    def emit(self, tasks: Sequence[Task], event: events.Event) -> None:
        """As `record`, and write it with what was queued before it: the lines are in the file when this returns."""
        self.record(tasks, event)
        if self._writer is not None:
            for file in _files(tasks):
                self._writer.write(file, self._pending.pop(file))

    def release(self, file: str) -> None:
        """The root task is closed: its file may be closed."""
        if self._writer is not None:
            self._writer.release(file)

    def close(self) -> None:
        """Write what is left and close the files."""
        if self._writer is not None:
            for file, queued in self._pending.items():
                self._writer.write(file, queued)
            self._pending.clear()
            self._writer.close()

    def _tell(self, event: events.Event) -> None:
        for sink in self._sinks:
            try:
                sink(event)
            except Exception as error:  # noqa: BLE001 - a listener must never break the agent; it is reported
                if sink not in self._broken:
                    self._broken.add(sink)
                    warnings.warn(f"event sink {sink!r} failed and is told on: {error!r}", BudgetWarning, stacklevel=2)


def _files(tasks: Sequence[Task]) -> Iterable[str]:
    return (tasks[0].file,) if len(tasks) == 1 else {task.file for task in tasks}


def reserved(hold: Hold, at: float) -> events.CallReserved:
    """The admission of *hold*."""
    call, estimate, tasks = hold.call, hold.estimate, hold.tasks
    return events.CallReserved(
        at=at,
        call=call.id,
        tasks=(tasks[0].id,) if len(tasks) == 1 else ids(tasks),
        kind=call.kind,
        name=call.name,
        provider=call.provider,
        tier=call.tier,
        operation=hold.first,
        attempt=hold.attempt,
        layer=call.layer,
        parent=call.parent,
        thrown=_thrown(hold) if call.again.thrown is not None else 0,
        within=call.within,
        agent=call.agent,
        node=call.node,
        step=call.step,
        estimate_input=estimate.input_tokens,
        estimate_output=estimate.output_tokens,
        capped=call.cap is not None,
        cost=hold.reserved.cost,
        web_searches=call.web_searches,
        cache_writes=call.cache_writes,
        audio=call.audio,
        clock=_deadline_clock(tasks, hold.started),
        final=call.final,
        kept=_kept(tasks, call) if call.caught else _KEPT_NOTHING,
        lenient=_lenient(tasks, call) if call.caught else (),
        messages=call.messages,
        size=call.size.appended_bytes if call.size is not None else 0,
        request=call.request,
        content=call.content,
    )


_TOOL = Kind.TOOL
_USED_NOTHING: dict[str, int] = {}
_USEFUL = frozenset({Outcome.OK, Outcome.CACHED})


def _thrown(hold: Hold) -> int:
    """Nano-dollars of the answer that was thrown away for the call of *hold*, at the prices of its model."""
    usage, rates = hold.call.again.thrown, hold.estimate.rates
    if usage is None or rates is None:
        return 0
    try:
        return rates.cost(usage)
    except PricingError:
        return 0


def extended(hold: Hold, at: float) -> events.CallExtended:
    """The growth of a stream's hold."""
    estimate = hold.estimate
    return events.CallExtended(
        at=at, call=hold.call.id, tasks=ids(hold.tasks), estimate_output=estimate.output_tokens, cost=estimate.cost
    )


def denied(
    tasks: Sequence[Task],
    call: Call,
    stop: StopReport,
    estimate: Estimate,
    *,
    attempt: int,
    started: float,
    at: float,
    enforced: bool,
) -> events.CallDenied:
    """The refusal of *call*, which was decided by the monotonic reading *started*."""
    return events.CallDenied(
        at=at,
        call=call.id,
        tasks=ids(tasks),
        kind=call.kind,
        name=call.name,
        stop=stop.to_dict(),
        cost=estimate.cost,
        estimate_input=estimate.input_tokens,
        estimate_output=estimate.output_tokens,
        enforced=enforced,
        attempt=attempt,
        clock=_deadline_clock(tasks, started),
        final=call.final,
        kept=_kept(tasks, call),
        within=call.within,
        agent=call.agent,
        node=call.node,
    )


def refused(
    tasks: Sequence[Task], call: Call, stop: StopReport, estimate: Estimate, *, attempt: int, started: float, at: float
) -> events.ActionTaken:
    """The refusal of a tool call that its task does without; the numbers are those of `denied`."""
    numbers: dict[str, Any] = {"tool": call.name, "cost": estimate.cost, "attempt": attempt}
    if (kept := _kept(tasks, call)) is not _KEPT_NOTHING:
        numbers["kept"] = kept
    if (clock := _deadline_clock(tasks, started)) is not None:
        numbers["clock"] = clock
    return events.ActionTaken(
        at=at, tasks=ids(tasks), action="refuse", reason=stop.reason, call=call.id, numbers=numbers
    )


def settled(
    hold: Hold, result: Result, bill: Bill, ended: Ended | None, *, at: float, seconds: float
) -> events.CallSettled:
    """The end of an attempt and what it took."""
    call, tasks, model = hold.call, hold.tasks, result.model
    overrun = 0
    if hold.reserved is not NOTHING:
        overrun = bill.cost - hold.reserved[0]
        for _, growth in hold.extensions:
            overrun -= growth.cost
    return events.CallSettled(
        at=at,
        call=call.id,
        tasks=(tasks[0].id,) if len(tasks) == 1 else ids(tasks),
        kind=call.kind,
        name=call.name,
        outcome=result.outcome,
        cost=bill.cost,
        usage=bill.usage.to_dict() if call.kind is not _TOOL else _USED_NOTHING,
        source=bill.source,
        model=model if model != call.name else "",
        tier=result.tier,
        price=bill.rates.reference if bill.rates is not None else None,
        priced=bill.priced,
        avoided=bill.avoided,
        overrun=max(0, overrun),
        seconds=seconds,
        retry=hold.attempt > 1,
        wasted=result.outcome not in _USEFUL,
        late=tasks[0].status != "open",
        error=result.error,
        result=result.result,
        result_size=result.size,
        content=result.content,
        agent=call.agent,
        node=call.node,
        lane=ended.lane if ended is not None else "",
        signed=tuple([step.signed for step in ended.steps]) if ended is not None and ended.steps else (),
        unparsable=ended is not None and ended.unparsable,
    )


def shared(limit: Limit) -> dict[str, Any]:
    """A shared limit as plain values; the amount of a cost limit in nano-dollars."""
    return {
        "meter": limit.meter.value,
        "amount": limit.amount,
        "scope": list(limit.scope),
        "window": limit.window.value,
        "timezone": limit.timezone,
        "where": dict(limit.where),
        **({"alert_at": list(limit.alert_at)} if limit.alert_at else {}),
    }


def reached(hold: Hold, crossing: Crossing) -> events.ThresholdReached:
    """The crossing of a threshold by the settlement of *hold*."""
    account = crossing.account
    return events.ThresholdReached(
        at=crossing.at,
        tasks=ids(hold.tasks),
        call=hold.call.id,
        scope=account.scope,
        meter=account.meter.value,
        window=account.window,
        threshold=crossing.threshold,
        limit=crossing.limit,
        settled=crossing.settled,
    )


def _deadline_clock(tasks: Sequence[Task], reading: float) -> float | None:
    """*reading* where a deadline was judged by it: replay needs it, other traces can do without."""
    for task in tasks:
        if task.budget.max_seconds is not None:
            return reading
    return None


_KEPT_NOTHING: dict[str, dict[str, Any]] = {}


def _kept(tasks: Sequence[Task], call: Call) -> dict[str, dict[str, Any]]:
    """What *call* had to leave for last answers."""
    kept = _KEPT_NOTHING
    for task in tasks:
        if task.keep is not None and task.id in call.caught and call.final != task.id:
            amounts: dict[str, Any] = dict(compress(zip(Amounts._fields, task.kept, strict=True), task.kept))
            kept = {**kept, task.id: {**amounts, "seconds": task.keep.seconds}}
    return kept


def _lenient(tasks: Sequence[Task], call: Call) -> tuple[str, ...]:
    """Tasks that a refusal of *call* would not end."""
    if call.kind is not Kind.TOOL:
        return ()
    return tuple([task.id for task in tasks if task.lenient and task.id in call.caught])


def ids(tasks: Sequence[Task]) -> tuple[str, ...]:
    """Ids of *tasks*, innermost first."""
    return tuple([task.id for task in tasks])
