"""Recorded history as a source of a watch: budgets judged as of any moment, without a memory of earlier looks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from agentbudget.finops.alarms.activity import MINUTE, Activity
from agentbudget.finops.alarms.alert import Alert
from agentbudget.finops.alarms.causes import BASELINE_DAYS, EXPLAINED, LEAST_SECONDS, texts
from agentbudget.finops.alarms.rules import Watched
from agentbudget.finops.alarms.sources import KEPT
from agentbudget.finops.changes import compare
from agentbudget.finops.dimensions import COLUMNS, TAG, TagRules, quoted
from agentbudget.finops.forecasting.series import daily
from agentbudget.finops.history import History, Period
from agentbudget.trace.files import OnProblem


class HistorySource:
    """Spend and calls of the two months before *at* from *history*, with virtual tags where there are *rules*."""

    def __init__(self, history: History, *, at: datetime, rules: TagRules | None = None) -> None:
        self._history, self._rules = history, rules or TagRules()
        self._period = Period(since=at - timedelta(minutes=KEPT), until=at)

    def read(self, on_problem: OnProblem, *, at: float) -> None:
        """Nothing is new in a history."""

    def activity(self, watched: Watched) -> Activity:
        """What happened on a budget, by minute."""
        found = self._history.rows(f"""
            SELECT epoch(ended)::BIGINT // {MINUTE} AS minute, sum(cost)::BIGINT AS cost, count(*) AS calls
            FROM calls WHERE {self._period.where("ended")} AND outcome <> 'denied' AND {self._where(watched)}
            GROUP BY ALL
        """)  # noqa: S608 - dimensions are known, values are quoted
        return Activity({row["minute"]: (row["cost"], row["calls"]) for row in found})

    def daily(self, watched: Watched) -> dict[date, int]:
        """Nano-dollars by day of the budget's time zone."""
        return daily(
            self._history,
            where={_dimension(kind): name for kind, name in _names(watched).items()},
            timezone=watched.limit.timezone,
            rules=self._rules,
        )

    def explained(self, alert: Alert, watched: Watched) -> Alert:
        """*alert* with what is behind it, against what is recorded of the week before."""
        if alert.kind not in EXPLAINED:
            return alert
        seconds = max(LEAST_SECONDS, float(alert.details.get("window_seconds", 0)))
        end = datetime.fromtimestamp(alert.at, UTC)
        start = end - timedelta(seconds=seconds)
        (row,) = self._history.rows(f"SELECT min(ended) AS first FROM calls WHERE {self._period.where('ended')}")  # noqa: S608 - times of our own
        if row["first"] is None or row["first"] >= start:
            return alert
        change = compare(
            self._history,
            Period(since=start, until=end),
            Period(since=max(row["first"], start - timedelta(days=BASELINE_DAYS)), until=start),
            rules=self._rules,
            where=self._where(watched),
        )
        return replace(alert, details={**alert.details, **texts(change)})

    def _where(self, watched: Watched) -> str:
        parts = [
            f"{self._rules.expression(_dimension(kind))} = {quoted(name)}" for kind, name in _names(watched).items()
        ]
        return " AND ".join(parts) or "true"


def _names(watched: Watched) -> dict[str, str]:
    return {**watched.names, **watched.limit.where}


def _dimension(kind: str) -> str:
    """What limits are for, as a dimension of history: a tag without a column is a free one."""
    return kind if kind in COLUMNS else f"{TAG}{kind}"
