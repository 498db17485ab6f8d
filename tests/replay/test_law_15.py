"""Law 15: replaying a trace under the policy that made it gives the same verdicts and the same total."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import agentbudget as ab
from agentbudget.domain.verdict import StopReport
from agentbudget.governor.values import Call, Kind
from agentbudget.replay.whatif import replay
from agentbudget.trace.reader import Trace
from tests.replay.live import LiveRun


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9), mode=st.sampled_from(["enforce", "enforce", "observe"]))
@example(seed=1929381, mode="enforce")  # a task that is not stopped itself is resumed, and those within it go on
@example(seed=70631595, mode="observe")  # two loops are found at the same moment
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


def test_a_stop_that_is_lifted_by_hand_is_lifted_in_the_replay_too(tmp_path: Path) -> None:
    governor = ab.Governor(trace=tmp_path / "t.jsonl")
    task = governor.open_task("t", ab.Budget(max_model_calls=1))

    def refused(number: int, model: str) -> str:
        answer = governor.admit((task,), Call(id=f"c{number}", kind=Kind.MODEL, name=model, provider="openai", cap=10))
        return answer.call if isinstance(answer, StopReport) else ""

    told = [refused(0, "gpt-4o"), refused(1, "gpt-4o"), refused(2, "gpt-5")]
    governor.lift(task)
    told.append(refused(3, "gpt-5"))
    governor.close()
    assert told == ["", "model gpt-4o", "model gpt-4o", "model gpt-5"]
    replayed = [v.stop.call if v.stop else "" for v in replay(Trace.load(tmp_path / "t.jsonl")).verdicts]
    assert replayed == told


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
