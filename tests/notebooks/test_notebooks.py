"""The notebooks run from a clean kernel and show what is stored in them."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.notebooks.run import NOTEBOOKS, outputs

nbformat = import_module("nbformat")  # without it, and what runs a notebook, these tests fail: they are no extra here

FILES = sorted(NOTEBOOKS.glob("*.ipynb"))
MOST_WORDS = 450
"""What can be read in two minutes."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_clean_kernel_shows_what_is_stored(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "executed.ipynb"
    call = [sys.executable, "-m", "tests.notebooks.run", str(file), str(target)]
    subprocess.run(call, check=True, timeout=250, cwd=NOTEBOOKS.parent, capture_output=True)
    shown, stored = (nbformat.read(each, as_version=4) for each in (target, file))
    for cell, (now, before) in enumerate(zip(outputs(shown), outputs(stored), strict=True)):
        assert now == before, f"{file.name}, code cell {cell}: run `python -m tests.notebooks.run`"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_notebook_has_pictures_and_is_read_in_two_minutes(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    kinds = [kind for shown in outputs(notebook) for kind, _ in shown]
    assert "image/png" in kinds, "a picture that is shown wherever notebooks are"
    assert "text/html" in kinds
    assert not {"error", "stderr"} & set(kinds)
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    assert 50 < words < MOST_WORDS
    assert file.stat().st_size < 300_000


def test_there_are_three() -> None:
    assert [file.stem for file in FILES] == ["01_first_budget", "02_replay_and_what_if", "03_where_the_money_goes"]
