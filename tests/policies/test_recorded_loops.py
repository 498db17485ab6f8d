"""The loop rules on recorded runs keep their bars."""

from __future__ import annotations

import pytest

from benchmarks import loops


def test_the_bars_on_recorded_runs_are_met() -> None:
    folder = loops.DATA / "trajectories"
    if not folder.exists():
        pytest.skip(f"no recorded trajectories at {folder}")
    missed = [text for text, met in loops.bars(loops.load(folder)) if not met]
    assert missed == []
