"""What a stop says, in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from agentbudget.domain.verdict import StopReport


@pytest.mark.parametrize(
    ("stop", "sentence"),
    [
        (
            {"limit": "max_cost", "meter": "cost", "requested": 30_000_000, "settled": 450_000_000, "kept": 10_000_000}
            | {"limit_amount": 470_000_000},
            "needs up to $0.03, but max_cost of task t1 is $0.47: $0.45 spent, $0.01 kept for the last answer",
        ),
        (
            {"limit": "max_model_calls", "meter": "model_calls", "requested": 1, "settled": 4, "limit_amount": 4},
            "needs 1 more, but max_model_calls of task t1 is 4: 4 spent",
        ),
        (
            {"limit": "max_seconds", "meter": "seconds", "settled": 27, "limit_amount": 30, "kept": 3},
            "is out of time: max_seconds of task t1 is 30 s, 27 s have passed, 3 s kept for the last answer",
        ),
        ({"limit": "unpriced"}, "refused: it has no price"),
        ({"limit": "ledger"}, "refused: the ledger is out of reach"),
        (
            {"limit": "stopped", "detail": "the task was stopped by hand"},
            "refused: the task was stopped by hand",
        ),
    ],
)
def test_a_stop_says_in_words_and_units_what_was_in_the_way(stop: dict[str, Any], sentence: str) -> None:
    assert StopReport(call="model gpt-4o", scope="task t1", **stop).reason == f"model gpt-4o {sentence}"
