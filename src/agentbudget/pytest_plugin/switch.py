"""Which tests run now, and the switch that brings the meter into LangChain while they do.

A test is known to the whole process, not to a context: its event loop, its threads and the fixtures of a wider loop all
count, whatever runner started them. Tests that begin before others end (a test that runs pytest itself) all pay.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentbudget.pytest_plugin.gate import Gate
    from agentbudget.pytest_plugin.governed import GovernedTest

_HOST = "langchain_core.tracers.context"
"""Where LangChain keeps the hooks that add handlers to every run."""


class Switch:
    """Stands where LangChain expects a context variable with a handler: it is asked at the root of every run."""

    def __init__(self) -> None:
        self.tests: list[GovernedTest] = []
        """Tests that run now, the latest last."""
        self._gate: Gate | None = None
        self._waiting: _Arrival | None = None
        self._host: ModuleType | None = None

    def get(self) -> Gate | None:
        """The meter while a test runs that has a budget; otherwise LangChain is left alone."""
        if not self.tests:
            return None
        if self._gate is None:
            from agentbudget.pytest_plugin.gate import Gate

            self._gate = Gate(self.tests)
        return self._gate

    def begin(self, test: GovernedTest) -> None:
        """*test* runs from now on; what LangChain runs belongs to it, even if LangChain is loaded only later."""
        self.tests.append(test)
        host = sys.modules.get(_HOST)
        if host is not None:
            self._join(host)
        elif self._waiting is None or self._waiting not in sys.meta_path:
            self._waiting = _Arrival(self)
            sys.meta_path.insert(0, self._waiting)

    def end(self, test: GovernedTest) -> None:
        """*test* is over."""
        if test in self.tests:
            self.tests.remove(test)

    def _join(self, host: ModuleType) -> None:
        if host is not self._host:
            self._host = host
            host.register_configure_hook(self, inheritable=True)


class _Arrival:
    """Waits on `sys.meta_path` for LangChain, joins it once it is loaded, and is gone."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Called by Python's import of any module."""
        if name != _HOST:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self._switch._join(module)  # noqa: SLF001 - same module

            loader.exec_module = exec_module
        return spec


SWITCH = Switch()
"""The one switch of this process, as LangChain is one."""
