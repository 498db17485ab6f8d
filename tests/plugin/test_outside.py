"""A project outside this repository, made of the documentation alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from agentbudget.pytest_plugin.options import _OPTIONS

PAGE = (Path(__file__).resolve().parents[2] / "docs/pytest.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"```python\n# (\S+\.py)\n(.*?)```", re.DOTALL)
TESTS = 4


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment in which the package was installed, as a wheel of this tree.

    The dependencies are those of this environment, by a path entry: they are not what is tested.
    """
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    interpreter = place / "bin/python"
    pip = [str(interpreter), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", str(ROOT)], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return interpreter


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with the examples of the page, and nothing else."""
    for name, code in EXAMPLE.findall(PAGE):
        (tmp_path / name).write_text(code, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n", encoding="utf-8")
    return tmp_path


def run(python: Path, folder: Path, *options: str) -> str:
    """Pytest as the user of an installed package runs it."""
    surroundings = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTEST_ADDOPTS"}}
    command = [str(python), "-m", "pytest", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=surroundings)
    return done.stdout + done.stderr


def test_the_examples_of_the_documentation_pass(python: Path, outside: Path) -> None:
    assert f"{TESTS} passed" in run(python, outside, "-W", "error::UserWarning")


def test_marker_fixture_baseline_and_ceiling_work_outside_this_repository(python: Path, outside: Path) -> None:
    assert f"{TESTS} passed" in run(python, outside, "--budget-baseline=costs.json", "--budget-update")
    entries = json.loads((outside / "costs.json").read_text(encoding="utf-8"))["tests"]
    assert entries["test_support.py::test_support_answers"]["cost"] == "0.001325000"
    assert f"{TESTS} passed" in run(
        python, outside, "-n", "2", "--budget-baseline=costs.json", "--budget-session-max=$5"
    )
    (outside / "agents.py").write_text(
        (outside / "agents.py").read_text(encoding="utf-8").replace("input_tokens=230", "input_tokens=330"),
        encoding="utf-8",
    )
    dearer = run(python, outside, "--budget-baseline=costs.json", "test_support.py")
    assert "cost $0.0013 -> $0.0016 (+18.9%)" in dearer
    assert "input_tokens 410 -> 510 (+24.4%)" in dearer
    assert "1 failed" in dearer
    assert "--budget-session-max is $0.0010" in run(python, outside, "-n", "2", "--budget-session-max=$0.001")


def test_the_package_under_test_is_the_installed_one(python: Path, tmp_path: Path) -> None:
    where = "import agentbudget; print(agentbudget.__file__)"
    done = subprocess.run([str(python), "-c", where], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert str(python.parent.parent) in done.stdout


def test_the_documentation_names_every_option() -> None:
    for name in (*_OPTIONS, "update"):
        assert f"| `--budget-{name}" in PAGE, name
