"""Each tool of the house still bites: a violation planted in a copy is caught, the plain copy passes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the settings and the source, to be damaged at will."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(house: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = str(Path(sys.executable).parent)
    env = {"PATH": f"{path}:/usr/bin:/bin", "PYTHONPATH": str(house / "src"), "COLUMNS": "200"}
    return subprocess.run(command, cwd=house, env=env, capture_output=True, text=True, check=False, timeout=100)


def append(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        out.write(text)


# --- ruff -----------------------------------------------------------------------------------------------------------

RUFF = (sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "src")
RUFF_FORMAT = (sys.executable, "-m", "ruff", "format", "--no-cache", "--check", "src")


def test_ruff_passes_the_tree_as_it_is(house: Path) -> None:
    check = run(house, *RUFF)
    assert check.returncode == 0, check.stdout
    check = run(house, *RUFF_FORMAT)
    assert check.returncode == 0, check.stdout


@pytest.mark.parametrize(
    ("planted", "rule"),
    [
        ('\n\ndef shout() -> None:\n    """Say it."""\n    print("a print in the core")\n', "T201"),
        ("\n\nfrom .usage import Usage  # noqa: E402\n", "TID252"),
        (
            '\n\ndef hide() -> None:\n    """Hide."""\n    try:\n        hide()\n    except Exception:\n        pass\n',
            "BLE001",
        ),
        ('\n\ndef mutable(into: list[int] = []) -> list[int]:\n    """Share."""\n    return into\n', "B006"),
    ],
    ids=["a-print", "a-relative-import", "a-swallowed-error", "a-shared-default"],
)
def test_ruff_catches(house: Path, planted: str, rule: str) -> None:
    append(house / "src/agentbudget/domain/money.py", planted)
    check = run(house, *RUFF)
    assert check.returncode == 1, check.stderr
    assert rule in check.stdout


def test_ruff_catches_bad_formatting(house: Path) -> None:
    append(house / "src/agentbudget/domain/money.py", "\nBADLY  =  [ 1,2 ]\n")
    assert run(house, *RUFF_FORMAT).returncode == 1


# --- mypy (on the lowest layers only: the whole tree is `make lint`'s) ------------------------------------------------

MYPY = (
    *(sys.executable, "-m", "mypy", "--cache-dir=/dev/null", "--no-incremental"),
    *("src/agentbudget/errors.py", "src/agentbudget/domain"),
)


def test_mypy_passes_the_tree_as_it_is(house: Path) -> None:
    check = run(house, *MYPY)
    assert check.returncode == 0, check.stdout


def test_mypy_catches_an_untyped_def_a_wrong_type_and_a_bare_ignore(house: Path) -> None:
    append(
        house / "src/agentbudget/domain/money.py",
        "\n\ndef untyped(amount):\n    return amount\n\n\nWRONG: int = 'text'\nBARE: int = 'text'  # type: ignore\n",
    )
    check = run(house, *MYPY)
    assert check.returncode == 1, check.stderr
    assert "[no-untyped-def]" in check.stdout
    assert "[assignment]" in check.stdout
    assert "[ignore-without-code]" in check.stdout


# --- import-linter --------------------------------------------------------------------------------------------------

LINT_IMPORTS = (
    sys.executable,
    *("-c", "import sys; from importlinter.cli import lint_imports_command as lint; sys.exit(lint())", "--no-cache"),
)


def test_import_linter_passes_the_tree_as_it_is(house: Path) -> None:
    check = run(house, *LINT_IMPORTS)
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.mark.parametrize(
    ("file", "planted", "contract"),
    [
        ("domain/money.py", "import langchain_core", "The domain knows no package but the standard library"),
        ("domain/money.py", "import langgraph", "Only the langchain layer and the edges know the host"),
        ("errors.py", "import agentbudget.domain", "Imports go only downward"),
        ("pricing/planted.py", "import agentbudget.estimating.planted", "Imports go only downward"),
        ("policies/planted.py", "import agentbudget.governor", "Imports go only downward"),
        ("unplaced.py", "", "Imports go only downward"),
    ],
    ids=["a-package", "the-host", "upwards", "a-sibling", "policy-to-governor", "a-module-without-a-layer"],
)
def test_import_linter_catches(house: Path, file: str, planted: str, contract: str) -> None:
    for package in ("pricing", "estimating", "policies"):
        append(house / f"src/agentbudget/{package}/__init__.py", "")
        append(house / f"src/agentbudget/{package}/planted.py", "")
    if not (house / "src/agentbudget/governor").is_dir():
        append(house / "src/agentbudget/governor.py", "")
    append(house / "src/agentbudget" / file, f"\n{planted}\n")
    check = run(house, *LINT_IMPORTS)
    assert check.returncode == 1, check.stdout + check.stderr
    assert f"{contract} BROKEN" in check.stdout


# --- pytest ---------------------------------------------------------------------------------------------------------

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "tests")


def test_pytest_passes_an_ordinary_test(house: Path) -> None:
    append(house / "tests/test_planted.py", "async def test_fine() -> None:\n    assert True\n")
    check = run(house, *PYTEST)
    assert check.returncode == 0, check.stdout


@pytest.mark.parametrize(
    ("planted", "seen"),
    [
        ("@pytest.mark.no_such_marker\ndef test_it(): pass", "'no_such_marker' not found in `markers`"),
        ("def test_it(): warnings.warn('loose')", "UserWarning: loose"),
        ("@pytest.mark.xfail\ndef test_it(): pass", "[XPASS(strict)]"),
        # Another loopback address stands for the rest of the world: nothing leaves the machine if the guard is gone.
        ("def test_it(): socket.create_connection(('127.9.9.9', 9))", "SocketConnectBlockedError"),
        ("@pytest.mark.timeout(0.2)\ndef test_it(): threading.Event().wait(30)", "Timeout"),
    ],
    ids=["an-unknown-marker", "a-warning", "an-unexpected-pass", "the-network", "a-hang"],
)
def test_pytest_catches(house: Path, planted: str, seen: str) -> None:
    append(house / "tests/test_planted.py", f"import socket, threading, warnings\nimport pytest\n{planted}\n")
    check = run(house, *PYTEST)
    assert check.returncode != 0
    assert seen in check.stdout


def test_pytest_catches_a_misspelt_option(house: Path) -> None:
    settings = (house / "pyproject.toml").read_text(encoding="utf-8")
    (house / "pyproject.toml").write_text(settings.replace("xfail_strict =", "xfail_strikt ="), encoding="utf-8")
    append(house / "tests/test_planted.py", "def test_fine() -> None: pass\n")
    check = run(house, *PYTEST)
    assert check.returncode != 0
    assert "xfail_strikt" in check.stdout + check.stderr


# --- coverage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("calls", "code"), [("f(1); f(0)", 0), ("f(1)", 2)])
def test_coverage_sees_a_branch_never_taken(house: Path, calls: str, code: int) -> None:
    shutil.rmtree(house / "src")
    append(house / "src/agentbudget/__init__.py", "def f(x):\n    if x:\n        x += 1\n    return x\n")
    append(house / "use.py", f"from agentbudget import f\n{calls}\n")
    assert run(house, sys.executable, "-m", "coverage", "run", "use.py").returncode == 0
    assert run(house, sys.executable, "-m", "coverage", "combine").returncode == 0
    assert run(house, sys.executable, "-m", "coverage", "report", "--fail-under=100").returncode == code
