"""How the costs of tests come from the workers of xdist to the controller: on the report of each test's teardown.

So they arrive as the tests end, and are not lost with a worker that dies later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentbudget.pytest_plugin.costs import TestCost
from agentbudget.pytest_plugin.options import SHARED

_ATTRIBUTE = "agentbudget"


class Sender:
    """In a worker: sends what *ended* gives for a test with its last report."""

    def __init__(self, ended: dict[str, TestCost]) -> None:
        self._ended = ended

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Before xdist takes the report."""
        if report.when == "teardown" and (cost := self._ended.pop(report.nodeid, None)) is not None:
            setattr(report, _ATTRIBUTE, cost.to_dict())


class Receiver:
    """In the controller: hands every cost that arrives to *take*, and tells workers of the *shared* folder."""

    def __init__(self, take: Callable[[TestCost], None], shared: str) -> None:
        self._take = take
        self._shared = shared

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A report arrived from a worker."""
        told: dict[str, Any] | None = getattr(report, _ATTRIBUTE, None)
        if told is not None:
            self._take(TestCost.from_dict(told))

    def pytest_configure_node(self, node: Any) -> None:
        """Before a worker starts. A hook of xdist."""
        node.workerinput[SHARED] = self._shared
