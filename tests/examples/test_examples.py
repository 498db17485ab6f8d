"""The examples run, and show what they say they show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_runaway_agent_is_stopped_within_its_budget(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "runaway_agent.py"), "--max-cost", "$0.02", "--trace", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Within the budget: yes. Exact to the nano-dollar: yes." in done.stdout
    (trace,) = tmp_path.glob("**/*.jsonl")
    assert f"Trace: {trace}" in done.stdout
