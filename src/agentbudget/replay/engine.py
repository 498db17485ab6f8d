"""Recorded events through the rules that decide live: the same plan, the same arithmetic, other limits if asked for.

Each recorded attempt is decided when the recording decided it, and settled when it settled. What differs from a live
governor is only where facts come from: estimates, usage and times are the recorded ones. Leases are not replayed: a
call in flight stays reserved where a live ledger might presume it spent, which counts the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, cast

import msgspec
from msgspec.structs import replace

from agentbudget.domain.verdict import StopReport
from agentbudget.governor import looping, plan, retrying
from agentbudget.governor.plan import NOTHING, Amounts, Line
from agentbudget.governor.values import Estimate, Kind
from agentbudget.replay.book import Entry, settle, shortfall, take
from agentbudget.replay.ladder import Ladder
from agentbudget.replay.policy import Policy
from agentbudget.replay.recorded import (
    NO_COUNTS,
    NOTES,
    answered_by,
    asked,
    asked_in_vain,
    counts_of,
    refused_leniently,
)
from agentbudget.replay.subjects import Counts, Held, Route, Subject
from agentbudget.replay.verdicts import Divergence, Verdict
from agentbudget.replay.watching import Watching, stop_of
from agentbudget.trace import events
from agentbudget.trace.events import ActionTaken, CallDenied, CallReserved, CallSettled, Event

MAX_DIVERGENCES = 1000
"""Divergences kept one by one; further ones are only counted."""
_OUTSIDE = frozenset({"unpriced", "ledger", "closed", "loops", "stopped"})
"""Refusals that no limit of the recording explains."""


class Engine(Watching):
    """One replay. Feed it events in their order; read `totals`, `divergences` and `stop` at any time.

    Args:
        policy: what to change.
        on_verdict: is told every decision.
        sink: is told every event of the replayed trajectory.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        on_verdict: Callable[[Verdict], None] | None = None,
        sink: Callable[[Event], None] | None = None,
    ) -> None:
        super().__init__(policy, sink=sink)
        self.divergences: list[Divergence] = []
        self.stop: StopReport | None = None
        """The first refusal that stopped a task."""
        self._on_verdict = on_verdict
        self._holds: dict[str, Held] = {}
        self._reserved: dict[str, CallReserved | CallDenied] = {}
        """Of calls priced anew: what was recorded at their reservation."""
        self._refused: set[str] = set()
        self._ladder = Ladder(policy.downgrade, self._repricer) if policy.downgrade and self._repricer else None

    def feed(self, recorded: Iterable[Event]) -> None:
        """Take *recorded* events, in order."""
        folds = self.FOLDS
        for event in recorded:
            fold = folds.get(type(event))
            if fold is not None:
                fold(self, event)
            elif self._sink is not None:
                self._sink(event)

    @property
    def unpriced(self) -> frozenset[str]:
        """Models and tools that the new prices do not know."""
        return frozenset(self._repricer.unpriced) if self._repricer else frozenset()

    @property
    def moved(self) -> int:
        """Calls that the ladder sent to another model, or gave a shorter answer."""
        return self._ladder.calls if self._ladder is not None else 0

    # -- calls ---------------------------------------------------------------------------------------------------

    def _call_reserved(self, event: CallReserved) -> None:
        if self._refused and event.call in self._refused:
            return
        held = self._holds.get(event.call)
        if held is None:
            self.totals.calls += 1
            if event.final and self._needless(event, ran=True):
                return
            held = self._admit(event, ran=True)
        if self._sink is not None and held is not None:
            self._sink(replace(event, name=held.route.called.name, cost=held.amounts.cost))

    def _call_denied(self, event: CallDenied) -> None:
        if not event.call:
            self._stopped_from_outside(event)
            return
        held = self._holds.get(event.call)
        if held is not None:
            self._extend(event, held, event.estimate_output, event.cost, ran=not event.enforced)
        elif event.call not in self._refused:
            ran = not event.enforced
            self.totals.calls += ran
            if not event.final or not self._needless(event, ran=ran):
                self._admit(event, ran=ran)

    def _admit(self, event: CallReserved | CallDenied, *, ran: bool) -> Held | None:
        """Decide *event*; the hold if it runs in the replay as it *ran* in the recording."""
        route = self._route(event)
        if self._ladder is not None and ran and self._fitted(event, route, self._ladder):
            route = self._route(event)
        if self._repricer is None:
            estimate = Estimate(event.estimate_input, event.estimate_output, event.cost)
        else:
            estimate = self._repriced(event, route)
        lines, entries = route.lines, route.entries
        if self._limits or event.kept:
            lines = self._lines(event, route)
            entries = self._book.entries(lines)
        amounts = plan.estimated_amounts(route.called, estimate, retry=event.attempt > 1)
        tasks, latch = route.tasks, route.tasks[0]
        if route.looped or event.attempt > 1 or event.kept or event.final or latch.pending is not None:
            stop, latch = self._standing(event, route)
        else:  # nearly every call: nothing but a standing stop or a deadline can refuse it here
            now = event.at - latch.offset if event.clock is None else event.clock
            stop = plan.standing_refusal(tasks, route.called, now=now)
        if stop is None and not ran:
            stop = self._outside(event, lines)
        if stop is None and (short := take(entries, amounts)) is not None:
            stop, latch = self._explained(route, lines[short], entries[short], amounts)
        if stop is None and not ran:
            stop = self._spent_elsewhere(event)
            if stop is not None:
                settle(entries, amounts, NOTHING)
        if self._on_verdict is not None or stop is not None or not ran:
            return self._judged(event, Held(route, lines, entries, amounts, estimate), stop, latch, ran=ran)
        tasks[-1].decisions += 1
        held = self._holds[event.call] = Held(route, lines, entries, amounts, estimate)
        return held

    def _fitted(self, event: CallReserved | CallDenied, route: Route, ladder: Ladder) -> bool:
        """Whether the ladder put *event* elsewhere, because it does not fit as it was recorded."""
        if not isinstance(event, CallReserved) or event.kind != "model" or event.final or not self._enforcing:
            return False
        entries = self._book.entries(self._lines(event, route))
        placed = ladder.place(event, route.tasks[0], entries)
        if placed is not None:
            self.notes.add(NOTES[placed.action])
            taken = ActionTaken(at=event.at, tasks=event.tasks, call=event.call, **placed._asdict())
            self._pass(taken)
        return True

    def _standing(self, event: CallReserved | CallDenied, route: Route) -> tuple[StopReport | None, Subject]:
        """Why the call is refused whatever it costs, and for which task."""
        tasks, called = route.tasks, route.called
        if looping.found_in(tasks):
            looping.latch(tasks, called)
        first = tasks[0]
        if first.pending is not None and called.kind is Kind.MODEL and first.root_diverged:
            first.stop, first.pending = first.stop or first.pending, None
        for task in tasks:
            if event.kept and (kept := event.kept.get(task.id)) is not None:
                task.keep_seconds(kept)
        now = event.at - first.offset if event.clock is None else event.clock
        answered = answered_by(event, tasks) if event.final else None
        stop = plan.standing_refusal(tasks, called, now=now, answered=answered, caught=tuple(event.kept))
        often = None if stop is not None else retrying.too_often(tasks, called, event.attempt)
        return (stop, first) if often is None else (often[0], cast("Subject", often[1]))

    def _needless(self, event: CallReserved | CallDenied, *, ran: bool) -> bool:
        """Whether *event* is the last answer of a task that goes on here: it is left out."""
        if not self._lands_nowhere(event):
            return False
        self._skip(event, ran=ran)
        return True

    def _skip(self, event: CallReserved | CallDenied, *, ran: bool) -> None:
        """The call is not made here."""
        if ran:
            self._refused.add(event.call)
            self.totals.skipped += 1

    def _judged(
        self, event: CallReserved | CallDenied, held: Held, stop: StopReport | None, latch: Subject, *, ran: bool
    ) -> Held | None:
        """The consequences of a decision that is not simply to go on."""
        runs = stop is None or not self._enforcing
        self._tell(event, held.route, stop, runs=runs, ran=ran)
        if stop is not None:
            if not runs:
                self._refuse(event, held, stop, latch, ran=ran)
                return None
            self._deny(event, held, stop)
            held = msgspec.structs.replace(held, amounts=NOTHING, unreserved=True)
        if not ran:  # refused in the recording: what it would have cost is not known
            settle(held.entries, held.amounts, NOTHING)
            return None
        self._holds[event.call] = held
        return held

    def _refuse(
        self, event: CallReserved | CallDenied, held: Held, stop: StopReport, latch: Subject, *, ran: bool
    ) -> None:
        """The call is refused, and its task stopped, unless it can do without this tool call."""
        self._skip(event, ran=ran)
        if isinstance(event, CallReserved) and latch.id in event.lenient:
            if not stop.limit.startswith("tools[") and latch.pending is None and latch.stop is None:
                latch.pending = stop
            self._pass(refused_leniently(event, held, stop))
            return
        if latch.stop is None:
            latch.stop = stop
            if ran:
                self._keep_for_landing(event, latch)
        self.stop = self.stop or stop
        self._deny(event, held, stop)

    def _tell(
        self, event: CallReserved | CallDenied, route: Route, stop: StopReport | None, *, runs: bool, ran: bool
    ) -> None:
        """Count the decision, report it, and note where it leaves the recording."""
        subject = route.tasks[0]
        root = route.tasks[-1]
        if self._on_verdict is not None:
            self._on_verdict(Verdict(event.call, event.at, event.kind, route.called.name, subject.id, runs, stop, ran))
        if runs is not ran:
            self._diverge(event, root, "admitted" if runs else "refused", stop)
        root.decisions += 1

    def _diverge(
        self, event: CallReserved | CallDenied | CallSettled, root: Subject, why: str, stop: StopReport | None
    ) -> None:
        self.notes.add(NOTES[why])
        if root.diverged:
            return
        root.diverged = True
        self.totals.diverged += 1
        if len(self.divergences) < MAX_DIVERGENCES:
            self.divergences.append(
                Divergence(root.id, event.call, event.kind, event.name, event.at, root.decisions, why, stop)
            )

    def _deny(self, event: CallReserved | CallDenied, held: Held, stop: StopReport) -> None:
        if self._sink is None:
            return
        self._sink(
            CallDenied(
                at=event.at,
                call=event.call,
                tasks=event.tasks,
                kind=event.kind,
                name=held.route.called.name,
                stop=stop.to_dict(),
                cost=held.estimate.cost,
                estimate_input=event.estimate_input,
                estimate_output=event.estimate_output,
                enforced=self._enforcing,
                attempt=event.attempt,
                agent=event.agent,
                node=event.node,
            )
        )

    def _action_taken(self, event: ActionTaken) -> None:
        if event.action == "refuse" and "tool" in event.numbers:
            self._admit(asked_in_vain(event), ran=False)
        else:
            super()._action_taken(event)

    def _call_extended(self, event: events.CallExtended) -> None:
        held = self._holds.get(event.call)
        if held is None:
            return  # refused in the replay
        if event.estimate_output > held.estimate.output_tokens:  # else decided by the refusal recorded before it
            self._extend(event, held, event.estimate_output, event.cost, ran=True)
            held = self._holds[event.call]
        if self._sink is not None and held.estimate.output_tokens == event.estimate_output:
            self._sink(replace(event, cost=held.estimate.cost))

    def _extend(
        self, event: events.CallExtended | CallDenied, held: Held, output: int, cost: int, *, ran: bool
    ) -> None:
        """Decide the growth of a stream to *output* tokens, for which the recording held *cost* in total."""
        route = held.route
        after = Estimate(held.estimate.input_tokens, output, cost)
        if self._repricer is not None and (reserved := self._reserved.get(event.call)) is not None:
            after = self._repricer.grown(reserved, held.estimate, output, cost)
        growth = plan.growth(route.called, held.estimate, after)
        short = take(held.entries, growth)
        stop, latch = None, route.tasks[0]
        if short is not None:
            stop, latch = self._explained(route, held.lines[short], held.entries[short], growth)
        wanted = event if isinstance(event, CallDenied) else asked(event, route)
        runs = stop is None or not self._enforcing
        self._tell(wanted, route, stop, runs=runs, ran=ran)
        if stop is not None:
            if not runs and latch.stop is None:
                latch.stop = stop
            self.stop = self.stop or (None if runs else stop)
            self._deny(wanted, msgspec.structs.replace(held, estimate=after), stop)
        if stop is None:
            held = msgspec.structs.replace(
                held, amounts=Amounts(*[a + b for a, b in zip(held.amounts, growth, strict=True)])
            )
        if runs:
            self._holds[event.call] = msgspec.structs.replace(held, estimate=after)

    def _call_released(self, event: events.CallReleased) -> None:
        held = self._holds.pop(event.call, None)
        self._refused.discard(event.call)
        if held is not None:
            settle(held.entries, held.amounts, NOTHING)
            self._pass(event)

    def _call_settled(self, event: CallSettled) -> None:
        cost = event.cost
        self.totals.recorded += cost
        held = self._holds.pop(event.call, None)
        if held is None:
            if event.call in self._refused:
                self._refused.discard(event.call)
                self.totals.wasted += cost if event.wasted else 0
                return
            held = self._unseen(event)
        if self._repricer is not None and self._repricer.touches(event):
            cost = self._priced(event, held)
        if not event.priced and not cost and event.kind == "model":
            self.totals.unpriced += 1
        route, usage = held.route, event.usage
        counts = counts_of(usage) if usage else NO_COUNTS
        if self._ladder is not None and event.kind == "model":
            counts = self._after_ladder(event, route, counts)
        kind, name = route.called
        actual = plan.actual_amounts(kind, cost, counts, retry=event.retry)
        settle(held.entries, held.amounts, actual)
        for task in route.tasks:
            task.charged(kind, name, cost)
        self.totals.cost += cost
        if self._sink is not None:
            overrun = 0 if held.unreserved else max(0, cost - held.amounts.cost)
            self._sink(replace(event, cost=cost, name=held.route.called.name, overrun=overrun))
        if route.looped or self._sink is not None:
            self._watch(event, route)

    def _priced(self, event: CallSettled, held: Held) -> int:
        assert self._repricer is not None  # noqa: S101 - the caller looked
        reserved = self._reserved.pop(event.call, None)
        cost, low, high = self._repricer.settled(event, held.estimate, reserved.cost if reserved is not None else 0)
        self.totals.less += cost - low
        self.totals.more += high - cost
        if low != high:
            self.notes.add(NOTES["tokenizer"])
        return cost

    def _after_ladder(self, event: CallSettled, route: Route, counts: Counts) -> Counts:
        assert self._ladder is not None  # noqa: S101 - the caller looked
        assert self._repricer is not None  # noqa: S101 - a ladder has one
        self._ladder.learn(event, route.tasks[0])
        cap = self._repricer.forget(event.call)
        return counts if cap is None else msgspec.structs.replace(counts, output_tokens=min(counts.output_tokens, cap))

    def _unseen(self, event: CallSettled) -> Held:
        """The hold of a call whose reservation is not in the trace: nothing was held for it."""
        self.totals.calls += 1
        route = self._route(event)
        return Held(route, route.lines, route.entries, NOTHING, Estimate())

    def _repriced(self, event: CallReserved | CallDenied, route: Route) -> Estimate:
        assert self._repricer is not None  # noqa: S101 - the caller looked
        if not self._repricer.touches(event):
            return Estimate(event.estimate_input, event.estimate_output, event.cost)
        self._reserved[event.call] = event
        if route.called.name != event.name:
            self._diverge(event, route.tasks[-1], "model", None)
        elif self._repricer.moved(event):
            self._diverge(event, route.tasks[-1], "shrunk", None)
        return self._repricer.held(event)

    # -- reasons -------------------------------------------------------------------------------------------------

    def _explained(self, route: Route, line: Line, entry: Entry, amounts: Amounts) -> tuple[StopReport, Subject]:
        owner = self._subjects.get(line.owner)
        stopped = owner if owner is not None and owner.is_open else route.tasks[0]
        return plan.explain(route.called, shortfall(entry, amounts), line, stopped), stopped

    def _outside(self, event: CallReserved | CallDenied, lines: Sequence[Line]) -> StopReport | None:
        """A recorded refusal for a reason outside all limits: it stands, while that reason does."""
        reason = event.stop.get("limit") if isinstance(event, CallDenied) else None
        if reason not in _OUTSIDE or (reason == "loops" and self._found_anew(event)):
            return None
        if reason == "unpriced" and not plan.limits_cost(lines):
            return None
        assert isinstance(event, CallDenied)  # noqa: S101 - only a refusal has a reason
        return stop_of(event)

    def _found_anew(self, event: CallReserved | CallDenied) -> bool:
        """Whether the loop rules have looked at the task themselves, or its budget has none."""
        tasks = [task for name in event.tasks if (task := self._subjects.get(name)) is not None]
        return all(task.budget.loops is None or task.watch is not None for task in tasks)

    def _spent_elsewhere(self, event: CallReserved | CallDenied) -> StopReport | None:
        """The recorded refusal by a shared limit, which others may have filled who are not in the trace."""
        if not isinstance(event, CallDenied) or self.policy.limits is not None:
            return None
        if not str(event.stop.get("limit", "")).startswith("the "):
            return None
        self.notes.add("a shared limit was filled by spend that is not in the trace: its recorded refusal stands")
        return stop_of(event)

    FOLDS: ClassVar[dict[type[Event], Callable[[Any, Any], None]]] = {
        **Watching.FOLDS,
        ActionTaken: _action_taken,
        CallReserved: _call_reserved,
        CallDenied: _call_denied,
        events.CallExtended: _call_extended,
        events.CallReleased: _call_released,
        CallSettled: _call_settled,
    }
