"""Advice for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from agentbudget.domain.money import format_dollars
from agentbudget.finops.advisor.values import Advice, Lever, Saving
from agentbudget.trace.rendering import shown

_WIDTH = 100
_LABEL = 10


def text(advice: Advice, *, top: int | None = None) -> str:
    """The levers, the first *top* with their reasons (None: all), and what the numbers leave out."""
    span = ", without times" if advice.days is None else f" in {advice.days:.1f} days"
    lines = [f"{shown(advice.path)}: {format_dollars(advice.recorded)} recorded{span}"]
    full = len(advice.levers) if top is None else top
    for number, lever in enumerate(advice.levers[:full], 1):
        lines += ["", *_lever(number, lever, advice.recorded)]
    for number, lever in enumerate(advice.levers[full:], full + 1):
        lines += [""] if number == full + 1 else []
        lines += _wrapped(f"{number}. {shown(lever.title)}: {amount(lever.saving)} ({lever.confidence})", 3)
    if not advice.levers:
        lines += ["", "No change found that would save money, as far as this can be told from what was recorded."]
    if len(advice.levers) > 1:
        most = f"together at most {format_dollars(advice.at_most)}"
        lines += ["", *_wrapped(f"These overlap: the same call can be in several. Do not add them up ({most}).", 0)]
    if advice.notes:
        lines += ["", "What these numbers do not know:"]
        lines += [line for note in advice.notes for line in _wrapped(f"- {shown(note)}", 2)]
    return "\n".join(lines)


def amount(saving: Saving) -> str:
    """`$0.12`, `$0.10 to $0.15` or `up to $0.15`."""
    low, high = format_dollars(saving.low), format_dollars(saving.high)
    if saving.low == saving.high:
        return low
    if not saving.low and saving.expected == saving.high:
        return f"up to {high}"
    return f"{format_dollars(saving.expected)} ({low} to {high})"


def _lever(number: int, lever: Lever, recorded: int) -> Iterator[str]:
    part = f", {lever.saving.expected / recorded:.1%} of all" if recorded and lever.kind != "machines" else ""
    month = "" if lever.month is None else f"; a month {amount(lever.month)}"
    yield from _wrapped(f"{number}. {shown(lever.title)}", 3)
    facts = (
        ("saves", f"{amount(lever.saving)}{part}{month}"),
        ("sure", f"{lever.confidence}: {lever.reason}"),
        ("computed", lever.computed),
        ("change", lever.change),
        ("verify", lever.verify),
        ("risk", lever.risk),
    )
    for label, value in facts:
        yield from textwrap.wrap(
            shown(value),
            _WIDTH,
            initial_indent=f"   {label:<{_LABEL}}",
            subsequent_indent=" " * (_LABEL + 3),
            break_on_hyphens=False,
            break_long_words=False,
        )


def _wrapped(line: str, indent: int) -> list[str]:
    return textwrap.wrap(line, _WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)
