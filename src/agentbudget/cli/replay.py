"""`agentbudget replay`: what recorded tasks would have cost under other rules."""

from __future__ import annotations

import argparse
import json
from datetime import date
from typing import Any

from agentbudget.cli import rules
from agentbudget.cli.problems import Problems
from agentbudget.cli.progress import Progress
from agentbudget.cli.tables import money, share
from agentbudget.replay.whatif import WhatIf, replay


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser(
        "replay",
        help="what recorded tasks would have cost under other limits, prices or models",
        description="Recorded calls through the rules that decide live, with other limits, prices or models. Exit code "
        "0 where no recorded call would be refused, 1 where some would, 2 for a mistake in the call.",
    )
    parser.add_argument("trace", help="a trace file, a folder of them, or a glob; also formats that can be imported")
    rules.add(parser)
    parser.add_argument(
        "--model", action="append", type=rules.pair, default=[], metavar="OLD=NEW", help="exchange a model"
    )
    parser.add_argument(
        "--downgrade", action="append", default=[], metavar="MODEL", help="a cheaper model for calls that do not fit"
    )
    parser.add_argument("--prices", metavar="FILE", help="price every call anew, with these overrides")
    parser.add_argument("--on", type=date.fromisoformat, help="price every call anew, of that day (YYYY-MM-DD)")
    parser.add_argument("--mode", choices=("enforce", "observe"), help="by default as recorded")
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the outcome; 1 where a recorded call would be refused."""
    problems = Problems()
    with Progress("events replayed") as progress:
        outcome = replay(
            args.trace,
            budget=rules.budget(args),
            model=dict(args.model),
            downgrade=args.downgrade,
            prices=args.prices,
            on=args.on,
            mode=args.mode,
            progress=progress,
            on_problem=problems.add,
        )
    print(json.dumps(outcome.to_dict(), indent=2) if args.json else "\n".join(_lines(outcome)))
    problems.tell()
    return 1 if outcome.skipped or problems.count else 0


def _lines(outcome: WhatIf) -> list[str]:
    low, high = outcome.cost_range
    between = f", from {money(low)} to {money(high)}" if low != high else ""
    of_recorded = f" ({share(outcome.saved, outcome.recorded)} of it)" if outcome.saved and outcome.recorded else ""
    known = "" if not outcome.unpriced_calls else f", without {outcome.unpriced_calls:,} model calls that have no price"
    facts = [
        ("recorded", f"{money(outcome.recorded)}{known}"),
        ("replayed", f"{money(outcome.cost)} ({outcome.label}{between})"),
        ("saved", f"{money(outcome.saved)}{of_recorded}"),
        ("refused", f"{outcome.skipped:,} of {outcome.calls:,} calls"),
        ("stopped", f"{outcome.stopped:,} of {outcome.tasks:,} tasks"),
    ]
    if outcome.saved_waste:
        facts.append(("of saved", f"{money(outcome.saved_waste)} was spent on failed attempts"))
    if outcome.downgraded:
        facts.append(("ladder", f"{outcome.downgraded:,} calls to a cheaper model or with a shorter answer"))
    if outcome.diverged_at is not None:
        others = f", and {outcome.diverged - 1:,} more tasks" if outcome.diverged > 1 else ""
        facts.append(("parted", f"{outcome.diverged_at}{others}"))
    if outcome.stopped_by is not None:
        facts.append(("first stop", outcome.stopped_by.reason))
    lines = [f"  {label:<12}{value}" for label, value in facts]
    return [
        outcome.path,
        *lines,
        *(f"  {'assumed' if not n else '':<12}{a}" for n, a in enumerate(outcome.assumptions)),
    ]
