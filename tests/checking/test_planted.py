"""Each mis-wiring is found, by its name, and alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import agentbudget as ab
from agentbudget.checking.check import CODES
from tests.checking.wirings import WRONG


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_wiring_is_found_with_what_where_why_and_how_to_fix(name: str) -> None:
    make, code, severity = WRONG[name]
    report = ab.check(make())
    found = report.of(code)
    assert found, report
    assert found[0].severity == severity
    assert all((found[0].what, found[0].why, found[0].fix))
    assert not report.ok
    assert report.exit_code == 1


def test_the_page_lists_every_kind_of_finding() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "check.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == CODES


def test_ten_kinds_and_more_are_planted() -> None:
    assert len({code for _, code, _ in WRONG.values()}) >= 10
    assert {code for _, code, _ in WRONG.values()} < CODES
