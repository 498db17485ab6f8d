"""`agentbudget forecast`: what a period will cost, and when a budget is exhausted."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

from agentbudget.cli.progress import Progress
from agentbudget.domain.money import nanos
from agentbudget.errors import ConfigurationError


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser(
        "forecast",
        help="what this month will cost, with an interval and how often such intervals held",
        description="Forecasts the month from recorded history, by scope. Exit code 1 where the budget is expected to "
        "break, or where there is too little history.",
    )
    parser.add_argument("trace", help="an archive, a trace file, a folder of them, or a glob")
    parser.add_argument("--scope", action="append", default=[], metavar="TAG=VALUE", help="only these calls: team=cx")
    parser.add_argument("--budget", metavar="DOLLARS", help="whose exhaustion is looked for")
    parser.add_argument("--timezone", default="UTC", help="whose days and month (UTC)")
    parser.add_argument("--today", type=date.fromisoformat, metavar="YYYY-MM-DD", help="the first day forecast (today)")
    parser.add_argument(
        "--planned", action="append", default=[], metavar="FROM..TO=FACTOR", help="a launch: 2026-12-01..2026-12-03=2.5"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the forecast."""
    from agentbudget.finops.forecasting.forecast import forecast
    from agentbudget.finops.forecasting.series import daily
    from agentbudget.finops.history import History

    today = args.today or datetime.now(UTC).date()
    start = today.replace(day=1)
    until = (start + timedelta(days=32)).replace(day=1) - timedelta(days=1)
    budget = nanos(args.budget, what="--budget") if args.budget else None
    where = dict(_pair(scope) for scope in args.scope)
    events = [_planned(text) for text in args.planned]
    with Progress("bytes read") as progress, History.open(args.trace, on_progress=progress) as history:
        days = daily(history, where=where, timezone=args.timezone)
    told = forecast(days, today=today, start=start, until=until, budget=budget, events=events)
    print(json.dumps(told.to_dict(), indent=2) if args.json else told)
    return int(told.expected is None or told.exhausted is not None)


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        msg = f"--scope {text!r}: write TAG=VALUE, e.g. team=cx."
        raise ConfigurationError(msg)
    return name, value


def _planned(text: str) -> Any:
    from agentbudget.finops.forecasting.forecast import PlannedEvent

    days, _, factor = text.partition("=")
    first, _, last = days.partition("..")
    try:
        return PlannedEvent(
            start=date.fromisoformat(first), end=date.fromisoformat(last or first), factor=float(factor), name=text
        )
    except ValueError as problem:
        msg = f"--planned {text!r}: write FROM..TO=FACTOR, e.g. 2026-12-01..2026-12-03=2.5 ({problem})."
        raise ConfigurationError(msg) from None
