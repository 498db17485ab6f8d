"""The pure rule: what is done with a call that may not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.policies.ladder import Option, Step, Verdict, decide


def option(now: int, freed: int | None = None, *, wanted: int = 1000, least: int = 256) -> Option:
    return Option(wanted=wanted, least=least, now=now, freed=now if freed is None else freed)


FULL, SHORT, NOTHING = option(1000), option(400), option(-1)

CASES = {
    "what fits goes ahead": ([FULL, FULL], Verdict(step=Step.PROCEED, cap=1000)),
    "only reservations in the way: wait, before any loss of quality": (
        [option(400, 1000), FULL],
        Verdict(step=Step.WAIT),
    ),
    "a full answer of a cheaper model before a short one": (
        [SHORT, NOTHING, FULL],
        Verdict(step=Step.DOWNGRADE, rung=2, cap=1000),
    ),
    "a short answer where no model can give a full one": ([SHORT, SHORT], Verdict(step=Step.SHRINK, cap=400)),
    "a short answer of a cheaper model where the dear one can give none": (
        [NOTHING, SHORT],
        Verdict(step=Step.DOWNGRADE, rung=1, cap=400),
    ),
    "below the floor, wait for what settles": ([option(200, 300)], Verdict(step=Step.WAIT)),
    "below the floor for good": ([option(200, 255)], Verdict(step=Step.REFUSE)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_best_step_is_taken(case: str) -> None:
    options, expected = CASES[case]
    assert decide(options, shrink=True, may_wait=True) == expected


def test_without_shrink_a_short_answer_is_never_given() -> None:
    assert decide([SHORT, SHORT], shrink=False, may_wait=True).step is Step.REFUSE


def test_without_patience_nothing_waits() -> None:
    assert decide([option(400, 1000)], shrink=True, may_wait=False) == Verdict(step=Step.SHRINK, cap=400)
    assert decide([option(100, 1000)], shrink=True, may_wait=False).step is Step.REFUSE


amounts = st.integers(-1, 2000)
options_ = st.builds(
    lambda now, more, wanted, least: option(now, now + more, wanted=wanted, least=min(least, wanted)),
    amounts,
    st.integers(0, 2000),
    st.integers(1, 1500),
    st.integers(1, 500),
)


@given(st.lists(options_, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_a_verdict_never_takes_more_than_is_there_and_never_less_than_the_floor(
    options: list[Option], shrink: bool, may_wait: bool
) -> None:
    verdict = decide(options, shrink=shrink, may_wait=may_wait)
    if verdict.step in {Step.PROCEED, Step.SHRINK, Step.DOWNGRADE}:
        chosen = options[verdict.rung]
        assert chosen.least <= verdict.cap <= min(chosen.now, chosen.wanted)
        assert shrink or verdict.cap == chosen.wanted
    assert may_wait or verdict.step is not Step.WAIT
    if verdict.step is Step.WAIT:
        assert any(each.freed > each.now for each in options), "a wait that nothing can end"
