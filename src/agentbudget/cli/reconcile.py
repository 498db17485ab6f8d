"""`agentbudget reconcile`: recorded spend against a provider's bill."""

from __future__ import annotations

import argparse
import json
from decimal import Decimal, InvalidOperation
from typing import Any

from agentbudget.cli import rules
from agentbudget.cli.progress import Progress
from agentbudget.errors import ConfigurationError


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser(
        "reconcile",
        help="a provider's bill against what was recorded",
        description="Variance by day and model, what was billed and not recorded, recorded and not billed, and unit "
        "prices that were recorded otherwise. Exit code 0 where the two match within the tolerance, 1 where they do "
        "not, 2 for a mistake in the call.",
    )
    parser.add_argument("trace", help="an archive, a trace file, a folder of them, or a glob")
    parser.add_argument("bill", help="FOCUS as .csv or .parquet, or any CSV")
    parser.add_argument("--columns", default="", metavar="ROLE=COLUMN,...", help="day=date,model=model,cost=amount")
    parser.add_argument(
        "--only", action="append", type=rules.pair, default=[], metavar="COLUMN=VALUE", help="of the bill"
    )
    parser.add_argument("--timezone", default="UTC", help="whose days the bill counts (UTC)")
    parser.add_argument("--currency", default="USD", help="of amounts that name none (USD)")
    parser.add_argument("--rate", action="append", default=[], metavar="EUR=1.08", help="dollars for one of a currency")
    parser.add_argument("--date-format", metavar="FORMAT", help="of dates, e.g. %%d/%%m/%%Y (ISO 8601)")
    parser.add_argument("--decimal-comma", action="store_true", help="amounts are written 1.234,56")
    parser.add_argument("--prices", metavar="FILE", help="your own prices, in front of the price data")
    parser.add_argument("--alias", action="append", type=rules.pair, default=[], metavar="DEPLOYMENT=MODEL")
    parser.add_argument("--tolerance", default="0.5%", metavar="SHARE", help="of the money that may differ (0.5%%)")
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the comparison; 1 where the two do not match."""
    from agentbudget.finops.history import History
    from agentbudget.finops.reconcile import reconcile
    from agentbudget.finops.reconcile_bill import BillOptions, rate

    options = BillOptions(
        columns=dict(_role(part) for part in args.columns.split(",") if part.strip()),
        timezone=args.timezone,
        currency=args.currency.upper(),
        rates=dict(map(rate, args.rate)),
        date_format=args.date_format,
        decimal_comma=args.decimal_comma,
        only=dict(args.only),
    )
    tolerance = _share(args.tolerance)
    with Progress("bytes read") as progress, History.open(args.trace, on_progress=progress) as history:
        found = reconcile(
            history, args.bill, options, prices=args.prices, aliases=dict(args.alias), tolerance=tolerance
        )
    print(json.dumps(found.to_dict(), indent=2) if args.json else found)
    return 0 if found.matches else 1


def _role(text: str) -> tuple[str, str]:
    role, equals, column = text.partition("=")
    if not equals or not column.strip():
        msg = f"--columns {text!r}: write ROLE=COLUMN, e.g. day=date,model=model,cost=amount."
        raise ConfigurationError(msg)
    return role.strip(), column.strip()


def _share(text: str) -> Decimal:
    percent = text.strip().endswith("%")
    try:
        share = Decimal(text.strip().removesuffix("%").strip())
    except InvalidOperation:
        msg = f"--tolerance {text!r}: a share such as 0.5% or 0.005."
        raise ConfigurationError(msg) from None
    return share / 100 if percent else share
