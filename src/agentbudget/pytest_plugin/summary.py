"""The last words of a session: what it cost, and which tests most."""

from __future__ import annotations

from collections.abc import Sequence

from agentbudget.domain.money import format_dollars
from agentbudget.pytest_plugin.baseline import Update
from agentbudget.pytest_plugin.costs import TestCost
from agentbudget.pytest_plugin.options import Settings


def summary_lines(costs: Sequence[TestCost], settings: Settings, update: Update | None) -> list[str]:
    """The lines of the summary; none where no test ran a model or tool and no baseline was written."""
    lines = []
    if costs:
        lines += [_total(costs, settings), *_dearest(costs, settings.summary), *_notes(costs)]
    if update is not None:
        lines.append(f"baseline {settings.baseline}: {update}")
    return lines


def _total(costs: Sequence[TestCost], settings: Settings) -> str:
    total = sum(cost.numbers.cost for cost in costs)
    models = sum(cost.numbers.model_calls for cost in costs)
    tools = sum(cost.numbers.tool_calls for cost in costs)
    text = f"{format_dollars(total)} in {_count(len(costs), 'test')}: {_count(models, 'model call')}, "
    text += _count(tools, "tool call")
    if settings.session_max is None:
        return text
    share = total / settings.session_max
    return f"{text}; {share:.0%} of --budget-session-max {format_dollars(settings.session_max)}"


def _dearest(costs: Sequence[TestCost], most: int) -> list[str]:
    top = sorted((cost for cost in costs if cost.numbers.cost), key=lambda cost: (-cost.numbers.cost, cost.nodeid))
    return [
        f"  {format_dollars(cost.numbers.cost):>10}  {cost.nodeid}  "
        f"({_count(cost.numbers.model_calls, 'model call')}, {_count(cost.numbers.tool_calls, 'tool call')}"
        f"{', live' if cost.live else ''})"
        for cost in top[:most]
    ]


def _notes(costs: Sequence[TestCost]) -> list[str]:
    lines = []
    avoided = sum(cost.avoided for cost in costs)
    if avoided:
        lines.append(f"avoided: {format_dollars(avoided)} by answers from a cache")
    unpriced = [cost for cost in costs if cost.unpriced]
    if unpriced:
        calls = sum(cost.unpriced for cost in unpriced)
        lines.append(f"unpriced: {_count(calls, 'model call')} in {_count(len(unpriced), 'test')}, not in the total")
    refused = [cost for cost in costs if cost.refused]
    if refused:
        lines.append(f"refused: calls of {', '.join(cost.nodeid for cost in refused[:3])}{_more(len(refused) - 3)}")
    return lines


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
