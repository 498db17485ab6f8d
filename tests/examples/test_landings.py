"""The example of the landings runs, and shows what it says it shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "landings.py"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("finish", "last message: About 960."),
        ("ask", "a person may answer: {'grant':"),
        ("end", "last message: I had to stop here"),
        ("raise", "raised: model gpt-4o needs up to"),
        ("callable", "these articles match: Bridges of Berlin"),
        ("tools", "tool calls: 3 run, 1 answered without being run"),
    ],
)
def test_the_landing_is_shown_with_a_valid_history(name: str, shown: str) -> None:
    command = [sys.executable, str(EXAMPLE), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown in done.stdout
    assert "0 refused by the provider; the history is valid" in done.stdout
