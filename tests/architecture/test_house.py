"""The house's own lists agree with each other."""

from __future__ import annotations

import re
import tokenize
import tomllib
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EDGES = {"cli", "pytest_plugin", "checking", "testing", "reports", "finops", "replay", "telemetry"}


def contract(contract_id: str) -> dict[str, Any]:
    contracts: list[dict[str, Any]] = SETTINGS["tool"]["importlinter"]["contracts"]
    return next(each for each in contracts if each["id"] == contract_id)


def supported() -> list[str]:
    """The requirements of users: of the package itself and of its extras, but those for its tests."""
    project = SETTINGS["project"]
    extras = [each for name, extra in project["optional-dependencies"].items() if name != "test" for each in extra]
    return [*project["dependencies"], *extras]


def test_each_lower_bound_is_the_version_tested_as_lowest() -> None:
    bounds = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(supported()), re.MULTILINE))
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "constraints/lowest.txt").read_text(), re.MULTILINE))
    assert len(bounds) == len(supported())
    assert pins == bounds


def test_each_dependency_has_an_upper_bound_unless_its_versions_are_dates() -> None:
    for requirement in supported():
        assert re.search(r",<\d+$|>=20\d\d\.\d+$", requirement), requirement


def test_each_core_module_is_kept_from_the_host() -> None:
    modules = {path.stem for path in (ROOT / "src/agentbudget").iterdir() if path.suffix == ".py" or path.is_dir()}
    core = modules - EDGES - {"__init__", "__pycache__", "py", "langchain"}
    assert set(contract("host-in-its-folder")["source_modules"]) == {f"agentbudget.{name}" for name in core}


def test_ci_runs_the_test_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^make test\b", readme, re.MULTILINE)
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").rstrip().endswith("\nmake test")


SUPPRESSION = re.compile(r"# ?(ruff: )?(noqa|type: ?ignore)")
REASONED = re.compile(r"# (ruff: )?noqa: [A-Z0-9, ]+ - \S.*|# type: ignore\[[a-z, -]+\]  # \S.*")


def suppressions() -> Iterator[tuple[str, str]]:
    """Place and text of every comment that keeps ruff or mypy from saying something."""
    files = [file for folder in ("src", "tests", "examples", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
    for file in sorted(files):
        text = file.read_text(encoding="utf-8")
        for token in tokenize.generate_tokens(StringIO(text).readline) if SUPPRESSION.search(text) else ():
            if token.type == tokenize.COMMENT and SUPPRESSION.match(token.string):
                yield f"{file.relative_to(ROOT)}:{token.start[0]}", token.string


def test_each_suppression_says_why() -> None:
    found = dict(suppressions())
    assert found
    assert [f"{place} {said}" for place, said in found.items() if not REASONED.fullmatch(said)] == []
