"""How far long work is, on one line of the terminal: only for people, and gone when the work is done."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

_EVERY_SECONDS = 0.1
_AFTER_SECONDS = 0.5


class Progress:
    """A line on stderr that says *what* is done, from half a second on, where stderr is a terminal."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = time.monotonic() + _AFTER_SECONDS
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, done: int, whole: int | None = None) -> None:
        """*done* of *whole*, where that is known."""
        now = time.monotonic()
        if now < self._next or not sys.stderr.isatty():
            return
        self._next, self._shown = now + _EVERY_SECONDS, True
        of = f" of {whole:,} ({done / whole:.0%})" if whole else ""
        print(f"\r\x1b[K{done:,}{of} {self._what}", end="", file=sys.stderr, flush=True)
