"""What the page of spend is made of: everything asked of a history once, as of one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal

from agentbudget.domain.money import NANOS_PER_DOLLAR
from agentbudget.domain.windows import window_start
from agentbudget.finops.advisor.asked import Machine
from agentbudget.finops.advisor.values import Advice
from agentbudget.finops.alarms.alert import Alert
from agentbudget.finops.alarms.past import HistorySource
from agentbudget.finops.alarms.rules import HOUR, Watched
from agentbudget.finops.alarms.state import AlarmState
from agentbudget.finops.alarms.watch import Watch
from agentbudget.finops.anomaly import Change
from agentbudget.finops.attribution import Attribution, UnitCost, attribute, unit_costs
from agentbudget.finops.bloat import carried, resent
from agentbudget.finops.capacity import allocate, measured_load
from agentbudget.finops.changes import anomalies, compare
from agentbudget.finops.dimensions import TagRules
from agentbudget.finops.forecasting.forecast import PlannedEvent, forecast
from agentbudget.finops.forecasting.series import daily
from agentbudget.finops.history import History, Period
from agentbudget.reports.spend_columns import columns
from agentbudget.reports.spend_flaws import extent, flaws, priced
from agentbudget.reports.spend_values import Course, Hosted, Pot, SpendMaterial

DAY = timedelta(days=1)
TABLES = ("feature", "model", "team", "user", "name")
"""Tables beside the one that is asked for, where anything of it is recorded."""
UNITS = ("outcome", "user", "decision")
"""What unit costs are shown of, where it is recorded."""
LONGEST = 92 * DAY
"""Time that is looked at for anomalies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendView:
    """What a page of spend shows beside the history itself.

    Args:
        by: the dimension that spend over time is split by.
        rules: virtual tags.
        budgets: what is watched.
        firing: alarms that a watch knows to fire; None: they are judged from the history.
        planned: what is, and was, planned.
        advice: what the adviser said.
        machines: hardware paid by the hour.
        at: the moment that the page is of; None: the last call that was recorded.
    """

    by: str = "feature"
    rules: TagRules = field(default_factory=TagRules)
    budgets: tuple[Watched, ...] = ()
    firing: tuple[Alert, ...] | None = None
    planned: tuple[PlannedEvent, ...] = ()
    advice: Advice | None = None
    machines: tuple[Machine, ...] = ()
    at: datetime | None = None


def gathered(history: History, view: SpendView, *, now: datetime) -> SpendMaterial:
    """Ask *history* everything that *view* shows. *now*: behind it no call can have been made.

    Raises:
        ConfigurationError: a dimension that does not exist, or a machine none of whose calls is recorded.
    """
    rules = view.rules
    times = extent(history, at=min(view.at or now, now))
    at = view.at or times.last or now
    tables = _tables(history, view)
    days = daily(history, rules=rules)
    timed = {day: cost for day, cost in days.items() if times.first and times.first.date() <= day <= at.date()}
    pots, alarms = _budgets(history, view, at)
    return SpendMaterial(
        path=history.path,
        at=at,
        first=times.first,
        by=view.by,
        tables=tables,
        columns=columns(history, view.by, first=times.first, until=at, rules=rules),
        course=_course(timed, at.date(), view),
        pots=pots,
        alarms=alarms,
        judged=view.firing is None,
        week=_week(history, view, times.first, at),
        anomalies=tuple(
            anomalies(history, until=at, days=LONGEST.days, rules=rules, planned=view.planned) if times.first else ()
        ),
        units=_units(history),
        carried=tuple(carried(history)),
        resent=tuple(resent(history)),
        hosted=tuple(_hosted(history, machine) for machine in view.machines),
        advice=view.advice,
        flaws=tuple(flaws(tables[0], times, sorted(timed), priced(history))),
        problems=tuple(history.problems),
    )


def _tables(history: History, view: SpendView) -> tuple[Attribution, ...]:
    first = attribute(history, [view.by], rules=view.rules)
    rest = [attribute(history, [name], rules=view.rules) for name in TABLES if name != view.by]
    return (first, *(table for table in rest if any(row.key[0] is not None for row in table.rows)))


def _course(days: dict[date, int], today: date, view: SpendView) -> Course:
    """The month of *today*, whose own spend is forecast: it is not over."""
    start = today.replace(day=1)
    until = (start + 32 * DAY).replace(day=1) - DAY
    spent, total = [], 0
    for number in range((today - start).days):
        total += days.get(start + DAY * number, 0)
        spent.append(total)
    told = forecast(days, today=today, start=start, until=until, events=view.planned)
    return Course(start=start, today=today, spent=tuple(spent), forecast=told)


def _budgets(history: History, view: SpendView, at: datetime) -> tuple[tuple[Pot, ...], tuple[Alert, ...]]:
    source = HistorySource(history, at=at, rules=view.rules)
    with AlarmState() as state:
        watch = Watch(view.budgets, traces=source, state=state)
        told = watch.look(at.timestamp(), on_problem=history.problems.append).told if view.firing is None else ()
        pots = tuple(_pot(watch, source, watched, at.timestamp()) for watched in view.budgets)
    return pots, told if view.firing is None else view.firing


def _pot(watch: Watch, source: HistorySource, watched: Watched, at: float) -> Pot:
    now = watch.standing(watched, at)
    rate = source.activity(watched).cost(at, 24 * HOUR) / (24 * HOUR)
    told = watch.forecast(watched, at, now.limit)
    ahead = {name: getattr(told, name, None) for name in ("expected", "low", "high")}
    begun = window_start(watched.window(at)) or at
    return Pot(
        scope=watched.scope,
        window=watched.limit.window.value,
        spent=now.spent,
        limit=now.limit,
        gone=min(1.0, max(0.0, (at - begun) / now.period)) if now.period else 1.0,
        alarm_at=max(0, now.limit - round(rate * watched.react)),
        react_hours=watched.react / HOUR,
        **{name: _at_least(amount, now.spent) for name, amount in ahead.items()},
    )


def _at_least(amount: Decimal | None, spent: int) -> int | None:
    """*amount* in nano-dollars; a forecast knows nothing of today, of which some is *spent* already."""
    return None if amount is None else max(spent, int(amount * NANOS_PER_DOLLAR))


def _week(history: History, view: SpendView, first: datetime | None, at: datetime) -> Change | None:
    """The last seven days against the seven before."""
    if first is None or first > at - 14 * DAY:
        return None
    now, before = Period(since=at - 7 * DAY, until=at), Period(since=at - 14 * DAY, until=at - 7 * DAY)
    return compare(history, now, before, rules=view.rules, planned=view.planned)


def _units(history: History) -> tuple[tuple[str, tuple[UnitCost, ...]], ...]:
    found = [(per, tuple(unit_costs(history, per))) for per in UNITS]
    return tuple((per, units) for per, units in found if any(unit.unit is not None for unit in units))


def _hosted(history: History, machine: Machine) -> Hosted:
    """The bill of the time recorded, by what each feature took of what all GPUs could have served."""
    hosted = machine.hosted
    load = measured_load(history, hosted.model)
    capacity = machine.tokens_per_second * hosted.gpus * load.hours * 3600
    used = {who: float(tokens) for who, tokens in load.by.items()}
    charges = allocate(round(hosted.hour * load.hours), used, capacity)
    return Hosted(model=hosted.model, hours=load.hours, tokens=sum(load.by.values()), charges=charges)
