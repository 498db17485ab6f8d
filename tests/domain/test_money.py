"""Money as people write it: read exactly, or refused; never read as another amount."""

from __future__ import annotations

from decimal import Decimal

import pytest

from agentbudget.domain.money import Money, nanos
from agentbudget.errors import ConfigurationError


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("$0.50", 500_000_000),
        ("0.5 USD", 500_000_000),
        ("USD 0.50", 500_000_000),
        ("US$ .5", 500_000_000),
        ("$1,000.50", 1_000_500_000_000),
        ("$1,234,567", 1_234_567_000_000_000),
        ("$1_000", 1_000_000_000_000),
        (Decimal("0.000000001"), 1),
        (0.1, 100_000_000),
        (3, 3_000_000_000),
    ],
)
def test_an_amount_is_read_exactly(written: Money, expected: int) -> None:
    assert nanos(written, what="max_cost") == expected


@pytest.mark.parametrize("written", ["$0,50", "0,50", "$1,5", "1.000,50", "0,500", "01,000", "$1,000,00", "1,0000"])
def test_a_comma_before_cents_is_refused_and_not_read_as_a_hundred_times_as_much(written: str) -> None:
    with pytest.raises(ConfigurationError, match="write cents after a point"):
        nanos(written, what="max_cost")


@pytest.mark.parametrize("written", ["", "abc", "50c", "0.5 EUR", "€1", "$$1", "1__0", "-1", "1e-3", "٣", "$"])
def test_what_is_no_amount_of_dollars_is_refused(written: str) -> None:
    with pytest.raises(ConfigurationError, match="only US dollars are known"):
        nanos(written, what="max_cost")
