"""Fitting a call into the room there is: the effects around the pure rule of `policies.ladder`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from agentbudget.domain.accounts import Account, Balance
from agentbudget.governor.governor import Governor
from agentbudget.governor.hold import Hold, Refusal
from agentbudget.governor.task import Task
from agentbudget.governor.values import Call
from agentbudget.governor.waiting import Waiter
from agentbudget.policies.ladder import Option, Step, Verdict, decide

_LOOK_EVERY_SECONDS = 0.5
"""Calls of other processes settle without telling this one."""
_RACES = 4
"""How often room that was seen may be taken by others before a call gives up on it."""

Short = frozenset[Account]
"""Accounts that have no room now, but will when calls in flight have settled."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A call to one model of the ladder. Counts are output tokens of one answer."""

    call: Call
    wanted: int
    """What it should be able to write: its declared cap, or what its model usually needs at most."""
    most: int
    """What it may write where there is room; as `wanted` for a declared cap."""
    least: int
    """An answer shorter than this is no answer."""

    def capped(self, cap: int | None) -> Call:
        """The call with *cap*; None leaves it as it is."""
        return self.call if cap is None or cap == self.call.cap else replace(self.call, cap=cap)


class Fit(NamedTuple):
    """A call that fits and is reserved; `Governor.begin` it or `Governor.release` it."""

    hold: Hold
    rung: int
    """Which of the candidates."""
    affordable: int
    """Output tokens that could be afforded with the first candidate when this was decided."""
    waited: float | None
    """Seconds it waited for calls in flight; None if it never had to."""

    @property
    def cap(self) -> int | None:
        """The output cap that the reservation is for; None where none was declared or set."""
        return self.hold.call.cap


def fit(
    governor: Governor,
    tasks: tuple[Task, ...],
    candidates: Sequence[Candidate],
    *,
    shrink: bool,
    wait_seconds: float,
    held: tuple[Hold, ...],
    ring: Callable[[], None],
) -> Generator[float, None, Fit | Refusal]:
    """Make one of *candidates* fit and reserve it, or say why the first one does not fit.

    Yields where the caller has to wait: for *ring* to be called (by any thread), at most for so many seconds. Closing
    the generator leaves nothing behind.

    Args:
        governor: whose limits it must fit.
        tasks: who pays, innermost first.
        candidates: the model in use, then cheaper ones.
        shrink: whether output caps may be set.
        wait_seconds: longest wait in total.
        held: holds of the calls that this one runs within.
        ring: how to wake the caller.
    """
    clock = governor.clock
    began = clock.monotonic()
    waiter: Waiter | None = None
    try:
        while True:
            now = clock.monotonic()
            may_wait = now < began + wait_seconds
            outcome: Fit | Refusal | Short = _queued(governor, tasks, candidates, waiter, held) if may_wait else Short()
            outcome = outcome or _try(governor, tasks, candidates, shrink=shrink, may_wait=may_wait, held=held)
            if isinstance(outcome, Refusal):
                return outcome
            if isinstance(outcome, Fit):
                return outcome if waiter is None else outcome._replace(waited=now - began)
            if waiter is None:
                waiter = Waiter(outcome, held, ring)
                governor.waiting.enter(waiter)
            else:
                waiter.short = outcome
                yield min(began + wait_seconds - now, _LOOK_EVERY_SECONDS)
    finally:
        if waiter is not None:
            governor.waiting.leave(waiter)


def _queued(
    governor: Governor,
    tasks: tuple[Task, ...],
    candidates: Sequence[Candidate],
    waiter: Waiter | None,
    held: tuple[Hold, ...],
) -> Short:
    """What others wait for who came first; empty for a call whose turn it is."""
    if not len(governor.waiting) or held:
        return Short()
    if waiter is not None:
        return Short() if governor.waiting.is_next(waiter) else waiter.short
    drafted = governor.draft(tasks, candidates[0].call)
    return Short() if isinstance(drafted, Refusal) else governor.waiting.behind(line.account for line in drafted.lines)


def _try(
    governor: Governor,
    tasks: tuple[Task, ...],
    candidates: Sequence[Candidate],
    *,
    shrink: bool,
    may_wait: bool,
    held: tuple[Hold, ...],
) -> Fit | Refusal | Short:
    """One look: reserve what is best now, or say what to wait for."""
    first = candidates[0]
    answer = governor.offer(tasks, first.capped(first.most if shrink else None))
    if isinstance(answer, Hold):
        return Fit(answer, 0, first.most, None)
    refusal = answer
    for _ in range(_RACES):
        if not refusal.short:
            return refusal
        stuck = governor.waiting.blocked(held)
        options = [_option(governor, tasks, each, stuck, shrink=shrink) for each in candidates]
        verdict = decide(options, shrink=shrink, may_wait=may_wait)
        if verdict.step is Step.REFUSE:
            return _least(governor, tasks, first) if shrink else refusal
        if verdict.step is Step.WAIT:
            return _short(governor, refusal.hold, first.wanted)
        chosen = candidates[verdict.rung]
        answer = governor.offer(tasks, chosen.capped(_cap(chosen, options[verdict.rung], verdict) if shrink else None))
        if isinstance(answer, Hold):
            return Fit(answer, verdict.rung, options[0].now, None)
        refusal = answer
    return _short(governor, refusal.hold, first.wanted) if may_wait else refusal


def _least(governor: Governor, tasks: tuple[Task, ...], first: Candidate) -> Fit | Refusal:
    """The refusal of the least that the model in use could be asked for; room that came up meanwhile is taken."""
    answer = governor.offer(tasks, first.capped(first.least))
    return answer if isinstance(answer, Refusal) else Fit(answer, 0, first.least, None)


def _cap(chosen: Candidate, option: Option, verdict: Verdict) -> int:
    """The cap to reserve. A call that nobody capped may have more than it usually needs, but leaves half to others."""
    if verdict.cap < chosen.wanted:
        return verdict.cap
    return min(chosen.most, max(chosen.wanted, option.now // 2))


def _option(
    governor: Governor, tasks: tuple[Task, ...], candidate: Candidate, stuck: Iterable[Hold], *, shrink: bool
) -> Option:
    """What *candidate* could write now, and with the calls in flight settled at nothing."""
    draft = governor.draft(tasks, candidate.call)
    now = freed = -1
    if isinstance(draft, Hold):
        balances = governor.balances(draft)
        now_room = {account: (balance.limit or 0) - balance.committed for account, balance in balances.items()}
        now = _affordable(governor, draft, now_room, candidate, shrink=shrink)
        freed = _affordable(governor, draft, _freed(balances, stuck), candidate, shrink=shrink)
    return Option(wanted=candidate.wanted, least=candidate.least, now=now, freed=freed)


def _freed(balances: Mapping[Account, Balance], stuck: Iterable[Hold]) -> dict[Account, int]:
    """Room of each account once every reservation but those of *stuck* calls is gone."""
    room = {account: (b.limit or 0) - b.settled - b.presumed for account, b in balances.items()}
    for hold in stuck:
        for line in hold.lines:
            if line.account in room:
                room[line.account] -= hold.reserved[line.place] + sum(more[line.place] for _, more in hold.extensions)
    return room


def _affordable(
    governor: Governor, draft: Hold, room: Mapping[Account, int], candidate: Candidate, *, shrink: bool
) -> int:
    """The most output tokens of one answer, up to what the candidate may write, that fit into *room*; -1 for none."""
    answers = draft.call.answers

    def too_much(tokens: int) -> bool:
        return not governor.fits(draft, tokens * answers, room)

    if not too_much(candidate.most):
        return candidate.most
    if not shrink:
        return -1 if too_much(candidate.wanted) else candidate.wanted
    return bisect_left(range(candidate.most), True, key=too_much) - 1  # noqa: FBT003 - the value that is looked for


def _short(governor: Governor, hold: Hold, wanted: int) -> Short:
    """The accounts that have no room for *wanted* output tokens."""
    tokens = wanted * hold.call.answers
    balances = governor.balances(hold)
    return Short(
        account
        for account, balance in balances.items()
        if not governor.fits(hold, tokens, {account: (balance.limit or 0) - balance.committed})
    )
