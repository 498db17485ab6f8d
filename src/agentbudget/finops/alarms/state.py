"""What is firing, remembered over runs: an alarm is told when it begins and when it is over, once each."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike, fspath
from types import TracebackType
from typing import Self

from agentbudget.errors import ConfigurationError
from agentbudget.finops.alarms.alert import Alert

HOLD = 15 * 60.0
"""Seconds that an alarm must be quiet before it is over: spend that flickers is one alarm."""
AGAIN = 24 * 3600.0
"""Seconds after which an alarm that still fires is told again."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS firing (
    key TEXT PRIMARY KEY, alert TEXT NOT NULL, since REAL NOT NULL, seen REAL NOT NULL, told REAL NOT NULL
)
"""


class AlarmState:
    """The alarms that fire, in a file (or `:memory:`). One watch at a time; a second one waits, then fails.

    Raises:
        ConfigurationError: the file cannot be used, or stays locked.
    """

    def __init__(self, path: str | PathLike[str] = ":memory:") -> None:
        opened = None
        try:
            self.db = opened = sqlite3.connect(path, timeout=10, isolation_level=None)
            opened.execute(_SCHEMA)
        except sqlite3.Error as refusal:
            if opened is not None:
                opened.close()
            msg = f"state={fspath(path)!r} cannot be used ({refusal}): is another watch at work, or is it no state?"
            raise ConfigurationError(msg) from refusal

    @property
    def firing(self) -> set[str]:
        """Keys of what fires."""
        return {key for (key,) in self.db.execute("SELECT key FROM firing")}

    @property
    def alerts(self) -> list[Alert]:
        """What fires, as it was last seen."""
        return [Alert(**json.loads(text)) for (text,) in self.db.execute("SELECT alert FROM firing ORDER BY key")]

    def update(self, alerts: Sequence[Alert], *, at: float) -> tuple[list[Alert], list[Alert]]:
        """Take what holds at the time *at*; give what is to be told now, and what goes on firing.

        Told is what is new, what fires for `AGAIN` since it was told, and what is over: not seen for `HOLD`.
        """
        self.db.execute("BEGIN IMMEDIATE")
        try:
            told, goes_on = self._updated(alerts, at)
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")
        return told, goes_on

    def _updated(self, alerts: Sequence[Alert], at: float) -> tuple[list[Alert], list[Alert]]:
        told: list[Alert] = []
        goes_on: list[Alert] = []
        # The clock may have been ahead: what was seen and told then was so at the latest now.
        self.db.execute("UPDATE firing SET seen = min(seen, :at), told = min(told, :at)", {"at": at})
        for alert in alerts:
            row = self.db.execute("SELECT told FROM firing WHERE key = ?", (alert.key,)).fetchone()
            due = row is None or at - row[0] >= AGAIN
            (told if due else goes_on).append(alert)
            self._remember(alert, at, told_at=at if due else row[0])
        for key, text in self.db.execute("SELECT key, alert FROM firing WHERE seen <= ?", (at - HOLD,)).fetchall():
            told.append(replace(Alert(**json.loads(text)), status="resolved", at=at))
            self.db.execute("DELETE FROM firing WHERE key = ?", (key,))
        return told, goes_on

    def _remember(self, alert: Alert, at: float, *, told_at: float) -> None:
        text = json.dumps({name: getattr(alert, name) for name in alert.__slots__})
        self.db.execute(
            "INSERT INTO firing VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET alert = excluded.alert, seen = excluded.seen, told = excluded.told",
            (alert.key, text, at, at, told_at),
        )

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
