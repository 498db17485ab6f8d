"""One test under its budget: a governor of its own, opened when LangChain first runs something in it."""

from __future__ import annotations

import hashlib
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from agentbudget.pytest_plugin.options import Settings
from agentbudget.pytest_plugin.terms import Terms

if TYPE_CHECKING:
    from agentbudget.domain.verdict import StopReport
    from agentbudget.governor.task import Task
    from agentbudget.pytest_plugin.ceiling import Ceiling
    from agentbudget.pytest_plugin.costs import Numbers
    from agentbudget.pytest_plugin.playback import Playback
    from agentbudget.trace.events import Event
    from agentbudget.trace.reader import Trace
    from agentbudget.trace.report import TaskReport

_UNSAFE = re.compile(r"[^\w.-]+", re.ASCII)
_MOST_NAME = 120


class GovernedTest:
    """A test, from the beginning of its setup to the end of its teardown. Safe under threads."""

    def __init__(self, nodeid: str, terms: Terms, settings: Settings, ceiling: Ceiling | None) -> None:
        self.nodeid = nodeid
        self.terms = terms
        self.ceiling = ceiling
        self.called = False
        """Whether LangChain called any model or tool, be it one that was refused."""
        self.live = False
        """Whether a live model was called."""
        self.playbacks: list[Playback] = []
        self.told = False
        """Whether its failure has been explained."""
        self.numbers: Numbers | None = None
        """What belongs into the baseline, once the test has passed."""
        self._settings = settings
        self._events: list[Event] = []
        self._lock = threading.Lock()
        self._task: Task | None = None

    def task(self) -> Task:
        """Its task, in a governor of its own; opened on first use."""
        with self._lock:
            if self._task is None:
                self._task = self._open()
            return self._task

    @property
    def report(self) -> TaskReport:
        """What it cost so far."""
        return self.task().report()

    @property
    def trace(self) -> Trace:
        """What happened so far."""
        from agentbudget.trace.reader import Trace

        task = self.task()
        return Trace([("", list(self._events))], path=self.nodeid, roots=[task.id])

    @property
    def stop(self) -> StopReport | None:
        """The refusal by its own limits, if there was one."""
        return self._task.stop if self._task is not None else None

    def close(self) -> None:
        """Nothing more belongs to it."""
        if self._task is not None:
            self._task.governor.close()

    def written(self, folder: Path) -> Path:
        """The file of its trace: the one that is written anyway, or one made in *folder* now."""
        from agentbudget.trace.events import SCHEMA, TraceOpened
        from agentbudget.trace.writer import TraceWriter
        from agentbudget.version import VERSION

        if self._settings.trace is not None:
            return self._settings.trace / file_name(self.nodeid)
        path = folder / file_name(self.nodeid)
        path.unlink(missing_ok=True)
        writer = TraceWriter(path, header=TraceOpened(at=self._events[0].at, schema=SCHEMA, version=VERSION))
        writer.write("", self._events)
        writer.close()
        return path

    def _open(self) -> Task:
        from agentbudget.governor.governor import Governor

        settings = self._settings
        trace = None
        if settings.trace is not None:
            trace = settings.trace / file_name(self.nodeid)
            trace.unlink(missing_ok=True)
        governor = Governor(
            trace=trace,
            trace_content=settings.trace_content if trace is not None else "hashes",
            prices=settings.prices,
            on_unpriced=settings.on_unpriced,
            mode=self.terms.mode,
            sinks=[self._events.append],
        )
        return governor.open_task(self.nodeid[-_MOST_NAME:], self.terms.budget)


def file_name(nodeid: str) -> str:
    """The name of a test's trace: readable, and different for different tests."""
    plain = nodeid.replace("::", "-").replace("/", ".")
    safe = _UNSAFE.sub("_", plain)[-_MOST_NAME:]
    if safe != plain:
        safe += "-" + hashlib.blake2b(nodeid.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{safe}.jsonl"
