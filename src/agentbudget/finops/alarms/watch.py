"""The watch: look at every budget, decide, tell. A loop, or one look for a cron job."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from agentbudget.domain.windows import Window, window_end, window_start
from agentbudget.errors import AgentBudgetError
from agentbudget.finops.alarms.activity import Activity
from agentbudget.finops.alarms.alert import Alert
from agentbudget.finops.alarms.rules import Standing, Watched, judge, rank, standing
from agentbudget.finops.alarms.sources import LedgerSource, SpendSource
from agentbudget.finops.alarms.state import AlarmState
from agentbudget.finops.forecasting.forecast import Forecast, forecast
from agentbudget.trace.files import OnProblem, Problem

_FORECAST = {Window.WEEK, Window.MONTH}
"""Windows that are long enough for a forecast by day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look found."""

    at: float
    told: tuple[Alert, ...]
    """What begins or is over now: to be told to everyone, most urgent first."""
    goes_on: tuple[Alert, ...]
    """What fires since an earlier look: for receivers that want it again."""


class Watch:
    """Budgets under watch.

    Args:
        watched: the budgets.
        traces: where spend and calls by minute come from.
        state: what fires already.
        ledger: what is spent, where a ledger knows better than the traces of this machine.
    """

    def __init__(
        self, watched: Sequence[Watched], *, traces: SpendSource, state: AlarmState, ledger: LedgerSource | None = None
    ) -> None:
        self.watched = tuple(watched)
        self._traces, self._state, self._ledger = traces, state, ledger

    def look(self, at: float, *, on_problem: OnProblem) -> Look:
        """Read what is new and judge every budget at the time *at* (seconds since 1970 UTC)."""
        self._traces.read(on_problem, at=at)
        firing = self._state.firing
        alerts = [alert for watched in self.watched for alert in self._judge(watched, at, firing)]
        told, goes_on = self._state.update(alerts, at=at)
        return Look(at=at, told=tuple(rank(told)), goes_on=tuple(rank(goes_on)))

    def standing(self, watched: Watched, at: float) -> Standing:
        """Where *watched* stands at the time *at*."""
        return self._standing(watched, self._traces.activity(watched), at)

    def _judge(self, watched: Watched, at: float, firing: set[str]) -> list[Alert]:
        activity = self._traces.activity(watched)
        now = self._standing(watched, activity, at)
        alerts = judge(watched, now, activity, forecast=self.forecast(watched, at, now.limit), firing=firing)
        return [self._traces.explained(alert, watched) for alert in alerts]

    def _standing(self, watched: Watched, activity: Activity, at: float) -> Standing:
        start = window_start(watched.window(at)) or at
        spent, limit = activity.cost(at, at - start), None
        if self._ledger is not None:
            known, limit = self._ledger.standing(watched, at)
            spent = max(spent, known)
        return standing(watched, at=at, spent=spent, limit=limit)

    def forecast(self, watched: Watched, at: float, budget: int) -> Forecast | None:
        """Spend at the end of the window of *watched*; None where that is shorter than a week."""
        if watched.limit.window not in _FORECAST:
            return None
        key = watched.window(at)
        start, end = window_start(key), window_end(key)
        if start is None or end is None:
            return None
        return forecast(
            self._traces.daily(watched),
            today=_day(watched, at),
            start=_day(watched, start),
            until=_day(watched, end) - timedelta(days=1),
            budget=budget,
            events=watched.planned,
        )


def run(
    watch: Watch,
    tell: Callable[[Look], object],
    *,
    every: float,
    clock: Callable[[], float],
    sleep: Callable[[float], object],
    on_problem: OnProblem,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Look every *every* seconds and give what was found to *tell*, until *stopped*.

    A look that fails, because the ledger or a file is out of reach, is told to *on_problem*; the next is tried.
    """
    while not stopped():
        begun = clock()
        try:
            look = watch.look(begun, on_problem=on_problem)
        except (AgentBudgetError, OSError, sqlite3.Error) as refusal:
            on_problem(Problem("this look", 0, str(refusal)))
        else:
            tell(look)
        sleep(max(0.0, every - (clock() - begun)))


def _day(watched: Watched, at: float) -> date:
    return datetime.fromtimestamp(at, ZoneInfo(watched.limit.timezone)).date()
