"""Recorded conversations of a real agent, re-enacted under budgets. Skipped where the recording is absent."""

from __future__ import annotations

import os
import sys
from decimal import Decimal
from pathlib import Path

import pytest

import agentbudget as ab

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("AGENTBUDGET_DATA", ROOT.parent / "shared" / "data"))
sys.path.insert(0, str(ROOT / "examples"))

import airline_agents  # noqa: E402 - examples are no package

pytestmark = pytest.mark.skipif(not (DATA / airline_agents.FILE).exists(), reason="the recording is not here")


def test_under_a_generous_budget_every_conversation_is_the_recorded_one() -> None:
    governor = ab.Governor()
    for row in airline_agents.rows(DATA):
        _, said, stopped = airline_agents.enact(row, "$5", governor)
        assert not stopped
        assert airline_agents.same(said, airline_agents.recorded_messages(row)), row["traj_id"]


def test_under_a_tight_budget_every_conversation_stops_below_it() -> None:
    governor = ab.Governor()
    stops = 0
    for row in airline_agents.rows(DATA):
        report, said, stopped = airline_agents.enact(row, "$0.02", governor)
        stops += stopped
        recorded = airline_agents.recorded_messages(row)
        assert report.cost <= Decimal("0.02"), row["traj_id"]
        assert airline_agents.same(said, recorded[: len(said)]), row["traj_id"]
    assert stops > 80
