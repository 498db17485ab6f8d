from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.errors import ConfigurationError
from agentbudget.finops.capacity import (
    allocate,
    break_even,
    break_even_duty,
    machines_needed,
    measured_load,
    served,
)
from agentbudget.finops.history import History
from agentbudget.pricing.book import PriceBook
from agentbudget.pricing.selfhosted import SelfHosted
from tests.finops.traces import START, called, opened, write


@given(
    bill=st.integers(0, 10**13),
    used=st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 10**6), max_size=6),
    spare=st.integers(0, 10**6),
    idle=st.sampled_from(["apart", "shared"]),
)
def test_charges_and_idle_add_up_to_the_bill(
    bill: int, used: dict[str, int], spare: int, idle: Literal["apart", "shared"]
) -> None:
    capacity = sum(used.values()) + spare or 1
    told = allocate(bill, used, capacity, idle=idle)
    assert sum(told.charges.values()) + told.idle == told.bill
    assert all(charge >= 0 for charge in (*told.charges.values(), told.idle))
    if idle == "shared" and any(used.values()):
        assert told.idle == 0


def test_what_nobody_used_stays_idle_even_where_idle_is_shared() -> None:
    assert allocate(100, {"a": 0}, 10, idle="shared").idle * 10**9 == 100
    told = allocate(1000, {"a": 1, "b": 1}, 4)
    assert {name: int(charge * 10**9) for name, charge in told.charges.items()} == {"a": 250, "b": 250}
    assert told.utilisation == 0.5


def test_more_used_than_there_was_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="more than there was"):
        allocate(100, {"a": 11}, 10)


def test_break_even_is_where_the_api_would_cost_as_much(tmp_path: Path) -> None:
    events = [*opened("t", feature="chat")]
    for number in range(3):
        usage = {"input_tokens": 600_000, "output_tokens": 100_000}
        events += called(f"c{number}", "t", at=START + 1800 * number, name="llama-3-70b", usage=usage)
    hosted, book = SelfHosted("llama-3-70b", gpu_hour="$3.20"), PriceBook()
    with History.open(write(tmp_path / "t.jsonl", events)) as history:
        load = measured_load(history, "llama-3-70b")
        with pytest.raises(ConfigurationError, match="no call of model 'gpt-9'"):
            measured_load(history, "gpt-9")
    assert (load.hours, load.calls, load.by) == (1.0, 3, {"chat": 2_100_000})
    told = break_even(hosted, load, "gpt-4o", book=book, on=datetime(2026, 11, 1, tzinfo=UTC))
    assert told.own == Fraction("3.2") * 730
    assert told.api == (Fraction("1.8") * Fraction("2.5") + Fraction("0.3") * 10) * 730
    assert told.cheaper == "own"
    assert told.even_tokens == pytest.approx(told.tokens * float(told.own / told.api), rel=1e-6)
    prices = hosted.prices(served(load))
    assert (prices.input * 1_800_000 + prices.output * 300_000) / 10**6 == Fraction("3.2")


def test_duty_and_machines() -> None:
    assert break_even_duty(2, 8) == Fraction(1, 4)
    assert machines_needed(1000, capacity=500, target=0.5) == 4
    assert machines_needed(0, capacity=500) == 1
    for wrong in ({"demand": -1.0, "capacity": 1.0}, {"demand": 1.0, "capacity": 0.0}):
        with pytest.raises(ConfigurationError, match="tokens a second"):
            machines_needed(**wrong)
    with pytest.raises(ConfigurationError, match="above 0"):
        break_even_duty(1, 0)
