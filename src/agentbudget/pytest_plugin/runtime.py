"""The plugin at work: begins and ends each test's budget, fails the test that passed it, sums up the session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentbudget.errors import AgentBudgetError, BudgetWarning
from agentbudget.pytest_plugin.governed import GovernedTest
from agentbudget.pytest_plugin.options import Settings
from agentbudget.pytest_plugin.switch import SWITCH
from agentbudget.pytest_plugin.terms import Terms

if TYPE_CHECKING:
    from agentbudget.pytest_plugin.baseline import Update
    from agentbudget.pytest_plugin.ceiling import Ceiling
    from agentbudget.pytest_plugin.costs import Numbers, TestCost
    from agentbudget.pytest_plugin.couriers import Receiver, Sender

_RUNTIME = pytest.StashKey["Runtime"]()
_TEST = pytest.StashKey[GovernedTest]()
_MOST_IDLE = 20


class Runtime:
    """The hooks of a session that uses budgets. In a worker of xdist it runs tests, in the controller it sums up."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._costs: dict[str, TestCost] = {}
        """What the tests cost: in a worker those whose reports have not been sent, otherwise all of the session."""
        self._update: Update | None = None
        self._idle = 0
        self._terms: dict[str, Terms] = {}
        self._shared = self._shared_folder()
        self._ceiling: Ceiling | None = None
        if settings.session_max is not None:
            from agentbudget.pytest_plugin.ceiling import Ceiling

            self._ceiling = Ceiling(settings.session_max, self._shared)
        self._baseline: dict[str, Numbers] = {}
        if settings.baseline is not None and settings.baseline.is_file():
            self._baseline = _read(settings.baseline)

    @classmethod
    def of(cls, config: pytest.Config, settings: Settings) -> Runtime:
        """The one of this session, registered with pytest when it is first asked for."""
        runtime = config.stash.get(_RUNTIME, None)
        if runtime is None:
            runtime = config.stash[_RUNTIME] = cls(config, settings)
            config.pluginmanager.register(runtime, "agentbudget-runtime")
            if runtime._shared is not None:
                config.pluginmanager.register(runtime._courier(runtime._shared), "agentbudget-courier")
        return runtime

    def test_of(self, item: pytest.Item) -> GovernedTest:
        """The test that *item* is just now; it begins here if its setup began before budgets were known to be used."""
        test = item.stash.get(_TEST, None)
        return test if test is not None else self._begin(item)

    # -- each test -----------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """The budget begins with the setup, so that fixtures are part of it."""
        if self._governs(item):
            self._begin(item)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """A test that kept all its assertions fails if it did not keep its budget. Not called where it failed."""
        test = item.stash.get(_TEST, None)
        if test is not None and not getattr(item, "_excinfo", None):  # where unittest keeps what a test case raised
            self._judge(item, test)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """The budget ends with the teardown."""
        try:
            return (yield)
        finally:
            test = item.stash.get(_TEST, None)
            if test is not None:
                self._end(item, test)

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """Say with a failure what the budget has to do with it."""
        if call.excinfo is None:
            return
        test = item.stash.get(_TEST, None)
        if test is None or test.told or not test.called:
            return
        from agentbudget.pytest_plugin import verdict

        problems = verdict.refusals(test)
        if problems:
            test.told = True
            call.excinfo.value.add_note(verdict.message(test, problems, lambda: self._folder))

    def _governs(self, item: pytest.Item) -> bool:
        return self._settings.asks_for_all or "budget" in item.keywords or "budget" in getattr(item, "fixturenames", ())

    def _begin(self, item: pytest.Item) -> GovernedTest:
        terms = self._terms_of(item)
        if self._ceiling is not None:
            self._ceiling.lift()
        test = item.stash[_TEST] = GovernedTest(item.nodeid, terms, self._settings, self._ceiling)
        SWITCH.begin(test)
        return test

    def _terms_of(self, item: pytest.Item) -> Terms:
        """What the markers of *item* ask for; markers that are written alike are read once."""
        markers = list(item.iter_markers("budget"))
        written = repr([(marker.args, marker.kwargs) for marker in markers])
        terms = self._terms.get(written)
        if terms is None:
            try:
                terms = self._terms[written] = Terms.of(markers, mode=self._settings.mode)
            except (TypeError, ValueError) as problem:
                pytest.fail(f"{item.nodeid}: {problem}", pytrace=False)
        return terms

    def _end(self, item: pytest.Item, test: GovernedTest) -> None:
        """Nothing more belongs to *test*. What its teardown did to the budget fails it as an error of the teardown."""
        SWITCH.end(test)
        del item.stash[_TEST]
        if not test.called:
            return
        from agentbudget.pytest_plugin import verdict

        problems = [] if test.told else verdict.limits_passed(test)
        test.told = test.told or bool(problems)
        self._take(verdict.cost_of(test))
        test.close()
        if problems:
            pytest.fail(verdict.message(test, problems, lambda: self._folder), pytrace=False)

    def _take(self, cost: TestCost) -> None:
        """Add what a test cost to what its earlier attempts did."""
        earlier = self._costs.get(cost.nodeid)
        self._costs[cost.nodeid] = cost if earlier is None else cost.after(earlier)

    def _judge(self, item: pytest.Item, test: GovernedTest) -> None:
        if not test.called:
            if test.terms.marked:
                self._warn_of_idle(item)
            return
        from agentbudget.pytest_plugin import verdict

        problems = verdict.limits_passed(test) + verdict.promises_broken(test)
        if not problems:
            problems = self._compare(item, test)
        if problems:
            test.told = True
            pytest.fail(verdict.message(test, problems, lambda: self._folder), pytrace=False)

    def _warn_of_idle(self, item: pytest.Item) -> None:
        """A budget that governed nothing, by name; a session full of them is told so once."""
        if self._idle >= _MOST_IDLE:
            return
        last = " Further tests like it are not named." if self._idle == _MOST_IDLE - 1 else ""
        item.warn(BudgetWarning(f"{item.nodeid} has a budget, but LangChain ran nothing in it.{last}"))
        self._idle += 1  # not where warnings are errors: then each such test fails

    def _compare(self, item: pytest.Item, test: GovernedTest) -> list[str]:
        """Take the numbers for the baseline, or tell how they differ from it."""
        settings = self._settings
        if settings.baseline is None:
            return []
        from agentbudget.pytest_plugin import verdict

        test.numbers = verdict.numbers_of(test)
        if settings.update:
            return []
        problem = verdict.against_baseline(test, self._baseline.get(item.nodeid), settings)
        if problem and verdict.is_live(test):
            if settings.live == "warn":
                item.warn(BudgetWarning(f"{item.nodeid}: {problem}"))
            return [problem] if settings.live == "fail" else []
        return [problem] if problem else []

    @cached_property
    def _folder(self) -> Path:
        """Where the traces of failed tests go."""
        cache = getattr(self._config, "cache", None)
        return Path(cache.mkdir("agentbudget")) if cache is not None else Path(tempfile.mkdtemp(prefix="agentbudget-"))

    # -- the session ---------------------------------------------------------------------------------------------

    def pytest_sessionfinish(self) -> None:
        """Write the baseline."""
        settings = self._settings
        if settings.update and settings.baseline is not None and not settings.is_worker:
            from agentbudget.pytest_plugin import baseline

            tests, self._update = baseline.merged(
                self._baseline,
                self._costs.values(),
                root=settings.root,
                tolerance=settings.tolerance,
                live_tolerance=settings.live_tolerance,
            )
            if tests != self._baseline or not settings.baseline.exists():
                baseline.write(settings.baseline, tests)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what the session cost."""
        if not self._settings.summary or not (self._costs or self._update):
            return
        from agentbudget.pytest_plugin.summary import summary_lines

        terminalreporter.write_sep("=", "budget")
        for line in summary_lines(list(self._costs.values()), self._settings, self._update):
            terminalreporter.write_line(line)

    def pytest_unconfigure(self) -> None:
        """Close the ceiling and remove what was shared."""
        if self._ceiling is not None:
            self._ceiling.close()
        if self._shared is not None and not self._settings.is_worker:
            shutil.rmtree(self._shared, ignore_errors=True)

    def _courier(self, shared: Path) -> Sender | Receiver:
        from agentbudget.pytest_plugin.couriers import Receiver, Sender

        return Sender(self._costs) if self._settings.is_worker else Receiver(self._take, str(shared))

    def _shared_folder(self) -> Path | None:
        """The folder that all workers share; None in a session of one process."""
        if self._settings.shared:
            return Path(self._settings.shared)
        if self._config.getoption("dist", "no") != "no":
            return Path(tempfile.mkdtemp(prefix="agentbudget-"))
        return None


def _read(path: Path) -> dict[str, Numbers]:
    from agentbudget.pytest_plugin import baseline

    try:
        return baseline.read(path)
    except AgentBudgetError as problem:
        raise pytest.UsageError(f"--budget-baseline: {problem}") from None
