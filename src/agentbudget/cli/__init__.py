"""The `agentbudget` command: parse, call one function, print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from agentbudget.cli import (
    advise,
    calibrate,
    check,
    compact,
    diff,
    export,
    finops,
    forecast,
    ledger,
    prices,
    reconcile,
    replay,
    report,
    watch,
)
from agentbudget.errors import AgentBudgetError
from agentbudget.version import VERSION

COMMANDS = (
    check,
    report,
    replay,
    diff,
    calibrate,
    prices,
    ledger,
    compact,
    forecast,
    watch,
    export,
    advise,
    reconcile,
    finops,
)
"""One module a command: `add(parsers)` declares it, its `run(args)` does it and returns the exit code."""


_FINOPS = {"duckdb", "pyarrow", "pytz"}
"""What the extra `finops` brings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 where it did what was asked, 1 where what it looked at is not as it should be, 2 for a mistake in the call.
    """
    parser = argparse.ArgumentParser(prog="agentbudget", description="Read traces, prices and ledgers of agentbudget.")
    parser.add_argument("--version", action="version", version=f"agentbudget {VERSION}")
    parsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(parsers)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except AgentBudgetError as error:
        print(f"agentbudget: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as missing:
        if missing.name not in _FINOPS:
            raise
        print(f'agentbudget: this needs {missing.name}: pip install "langchain-agentbudget[finops]"', file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
