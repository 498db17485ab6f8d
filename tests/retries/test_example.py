"""The example does what its text says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import retries  # noqa: E402 - examples are no package


def test_the_example_shows_27_requests_then_3_and_an_answer_after_retries(capsys: pytest.CaptureFixture[str]) -> None:
    assert retries.main() == 0
    shown = capsys.readouterr().out
    assert "27 attempts of 1 call (27x)" in shown
    assert "3 requests left." in shown
    assert "Answer: About 960." in shown
