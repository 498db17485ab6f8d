"""Recorded model calls on a ladder of cheaper models: the rules of the middleware, over recorded token bounds.

`policies.ladder.decide` and `policies.switching.project` decide, as they do live. What a live middleware would know and
a trace does not say is assumed: nothing waits for calls in flight, and every model of the ladder could take every call.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from agentbudget.domain.accounts import Meter
from agentbudget.estimating.outputs import MARGIN
from agentbudget.governor import plan
from agentbudget.policies.ladder import Option, Step, decide
from agentbudget.policies.switching import Pattern, Projection, project
from agentbudget.replay.book import Entry
from agentbudget.replay.prices import Repricer
from agentbudget.replay.subjects import KINDS, Named, Subject, Used
from agentbudget.trace.events import CallReserved, CallSettled

ANSWER_TOKENS = 256
"""An answer shorter than this is no answer; the middleware's default."""
_ROOM = 4
_BYTES_PER_TOKEN = 4
Model = tuple[str, str]
"""Provider (or empty) and name."""


class Placed(NamedTuple):
    """What was done to a call to make it fit."""

    action: str
    reason: str
    numbers: dict[str, str | int]


class Ladder:
    """The ladder of one replay; where each task stands on it is kept with the task."""

    def __init__(self, models: Sequence[str], repricer: Repricer) -> None:
        self._rungs: tuple[Model | None, ...] = (None, *[repricer.named(name) for name in models])
        self._prices = repricer
        self.calls = 0
        """Calls that went to another model, or got a shorter answer, than in the recording."""

    def place(self, event: CallReserved, task: Subject, entries: Sequence[Entry]) -> Placed | None:
        """Put *event* where it fits, from the rung on which *task* stands; what was done, None: nothing new."""
        start = self._projected(event, task, entries)
        rungs = self._rungs[task.rung :]
        options = [self._option(event, model, entries) for model in rungs]
        verdict = decide(options, shrink=True, may_wait=False)
        stays = verdict.step in {Step.PROCEED, Step.REFUSE}
        rung = 0 if stays else verdict.rung
        chosen, option = rungs[rung], options[rung]
        cap = option.now if verdict.step is not Step.REFUSE and option.now < event.estimate_output else None
        task.rung += rung
        if chosen is None and cap is None:
            return start
        self.calls += 1
        self._prices.move(event.call, chosen, cap)
        if rung:
            reason = f"{event.name} can write {max(0, options[0].now)} of {options[0].wanted} tokens with what is left"
            return Placed("downgrade", reason, {"from": event.name, "to": chosen[1] if chosen else event.name})
        if cap is not None and cap < option.wanted:
            reason = f"output capped at {cap} instead of {option.wanted} tokens, which is what the budget affords"
            return Placed("shrink", reason, {"cap": cap, "wanted": option.wanted})
        return start

    @staticmethod
    def learn(event: CallSettled, task: Subject) -> None:
        """What a settled model call of *task* says of the next one."""
        get = event.usage.get
        cached = get("cache_read_tokens", 0) + get("cache_write_5m_tokens", 0) + get("cache_write_1h_tokens", 0) > 0
        task.used = Used(get("input_tokens", 0), get("output_tokens", 0), cached)
        task.model_calls += 1

    def _projected(self, event: CallReserved, task: Subject, entries: Sequence[Entry]) -> Placed | None:
        """Go down before the limit is met, where staying is projected to break it."""
        used, room = task.used, [_room(entry) for entry in entries if entry.row.account.meter is Meter.COST]
        limited = [left for left in room if left is not None]
        stay = self._prices.rates_of(event, self._rungs[task.rung])
        if used is None or not limited or stay is None:
            return None
        pattern = Pattern(
            prefix=used.input + used.output,
            fresh=event.size // _BYTES_PER_TOKEN,
            output=used.output,
            cached=used.cached,
        )
        best: tuple[int, Projection] | None = None
        for rung in range(task.rung + 1, len(self._rungs)):
            other = self._prices.rates_of(event, self._rungs[rung])
            if other is None:
                continue
            seen = project(stay, other, pattern, done=task.model_calls, left=min(limited))
            if seen.worthwhile and (best is None or seen.switch < best[1].switch):
                best = rung, seen
            if best is not None and best[1].switch <= min(limited):
                break
        if best is None:
            return None
        task.rung, seen = best
        to = self._rungs[task.rung]
        show = Meter.COST.show
        reason = (
            f"the next {seen.steps} calls are projected at {show(seen.stay)}, with another model {show(seen.switch)}"
        )
        return Placed("downgrade", reason, {"from": event.name, "to": to[1] if to else "", "left": seen.left})

    def _option(self, event: CallReserved, model: Model | None, entries: Sequence[Entry]) -> Option:
        held = event.estimate_output
        wanted = held if event.capped else max(int(held / MARGIN), min(held, ANSWER_TOKENS))
        most = held if event.capped else _ROOM * held
        called = Named(KINDS["model"], event.name if model is None else model[1])

        def too_much(tokens: int) -> bool:
            estimate = self._prices.bound(event, model, tokens)
            if estimate is None:
                return True
            amounts = plan.estimated_amounts(called, estimate, retry=event.attempt > 1)
            return any(
                (room := _room(entry)) is not None and amounts[entry.place] > room
                for entry in entries
                if amounts[entry.place]
            )

        now = most if not too_much(most) else bisect_left(range(most), True, key=too_much) - 1  # noqa: FBT003 - what is looked for
        return Option(wanted=wanted, least=min(ANSWER_TOKENS, wanted), now=now, freed=now)


def _room(entry: Entry) -> int | None:
    """What *entry* has left; None: no limit."""
    row, _, most = entry
    if most is None:
        return None
    if most is not row.declared:
        row.declare(most)
    return row.ceiling - row.committed
