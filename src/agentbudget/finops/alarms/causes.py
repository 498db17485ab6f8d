"""What is behind an alarm: spend by feature, model and user in stretches of ten minutes, kept for a week beside the
minutes of a watch, so that an alarm is explained without reading a trace again."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from agentbudget.finops.alarms.alert import Alert
from agentbudget.finops.anomaly import DIMENSIONS, Change, Cut, Sums, explain, signed
from agentbudget.finops.flatten import Row

STRETCH = 600
"""Seconds that are counted together."""
BASELINE_DAYS = 7
KEPT = (BASELINE_DAYS + 2) * 24 * 3600 // STRETCH
"""Stretches that are kept."""
LEAST_SECONDS = 3600
"""Shortest time that is explained."""
EXPLAINED = {"burn", "exhaustion", "spike"}
_HELD = 50_000
"""Rows added up in memory before they are written."""
_MOST_NAMED = 3
_SCHEMA = """
CREATE TABLE IF NOT EXISTS causes (
    watched TEXT NOT NULL, stretch INTEGER NOT NULL, dimension TEXT NOT NULL, value TEXT NOT NULL,
    calls INTEGER NOT NULL, tokens INTEGER NOT NULL, cost INTEGER NOT NULL, other INTEGER NOT NULL,
    PRIMARY KEY (watched, stretch, dimension, value)
) WITHOUT ROWID
"""
_ADD = """
INSERT INTO causes VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
calls = calls + excluded.calls, tokens = tokens + excluded.tokens, cost = cost + excluded.cost,
other = other + excluded.other
"""
_SUM = """
SELECT dimension, value, sum(calls), sum(tokens), sum(cost), sum(other) FROM causes
WHERE watched = ? AND stretch >= ? AND stretch < ? GROUP BY dimension, value
"""
_Key = tuple[str, int, str, str]


class Causes:
    """Sums by budget, stretch and value of a dimension, in the database of a watch. A missing value is empty there."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._new: dict[_Key, Sums] = {}
        db.execute(_SCHEMA)

    def add(self, watched: str, row: Row) -> None:
        """Count the call *row* for the budget named *watched*, in the transaction that is open."""
        tokens = row["input_tokens"] + row["output_tokens"]
        paid, other = (row["cost"], 0) if tokens else (0, row["cost"])
        sums = Sums(calls=int(tokens > 0), tokens=tokens, cost=paid, other=other)
        stretch = int(row["ended"].timestamp() // STRETCH)
        for dimension in DIMENSIONS:
            key = (watched, stretch, dimension, row[dimension] or "")
            self._new[key] = self._new[key] + sums if key in self._new else sums
        if len(self._new) >= _HELD:
            self._write()

    def flush(self, *, at: float) -> None:
        """Write what was counted, and drop what is too old to be asked for at the time *at*."""
        self._write()
        newest = self._db.execute("SELECT max(stretch) FROM causes WHERE stretch <= ?", (at // STRETCH,)).fetchone()[0]
        self._db.execute("DELETE FROM causes WHERE stretch < ?", ((newest or 0) - KEPT,))

    def _write(self) -> None:
        rows = [(*key, sums.calls, sums.tokens, sums.cost, sums.other) for key, sums in self._new.items()]
        self._new = {}
        self._db.executemany(_ADD, rows)

    def forget(self) -> None:
        """Drop what was counted and not written: its transaction was rolled back."""
        self._new = {}

    def change(self, watched: str, *, at: float, seconds: float) -> Change | None:
        """The *seconds* before *at* against the same time of the days before; None where nothing is known of those."""
        last = int(at // STRETCH) + 1
        first = last - max(1, round(seconds / STRETCH))
        day = 24 * 3600 // STRETCH
        (oldest,) = self._db.execute("SELECT min(stretch) FROM causes WHERE watched = ?", (watched,)).fetchone()
        days = [back for back in range(1, BASELINE_DAYS + 1) if oldest is not None and first - back * day >= oldest]
        if not days:
            return None
        before = _mean([self._cut(watched, first - back * day, last - back * day) for back in days])
        start, end = (datetime.fromtimestamp(stretch * STRETCH, UTC) for stretch in (first, last))
        return explain(before, self._cut(watched, first, last), start=start, end=end)

    def explained(self, alert: Alert, watched: str) -> Alert:
        """*alert* with what is behind it in its details, where that can be known."""
        if alert.kind not in EXPLAINED:
            return alert
        seconds = max(LEAST_SECONDS, float(alert.details.get("window_seconds", 0)))
        change = self.change(watched, at=alert.at, seconds=seconds)
        return alert if change is None else replace(alert, details={**alert.details, **texts(change)})

    def _cut(self, watched: str, first: int, last: int) -> Cut:
        found: dict[str, dict[str | None, Sums]] = {dimension: {} for dimension in DIMENSIONS}
        for dimension, value, calls, tokens, cost, other in self._db.execute(_SUM, (watched, first, last)):
            found[dimension][value or None] = Sums(calls=calls, tokens=tokens, cost=cost, other=other)
        return found


def _mean(cuts: Sequence[Cut]) -> Cut:
    whole: dict[str, dict[str | None, Sums]] = {dimension: {} for dimension in DIMENSIONS}
    for cut in cuts:
        for dimension, values in cut.items():
            for value, sums in values.items():
                whole[dimension][value] = whole[dimension].get(value, Sums()) + sums
    share = 1 / len(cuts)
    return {name: {value: sums.scaled(share) for value, sums in values.items()} for name, values in whole.items()}


def texts(change: Change) -> dict[str, str]:
    """*change* as texts: receivers show details as they are."""
    told = change.to_dict()
    most = ", ".join(str(each) for each in change.contributors[:_MOST_NAMED])
    return {
        "expected": f"${told['expected']}",
        "actual": f"${told['actual']}",
        "impact": signed(change.impact),
        "because": change.because,
        "contributors": most,
    }
