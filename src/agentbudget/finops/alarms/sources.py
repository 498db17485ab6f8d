"""Where a watch sees spend: the traces that are being written, and the ledger that has the last word."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from agentbudget.domain.accounts import Account, Meter
from agentbudget.domain.ledger import Ledger
from agentbudget.errors import TraceError
from agentbudget.finops.alarms.activity import MINUTE, Activity
from agentbudget.finops.alarms.alert import Alert
from agentbudget.finops.alarms.causes import Causes
from agentbudget.finops.alarms.rules import Watched
from agentbudget.finops.flatten import Row
from agentbudget.finops.intake import Intake
from agentbudget.finops.schema import KNOWN_TAGS
from agentbudget.trace.files import OnProblem, trace_files

KEPT = 62 * 24 * 60
"""Minutes of activity that are kept: two months."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS minutes (
    watched TEXT NOT NULL, minute INTEGER NOT NULL, cost INTEGER NOT NULL, calls INTEGER NOT NULL,
    PRIMARY KEY (watched, minute)
) WITHOUT ROWID
"""


class SpendSource(Protocol):
    """Where a watch reads spend from."""

    def read(self, on_problem: OnProblem, *, at: float) -> None:
        """Take what is new at the time *at* (seconds since 1970 UTC)."""

    def activity(self, watched: Watched) -> Activity:
        """What happened on a budget, by minute."""

    def daily(self, watched: Watched) -> dict[date, int]:
        """Nano-dollars by day of the budget's time zone."""

    def explained(self, alert: Alert, watched: Watched) -> Alert:
        """*alert* with what is behind it, where that can be known."""


class TraceSource:
    """Spend and calls by minute of the budgets in *watched*, from the traces below a folder as they grow."""

    def __init__(self, db: sqlite3.Connection, folder: str | PathLike[str], watched: Sequence[Watched]) -> None:
        """*db*: where minutes and what was read are remembered. A budget that is new there sees only new calls."""
        self._db, self._folder = db, Path(folder)
        self._watched = {_name(each): each for each in watched}  # several windows of one spend are counted once
        db.execute(_SCHEMA)
        self._causes = Causes(db)

    def read(self, on_problem: OnProblem, *, at: float) -> None:
        """Take what was written since the last time, and drop what is too old; a call from the future ages nothing."""
        try:
            files = trace_files(self._folder)
        except TraceError:  # nobody has spent anything yet
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            intake = Intake(self._db)
            for file in files:
                intake.take(file, self._add, on_problem)
            self._causes.flush(at=at)
            known = self._db.execute("SELECT max(minute) FROM minutes WHERE minute <= ?", (at // MINUTE,))
            (newest,) = known.fetchone()
            self._db.execute("DELETE FROM minutes WHERE minute < ?", ((newest or 0) - KEPT,))
        except BaseException:
            self._causes.forget()
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def activity(self, watched: Watched) -> Activity:
        """What happened on a budget, by minute."""
        query = "SELECT minute, cost, calls FROM minutes WHERE watched = ?"
        return Activity({minute: (cost, calls) for minute, cost, calls in self._db.execute(query, (_name(watched),))})

    def explained(self, alert: Alert, watched: Watched) -> Alert:
        """*alert* with what is behind it: volume, tokens a call or price of a token, and who."""
        return self._causes.explained(alert, _name(watched))

    def daily(self, watched: Watched) -> dict[date, int]:
        """Nano-dollars by day of the budget's time zone."""
        zone = ZoneInfo(watched.limit.timezone)
        days: dict[date, int] = {}
        for minute, cost in self._db.execute("SELECT minute, cost FROM minutes WHERE watched = ?", (_name(watched),)):
            day = datetime.fromtimestamp(minute * MINUTE, zone).date()
            days[day] = days.get(day, 0) + cost
        return days

    def _add(self, row: Row) -> None:
        if row["outcome"] == "denied":
            return
        minute = int(row["ended"].timestamp() // MINUTE)
        for name, watched in self._watched.items():
            if _concerns(watched, row):
                self._db.execute(
                    "INSERT INTO minutes VALUES (?, ?, ?, 1) ON CONFLICT (watched, minute) "
                    "DO UPDATE SET cost = cost + excluded.cost, calls = calls + 1",
                    (name, minute, row["cost"]),
                )
                self._causes.add(name, row)


class LedgerSource:
    """What is spent and what the limit is, by the ledger: over all processes, and with what was granted."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def standing(self, watched: Watched, at: float) -> tuple[int, int | None]:
        """Nano-dollars spent in the window, presumed ones included, and the limit in force."""
        scope = tuple((kind, watched.names[kind]) for kind in watched.limit.scope)
        balance = self._ledger.balance(Account(scope, Meter.COST, watched.window(at)))
        return balance.settled + balance.presumed, balance.limit


def _concerns(watched: Watched, row: Row) -> bool:
    names = {**watched.names, **watched.limit.where}
    return all(_value(row, kind) == name for kind, name in names.items())


def _value(row: Mapping[str, Any], kind: str) -> object:
    if kind in KNOWN_TAGS or kind in {"thread", "task"}:
        return row[kind]
    if kind in {"model", "tool"}:
        return row["name"] if row["kind"] == kind else None
    return dict(row["tags"]).get(kind)


def _name(watched: Watched) -> str:
    limit = watched.limit
    return json.dumps([sorted(watched.names.items()), sorted(limit.where.items())], separators=(",", ":"))
