"""A clock that moves only when told to."""

from __future__ import annotations

import math
import threading

START = 1_767_225_600.0
"""2026-01-01T00:00:00Z: where a fake clock starts unless told otherwise."""


class FakeClock:
    """Fits the `Clock` port: `now()` in Unix seconds, `monotonic()` in seconds since construction. Thread-safe.

    `advance` moves both; `set_now` moves the wall clock alone, in either direction, as a correction of the
    system's time would.
    """

    def __init__(self, now: float = START) -> None:
        self._lock = threading.Lock()
        self._now = now
        self._monotonic = 0.0

    def now(self) -> float:
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        with self._lock:
            return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass.

        Raises:
            ValueError: *seconds* is negative or not finite; monotonic time never runs backwards.
        """
        if not math.isfinite(seconds) or seconds < 0:
            msg = f"advance({seconds!r}): time passes forwards; use set_now() to correct the wall clock."
            raise ValueError(msg)
        with self._lock:
            self._now += seconds
            self._monotonic += seconds

    def set_now(self, now: float) -> None:
        """Correct the wall clock to *now* (Unix seconds) without any time passing."""
        with self._lock:
            self._now = now
