"""The example of one budget for several processes runs, and shows what it says it shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/shared_budget.py"


def test_several_processes_share_one_budget_and_never_pass_it() -> None:
    command = [sys.executable, str(EXAMPLE), "--processes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Within the budget: yes. Equal to the ledger: yes. Proved by its journal: yes." in done.stdout
    assert done.stderr == ""
