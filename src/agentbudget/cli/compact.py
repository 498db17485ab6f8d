"""`agentbudget compact`: traces into an archive of Parquet files."""

from __future__ import annotations

import argparse
import json
from typing import Any

from agentbudget.cli.problems import Problems
from agentbudget.cli.progress import Progress


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser(
        "compact",
        help="traces into an archive of Parquet files, each call once",
        description="Brings an archive up to date with traces; run it as often as you like. Any engine that reads "
        "Parquet reads it. Exit code 1 where a part of the traces could not be read.",
    )
    parser.add_argument("traces", help="a trace file, a folder of them, or a glob")
    parser.add_argument("archive", help="the archive's folder; made where there is none")
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Bring the archive up to date."""
    from agentbudget.finops.compact import compact

    problems = Problems()
    with Progress("bytes read") as progress:
        done = compact(args.traces, args.archive, on_problem=problems.add, on_progress=progress)
    if args.json:
        print(json.dumps({"files": done.files, "calls": done.calls, "problems": done.problems}))
    else:
        print(f"{args.archive}: {done.calls:,} calls added, from {done.files:,} files that had something new")
    problems.tell()
    return 1 if done.problems else 0
