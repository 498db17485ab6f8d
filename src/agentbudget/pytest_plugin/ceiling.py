"""The ceiling of the whole session: one account that every test of every worker draws on, before each call."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from agentbudget.domain.verdict import StopReport

if TYPE_CHECKING:
    from agentbudget.domain.ledger import Ledger
    from agentbudget.governor.task import Task

_SCOPE = ("session", "pytest")


class Ceiling:
    """At most *amount* nano-dollars for all tests together.

    With several workers the account lies in a file that all of them reserve in; the ledger's law holds across
    processes. A model without a price is refused if it is live (`priced`); fakes and scripts pass, counted as unpriced.
    """

    def __init__(self, amount: int, folder: Path | None) -> None:
        self.amount = amount
        self._folder = folder
        """Shared by all workers; None in a session of one process."""
        self._lock = threading.Lock()
        self._ledger: Ledger | None = None
        self._tasks: dict[bool, Task] = {}

    def task(self, *, priced: bool) -> Task:
        """The task that pays for the session's calls in this process."""
        with self._lock:
            if priced not in self._tasks:
                self._tasks[priced] = self._open("refuse" if priced else "allow")
            return self._tasks[priced]

    @property
    def stop(self) -> StopReport | None:
        """The last refusal since `lift`."""
        return next((task.stop for task in self._tasks.values() if task.stop is not None), None)

    def lift(self) -> None:
        """Another test begins: whether its calls are affordable is judged anew."""
        for task in self._tasks.values():
            task.governor.resume(task)

    def close(self) -> None:
        """Let go of the ledger."""
        for task in self._tasks.values():
            task.governor.close()

    def _open(self, on_unpriced: str) -> Task:
        from agentbudget.domain.budget import Budget
        from agentbudget.governor.governor import Governor
        from agentbudget.ledgers import open_ledger

        if self._ledger is None:
            self._ledger = open_ledger("memory:" if self._folder is None else f"sqlite:///{self._folder}/session.db")
        governor = Governor(ledger=self._ledger, on_unpriced=on_unpriced)
        budget = Budget.from_dict({"max_cost_nanos": self.amount})
        return governor.open_task("pytest session", budget, scope=_SCOPE)
