"""`agentbudget check`: whether a budget can hold on an agent, before a cent is spent."""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import import_module
from typing import Any

from agentbudget.errors import ConfigurationError


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser(
        "check",
        help="whether a budget can hold on an agent, tried on a stand-in without paying",
        description="Runs the agent against a stand-in for its models and says what would cost money: a stop that does "
        "not get through, usage that does not arrive, models without prices, retries that multiply. Exit code 0: "
        "clean; 1: errors or warnings; 2: a mistake in the call.",
    )
    parser.add_argument("agent", metavar="MODULE:NAME", help="the agent, or a function that makes it: app.main:agent")
    parser.add_argument("--inputs", type=_parsed, metavar="JSON", help="what to run it with (default: by its schema)")
    parser.add_argument("--config", type=_parsed, metavar="JSON", help='e.g. {"configurable": {"user_id": "u1"}}')
    parser.add_argument("--answer", metavar="TEXT", help="the text of the stand-in, where the agent reads it")
    parser.add_argument("--run-tool", action="append", default=[], metavar="NAME", help="run this tool for real")
    parser.add_argument("--ignore", action="append", default=[], metavar="KIND", help="leave out a kind of finding")
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what was found.

    Raises:
        ConfigurationError: there is no such agent, or it is none.
    """
    from agentbudget.checking.check import check

    agent = _loaded(args.agent)
    options = {"answer": args.answer} if args.answer is not None else {}
    report = check(
        agent, inputs=args.inputs, config=args.config, run_tools=args.run_tool, ignore=args.ignore, **options
    )
    print(json.dumps(report.to_dict(), indent=2) if args.json else report)
    return report.exit_code


def _loaded(place: str) -> Any:
    """What `module:name` names, looked for in the current folder, too."""
    module, colon, name = place.partition(":")
    if not module or not colon or not name:
        msg = f"{place!r}: write it as module:name, e.g. app.main:agent."
        raise ConfigurationError(msg)
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds strings
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - the same
    try:
        thing: Any = import_module(module)
    except Exception as error:
        msg = f"{module!r} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigurationError(msg) from error
    for part in name.split("."):
        if not hasattr(thing, part):
            msg = f"{module!r} has no {name!r}."
            raise ConfigurationError(msg)
        thing = getattr(thing, part)
    return thing


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        msg = f"not JSON: {error}"
        raise argparse.ArgumentTypeError(msg) from None
