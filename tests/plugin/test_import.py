"""What the plugin costs those who do not use it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

HEAVY = (
    "langchain",
    "langchain_core",
    "langgraph",
    "msgspec",
    "pydantic",
    "genai_prices",
    "tenacity",
    "structlog",
    "json",
)
QUIET = ("-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:anyio", "-p", "no:langsmith_plugin", "-p", "no:xdist")


def run(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_plugin_registers_itself() -> None:
    (found,) = entry_points(group="pytest11", name="agentbudget")
    assert found.value == "agentbudget.pytest_plugin"


def test_importing_the_plugin_loads_no_framework(tmp_path: Path) -> None:
    code = (
        "import pytest, sys; before = set(sys.modules); import agentbudget.pytest_plugin as p; "
        "print(*(set(sys.modules) - before))"
    )
    loaded = set(run(code, tmp_path).split())
    assert loaded.isdisjoint(HEAVY)
    assert {name for name in loaded if name.startswith("agentbudget.pytest_plugin")} == {
        "agentbudget.pytest_plugin",
        "agentbudget.pytest_plugin.options",
    }


def test_a_session_without_budgets_loads_no_more_of_it(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n\ndef test_it():\n"
        "    ours = {name for name in sys.modules if name.startswith('agentbudget.')}\n"
        "    assert ours == {'agentbudget.version', 'agentbudget.pytest_plugin', 'agentbudget.pytest_plugin.options'}\n"
        "    assert not {'langchain_core', 'msgspec'} & set(sys.modules)\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-q", *QUIET, "-p", "no:hypothesispytest"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout


def test_a_budget_alone_loads_no_langchain(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\nimport pytest\n\n@pytest.mark.budget(max_cost='$1')\ndef test_it():\n"
        "    assert not {'langchain_core', 'langgraph', 'msgspec', 'pydantic'} & set(sys.modules)\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-q", *QUIET, "-p", "no:hypothesispytest"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout
