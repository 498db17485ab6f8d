"""Where results of work that must not be repeated are kept: the port, the memory store, and `open_results(url)`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from urllib.parse import unquote, urlsplit

from agentbudget.errors import ConfigurationError

MOST_IN_MEMORY = 10_000
"""Results that the memory store keeps; beyond, the oldest are dropped. Claims are never dropped."""


class State(StrEnum):
    """How far a call has come."""

    CLAIMED = "claimed"
    """Somebody makes it now."""
    DONE = "done"
    """It returned; its result is kept."""
    UNKNOWN = "unknown"
    """It was begun, and whoever made it is gone: it may have taken effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is kept of one call."""

    state: State
    at: float
    """Seconds since 1970 UTC of the last change."""
    owner: str = ""
    """Who claimed it; see `agentbudget.retries.owners`."""
    until: float = 0.0
    """From when on a claim of somebody who cannot be looked at counts as lost."""
    payload: bytes = b""
    note: str = ""


Change = Callable[[Row | None], Row | None]
"""What becomes of a row; None: there is none."""


class ResultStore(Protocol):
    """A key-value store of rows. Thread-safe; blocks for as long as a write takes."""

    def change(self, key: str, change: Change) -> None:
        """Replace the row of *key* by what *change* makes of it, as one step: nobody writes it in between."""

    def rows(self, state: State) -> Mapping[str, Row]:
        """The rows in this *state*, oldest first."""

    def prune(self, before: float) -> int:
        """Drop the results from *before* that time (seconds since 1970 UTC); how many. Claims stay."""

    def close(self) -> None:
        """Let go of files and connections."""


class MemoryResults:
    """Lives and dies with the process."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._lock = threading.Lock()

    def change(self, key: str, change: Change) -> None:
        """See `ResultStore`."""
        with self._lock:
            row = change(self._rows.get(key))
            self._rows.pop(key, None)  # so that the rows stay in the order of their last change
            if row is not None:
                self._rows[key] = row
            if len(self._rows) > MOST_IN_MEMORY:
                oldest = next((known for known, each in self._rows.items() if each.state is State.DONE), None)
                if oldest is not None:
                    del self._rows[oldest]

    def rows(self, state: State) -> Mapping[str, Row]:
        """See `ResultStore`."""
        with self._lock:
            return {key: row for key, row in self._rows.items() if row.state is state}

    def prune(self, before: float) -> int:
        """See `ResultStore`."""
        with self._lock:
            old = [key for key, row in self._rows.items() if row.state is State.DONE and row.at < before]
            for key in old:
                del self._rows[key]
            return len(old)

    def close(self) -> None:
        """See `ResultStore`."""


def open_results(where: str | ResultStore) -> ResultStore:
    """The store that *where* names: `memory:`, `sqlite:///results.db`, or a `ResultStore` itself.

    Raises:
        ConfigurationError: neither, or a file that cannot be used.
    """
    if not isinstance(where, str):
        if not all(callable(getattr(where, verb, None)) for verb in ("change", "rows", "prune", "close")):
            raise ConfigurationError(f"results={where!r}: 'memory:', 'sqlite:///results.db' or a ResultStore.")
        return where
    parts = urlsplit(where)
    if parts.scheme == "memory" and not parts.netloc and not parts.path:
        return MemoryResults()
    if parts.scheme == "sqlite" and not parts.netloc and parts.path.strip("/"):
        from agentbudget.retries.results_sqlite import SqliteResults  # noqa: PLC0415 - loaded when it is used

        return SqliteResults(unquote(parts.path).removeprefix("/"))
    raise ConfigurationError(
        f"results: scheme {parts.scheme!r}: 'memory:', 'sqlite:///results.db' (a file in this folder) or a ResultStore."
    )
