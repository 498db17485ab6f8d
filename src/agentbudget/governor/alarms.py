"""Telling the user's own code that a threshold was reached: in a thread of its own, so that nobody waits for it."""

from __future__ import annotations

import os
import queue
import threading
import time
import warnings
from collections.abc import Callable

from agentbudget.domain.alerts import Crossing
from agentbudget.errors import BudgetWarning

MOST_WAITING = 1_000
"""Crossings that may wait for a slow listener; what comes beyond is dropped, with a warning."""
CLOSING_SECONDS = 5.0

Listener = Callable[[Crossing], None]


class Alarms:
    """Hands crossings to *listener*, in order, one at a time. An error in it is told once and breaks nothing.

    The thread is started by the first crossing, again in a forked child, and ends with the process.
    """

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener
        self._waiting: queue.Queue[Crossing] = queue.Queue(MOST_WAITING)
        self._lock = threading.Lock()
        self._pid = 0
        self._told: set[str] = set()

    def tell(self, crossing: Crossing) -> None:
        """Queue *crossing*; never blocks and never raises."""
        if self._listener is None:
            return
        with self._lock:
            if self._pid != os.getpid():
                self._start()
        try:
            self._waiting.put_nowait(crossing)
        except queue.Full:
            self._warn(f"on_threshold: {MOST_WAITING} crossings wait already; dropped: {crossing}.")

    def drain(self, seconds: float = CLOSING_SECONDS) -> bool:
        """Wait until the listener has seen everything, for at most *seconds*; whether it has."""
        until = time.monotonic() + seconds
        with self._waiting.all_tasks_done:
            while self._waiting.unfinished_tasks and self._pid == os.getpid():
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._waiting.all_tasks_done.wait(left)
        return True

    def _start(self) -> None:
        self._pid = os.getpid()
        self._waiting = queue.Queue(MOST_WAITING)  # in a forked child, the parent tells what waited
        threading.Thread(target=self._run, args=(self._waiting,), name="agentbudget-alarms", daemon=True).start()

    def _run(self, waiting: queue.Queue[Crossing]) -> None:
        while True:
            crossing = waiting.get()
            try:
                self._hand_over(crossing)
            finally:
                waiting.task_done()

    def _hand_over(self, crossing: Crossing) -> None:
        try:
            if self._listener is not None:
                self._listener(crossing)
        except Exception as error:  # noqa: BLE001 - a listener must never break the agent; it is reported
            self._warn(f"on_threshold={self._listener!r} failed and is told on: {error!r}")

    def _warn(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            try:
                warnings.warn(text, BudgetWarning, stacklevel=2)
            except BudgetWarning:
                return  # warnings are errors here: the thread goes on all the same
