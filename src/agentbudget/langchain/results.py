"""Results in LangGraph's own store, the one a graph is compiled with."""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping
from typing import Any

from langgraph.store.base import BaseStore

from agentbudget.retries.results import Change, Row, State

_NAMESPACE = ("agentbudget", "results")
_PAGE = 1_000


class GraphResults:
    """A `ResultStore` over a LangGraph store with synchronous methods.

    Such stores cannot write only where nothing is: within a process a lock makes up for it, between processes two that
    begin the same call at the same moment may both run it.
    """

    def __init__(self, store: BaseStore) -> None:
        self._store = store
        self._lock = threading.Lock()

    def change(self, key: str, change: Change) -> None:
        """See `ResultStore`."""
        with self._lock:
            item = self._store.get(_NAMESPACE, key)
            row = change(None if item is None else _row(item.value))
            if row is None:
                self._store.delete(_NAMESPACE, key)
            else:
                self._store.put(_NAMESPACE, key, _value(row), index=False)

    def rows(self, state: State) -> Mapping[str, Row]:
        """See `ResultStore`."""
        found: dict[str, Row] = {}
        offset = 0
        while items := self._store.search(_NAMESPACE, filter={"state": state.value}, limit=_PAGE, offset=offset):
            found |= {item.key: _row(item.value) for item in items}
            offset += len(items)
        return dict(sorted(found.items(), key=lambda each: each[1].at))

    def prune(self, before: float) -> int:
        """See `ResultStore`."""
        old = [key for key, row in self.rows(State.DONE).items() if row.at < before]
        for key in old:
            self._store.delete(_NAMESPACE, key)
        return len(old)

    def close(self) -> None:
        """The store belongs to whoever made it."""


def _value(row: Row) -> dict[str, Any]:
    payload = base64.b64encode(row.payload).decode()
    return {
        "state": row.state.value, "at": row.at, "owner": row.owner, "until": row.until, "payload": payload,
        "note": row.note,
    }  # fmt: skip


def _row(value: Mapping[str, Any]) -> Row:
    known = {**value, "state": State(value["state"]), "payload": base64.b64decode(value["payload"])}
    return Row(**known)
