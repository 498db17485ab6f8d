"""Tables for a terminal: columns as wide as what is in them, numbers to the right. Names are escaped, never trusted."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from agentbudget.domain.money import NANOS_PER_DOLLAR, format_dollars
from agentbudget.trace.rendering import shown

WIDEST = 40
"""Characters of a name; longer ones are cut."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Lines of *rows* under *head*; the first *left* columns are names."""
    cells = [[*(_name(cell) for cell in row[:left]), *row[left:]] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def money(amount: Decimal) -> str:
    """Dollars, rounded as everywhere."""
    nanos = int(amount * NANOS_PER_DOLLAR)
    return f"-{format_dollars(-nanos)}" if nanos < 0 else format_dollars(nanos)


def share(part: float | Decimal, whole: float | Decimal) -> str:
    """`12.3%`; empty where there is no whole."""
    return f"{float(part) / float(whole):.1%}" if whole and part else ""


def _name(text: str) -> str:
    safe = shown(text)
    return safe if len(safe) <= WIDEST else f"{safe[: WIDEST - 1]}…"
