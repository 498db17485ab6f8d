"""Spend of recorded history by any dimensions: what `agentbudget report --by feature,model --since 30d` prints."""

from __future__ import annotations

import argparse
import json

from agentbudget.cli.problems import Problems
from agentbudget.cli.progress import Progress
from agentbudget.cli.tables import money, share, table
from agentbudget.finops.attribution import Attribution, UnitCost, attribute, unit_costs
from agentbudget.finops.dimensions import TagRules
from agentbudget.finops.history import History, Period

UNTAGGED = "(untagged)"
MOST_ROWS = 40


def run(args: argparse.Namespace) -> int:
    """Print the table; 1 where a part of the traces could not be read, or rules of tags contradict each other."""
    rules = TagRules.load(args.tags) if args.tags else TagRules()
    dimensions = [name.strip() for name in args.by.split(",") if name.strip()]
    problems = Problems()
    with (
        Progress("bytes read") as progress,
        History.open(args.trace, period=Period(since=args.since, until=args.until), on_progress=progress) as history,
    ):
        for problem in history.problems:
            problems.add(problem)
        found = attribute(history, dimensions, rules=rules)
        units = unit_costs(history, args.units) if args.units else []
    if args.json:
        print(json.dumps({**found.to_dict(), "units": [_plain(unit) for unit in units]}, indent=2))
    else:
        print("\n".join([*_lines(found), *_unit_lines(units, args.units)]))
    problems.tell()
    return 1 if problems.count or any(found.contradictions.values()) else 0


def _lines(found: Attribution) -> list[str]:
    total = found.total.cost
    rows = [
        [
            *(UNTAGGED if value is None else value for value in row.key),
            money(row.cost),
            share(row.cost, total),
            f"{row.calls:,}",
            f"{row.input_tokens:,}",
            f"{row.output_tokens:,}",
            money(row.wasted) if row.wasted else "",
            money(row.avoided) if row.avoided else "",
        ]
        for row in found.rows[:MOST_ROWS]
    ]
    head = [*found.dimensions, "cost", "share", "calls", "input", "output", "wasted", "avoided"]
    lines = table(head, rows, left=len(found.dimensions))
    rest = found.rows[MOST_ROWS:]
    if rest:
        lines.append(f"… and {len(rest):,} more rows, {money(sum((row.cost for row in rest), start=total * 0))}")
    lines += ["", f"total {money(total)} in {found.total.calls:,} calls, {found.total.denied:,} denied"]
    for name, amount in found.untagged.items():
        if amount:
            lines.append(f"without {name}: {money(amount)} ({share(amount, total)})")
    if found.total.estimated:
        lines.append(f"estimated usage: {money(found.total.estimated)} ({share(found.total.estimated, total)})")
    if found.total.unpriced_calls:
        lines.append(f"{found.total.unpriced_calls:,} calls had no price: the total is too low by what they cost")
    for tag, amount in found.contradictions.items():
        if amount:
            lines.append(f"rules of {tag} contradict each other on {money(amount)}: the first one counts")
    return lines


def _unit_lines(units: list[UnitCost], per: str | None) -> list[str]:
    if not units:
        return []
    rows = [
        [
            UNTAGGED if unit.unit is None else unit.unit,
            f"{unit.tasks:,}",
            money(unit.cost),
            money(unit.each),
            f"{unit.ok:,}",
            money(unit.each_ok) if unit.each_ok is not None else "",
        ]
        for unit in units[:MOST_ROWS]
    ]
    return ["", *table([str(per), "tasks", "cost", "each", "good", "for each good one"], rows)]


def _plain(unit: UnitCost) -> dict[str, object]:
    return {
        "unit": unit.unit,
        "tasks": unit.tasks,
        "ok": unit.ok,
        "cost": f"{unit.cost:f}",
        "each": f"{unit.each:f}",
        "each_ok": None if unit.each_ok is None else f"{unit.each_ok:f}",
    }
