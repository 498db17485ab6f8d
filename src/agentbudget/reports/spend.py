"""The page of spend: one HTML file for people, of everything that was recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from os import PathLike
from pathlib import Path

from agentbudget.finops.history import History
from agentbudget.reports import spend_sections as parts
from agentbudget.reports.document import STYLES, document
from agentbudget.reports.markup import el
from agentbudget.reports.spend_material import SpendView, gathered
from agentbudget.reports.spend_values import SpendMaterial

__all__ = ["SpendMaterial", "SpendView", "render", "spend_material", "spend_page", "write_spend_page"]

_PARTS = (
    parts.alarms,
    parts.notes,
    parts.over_time,
    parts.forecast,
    parts.budgets,
    parts.changed,
    parts.advice,
    parts.waste,
    parts.totals,
    parts.spending,
    parts.units,
    parts.context,
    parts.hosted,
)


def spend_page(history: History, view: SpendView | None = None, *, now: datetime | None = None) -> str:
    """The spend of *history* as a whole HTML page that loads nothing and lets nothing run but its own script.

    What it says is in it as JSON too, in the element `agentbudget-spend`: `spend_material(...).to_dict()`, its
    tables with as many rows as the page shows.

    Args:
        history: an open history.
        view: what to show beside it: budgets, virtual tags, advice, machines; and as of when.
        now: behind it no call can have been made; the time now by default.

    Raises:
        ConfigurationError: a dimension that does not exist, or machines whose load is not recorded.
    """
    return render(spend_material(history, view, now=now))


def spend_material(history: History, view: SpendView | None = None, *, now: datetime | None = None) -> SpendMaterial:
    """What the page says, as values."""
    return gathered(history, view or SpendView(), now=now or datetime.now(UTC))


def render(material: SpendMaterial) -> str:
    """*material* as the page."""
    return document(
        f"Spend of {material.path}",
        parts.header(material),
        el("main", (part(material) for part in _PARTS)),
        numbers=material.to_dict(most=parts.MAX_ROWS),
        numbers_id="agentbudget-spend",
        styles=(*STYLES, "spend.css"),
    )


def write_spend_page(
    history: History, path: str | PathLike[str], view: SpendView | None = None, *, now: datetime | None = None
) -> Path:
    """Write `spend_page(history, view)` to the file *path*.

    Raises:
        ConfigurationError: as `spend_page`. OSError: *path* cannot be written.
    """
    target = Path(path)
    target.write_text(spend_page(history, view, now=now), encoding="utf-8", newline="\n")
    return target
