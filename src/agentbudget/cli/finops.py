"""`agentbudget finops`: the whole of spend on one page, for people."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from agentbudget.cli.advise import machines
from agentbudget.cli.pages import refuse_a_trace
from agentbudget.cli.periods import add_period, moment
from agentbudget.cli.problems import Problems
from agentbudget.cli.progress import Progress
from agentbudget.cli.tables import money
from agentbudget.errors import ConfigurationError


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser(
        "finops",
        help="who spent what, what will be spent, what fires and what would save money, on one page",
        description="Spend over time, forecast, budgets, alarms, what changed, waste, unit costs and advice, as of the "
        "last recorded call. Exit code 1 where a part of the traces could not be read.",
    )
    parser.add_argument("trace", help="an archive, a trace file, a folder of them, or a glob")
    parser.add_argument("--html", metavar="FILE", help="write it to FILE as one HTML page")
    parser.add_argument("--by", default="feature", help="the dimension of spend over time (feature)")
    parser.add_argument(
        "--budgets", metavar="WATCH.toml", help="budgets to show and to judge, as for agentbudget watch"
    )
    parser.add_argument("--tags", metavar="RULES.toml", help="rules that tag recorded calls anew")
    parser.add_argument(
        "--machines", metavar="FILE.toml", help="models on hardware of your own, as for agentbudget advise"
    )
    parser.add_argument("--no-advice", action="store_true", help="leave out what would save money")
    parser.add_argument("--at", type=moment, metavar="WHEN", help="as of then (the last recorded call)")
    add_period(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page, print the numbers or a summary."""
    from agentbudget.finops.compact import is_archive
    from agentbudget.finops.history import History, Period
    from agentbudget.reports.spend import render, spend_material

    if args.html and not is_archive(args.trace) and "://" not in args.trace:
        refuse_a_trace(args.trace, args.html)
    view, period = _view(args), Period(since=args.since, until=args.until)
    with (
        Progress("bytes read") as progress,
        History.open(args.trace, period=period, on_progress=progress) as history,
    ):
        material = spend_material(history, view)
    if args.html:
        try:
            Path(args.html).write_text(render(material), encoding="utf-8", newline="\n")
        except OSError as refusal:
            why = refusal.strerror or refusal
            raise ConfigurationError(
                f"--html {args.html}: cannot be written ({why}); name a file in a folder."
            ) from refusal
    print(json.dumps(material.to_dict(), indent=2) if args.json else "\n".join(_summary(material)))
    problems = Problems()
    for problem in material.problems:
        problems.add(problem)
    problems.tell()
    return int(bool(problems.count))


def _view(args: argparse.Namespace) -> Any:
    from agentbudget.finops.advisor import Options, advise
    from agentbudget.finops.dimensions import TagRules
    from agentbudget.finops.history import Period
    from agentbudget.reports.spend_material import SpendView

    hosted = machines(args.machines) if args.machines else ()
    budgets, firing = _budgets(args) if args.budgets else ((), None)
    advice = None
    if not args.no_advice:
        period = Period(since=args.since, until=args.until)
        with Progress("bytes read for advice") as progress:
            advice = advise(args.trace, Options(machines=hosted), period=period, on_progress=progress)
    return SpendView(
        by=args.by,
        rules=TagRules.load(args.tags) if args.tags else TagRules(),
        budgets=budgets,
        firing=firing,
        planned=tuple({event for watched in budgets for event in watched.planned}),
        advice=advice,
        machines=hosted,
        at=args.at,
    )


def _budgets(args: argparse.Namespace) -> tuple[Any, Any]:
    """The budgets of a watch, and what it knows to fire: unknown where it never ran, or another time is asked for."""
    from agentbudget.finops.alarms import config
    from agentbudget.finops.alarms.rules import rank
    from agentbudget.finops.alarms.state import AlarmState

    found = config.load(args.budgets)
    if args.at is not None or not Path(found.state).is_file():
        return found.watched, None
    with AlarmState(found.state) as state:
        return found.watched, tuple(rank(state.alerts))


def _summary(material: Any) -> list[str]:
    total = material.total
    lines = [f"{money(total.cost)} in {total.calls:,} calls, as of {material.at:%Y-%m-%d %H:%M} UTC"]
    for row in material.tables[0].rows[:3]:
        name = "(untagged)" if row.key[0] is None else row.key[0]
        lines.append(f"  {money(row.cost)} {material.by}={name}")
    lines += [f"{alert.severity}: {alert.summary}" for alert in material.alarms]
    lines += [f"budget of {pot.scope}: {pot.spent / (pot.limit or 1):.0%} spent" for pot in material.pots]
    if material.first is not None:
        lines.append(f"this month: {material.course.forecast}")
    if material.week is not None:
        lines.append(f"the last seven days: {material.week}")
    if material.advice is not None:
        lines += [f"would save: {lever.title}" for lever in material.advice.levers[:3]]
    return [*lines, *material.flaws]
