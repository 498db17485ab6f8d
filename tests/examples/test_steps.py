"""The example of the steps runs, and shows what it says it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "steps.py"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("route", r"models called: \['gpt-4o-mini'\]"),
        ("shrink", r"output capped at \d+ instead of 16000 tokens"),
        ("wait", r"answers: 32\n.*waited \d+\.\d s for calls in flight(.|\n)*32 model calls"),
        ("downgrade", r"models called: (gpt-4o )+(gpt-4o-mini ?)+\n"),
        ("compact", r"old messages cleared: the next \d+ calls of gpt-4o are projected"),
    ],
)
def test_the_step_is_taken_and_the_task_completes_within_its_budget(name: str, shown: str) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE), name], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(shown, done.stdout), done.stdout
    assert name == "shrink" or "completed, " in done.stdout
