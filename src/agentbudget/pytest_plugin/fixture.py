"""What a test gets from the fixture `budget`."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from agentbudget.domain.budget import Budget
from agentbudget.pytest_plugin.governed import GovernedTest

if TYPE_CHECKING:
    from agentbudget.langchain.tasks import TaskScope
    from agentbudget.pytest_plugin.playback import Playback
    from agentbudget.trace.reader import Trace
    from agentbudget.trace.report import TaskReport


class BudgetFixture:
    """The budget of the running test, as far as it has come."""

    def __init__(self, test: GovernedTest) -> None:
        self._test = test

    @property
    def report(self) -> TaskReport:
        """What the test cost so far, fixtures included."""
        return self._test.report

    @property
    def trace(self) -> Trace:
        """The trace so far: for `assert_no_loops`, `assert_priced`, or to look at."""
        return self._test.trace

    def task(self, name: str, budget: Budget | None = None, **options: Any) -> TaskScope:
        """A task of its own within the test, as `agentbudget.task` makes one: its stop does not fail the test by
        itself, so that a test can assert that a budget stops an agent."""
        from agentbudget.langchain.tasks import task

        return task(name, budget, **{"governor": self._test.task().governor, **options})

    def assert_within(self, budget: Budget | None = None, **limits: Any) -> None:
        """Assert that the test is within *budget*, or within the limits given as keywords, at this point.

        Raises:
            AssertionError: a limit was passed; every one that was is named.
        """
        __tracebackhide__ = True
        from agentbudget.testing.assertions import assert_within

        assert_within(self.trace, budget, **limits)

    def playback(self, path: str | PathLike[str], *, whole: bool = True) -> Playback:
        """A chat model and tools that play the trajectory recorded at *path*; see `Playback`.

        With *whole* the test fails at its end if a recorded call was not made.

        Raises:
            TraceError: nothing is there, or it was recorded without content. LookupError: it has no model call.
        """
        from agentbudget.pytest_plugin.playback import Playback

        played = Playback.load(path, whole=whole)
        self._test.playbacks.append(played)
        return played

    def __repr__(self) -> str:
        return f"<budget of {self._test.nodeid}>"
