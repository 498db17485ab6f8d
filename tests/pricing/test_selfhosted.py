from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.domain.usage import Usage
from agentbudget.errors import ConfigurationError
from agentbudget.pricing.book import PriceBook
from agentbudget.pricing.selfhosted import SelfHosted, Served, Split

GOLDEN = Served(
    hours=1,
    prompt_tokens=12_000_000,
    output_tokens=3_000_000,
    cached_tokens=800_000,
    prefill_seconds=600,
    decode_seconds=600,
)


def test_the_worked_example_of_opencost_is_reproduced() -> None:
    prices = SelfHosted("llama-3-70b", gpu_hour="$3.20", served=GOLDEN).prices()
    assert prices.split == "time"
    assert [round(float(price), 3) for price in (prices.blended, prices.input, prices.output)] == [0.213, 0.143, 0.533]


@given(
    prompt=st.integers(1, 10**8),
    out=st.integers(1, 10**8),
    cached=st.floats(0, 0.99),
    seconds=st.tuples(st.floats(1, 3600), st.floats(1, 3600)),
    split=st.sampled_from(["time", "ratio", "blended"]),
)
def test_the_prices_of_a_window_add_up_to_its_bill(
    prompt: int, out: int, cached: float, seconds: tuple[float, float], split: Split
) -> None:
    served = Served(
        hours=2,
        prompt_tokens=prompt,
        output_tokens=out,
        cached_tokens=int(prompt * cached),
        prefill_seconds=seconds[0],
        decode_seconds=seconds[1],
    )
    prices = SelfHosted("m", gpu_hour="$3.20", gpus=2, overhead_hour="$0.40", split=split).prices(served)
    fresh = prompt - served.cached_tokens
    assert (prices.input * fresh + prices.output * out) / 10**6 == Fraction("6.80") * 2
    assert prices.blended * (prompt + out) / 10**6 == Fraction("13.6")


def test_output_costs_the_ratio_times_input_where_no_times_were_measured() -> None:
    served = Served(hours=1, prompt_tokens=100, output_tokens=100)
    prices = SelfHosted("m", gpu_hour=1, served=served, ratio=4).prices()
    assert (prices.split, prices.output) == ("ratio", prices.input * 4)


def test_a_governor_takes_it_as_a_price() -> None:
    hosted = SelfHosted("llama-3-70b", gpu_hour="$3.20", served=GOLDEN)
    rates = PriceBook(overrides={"llama-3-70b": hosted}).rates("llama-3-70b", on=date(2026, 11, 1))
    usage = Usage(input_tokens=1_000_000, cache_read_tokens=400_000, output_tokens=100_000)
    assert rates.cost(usage) == pytest.approx((0.6 * 1.6 / 11.2 + 0.1 * 1.6 / 3) * 10**9, abs=2)
    assert rates.ref.source == "override"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpus": 0}, "gpus=0"),
        ({"gpus": True}, "gpus=True"),
        ({"gpu_hour": "-1"}, "gpu_hour"),
        ({"gpu_hour": "abc"}, "gpu_hour"),
        ({"split": "guess"}, "split='guess'"),
        ({"split": "time", "served": Served(hours=1, prompt_tokens=1, output_tokens=1)}, "measure prefill_seconds"),
        ({"ratio": 0}, "ratio=0"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        SelfHosted("m", **{"gpu_hour": 1, **options})


def test_a_price_is_measured_never_guessed() -> None:
    with pytest.raises(ConfigurationError, match="no measured load"):
        PriceBook(overrides={"m": SelfHosted("m", gpu_hour=1)})
    for wrong in ({"hours": 0}, {"prompt_tokens": 0, "output_tokens": 0}, {"cached_tokens": 11}, {"hours": -1}):
        with pytest.raises(ConfigurationError, match="Served"):
            Served(**{"hours": 1, "prompt_tokens": 10, "output_tokens": 5, **wrong})
