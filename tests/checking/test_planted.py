"""Each mis-wiring is found, by its name, and alone."""

from __future__ import annotations

import pytest

import agentbudget as ab
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
