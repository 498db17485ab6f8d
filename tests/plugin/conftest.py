"""A project of its own for every test of the plugin: run in this process, or by two workers of pytest-xdist."""

from __future__ import annotations

import pytest

import agentbudget as ab
import agentbudget.pytest_plugin.baseline
import agentbudget.pytest_plugin.ceiling
import agentbudget.pytest_plugin.fixture
import agentbudget.pytest_plugin.gate
import agentbudget.pytest_plugin.playback
import agentbudget.pytest_plugin.runtime
import agentbudget.pytest_plugin.summary
import agentbudget.pytest_plugin.verdict
from tests.plugin.projects import Project

# Loaded here, or every run of pytest within this process would load them anew.
_LOADED = (ab.Governor(), ab.BudgetExceeded, ab.task, agentbudget.pytest_plugin)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project, run as at a desk: pytest prints more where it believes that it runs in CI."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    return Project(pytester)


@pytest.fixture(params=[0, 2], ids=["plain", "xdist"])
def workers(request: pytest.FixtureRequest) -> int:
    """How many workers run the project's tests."""
    return int(request.param)
