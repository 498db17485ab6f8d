"""When to raise an alarm: pure rules over one budget's spend and calls.

Burn rates and exhaustion are measured against what is left of the budget and of its period, over a long and a short
window that must both exceed (the windows and factors of multi-window burn-rate alerting, here in money). A rule that
fires goes on firing until it is clearly over: below `RELEASE` of what raised it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from agentbudget.domain.accounts import Meter
from agentbudget.domain.budget import Limit
from agentbudget.domain.money import Money, nanos
from agentbudget.domain.windows import Window, window_end, window_start
from agentbudget.errors import ConfigurationError
from agentbudget.finops.alarms.activity import MINUTE, Activity
from agentbudget.finops.alarms.alert import Alert, Kind, Severity, money
from agentbudget.finops.forecasting.forecast import Forecast, PlannedEvent

HOUR: Final = 3600.0
BURNS: Final[tuple[tuple[float, int, Severity], ...]] = ((14.4, 720, "critical"), (6.0, 120, "critical"))
"""Factor over the affordable rate, and which part of the period the long window is: an hour and six of 30 days."""
SHORT = 12
"""The short window is this part of the long one."""
SHORTEST = 10 * MINUTE
"""Seconds of the shortest long window."""
RELEASE = 0.8
EXCESS = 0.05
"""Share of the budget that must break it, by the present rate, for a page by time."""
SPIKE = 2.5
"""Calls in five minutes over the most that this hour of the day usually has."""
SPIKE_CALLS = 20
"""Fewest calls in five minutes that can be a spike."""
BASELINE_DAYS = (7, 14)
"""Days of history that a spike is judged by: at least, and at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One budget to watch: a cost limit, and whose.

    Args:
        limit: of money, in a window from an hour to a month.
        names: the value of each of its scopes: `{"team": "cx"}`.
        react: seconds that people need to react; a budget that breaks sooner is paged.
        minimum: least money, in the window that raises an alarm, worth waking anyone for.
        planned: what is planned: a launch with a factor raises no spike alarm below that factor.
    """

    limit: Limit
    names: dict[str, str]
    react: float = 4 * HOUR
    minimum: Money = "$1"
    planned: tuple[PlannedEvent, ...] = ()
    least: int = field(init=False)
    """`minimum` in nano-dollars."""

    def __post_init__(self) -> None:
        if self.limit.meter is not Meter.COST or self.limit.window in {Window.NEVER, Window.MINUTE}:
            kind = f"{self.limit.meter.value}/{self.limit.window.value}"
            msg = f"watched limit {kind}: watch one of cost, by hour, day, week or month."
            raise ConfigurationError(msg)
        if set(self.names) != set(self.limit.scope):
            msg = f"watched limit of {', '.join(self.limit.scope)}: names={self.names!r} must name exactly those."
            raise ConfigurationError(msg)
        if self.react <= 0:
            msg = f"react={self.react!r}: seconds above 0."
            raise ConfigurationError(msg)
        object.__setattr__(self, "least", nanos(self.minimum, what="minimum"))

    @property
    def scope(self) -> str:
        """`team=cx`."""
        return ", ".join(f"{kind}={name}" for kind, name in sorted(self.names.items()))

    def window(self, at: float) -> str:
        """Key of the window that *at* is in."""
        return self.limit.window.key(at, self.limit.timezone)

    def factor(self, at: float) -> float:
        """How much more than usual is planned at *at*."""
        day = datetime.fromtimestamp(at, UTC).date()
        factor = 1.0
        for event in self.planned:
            if event.start <= day <= event.end:
                factor *= max(1.0, event.factor)
        return factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a budget stands at a moment. Nano-dollars and seconds."""

    at: float
    spent: int
    limit: int
    remaining_seconds: float
    period: float

    @property
    def left(self) -> int:
        """What may still be spent."""
        return max(0, self.limit - self.spent)

    @property
    def affordable(self) -> float:
        """Nano-dollars a second that last to the end of the period."""
        return self.left / self.remaining_seconds


def standing(watched: Watched, *, at: float, spent: int, limit: int | None = None) -> Standing:
    """Where *watched* stands with *spent* nano-dollars in its window; *limit*: in force, where it was raised."""
    key = watched.window(at)
    end = window_end(key) or at
    return Standing(
        at=at,
        spent=spent,
        limit=limit or watched.limit.amount,
        remaining_seconds=max(float(MINUTE), end - at),
        period=end - (window_start(key) or at),
    )


def judge(
    watched: Watched, now: Standing, activity: Activity, *, forecast: Forecast | None, firing: Collection[str] = ()
) -> list[Alert]:
    """The alarms that hold now. *firing*: keys of those that already do, which end only when clearly over."""
    judgement = _Judgement(watched, now, activity, frozenset(firing))
    return [*judgement.burns(), *judgement.exhaustion(), *judgement.forecasts(forecast), *judgement.spikes()]


class _Judgement:
    def __init__(self, watched: Watched, now: Standing, activity: Activity, firing: frozenset[str]) -> None:
        self.watched, self.now, self.activity, self.firing = watched, now, activity, firing

    def burns(self) -> Iterator[Alert]:
        """Spending much faster than what is left affords, in the long and in the short window."""
        now = self.now
        for factor, part, severity in BURNS:
            long = max(now.period / part, float(SHORTEST))
            key = self._key("burn", f"{factor:g}x")
            least = factor * now.affordable * self._slack(key)
            spent, rate = self._both(long)
            if spent >= self.watched.least and rate > least and now.left:
                over = rate / now.affordable
                yield self._alert(
                    key,
                    "burn",
                    severity,
                    f"spends {over:.0f} times faster than the {money(now.left)} that are left can last: "
                    f"{money(spent)} in {_span(long)}",
                    spent_in_window=money(spent),
                    window_seconds=round(long),
                    burn_rate=round(over, 1),
                )

    def exhaustion(self) -> Iterator[Alert]:
        """The budget breaks sooner than people can react, and before its period ends."""
        now, key = self.now, self._key("exhaustion")
        spent, rate = self._both(HOUR)
        excess = rate * now.remaining_seconds - now.left
        if spent < self.watched.least or not rate or excess < EXCESS * now.limit * self._slack(key):
            return
        lead = now.left / rate
        if lead < min(self.watched.react / self._slack(key), now.remaining_seconds):
            yield self._alert(
                key,
                "exhaustion",
                "critical",
                f"breaks in {_span(lead)} at {money(rate * HOUR)} an hour: "
                f"{money(now.left)} of {money(now.limit)} left",
                lead_seconds=round(lead),
                rate_an_hour=money(rate * HOUR),
            )

    def forecasts(self, told: Forecast | None) -> Iterator[Alert]:
        """The period is expected to end above its budget: no page, but a warning while there is time."""
        if told is None or told.expected is None:
            return
        key, budget = self._key("forecast"), self.now.limit / 10**9
        if float(told.expected) > budget * (1 if key not in self.firing else 1 - EXCESS):
            yield self._alert(key, "forecast", "warning", f"is forecast to break: {told}", **told.to_dict())

    def spikes(self) -> Iterator[Alert]:
        """Far more calls than this hour of the day usually has: a caller gone wild, long before the money shows."""
        at, key, window = self.now.at, self._key("spike"), 5 * MINUTE
        if not self.activity.calls(at, window):
            return
        days = min(int((at - self.activity.first) // (24 * HOUR)) - 1, BASELINE_DAYS[1])
        if days < BASELINE_DAYS[0]:
            return
        calls = min(self.activity.calls(at, window), self.activity.calls(at - window, window))
        usual = self.activity.usual_calls(at, days=days) * self.watched.factor(at)
        if calls < max(SPIKE_CALLS, SPIKE * self._slack(key) * usual):
            return
        impact = self.activity.cost(at, window) * (1 - usual / calls) * HOUR / window
        if impact >= self.watched.least:
            yield self._alert(
                key,
                "spike",
                "error",
                f"gets {calls:,} calls in five minutes, {calls / max(usual, 1):.0f} times the most this hour usually "
                f"has: about {money(impact)} an hour more",
                calls=calls,
                usual=round(usual, 1),
                impact_an_hour=money(impact),
            )

    def _both(self, long: float) -> tuple[int, float]:
        """Nano-dollars of the long window, and the lower rate a second of it and of the short one."""
        at, short = self.now.at, max(long / SHORT, float(MINUTE))
        spent = self.activity.cost(at, long)
        return spent, min(spent / long, self.activity.cost(at, short) / short)

    def _slack(self, key: str) -> float:
        return RELEASE if key in self.firing else 1.0

    def _key(self, kind: Kind, which: str = "") -> str:
        parts = (kind, which, self.watched.scope, self.watched.window(self.now.at))
        return "/".join(part for part in parts if part)[:255]

    def _alert(self, key: str, kind: Kind, severity: Severity, what: str, **details: object) -> Alert:
        summary = f"Budget of {self.watched.scope} {what}"
        return Alert(
            key=key,
            kind=kind,
            severity=severity,
            scope=self.watched.scope,
            summary=summary,
            at=self.now.at,
            details={"spent": money(self.now.spent), "limit": money(self.now.limit), **details},
        )


def rank(alerts: Sequence[Alert]) -> list[Alert]:
    """*alerts*, the most urgent first."""
    order = ("critical", "error", "warning", "info")
    return sorted(alerts, key=lambda alert: (order.index(alert.severity), alert.key))


def _span(seconds: float) -> str:
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.0f} minutes"
    return f"{seconds / HOUR:.0f} hours" if seconds < 48 * HOUR else f"{seconds / HOUR / 24:.0f} days"
