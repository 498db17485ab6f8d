"""What could not be read, told on stderr: the first twenty one by one, the rest counted."""

from __future__ import annotations

import sys

from agentbudget.trace.files import Problem

SHOWN = 20


class Problems:
    """Collects them in bounded memory."""

    def __init__(self) -> None:
        self._kept: list[Problem] = []
        self.count = 0

    def add(self, problem: Problem) -> None:
        """One more."""
        self.count += 1
        if len(self._kept) < SHOWN:
            self._kept.append(problem)

    def tell(self) -> None:
        """Print them."""
        for problem in self._kept:
            print(f"skipped: {problem}", file=sys.stderr)
        if self.count > SHOWN:
            print(f"skipped: {self.count - SHOWN:,} more", file=sys.stderr)
