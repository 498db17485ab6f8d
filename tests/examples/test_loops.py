"""The example of the loop rules runs, and shows what it says it shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "loops.py"


def test_work_is_left_alone_a_nudge_helps_and_a_loop_is_landed() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "working: 8 calls, completed: It is ready." in done.stdout
    assert "helped: 3 calls, completed: Not ready yet; yesterday's says 42." in done.stdout
    assert "stuck: 4 calls, stopped: The report was not ready however often I asked." in done.stdout
