"""What to do with a call that may not fit: proceed, wait, downgrade, shrink, or refuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Step(StrEnum):
    """What a verdict says. A downgraded call may be capped below what it wanted, too."""

    PROCEED = "proceed"
    WAIT = "wait"
    DOWNGRADE = "downgrade"
    SHRINK = "shrink"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One model a call could go to, in output tokens. -1 for `now` or `freed`: not even the input is affordable."""

    wanted: int
    """What the call should be able to write: its declared cap, or what the model usually needs at most."""
    least: int
    """An answer shorter than this is no answer."""
    now: int
    """What is affordable as things are."""
    freed: int
    """What would be affordable if the calls in flight settled at nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision: what to do, with which rung of the ladder, at which output cap in tokens."""

    step: Step
    rung: int = 0
    cap: int = 0


def decide(options: Sequence[Option], *, shrink: bool, may_wait: bool) -> Verdict:
    """The best thing that can be done with a call, given what each rung of the ladder affords; the first is the model
    in use.

    In this order: the model in use in full; in full once the calls in flight have settled (a wait costs nothing); a
    cheaper model in full; the model in use with a shorter answer; a cheaper model with a shorter answer; a shorter
    answer once calls in flight have settled; a refusal.
    """
    first = options[0]
    if first.now >= first.wanted:
        return Verdict(step=Step.PROCEED, cap=first.wanted)
    if may_wait and first.freed >= first.wanted:
        return Verdict(step=Step.WAIT)
    for rung, option in enumerate(options):
        if rung and option.now >= option.wanted:
            return Verdict(step=Step.DOWNGRADE, rung=rung, cap=option.wanted)
    if shrink:
        for rung, option in enumerate(options):
            if option.now >= option.least:
                return Verdict(step=Step.DOWNGRADE if rung else Step.SHRINK, rung=rung, cap=option.now)
    if may_wait and any(option.freed >= (option.least if shrink else option.wanted) for option in options):
        return Verdict(step=Step.WAIT)
    return Verdict(step=Step.REFUSE)
