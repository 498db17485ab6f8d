"""The example of one budget for several processes runs, and shows what it says it shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.ledgers.servers import Server

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/shared_budget.py"


PROVED = "Within the budget: yes. Equal to the ledger: yes. Proved by its journal: yes."


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), "--processes", "2", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_several_processes_share_one_budget_and_never_pass_it() -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert PROVED in done.stdout
    assert done.stderr == ""


def test_the_same_holds_on_a_server_by_changing_the_url(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        done = run("--ledger", server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert PROVED in done.stdout
    assert done.stderr == ""
