"""`agentbudget advise`: changes that would save money, from recorded traces."""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from agentbudget.cli.periods import add_period
from agentbudget.cli.progress import Progress
from agentbudget.errors import ConfigurationError

_TOP = 5
_MACHINE = ("model", "gpu_hour", "gpus", "overhead_hour", "tokens_per_second", "target")


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser(
        "advise",
        help="changes that would save money, each with its amount and how sure it is",
        description="Levers with money attached, computed on your own traces: cheaper models, prompt caching, repeated "
        "calls, batches, context, retries, loops, ceilings, machines. Exit code 0; 1 where a part of the traces could "
        "not be read; 2 for a mistake in the call.",
    )
    parser.add_argument("trace", help="an archive, a trace file, a folder or glob; also formats that can be imported")
    parser.add_argument(
        "--ladder", action="append", default=[], metavar="MODEL", help="a model you call good enough, openai:gpt-5-mini"
    )
    parser.add_argument(
        "--can-wait", action="append", default=[], metavar="NAME", help="a task's name or a feature that may take a day"
    )
    parser.add_argument(
        "--machines", metavar="FILE.toml", help="[[machine]] tables: model, gpu_hour, gpus, tokens_per_second"
    )
    parser.add_argument("--success", metavar="TAG", help="a tag that says whether a task succeeded (its outcome)")
    parser.add_argument(
        "--margin", type=float, default=0.05, metavar="SHARE", help="how much less success is allowed (0.05)"
    )
    parser.add_argument("--least-prefix", type=int, default=1024, metavar="TOKENS", help="least that is cached (1024)")
    parser.add_argument(
        "--least-share", type=float, default=0.001, metavar="SHARE", help="smaller levers are left out (0.001)"
    )
    parser.add_argument("--top", type=int, default=_TOP, metavar="N", help="so many in full, 0: all (5)")
    parser.add_argument("--prices", metavar="FILE", help="your own prices, in front of the price data")
    add_period(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the levers."""
    from agentbudget.finops.advisor import Options, advise
    from agentbudget.finops.advisor.rendering import text
    from agentbudget.finops.history import Period

    options = Options(
        ladder=tuple(args.ladder),
        can_wait=tuple(args.can_wait),
        machines=machines(args.machines) if args.machines else (),
        success=args.success,
        margin=args.margin,
        least_prefix=args.least_prefix,
    )
    with Progress("bytes read") as progress:
        found = advise(
            args.trace,
            options,
            period=Period(since=args.since, until=args.until),
            prices=args.prices,
            least_share=args.least_share,
            on_progress=progress,
        )
    print(json.dumps(found.to_dict(), indent=2) if args.json else text(found, top=args.top or None))
    return int(found.unread > 0)


def machines(file: str) -> tuple[Any, ...]:
    """The machines of a TOML file.

    Raises:
        ConfigurationError: not readable, or a machine that cannot be.
    """
    from agentbudget.finops.advisor import Machine
    from agentbudget.pricing.selfhosted import SelfHosted

    try:
        listed = tomllib.loads(Path(file).read_text(encoding="utf-8")).get("machine", [])
        made = []
        for options in listed:
            if unknown := sorted(set(options) - set(_MACHINE)):
                raise ConfigurationError(f"{file}: {unknown[0]!r} is none of {', '.join(_MACHINE)}.")
            hosted = {name: options[name] for name in ("gpu_hour", "gpus", "overhead_hour") if name in options}
            rest = {name: options[name] for name in ("tokens_per_second", "target") if name in options}
            made.append(Machine(hosted=SelfHosted(options["model"], **hosted), **rest))
    except (OSError, ValueError, KeyError, TypeError) as problem:
        if isinstance(problem, ConfigurationError):
            raise
        msg = (
            f"{file}: not a file of [[machine]] tables with model, gpu_hour, gpus and tokens_per_second ({problem!r})."
        )
        raise ConfigurationError(msg) from problem
    return tuple(made)
