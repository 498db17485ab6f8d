"""Law 15: replaying a trace under the policy that made it gives the same verdicts and the same total."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbudget.replay.whatif import replay
from agentbudget.trace.reader import Trace
from tests.replay.live import LiveRun


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9), mode=st.sampled_from(["enforce", "enforce", "observe"]))
def test_the_policy_that_made_a_trace_gives_the_same_verdicts_and_the_same_total(seed: int, mode: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        live = LiveRun(seed, Path(folder), mode=mode).play(60)
        again = replay(Trace.load(live.path))
        told = [(v.call, v.admitted, v.stop) for v in again.verdicts if v.call]
        recorded = live.verdicts()
        assert [(call, ran) for call, ran, _ in told] == [(call, ran) for call, ran, _ in recorded]
        for (call, _, stop), (_, _, why) in zip(told, recorded, strict=True):
            assert why in ({str(stop.to_dict()), stop.reason} if stop else {None}), call
        assert again.cost == again.recorded == live.cost
        assert (again.label, again.saved, again.diverged_at) == ("exact", Decimal(0), None)
        assert again.report.to_dict() == Trace.load(live.path).report.to_dict()


@pytest.mark.parametrize("seed", range(5))
def test_a_path_replays_as_its_loaded_trace_does(seed: int, tmp_path: Path) -> None:
    live = LiveRun(seed, tmp_path).play(80)
    loaded, streamed = replay(Trace.load(live.path)), replay(live.path)
    assert loaded.to_dict() == {**streamed.to_dict(), "path": loaded.path}
    assert loaded.verdicts == streamed.verdicts


def test_reading_a_trace_needs_no_replay() -> None:
    script = (
        "import sys, agentbudget as ab; ab.Trace; sys.exit(any('agentbudget.replay' in name for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
