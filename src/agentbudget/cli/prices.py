"""`agentbudget prices`: what a model costs, and where that is known from."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, date, datetime
from typing import Any

from agentbudget.pricing.book import PriceBook
from agentbudget.pricing.buckets import PER_UNIT
from agentbudget.pricing.rates import PriceRef


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser("prices", help="what a model costs, and where that is known from")
    parser.add_argument("model", nargs="*", help="model names as your code uses them, e.g. gpt-4o or azure/gpt-4o")
    parser.add_argument("--provider", help="who bills, e.g. openai, anthropic, azure, bedrock")
    parser.add_argument("--tier", help="service tier, e.g. batch, flex, priority")
    parser.add_argument("--on", type=date.fromisoformat, help="the day, YYYY-MM-DD (default: today, UTC)")
    parser.add_argument("--prices", metavar="FILE", help="overrides: a TOML, YAML or JSON file")
    parser.add_argument("--price-file", metavar="FILE", help="a price list in LiteLLM's format")
    parser.add_argument("--warm-tokens", action="store_true", help="fetch tiktoken's vocabularies ahead of time")
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the prices of every model named; with none, the version of the price data."""
    if args.warm_tokens:
        from agentbudget.estimating.vocabulary import warm

        for encoding, path in warm().items():
            print(f"{encoding} lies at {path}")
    book = PriceBook(overrides=args.prices, litellm_json=args.price_file)
    day = args.on or datetime.now(UTC).date()
    refs = [book.rates(name, provider=args.provider, tier=args.tier, on=day).ref for name in args.model]
    if args.json:
        print(
            json.dumps({"version": book.version, "on": str(day), "models": [ref.to_dict() for ref in refs]}, indent=2)
        )
        return 0
    print(f"{book.version}, prices of {day}")
    for ref in refs:
        print(_shown(ref))
    return 0


def _shown(ref: PriceRef) -> str:
    tier = f", {ref.tier} tier" if ref.tier != "standard" else ""
    rows = [
        (bucket, f"${price}", "each" if bucket in PER_UNIT else "per million tokens") for bucket, price in ref.prices
    ]
    names, amounts = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    lines = [f"  {bucket:<{names}}  {amount:>{amounts}} {unit}" for bucket, amount, unit in rows]
    return "\n".join([f"\n{ref.provider} {ref.model}{tier} ({ref.source})", *lines])
