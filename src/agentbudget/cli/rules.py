"""Options of a command that stand for a budget: `--max-cost 0.50 --tool search=5 --loops`."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from agentbudget.domain.budget import Budget
from agentbudget.domain.loops import HALT, Loops, Thresholds
from agentbudget.errors import ConfigurationError

_COUNTS = ("total-tokens", "input-tokens", "output-tokens", "model-calls", "tool-calls", "retries")


def add(parser: Any) -> None:
    """Declare them."""
    group = parser.add_argument_group("the budget of every root task, in place of the recorded one")
    group.add_argument("--max-cost", metavar="DOLLARS", help="e.g. 0.50")
    for name in _COUNTS:
        group.add_argument(f"--max-{name}", type=int, metavar="N")
    group.add_argument("--max-seconds", type=float, metavar="S")
    group.add_argument("--tool", action="append", type=pair, default=[], metavar="NAME=N", help="most calls of a tool")
    group.add_argument(
        "--loops",
        nargs="*",
        type=pair,
        metavar="RULE=N",
        help="halt loops: alone with the default rules, or with only these, e.g. in_a_row=4 cycles=3",
    )
    group.add_argument("--unlimited", action="store_true", help="no limits at all")


def budget(args: argparse.Namespace) -> Budget | None:
    """The budget of *args*; None where nothing was said: the recorded ones hold.

    Raises:
        ConfigurationError: a limit that cannot be one.
    """
    limits: dict[str, Any] = {f"max_{name}": getattr(args, f"max_{name}") for name in _names()}
    limits = {name: value for name, value in limits.items() if value is not None}
    if args.tool:
        limits["tools"] = {name: _count(value) for name, value in args.tool}
    if args.loops is not None:
        rules = {name.replace("-", "_"): _count(value) for name, value in args.loops}
        known = [each.name for each in fields(Thresholds)]
        if unknown := [name for name in rules if name not in known]:
            raise ConfigurationError(f"--loops {unknown[0]}: no such rule; known are {', '.join(known)}.")
        limits["loops"] = Loops(halt=Thresholds(**rules) if rules else HALT)
    return Budget(**limits) if limits or args.unlimited else None


def _names() -> tuple[str, ...]:
    return ("cost", *(name.replace("-", "_") for name in _COUNTS), "seconds")


def pair(text: str) -> tuple[str, str]:
    """`a=b` as two; the value may be empty, the name may not."""
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r}: two names with = between them, e.g. gpt-5=gpt-5-mini")
    return name, value


def _count(text: str) -> Any:
    """A number where it is one; what is none is refused by the limit, which knows what it wants."""
    return int(text) if text.isascii() and text.isdigit() else text
