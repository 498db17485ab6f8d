"""`agentbudget diff`: two recordings side by side."""

from __future__ import annotations

import argparse
import json
from typing import Any

from agentbudget.cli.tables import money, table
from agentbudget.domain.money import dollars
from agentbudget.replay.diff import CAUSES, Diff, KindDiff, Step, diff

_STEPS = 10


def add(parsers: Any) -> None:
    """Declare the command."""
    parser = parsers.add_parser(
        "diff",
        help="two recordings: where they part, what costs more, and why",
        description="Two recordings side by side, task kind by task kind: where they part, which steps cost more, and "
        "why. Exit code 0 where they cost the same, 1 where they differ, 2 for a mistake in the call.",
    )
    parser.add_argument("before", help="a trace file, a folder of them, or a glob; also formats that can be imported")
    parser.add_argument("after", help="the other one")
    parser.add_argument("--steps", type=int, default=_STEPS, metavar="N", help="so many of the steps that differ (10)")
    parser.add_argument("--json", action="store_true", help="one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the comparison; 1 where the two differ."""
    found = diff(args.before, args.after)
    print(json.dumps(found.to_dict(), indent=2) if args.json else "\n".join(_lines(found, args.steps)))
    same = all(kind.cost[0] == kind.cost[1] and kind.parted_at is None for kind in found.kinds)
    return 0 if same else 1


def _lines(found: Diff, steps: int) -> list[str]:
    before, after = found.cost
    lines = [
        f"before  {found.before}: {money(before)}",
        f"after   {found.after}: {money(after)}, {_more(found.difference)}",
        "",
    ]
    lines += table(
        ("kind", "tasks", "calls", "before", "after", "difference", "first parts"), [*map(_kind, found.kinds)]
    )
    unpriced = [sum(kind.unpriced[side] for kind in found.kinds) for side in (0, 1)]
    if any(unpriced):
        lines.append(f"without {unpriced[0]:,} model calls before and {unpriced[1]:,} after that have no price")
    for kind in found.kinds:
        causes = [(cause, kind.causes.get(cause, 0)) for cause in CAUSES if kind.causes.get(cause)]
        if causes:
            lines += ["", f"{kind.name or '(none)'}: why"]
            lines += [f"  {line}" for line in table(("cause", "more"), [(c, _signed(n)) for c, n in causes])]
        if kind.steps[:steps]:
            lines += ["", f"{kind.name or '(none)'}: the steps that differ most"]
            rows = [_step(step) for step in kind.steps[:steps]]
            lines += [f"  {line}" for line in table(("step", "before", "after", "more", "why"), rows)]
    return lines


def _kind(kind: KindDiff) -> tuple[str, ...]:
    (before, after), (calls, calls_after), (tasks, tasks_after) = kind.cost, kind.calls, kind.tasks
    parted = "never" if kind.parted_at is None else f"after {kind.parted_at} steps"
    return (
        kind.name or "(none)",
        _both(tasks, tasks_after),
        _both(calls, calls_after),
        money(dollars(before)),
        money(dollars(after)),
        _signed(after - before),
        parted,
    )


def _step(step: Step) -> tuple[str, ...]:
    causes = ", ".join(f"{cause} {_signed(nanos)}" for cause, nanos in step.causes.items() if nanos)
    cells = [("" if cost is None else money(dollars(cost))) for cost in (step.before, step.after)]
    return (f"{step.kind} {step.name}", *cells, _signed(step.difference), causes)


def _both(before: int, after: int) -> str:
    return f"{before:,}" if before == after else f"{before:,} → {after:,}"


def _signed(nanos: int) -> str:
    amount = money(dollars(abs(nanos)))
    return f"+{amount}" if nanos > 0 else f"-{amount}" if nanos < 0 else amount


def _more(difference: Any) -> str:
    amount = money(abs(difference))
    return f"{amount} more" if difference > 0 else f"{amount} less" if difference < 0 else "the same"
