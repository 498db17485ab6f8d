"""`agentbudget report`: what recorded tasks cost, and why some were stopped."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from agentbudget.cli.pages import write_page
from agentbudget.trace.reader import Trace


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser("report", help="what recorded tasks cost, and why some were stopped")
    parser.add_argument("trace", help="a trace file, a folder of them, or a glob")
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")
    parser.add_argument("--each", action="store_true", help="every task by itself instead of the sum")
    parser.add_argument("--html", metavar="FILE", help="write the report to FILE as well, as one HTML page")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 where a part of the trace could not be read."""
    if args.html:
        write_page(args.trace, args.html)
    trace = Trace.load(args.trace)
    reports = trace.reports if args.each else [trace.report]
    if args.json:
        plain = [report.to_dict() for report in reports]
        print(json.dumps(plain if args.each else plain[0], indent=2))
    else:
        print("\n\n".join(map(str, reports)))
    for problem in trace.problems:
        print(f"skipped: {problem}", file=sys.stderr)
    return 1 if trace.problems else 0
