"""`agentbudget report`: what recorded tasks cost, and why some were stopped."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from agentbudget.cli.pages import write_page
from agentbudget.cli.periods import add_period
from agentbudget.cli.problems import Problems
from agentbudget.cli.progress import Progress
from agentbudget.cli.runs import Runs
from agentbudget.trace.report import TaskReport
from agentbudget.trace.survey import Survey


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser(
        "report",
        help="what recorded tasks cost, and why some were stopped",
        description="What recorded tasks cost, and why some were stopped. Of several tasks: the sum, a table by kind, "
        "and the dearest runs. Exit code 1 where a part of the trace could not be read.",
    )
    parser.add_argument("trace", help="a trace file, a folder of them, or a glob")
    parser.add_argument("--json", action="store_true", help="JSON, for machines")
    parser.add_argument("--each", action="store_true", help="every task by itself instead of the sum")
    parser.add_argument(
        "--by", default="name", metavar="TAG", help="the table by a tag, e.g. feature; or by dimensions: feature,model"
    )
    add_period(parser)
    parser.add_argument("--tags", metavar="RULES.toml", help="rules that tag recorded calls anew")
    parser.add_argument("--units", metavar="UNIT", help="what one outcome, user, decision ... cost")
    parser.add_argument("--worst", type=int, default=10, metavar="N", help="so many of the dearest runs (10)")
    parser.add_argument("--html", metavar="FILE", help="write the report to FILE as well, as one HTML page")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 where a part of the trace could not be read."""
    if args.html:
        write_page(args.trace, args.html)
    if "," in args.by or args.since or args.until or args.tags or args.units:
        from agentbudget.cli import spend

        return spend.run(args)
    problems = Problems()
    with Progress("files read") as progress:
        survey = Survey(args.trace, on_problem=problems.add, on_read=progress)
        if args.each:
            _print_each(iter(survey), as_json=args.json)
        else:
            _print_all(survey, args)
    problems.tell()
    return 1 if problems.count else 0


def _print_each(reports: Iterator[TaskReport], *, as_json: bool) -> None:
    """One after the other, as they are read."""
    between = "[" if as_json else ""
    for report in reports:
        shown = json.dumps(report.to_dict(), indent=2) if as_json else str(report)
        print(f"{between}{shown}", end="" if as_json else "\n")
        between = ",\n" if as_json else "\n"
    if as_json:
        print("]" if between != "[" else "[]")


def _print_all(survey: Survey, args: argparse.Namespace) -> None:
    runs, alone = Runs(args.by, worst=args.worst), None
    for number, report in enumerate(survey):
        alone = report if number == 0 else None
        runs.add(report)
    if args.json:
        plain = (alone or survey.total).to_dict()
        print(json.dumps(plain if alone else plain | runs.to_dict(), indent=2))
        return
    print(alone or survey.total)
    if not alone:
        print("\n".join(runs.lines()))
