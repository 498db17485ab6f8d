from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.estimating import Estimator
from agentbudget.estimating.outputs import LEAST, START

RECORDED = (
    Path(__file__).parents[3]
    / "shared"
    / "data"
    / "trajectories"
    / "mini_swe_agent_gemini3pro_swebench_verified.jsonl.gz"
)


def test_a_declared_cap_is_reserved_in_full_whatever_was_learned() -> None:
    estimator = Estimator()
    for _ in range(100):
        estimator.observe_output("m", 5)
    assert estimator.output_bound("m", 64_000) == 64_000
    assert estimator.output_bound("m", 0) == 0


@pytest.mark.parametrize("cap", [-1, True, 1.5, float("nan"), "100"])
def test_a_nonsense_cap_is_refused(cap: Any) -> None:
    with pytest.raises(ValueError, match="an output cap is an int"):
        Estimator().output_bound("m", cap)


def test_an_unknown_model_starts_at_a_value_that_a_dear_one_can_pay_twice_from_half_a_dollar() -> None:
    bound = Estimator().output_bound("gpt-5-pro", None)
    assert bound == START
    assert 2 * bound * 120 / 1e6 <= 0.5


def test_the_bound_falls_to_a_margin_over_what_the_model_writes() -> None:
    estimator = Estimator()
    bounds = []
    for _ in range(10):
        estimator.observe_output("m", 400)
        bounds.append(estimator.output_bound("m", None))
    assert bounds[:4] == [1_536, 1_024, 600, 600]
    assert bounds[-1] == 600


def test_short_answers_never_bring_the_bound_below_its_least() -> None:
    estimator = Estimator()
    for _ in range(100):
        estimator.observe_output("m", 1)
    assert estimator.output_bound("m", None) == LEAST


def test_one_model_teaches_nothing_about_another() -> None:
    estimator = Estimator()
    estimator.observe_output("talker", 30_000)
    assert estimator.output_bound("other", None) == START


def test_after_an_output_above_the_bound_it_grows_and_then_shrinks_back() -> None:
    estimator = Estimator()
    for _ in range(64):
        estimator.observe_output("m", 400)
    estimator.observe_output("m", 5_000)
    grown = estimator.output_bound("m", None)
    assert grown == 900
    for _ in range(10):
        estimator.observe_output("m", 400)
    assert estimator.output_bound("m", None) == 600


def test_one_runaway_output_does_not_stop_the_calls_after_it() -> None:
    estimator = Estimator()
    for _ in range(64):
        estimator.observe_output("m", 400)
    estimator.observe_output("m", 65_536)
    assert estimator.output_bound("m", None) < START


def test_the_bound_follows_a_change_of_work_and_forgets_the_old() -> None:
    estimator = Estimator()
    for _ in range(64):
        estimator.observe_output("m", 8_000)
    for _ in range(64):
        estimator.observe_output("m", 300)
    assert estimator.output_bound("m", None) == 450


@pytest.mark.parametrize(("price_in", "price_out"), [(15, 120), (15, 75), (1.25, 10)])
@pytest.mark.parametrize("shared", [False, True])
def test_at_least_80_percent_of_the_recorded_calls_that_half_a_dollar_pays_for_are_admitted(
    price_in: float, price_out: float, *, shared: bool
) -> None:
    if not RECORDED.is_file():
        pytest.skip("the recorded trajectories are not beside this checkout")
    estimator = Estimator()
    paid = admitted = over = 0
    true, going = 0.0, True
    with gzip.open(RECORDED, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["type"] == "trajectory":
                true, going = 0.0, True
                estimator = estimator if shared else Estimator()
                continue
            if row["kind"] != "model":
                continue
            cost = (row["tokens_in"] * price_in + row["tokens_out"] * price_out) / 1e6
            if true + cost <= 0.5:
                paid += 1
                bound = estimator.output_bound("m", None)
                going = going and true + (1.06 * row["tokens_in"] * price_in + bound * price_out) / 1e6 <= 0.5
                admitted += going
                over += going and row["tokens_out"] > bound
                estimator.observe_output("m", row["tokens_out"])
            true += cost
    assert admitted >= 0.8 * paid
    assert over <= 0.07 * admitted


def test_a_stream_counts_by_chunk_or_by_byte_whichever_is_more() -> None:
    estimator = Estimator()
    assert estimator.output_so_far("m", chunks=0, bytes=0) == 0
    assert estimator.output_so_far("m", chunks=50, bytes=40) == 50
    assert estimator.output_so_far("m", chunks=2, bytes=4_000) == 1_000


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_an_extension_covers_what_was_produced_and_is_asked_for_before_the_end(reserved: int, produced: int) -> None:
    more = Estimator().next_extension("m", reserved, produced)
    assert more >= 0
    assert reserved + more > produced
    if more == 0:
        assert produced <= reserved - 16


def test_a_stream_that_grows_a_hundredfold_asks_a_few_dozen_times() -> None:
    estimator, reserved, asked = Estimator(), 640, 0
    for produced in range(64_000):
        more = estimator.next_extension("m", reserved, produced)
        reserved, asked = reserved + more, asked + (more > 0)
    assert asked <= 30
    assert reserved <= 1.4 * 64_000
