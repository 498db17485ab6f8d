"""Every total of a report with its exact value, its words and the limit it counts against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from agentbudget.reports.charts import dollars_shown, seconds
from agentbudget.trace.report import TaskReport

Number = Decimal | float | int


class Figure(NamedTuple):
    """One total."""

    label: str
    value: Number
    key: str = ""
    """Where `TaskReport.to_dict()` has it, parts joined by dots; empty where it is reckoned here."""
    limit: Number | None = None
    unit: str = ""
    """`$`, `s` or nothing: a count."""

    @property
    def words(self) -> str:
        """The value for people."""
        return said(self.value, self.unit)

    @property
    def limit_words(self) -> str:
        """The limit for people; empty without one."""
        return "" if self.limit is None else said(self.limit, self.unit)

    @property
    def share(self) -> float | None:
        """The value as a part of its limit; None without one, or where it is 0."""
        return float(self.value) / float(self.limit) if self.limit else None


def figures(report: TaskReport) -> list[Figure]:
    """The totals: the principal ones always, others where they are not zero or a limit counts them."""
    limits, usage = report.limits, report.usage
    principal = [
        Figure("Cost", report.cost, "cost", _number(limits, "max_cost"), "$"),
        Figure("Model calls", report.model_calls, "model_calls", _number(limits, "max_model_calls")),
        Figure("Tool calls", report.tool_calls, "tool_calls", _number(limits, "max_tool_calls")),
        Figure("Input tokens", usage.input_tokens, "usage.input_tokens", _number(limits, "max_input_tokens")),
        Figure("Output tokens", usage.output_tokens, "usage.output_tokens", _number(limits, "max_output_tokens")),
        Figure("Time", report.seconds, "seconds", _number(limits, "max_seconds"), "s"),
    ]
    return [*principal, *(each for each in _others(report) if each.value or each.limit is not None)]


def _others(report: TaskReport) -> Iterable[Figure]:
    usage, limits = report.usage, report.limits
    total = usage.input_tokens + usage.output_tokens
    yield Figure("Total tokens", total if "max_total_tokens" in limits else 0, "", _number(limits, "max_total_tokens"))
    uncached = usage.input_tokens - usage.cache_read_tokens if "max_uncached_tokens" in limits else 0
    yield Figure("Uncached input tokens", uncached, "", _number(limits, "max_uncached_tokens"))
    yield Figure("Input tokens from cache", usage.cache_read_tokens, "usage.cache_read_tokens")
    yield Figure("Reasoning tokens", usage.reasoning_tokens, "usage.reasoning_tokens")
    yield Figure("Retries", report.retries, "retries", _number(limits, "max_retries"))
    yield Figure("Calls denied", report.denied, "denied")
    yield Figure("Calls that would be denied", report.would_deny, "would_deny")
    yield Figure("Model calls without a price", report.unpriced_calls, "unpriced_calls")
    yield Figure("Held for calls in flight", report.reserved, "reserved", unit="$")
    yield Figure("Presumed spent", report.presumed, "presumed", unit="$")
    yield Figure("Spent above what was reserved", report.overrun, "overrun", unit="$")
    yield Figure("Wasted on failed attempts", report.wasted, "wasted", unit="$")
    yield Figure("Rests on estimated usage", report.estimated, "estimated", unit="$")
    yield Figure("Saved by a cache", report.avoided, "avoided", unit="$")
    yield from _tools(report)


def _tools(report: TaskReport) -> Iterable[Figure]:
    """The limits of single tools; `*` is any other tool, each by itself."""
    tools = report.limits.get("tools")
    for name, limit in tools.items() if isinstance(tools, Mapping) else ():
        if name != "*" and isinstance(limit, int) and name in report.by_tool:
            yield Figure(f"Calls of {name}", report.by_tool[name].calls, "", limit)


def said(value: Number, unit: str) -> str:
    """*value* for people."""
    if unit == "$":
        return dollars_shown(Decimal(value))
    return seconds(float(value)) if unit == "s" else f"{value:,}"


def _number(limits: Mapping[str, Any], name: str) -> Number | None:
    limit = limits.get(name)
    return limit if isinstance(limit, Decimal | float | int) and not isinstance(limit, bool) else None
