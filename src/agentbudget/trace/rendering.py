"""A task report for people: in a terminal of 80 columns, and as a small table in a notebook.

Names come from agents and users, so nothing of them is trusted: control and invisible characters are escaped, and
markup is shown, not executed.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from html import escape
from importlib import import_module
from typing import Any

from agentbudget.domain.money import NANOS_PER_DOLLAR, format_dollars
from agentbudget.trace.report import Spend, TaskReport

_WIDTH = 80
_NAME_WIDTH = 32
_COLUMNS = (12, 8, 13, 13)
_MAX_ROWS = 12
_MAX_NOTES = 3
_TABLES = ("model", "tool", "agent", "node", "layer")
_UNITS = {
    "max_model_calls": ("model call", "model calls"),
    "max_tool_calls": ("tool call", "tool calls"),
    "max_retries": ("retry", "retries"),
}


def shown(text: str) -> str:
    """*text* with everything that is not printable escaped: safe to print on one line of a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def text(report: TaskReport) -> str:
    """The report in lines of at most 80 columns."""
    lines = [_clip(f"{_title(report)}: {report.status}", _WIDTH)]
    for label, value in _facts(report):
        lines += textwrap.wrap(
            value, _WIDTH, initial_indent=f"  {label:<10}", subsequent_indent=" " * 12, break_on_hyphens=False
        )
    for kind in _TABLES:
        lines += _table(kind, getattr(report, f"by_{kind}"))
    lines += _endings(report)
    return "\n".join(lines)


def notebook(source: object, report: TaskReport) -> str:
    """*source*, whose numbers are *report*, as the output of a notebook's cell: pictures of the `reports` package.

    It stands above the core and is looked up when it is called for; without it there is the table of `html`.
    """
    try:
        output: Callable[[object], str] = import_module("agentbudget.reports.notebook").output
    except ModuleNotFoundError:
        return html(report)
    return output(source)


def html(report: TaskReport) -> str:
    """The report as one self-contained table."""
    cell = "padding:2px 10px;text-align:{}"
    rows = [
        f'<tr><th colspan="2" style="{cell.format("left")}">{_safe(f"{_title(report)}: {report.status}")}</th></tr>'
    ]
    facts = [*_facts(report), *((f"by {kind}", _inline(getattr(report, f"by_{kind}"))) for kind in _TABLES)]
    if report.stopped_by is not None:
        facts += [("stopped", report.stopped_by.reason), ("to go on", report.stopped_by.remedy)]
    facts += [("note", str(entry.get("detail", ""))) for entry in report.discrepancies[:_MAX_NOTES]]
    style = cell.format("left") + ";vertical-align:top"
    rows += [
        f'<tr><td style="{style}">{_safe(label)}</td><td style="{style}">{_safe(value)}</td></tr>'
        for label, value in facts
        if value
    ]
    return f'<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">{"".join(rows)}</table>'


def _title(report: TaskReport) -> str:
    if not report.task_id:
        return f"{report.tasks:,} tasks of {shown(report.name)}"
    name = shown(report.name) or "task"
    return f"{name} ({shown(report.task_id)})"


def _facts(report: TaskReport) -> list[tuple[str, str]]:
    """The lines of the head: label and text. What is nothing is left out, but never a total."""
    usage, limits = report.usage, report.limits
    cost = _of(_money(report.cost), report.cost, limits.get("max_cost"))
    held = {"reserved": report.reserved, "presumed spent": report.presumed, "over what was reserved": report.overrun}
    cost += "".join(f", {_money(amount)} {what}" for what, amount in held.items() if amount)
    counts = {"max_model_calls": report.model_calls, "max_tool_calls": report.tool_calls, "max_retries": report.retries}
    calls = [f"{_of(f'{n:,}', n, limits.get(option))} {_UNITS[option][n != 1]}" for option, n in counts.items()]
    calls += [f"{report.denied:,} refused"] if report.denied else []
    calls += [f"{report.would_deny:,} would have been refused"] if report.would_deny else []
    cached = f" ({usage.cache_read_tokens:,} from cache)" if usage.cache_read_tokens else ""
    reasoning = f" ({usage.reasoning_tokens:,} reasoning)" if usage.reasoning_tokens else ""
    shares = {"wasted on failed attempts": report.wasted, "saved by a cache": report.avoided}
    shares["rests on estimated usage"] = report.estimated
    facts = [
        ("cost", cost),
        ("calls", ", ".join(calls)),
        ("retries", _multiplied(report)),
        ("tokens", f"{usage.input_tokens:,} in{cached}, {usage.output_tokens:,} out{reasoning}"),
        ("time", _of(_seconds(report.seconds), report.seconds, limits.get("max_seconds"))),
        ("of this", ", ".join(f"{_money(amount)} {what}" for what, amount in shares.items() if amount)),
        ("priced", _coverage(report)),
        ("tags", ", ".join(f"{shown(key)}={shown(value)}" for key, value in report.tags.items())),
        ("outcome", shown(report.outcome or "") + {True: " (ok)", False: " (not ok)", None: ""}[report.ok]),
    ]
    return [(label, value) for label, value in facts if value]


def _of(used_text: str, used: Decimal | float, limit: Any) -> str:
    """`$0.30 of $0.50 (60 %)`, or only what was used where there is no usable limit."""
    if not isinstance(limit, int | float | Decimal):
        return used_text
    limit_text = _money(limit) if isinstance(limit, Decimal) else f"{limit:,}"
    share = f" ({float(used) / float(limit):.0%})" if limit > 0 else ""
    return f"{used_text} of {limit_text}{share}"


def _multiplied(report: TaskReport) -> str:
    """How many attempts became of how many calls; nothing without retries."""
    if not report.retries:
        return ""
    meant = report.attempts - report.retries
    return f"{report.attempts:,} attempts of {meant:,} call{'s' * (meant != 1)} ({report.multiplication:.2g}x)"


def _coverage(report: TaskReport) -> str:
    if not report.unpriced_calls:
        return ""
    return f"only {report.model_calls - report.unpriced_calls:,} of {report.model_calls:,} model calls have a price"


def _table(kind: str, spends: Mapping[str, Spend]) -> list[str]:
    if not spends:
        return []
    tokens = any(spend.input_tokens or spend.output_tokens for spend in spends.values())
    heads = ("cost", "calls", "tokens in", "tokens out") if tokens else ("cost", "calls")
    lines = ["", f"  {_pad(f'by {kind}', _NAME_WIDTH)}" + _right(heads)]
    rows = ordered(spends)
    for name, spend in rows[:_MAX_ROWS]:
        cells = (_money(spend.cost), f"{spend.calls:,}", f"{spend.input_tokens:,}", f"{spend.output_tokens:,}")
        lines.append(f"  {_pad(_clip(shown(name), _NAME_WIDTH), _NAME_WIDTH)}" + _right(cells[: len(heads)]))
    if len(rows) > _MAX_ROWS:
        lines.append(f"  … and {len(rows) - _MAX_ROWS:,} more")
    return lines


def _endings(report: TaskReport) -> list[str]:
    lines: list[str] = []
    for heading, stop in (("Stopped", report.stopped_by), ("Would have stopped", report.would_stop)):
        if stop is not None:
            lines += ["", *_wrapped(f"{heading}: ", f"{stop.reason}.")]
            lines += _wrapped("  last calls: ", "; ".join(stop.last_calls)) + _wrapped("  to go on: ", stop.remedy)
    for action in report.actions[:_MAX_NOTES]:
        lines += _wrapped("Action: ", f"{action.get('action', '')}: {action.get('reason', '')}")
    for entry in report.discrepancies[:_MAX_NOTES]:
        lines += _wrapped("Note: ", str(entry.get("detail", "")))
    hidden = max(0, len(report.actions) - _MAX_NOTES) + max(0, len(report.discrepancies) - _MAX_NOTES)
    return [*lines, f"… and {hidden:,} more actions and notes"] if hidden else lines


def _wrapped(label: str, value: str) -> list[str]:
    if not value:
        return []
    return textwrap.wrap(shown(label + value), _WIDTH, subsequent_indent=" " * 4, break_on_hyphens=False)


def _inline(spends: Mapping[str, Spend]) -> str:
    parts = [f"{shown(name)} {_money(spend.cost)} ({spend.calls:,})" for name, spend in ordered(spends)]
    more = [f"{len(parts) - _MAX_ROWS:,} more"] if len(parts) > _MAX_ROWS else []
    return ", ".join(parts[:_MAX_ROWS] + more)


def ordered(spends: Mapping[str, Spend]) -> list[tuple[str, Spend]]:
    """The dearest first, then the most called."""
    return sorted(spends.items(), key=lambda entry: (-entry[1].cost, -entry[1].calls, entry[0]))


def _money(amount: Decimal) -> str:
    return format_dollars(int(amount * NANOS_PER_DOLLAR))


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f} s"


def _right(cells: Iterable[str]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, _COLUMNS, strict=False))


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def _clip(value: str, width: int) -> str:
    if sum(map(_columns, value)) <= width:
        return value
    kept, used = [], 1
    for char in value:
        used += _columns(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept) + "…"


def _pad(value: str, width: int) -> str:
    return value + " " * (width - sum(map(_columns, value)))


def _safe(value: str) -> str:
    return escape(shown(value))
