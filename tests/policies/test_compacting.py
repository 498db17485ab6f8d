"""When a context is made smaller: only where going on would break a limit, and only where that really saves."""

from __future__ import annotations

from agentbudget.domain.usage import Usage
from agentbudget.policies.compacting import Cut, saving
from agentbudget.policies.switching import Pattern

LONG = Pattern(prefix=20_000, fresh=500, output=100, cached=False)


def cost(usage: Usage) -> int:
    """Ten nano-dollars a token read, one where it is read from the cache."""
    fresh = usage.input_tokens - usage.cache_read_tokens
    return 10 * fresh + usage.cache_read_tokens + 40 * usage.output_tokens


def test_what_would_break_the_limit_is_worth_a_cut() -> None:
    seen = saving(cost, LONG, Cut(removed=15_000), own=0, done=5, left=500_000)
    assert seen.stay > seen.left > seen.compact
    assert seen.worthwhile


def test_a_limit_that_holds_is_no_reason() -> None:
    assert not saving(cost, LONG, Cut(removed=15_000), own=0, done=5, left=10**9).worthwhile


def test_a_cut_that_takes_more_than_it_saves_is_none() -> None:
    gain = saving(cost, LONG, Cut(removed=15_000), own=0, done=5, left=0)
    assert not saving(cost, LONG, Cut(removed=15_000), own=gain.stay - gain.compact, done=5, left=0).worthwhile
    assert not saving(cost, LONG, Cut(removed=15_000, added=15_000), own=0, done=5, left=0).worthwhile


def test_a_gain_within_the_error_of_the_projection_is_none() -> None:
    assert not saving(cost, LONG, Cut(removed=1_000), own=0, done=5, left=0).worthwhile


def test_the_cache_that_is_lost_counts() -> None:
    cached = Pattern(prefix=20_000, fresh=500, output=100, cached=True)
    cut = Cut(removed=10_000)
    assert saving(cost, LONG, cut, own=0, done=5, left=0).worthwhile
    assert not saving(cost, cached, cut, own=0, done=5, left=0).worthwhile


def test_what_making_it_takes_is_part_of_the_price() -> None:
    free = saving(cost, LONG, Cut(removed=10_000), own=0, done=5, left=0)
    paid = saving(cost, LONG, Cut(removed=10_000), own=7, done=5, left=0)
    assert paid.compact == free.compact + 7
