"""Pure decisions: what a call would take, what it took, and why it is refused. No clock, no ledger, no logger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
from msgspec import structs

from agentbudget.domain.accounts import Account, Charge, Meter, Posting
from agentbudget.domain.budget import Limit
from agentbudget.domain.ledger import Shortfall
from agentbudget.domain.verdict import StopReport
from agentbudget.domain.windows import window_end
from agentbudget.governor.values import Call, Called, Estimate, Kind

if TYPE_CHECKING:
    from agentbudget.governor.task import Task


class Amounts(NamedTuple):
    """What one attempt takes of each meter the ledger counts. Cost in nano-dollars."""

    cost: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    uncached_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    retries: int = 0


NOTHING = Amounts()
_TOOL = Kind.TOOL
_of = tuple.__new__
"""Makes a named tuple in one step; to call its class is a Python function more."""
STOPPED = "stopped"
"""`StopReport.limit` of a task that was stopped by hand, and label of the accounts that carry such a stop."""
STOPPED_DETAIL = "the task was stopped by hand"
STOPPED_REMEDY = "Governor.lift(task) lets it go on"


class Counted(Protocol):
    """The counts of a usage that limits know of."""

    @property
    def input_tokens(self) -> int:
        """Cache reads and writes included."""

    @property
    def output_tokens(self) -> int:
        """Reasoning included."""

    @property
    def cache_read_tokens(self) -> int:
        """Part of the input."""


class Line(msgspec.Struct, frozen=True, gc=False):
    """One limit a call must pass: *most* of *account*, called *label* for people."""

    account: Account
    place: int
    """Place of its meter in `Amounts`."""
    most: int | None
    label: str
    owner: str
    """Id of the task whose limit it is; empty where it is shared."""
    kept: int = 0
    """How much of *most* this call must leave for the last answer of the task."""
    alert_at: tuple[int, ...] = ()
    """Thresholds in basis points that a settlement of this account may reach."""

    @property
    def within(self) -> int | None:
        """What the call may fill at most."""
        return self.most if self.most is None or not self.kept else max(0, self.most - self.kept)

    @classmethod
    def of(cls, account: Account, most: int | None, label: str, owner: str = "") -> Line:
        """The line of a limit on *account*."""
        return cls(account, Amounts._fields.index(account.meter.value), most, label, owner)


def estimated_amounts(call: Called, estimate: Estimate, *, retry: bool) -> Amounts:
    """What *call* may take at most."""
    if call.kind is _TOOL:
        return _of(Amounts, (estimate.cost, 0, 0, 0, 0, 0, 1, int(retry)))
    into, out = estimate.input_tokens, estimate.output_tokens
    return _of(Amounts, (estimate.cost, into, out, into + out, into + out, 1, 0, int(retry)))


def actual_amounts(kind: str, cost: int, usage: Counted, *, retry: bool) -> Amounts:
    """What an attempt took."""
    if kind is _TOOL:
        return _of(Amounts, (cost, 0, 0, 0, 0, 0, 1, int(retry)))
    into, out = usage.input_tokens, usage.output_tokens
    return _of(Amounts, (cost, into, out, into + out, into + out - usage.cache_read_tokens, 1, 0, int(retry)))


def growth(call: Called, before: Estimate, after: Estimate) -> Amounts:
    """What a stream takes more by growing from *before* to *after*."""
    held = estimated_amounts(call, before, retry=False)
    wanted = estimated_amounts(call, after, retry=False)
    return Amounts(*[max(0, more - less) for more, less in zip(wanted, held, strict=True)])


def attempt_of(tasks: Iterable[Task], call: Call) -> tuple[str, int]:
    """Id of the first attempt of the operation (empty: this is it) and the number of this attempt."""
    if call.again.attempt > 1:
        return call.again.first, call.again.attempt
    if call.fingerprint is not None:
        for task in tasks:
            if (failed := task.failed.get(call.fingerprint)) is not None:
                return failed.first, failed.attempts + 1
    return "", 1


def may_refuse(task: Task) -> bool:
    """Whether a call of *task* may be refused whatever it costs: worth a closer look (`standing_refusal`)."""
    return (
        task.stop is not None
        or task.loop is not None
        or task.budget.max_seconds is not None
        or task.status == "forgotten"
    )


def standing_refusal(
    tasks: Iterable[Task],
    call: Called,
    *,
    now: float,
    answered: Task | None = None,
    caught: Sequence[str] = (),
) -> StopReport | None:
    """Why *call* is refused whatever it costs: a task was stopped before, or its time is over.

    The stop of *answered* does not count: the call is its last answer, for which tasks of *caught* keep time back.
    """
    for task in tasks:
        if not may_refuse(task):
            continue
        if task.stop is not None and task is not answered:
            return task.stop
        if task.status == "forgotten":
            return refusal(
                call,
                "closed",
                task,
                remedy="the task closed long ago: give the late work a task of its own, "
                "or close the task after its work is done",
            )
        most = task.budget.max_seconds
        kept = 0.0 if task.keep is None or task is answered or task.id not in caught else task.keep.seconds
        if most is not None and now - task.opened >= most - kept:
            return out_of_time(task, f"{call.kind} {call.name}", now=now, kept=kept)
    return None


def out_of_time(task: Task, call: str, *, now: float, kept: float = 0.0) -> StopReport:
    """*task* has no time left for *call*."""
    most = task.budget.max_seconds or 0.0
    return StopReport(
        limit="max_seconds",
        scope=f"task {task.id}",
        meter=Meter.SECONDS.value,
        settled=int(now - task.opened),
        limit_amount=int(most),
        kept=round(kept),
        call=call,
        last_calls=_last_calls(task),
        remedy=f"raise max_seconds above {most:g}",
        task_id=task.id,
        task=task.name,
    )


def refusal(call: Called, limit: str, task: Task, *, remedy: str) -> StopReport:
    """A refusal without an account: unpriced, ledger out of reach."""
    name = f"{call.kind} {call.name}"
    return StopReport(
        limit=limit, call=name, remedy=remedy, last_calls=_last_calls(task), task_id=task.id, task=task.name
    )


def limits_cost(lines: Iterable[Line]) -> bool:
    """Whether any of *lines* limits money."""
    for line in lines:  # noqa: SIM110 - asked before every call, where a generator would cost
        if line.most is not None and line.place == 0:
            return True
    return False


def lines_for(tasks: Sequence[Task], call: Called) -> Sequence[Line]:
    """The limits of the tasks themselves that *call* touches, innermost task first."""
    if len(tasks) == 1 and not tasks[0].marks and not tasks[0].budget.tools:
        return tasks[0].lines
    lines: list[Line] = []
    for task in tasks:
        lines += task.marks
        lines += task.lines
        if call.kind is Kind.TOOL and task.budget.tools and (line := task.tool_line(call.name)) is not None:
            lines.append(line)
    return lines


def shared_lines(limits: Iterable[Limit], tasks: Sequence[Task], call: Called, *, at: float) -> list[Line]:
    """Those of the shared *limits* that *call* of *tasks* touches at the time *at*."""
    names = {**names_of(tasks), call.kind: call.name}
    return lines_of(limits, names, at=at)


def names_of(tasks: Sequence[Task]) -> dict[str, str]:
    """The scopes that every call of *tasks*, innermost first, has."""
    names: dict[str, str] = {}
    for task in reversed(tasks):
        names |= {**task.tags, "thread": task.thread} if task.thread else task.tags
    return {**names, "task": tasks[0].root.id}


def lines_of(limits: Iterable[Limit], names: Mapping[str, str], *, at: float) -> list[Line]:
    """Those of *limits* that apply to *names* at the time *at*."""
    lines = []
    for limit in limits:
        account = limit.account(names, at=at)
        if account is not None:
            label = f"the {'/'.join(limit.scope)} limit on {limit.meter.value}"
            lines.append(structs.replace(Line.of(account, limit.amount, label), alert_at=limit.alert_at))
    return lines


def tightest(lines: Sequence[Line]) -> list[Line]:
    """One line an account: where several limits count the same, the smallest holds, the first of equals."""
    found: dict[Account, Line] = {}
    for line in lines:
        known = found.get(line.account)
        found[line.account] = line if known is None else _stricter(known, line)
    return list(found.values())


def _stricter(one: Line, other: Line) -> Line:
    smaller = other if one.within is None or (other.within is not None and other.within < one.within) else one
    alert_at = tuple(sorted({*one.alert_at, *other.alert_at}))
    return structs.replace(smaller, owner=one.owner or other.owner, alert_at=alert_at)


def watched(lines: Iterable[Line]) -> dict[Account, tuple[int, ...]]:
    """The alert thresholds of *lines*."""
    return {line.account: line.alert_at for line in lines if line.alert_at}


def postings_for(lines: Sequence[Line], amounts: Amounts) -> list[Posting]:
    """The reservation of *amounts*: one posting a limit, meters the call does not touch left out."""
    postings = []
    for line in lines:
        if amount := amounts[line.place]:
            postings.append(  # noqa: PERF401 - a comprehension is a function call more, at every call
                _of(Posting, (line.account, amount, line.within if line.kept else line.most))
            )
    return postings


def charges_for(lines: Sequence[Line], reserved: Amounts, actual: Amounts) -> list[Charge]:
    """The settlement of a reservation of *reserved* by *actual*, over the same limits."""
    charges = []
    for line in lines:
        place = line.place
        if reserved[place] or actual[place]:
            charges.append(_of(Charge, (line.account, reserved[place], actual[place])))
    return charges


def split(parts: Sequence[Amounts], actual: Amounts) -> list[Amounts]:
    """*actual* dealt to the reservations of one attempt, in order: each meter fills one part after the other, and the
    last part that reserved the meter takes the rest. The parts add up to *actual*."""
    dealt = [[0] * len(actual) for _ in parts]
    for index, amount in enumerate(actual):
        holders = [number for number, part in enumerate(parts) if part[index]] or [0]
        rest = amount
        for number in holders[:-1]:
            dealt[number][index] = min(rest, parts[number][index])
            rest -= dealt[number][index]
        dealt[holders[-1]][index] = rest
    return [Amounts(*part) for part in dealt]


def explain(call: Called, shortfall: Shortfall, line: Line, stopped: Task) -> StopReport:
    """Why *line* refused *call* of the task that is *stopped*: the numbers seen and what would let it go on."""
    if line.label == STOPPED:
        return replace(refusal(call, STOPPED, stopped, remedy=STOPPED_REMEDY), detail=STOPPED_DETAIL)
    balance = shortfall.balance
    limit = (balance.limit or 0) + line.kept
    needed = balance.committed + shortfall.requested + line.kept
    show = line.account.meter.show
    remedy = f"raise {line.label} to at least {show(needed)} ({show(needed - limit)} more)"
    if balance.reserved and balance.settled + balance.presumed + shortfall.requested + line.kept <= limit:
        remedy += f", or wait for the calls in flight to settle: {show(balance.reserved)} is only reserved"
    where = " and ".join(f"{kind} {name}" for kind, name in line.account.scope)
    return StopReport(
        limit=line.label,
        scope=where,
        window=line.account.window,
        meter=line.account.meter.value,
        requested=shortfall.requested,
        settled=balance.settled,
        reserved=balance.reserved,
        presumed=balance.presumed,
        limit_amount=limit,
        kept=line.kept,
        call=f"{call.kind} {call.name}",
        last_calls=tuple(_shown(*entry) for entry in stopped.recent),
        remedy=remedy,
        resets_at=window_end(line.account.window),
        task_id=stopped.id,
        task=stopped.name,
    )


def _last_calls(task: Task) -> tuple[str, ...]:
    return tuple(_shown(*entry) for entry in task.recent)


def _shown(kind: str, name: str, cost: int) -> str:
    return f"{kind} {name} {Meter.COST.show(cost)}"
