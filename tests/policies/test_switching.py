"""When a task changes to a cheaper model: only where that saves money, its cold prompt cache included."""

from __future__ import annotations

from datetime import date

from agentbudget.policies.switching import Pattern, project, rest_cost, steps_to_come
from agentbudget.pricing.book import PriceBook
from agentbudget.pricing.rates import Rates

BOOK = PriceBook(
    overrides={
        "dear": {"input": "2", "output": "8", "cache_read": "0.2"},
        "cheap": {"input": "1", "output": "4", "cache_read": "0.1"},
        "cheap-without-cache": {"input": "1", "output": "4", "cache_read": "1"},
    }
)


def rates(model: str) -> Rates:
    return BOOK.rates(model, on=date(2026, 1, 1))


def test_the_rest_cost_of_one_cold_call_is_its_bill() -> None:
    pattern = Pattern(prefix=1000, fresh=100, output=50, cached=True)
    assert rest_cost(rates("dear"), pattern, 1, warm=False) == 1100 * 2_000 + 50 * 8_000
    assert rest_cost(rates("dear"), pattern, 1, warm=True) == 1000 * 200 + 100 * 2_000 + 50 * 8_000


def test_each_call_re_sends_what_all_before_it_read_and_wrote() -> None:
    pattern = Pattern(prefix=1000, fresh=100, output=50, cached=False)
    first, second = 1100 * 2_000 + 50 * 8_000, 1250 * 2_000 + 50 * 8_000
    assert rest_cost(rates("dear"), pattern, 2, warm=True) == first + second


def test_a_projected_overrun_is_reason_to_switch() -> None:
    pattern = Pattern(prefix=10_000, fresh=500, output=500, cached=False)
    seen = project(rates("dear"), rates("cheap"), pattern, done=5, left=100_000_000)
    assert seen.stay > seen.left
    assert seen.worthwhile


def test_enough_money_is_no_reason_to_switch() -> None:
    pattern = Pattern(prefix=10_000, fresh=500, output=500, cached=False)
    assert not project(rates("dear"), rates("cheap"), pattern, done=5, left=10**12).worthwhile


def test_a_switch_that_loses_its_cache_for_good_is_not_worthwhile() -> None:
    pattern = Pattern(prefix=100_000, fresh=500, output=200, cached=True)
    assert not project(rates("dear"), rates("cheap-without-cache"), pattern, done=5, left=0).worthwhile


def test_a_cold_cache_is_paid_back_over_enough_calls_only() -> None:
    pattern = Pattern(prefix=100_000, fresh=100, output=100, cached=True)
    few = project(rates("dear"), rates("cheap"), pattern, done=0, left=0)
    many = project(rates("dear"), rates("cheap"), pattern, done=20, left=0)
    assert not few.worthwhile
    assert many.worthwhile


def test_as_many_calls_are_expected_as_were_made_within_bounds() -> None:
    assert [steps_to_come(done) for done in (0, 3, 7, 500)] == [3, 3, 7, 20]
