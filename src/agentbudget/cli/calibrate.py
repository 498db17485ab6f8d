"""`agentbudget calibrate`: limits from recorded runs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from agentbudget.cli.progress import Progress
from agentbudget.replay.calibrate import calibrate


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser(
        "calibrate",
        help="limits from recorded runs: what they save, which successes they halt",
        description="Limits from recorded runs, for each kind of task: the successes each would have halted (held out) "
        "and the share of failed runs' spend it would have saved. Exit code 1 where nothing can be suggested.",
    )
    parser.add_argument("traces", help="a trace file, a folder of them, or a glob; also formats that can be imported")
    parser.add_argument(
        "--success", metavar="TAG", help="a tag that says whether a run succeeded (default: its recorded outcome)"
    )
    parser.add_argument(
        "--false-halts",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="share of the successes that a suggested limit may halt, by its 95%% upper bound (0.05)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the options; 1 where nothing can be suggested."""
    with Progress("runs read") as progress:
        found = calibrate(args.traces, success=args.success, false_halts=args.false_halts, progress=progress)
    print(json.dumps(found.to_dict(), indent=2) if args.json else found)
    return 0 if found.suggested else 1
