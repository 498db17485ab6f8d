"""The pytest plugin: budgets asserted in tests. Every pytest run imports this module, so it loads pytest alone.

What a session needs is loaded when it is known to use budgets: by a marker, the fixture or an option. LangChain is
never loaded: the meter waits until the tests load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agentbudget.pytest_plugin.options import MARKER, Settings, add_options

if TYPE_CHECKING:
    from agentbudget.pytest_plugin.fixture import BudgetFixture
    from agentbudget.pytest_plugin.runtime import Runtime

_SETTINGS = pytest.StashKey[Settings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register `--budget-*` and their ini keys."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; refuse settings that cannot mean anything."""
    config.addinivalue_line("markers", MARKER)
    config.stash[_SETTINGS] = settings = Settings.of(config)
    if settings.asks_for_all or (config.getoption("dist", "no") != "no" and not settings.is_worker):
        _load(config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Load the rest if a collected test has a budget or asks for the fixture."""
    if any("budget" in item.keywords or "budget" in getattr(item, "fixturenames", ()) for item in session.items):
        _load(session.config)


@pytest.fixture
def budget(request: pytest.FixtureRequest) -> BudgetFixture:
    """The budget of this test: `.report`, `.trace`, `.task(...)`, `.assert_within(...)`, `.playback(...)`."""
    from agentbudget.pytest_plugin.fixture import BudgetFixture

    return BudgetFixture(_load(request.config).test_of(request.node))


def _load(config: pytest.Config) -> Runtime:
    from agentbudget.pytest_plugin.runtime import Runtime

    return Runtime.of(config, config.stash[_SETTINGS])
