"""`agentbudget export`: recorded spend in the formats of others."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from agentbudget.cli.periods import add_period
from agentbudget.cli.progress import Progress


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser(
        "export",
        help="recorded spend as FOCUS or CloudZero files",
        description="One row for each meter of calls that are alike (or of each call). The rows add up to what was "
        "recorded, to the nano-dollar.",
    )
    parser.add_argument("trace", help="an archive, a trace file, a folder of them, or a glob")
    parser.add_argument("target", help="the file to write: .csv or .parquet")
    parser.add_argument("--format", choices=["focus", "cbf"], default="focus", help="FOCUS (default) or CloudZero CBF")
    parser.add_argument("--account", required=True, help="the account that is billed, e.g. org-acme")
    parser.add_argument("--account-name", default="", help="its name")
    parser.add_argument("--level", choices=["call", "hour", "day", "month"], default="day", help="rows by (day)")
    parser.add_argument("--focus-version", choices=["1.2", "1.4"], default="1.2")
    add_period(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    from agentbudget.finops.exports.cloudzero import export_cbf
    from agentbudget.finops.exports.focus import FocusOptions, export_focus
    from agentbudget.finops.history import History, Period

    with Progress("bytes read") as progress:
        history = History.open(args.trace, period=Period(since=args.since, until=args.until), on_progress=progress)
    with history, Progress("calls written") as progress:
        if args.format == "cbf":
            rows = export_cbf(history, args.target, account=args.account, level=args.level, on_progress=progress)
        else:
            options = FocusOptions(
                account=args.account, account_name=args.account_name, level=args.level, version=args.focus_version
            )
            rows = export_focus(history, args.target, options, on_progress=progress)
    print(f"{args.target}: {rows:,} rows")
    for problem in history.problems:
        print(f"skipped: {problem}", file=sys.stderr)
    return 1 if history.problems else 0
