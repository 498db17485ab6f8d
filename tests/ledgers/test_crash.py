"""The SQLite ledger after kills, torn files and forks: a suffix may be lost, never a part of a verb."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.sqlite import SqliteLedger
from agentbudget.testing.ledger_contract import TASK, TEAM, pay, take
from tests.ledgers.crashes import CALLS, FORKS, THREADS

CRASHES = Path(__file__).with_name("crashes.py")


def told_by(what: str, folder: Path) -> Any:
    command = [sys.executable, str(CRASHES), what, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    return json.loads(done.stdout)


def test_a_kill_before_any_statement_leaves_whole_verbs_and_a_retry_charges_once(tmp_path: Path) -> None:
    found = told_by("boundaries", tmp_path)
    assert len(found) > 12
    for killed in found:
        task, team = killed["after"]
        assert task == team
        assert task in ([0, 0], [50, 0], [0, 40])
        assert killed["retried"] == [[0, 40], [0, 40]]
        assert (killed["healthy"], killed["proved"]) == ("ok", [])
    states = [tuple(killed["after"][0]) for killed in found]
    assert states == sorted(states, key=[(0, 0), (50, 0), (0, 40)].index)
    assert set(states) == {(0, 0), (50, 0), (0, 40)}


def test_parent_and_children_write_on_after_forks_in_the_middle_of_writes(tmp_path: Path) -> None:
    found = told_by("forks", tmp_path)
    assert found["ended"] == [0] * FORKS
    assert (found["settled"], found["reserved"]) == ((FORKS + THREADS) * CALLS, 0)
    assert found["proved"] == []


@pytest.mark.parametrize("torn", [1, 24, 500, 1_500, 5_000, 20_000])
def test_a_torn_log_loses_the_last_verbs_and_no_part_of_one(tmp_path: Path, torn: int) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/spend.db")
    assert isinstance(ledger, SqliteLedger)
    for n in range(30):
        take(ledger, f"r{n}", (TASK, 5, 1_000), (TEAM, 5, 1_000))
        pay(ledger, f"r{n}", (TASK, 5, 3), (TEAM, 5, 3))
    whole = [(entry.verb, entry.id, entry.lines) for entry in ledger.journal()]
    folder = tmp_path / "torn"
    folder.mkdir()
    for name in ("spend.db", "spend.db-wal"):
        shutil.copy(tmp_path / name, folder / name)
    log = folder / "spend.db-wal"
    log.write_bytes(log.read_bytes()[:-torn])
    after = open_ledger(f"sqlite:///{folder}/spend.db")
    kept = [(entry.verb, entry.id, entry.lines) for entry in after.journal()]
    assert kept == whole[: len(kept)]
    assert 0 < len(whole) - len(kept) < 40
    assert after.verify().differences == ()
    assert after.balance(TASK).committed == after.balance(TEAM).committed
    after.close()
    ledger.close()
