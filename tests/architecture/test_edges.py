"""The core is complete: with any edge package taken away, it meters, stops, records and reads back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "agentbudget"


def _listed(side: str) -> list[str]:
    """The packages of one side of the import contract that keeps the core from the edges."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    contract = next(each for each in settings["contracts"] if each["id"] == "core-without-edges")
    return [name.removeprefix("agentbudget.") for name in contract[side]]


EDGES = _listed("forbidden_modules")

SMOKE = """
import agentbudget as ab
from langchain_core.language_models import FakeListChatModel

assert ab.__file__.startswith({folder!r}), ab.__file__
governor = ab.Governor(trace={trace!r}, on_unpriced="allow")
model = FakeListChatModel(responses=["yes"])
with ab.task("smoke", max_model_calls=1, governor=governor, task_id="t") as task:
    model.invoke("one")
    try:
        model.invoke("two")
    except ab.BudgetExceeded as stop:
        assert stop.report.model_calls == 1
    else:
        raise AssertionError("the second call was not refused")
trace = ab.Trace.load({trace!r})
assert trace.report.status == "stopped"
assert "smoke" in str(trace.report)
assert "smoke" in trace._repr_html_()
durable = ab.Governor(ledger="sqlite:///" + {trace!r} + ".db", on_unpriced="allow")
with ab.task("sqlite", max_cost="$1", governor=durable):
    model.invoke("three")
"""


@pytest.mark.parametrize("gone", [[edge] for edge in EDGES] + [EDGES], ids=lambda gone: "+".join(gone)[:40])
def test_the_core_works_without(gone: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "agentbudget"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__", *gone))
    assert not any((copy / name).exists() for name in gone)
    script = SMOKE.format(folder=str(tmp_path), trace=str(tmp_path / "run.jsonl"))
    call = [sys.executable, "-W", "error::ImportWarning", "-c", script]
    done = subprocess.run(
        call,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        timeout=100,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_package_is_core_or_edge() -> None:
    found = {path.stem for path in SOURCE.iterdir() if path.is_dir() or path.suffix == ".py"} - {"__pycache__"}
    assert found - {*EDGES, *_listed("source_modules")} == {"__init__", "version"}
