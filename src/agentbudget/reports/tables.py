"""The tables of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar
from xml.etree.ElementTree import Element

from agentbudget.reports.charts import dollars_shown, money, seconds
from agentbudget.reports.figures import Figure
from agentbudget.reports.markup import el
from agentbudget.reports.story import CallLine
from agentbudget.trace.report import TaskReport

MAX_ROWS = 3000
"""Rows of a table; further ones are only counted."""


_FIRST_MOMENT = 946_684_800
"""2000-01-01: no agent was recorded before."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column: its heading, a cell's words, and its number, by which it is sorted; None: by the words."""

    heading: str
    words: Callable[[T], str]
    number: Callable[[T], int | float] | None = None
    always: bool = False
    """Whether it stays where every cell is empty."""
    differing: bool = False
    """Whether it goes where every cell says the same."""

    def serves(self, rows: Sequence[T]) -> bool:
        """Whether it tells anything of *rows*."""
        if self.always:
            return True
        words = {self.words(row) for row in rows}
        return len(words) > 1 if self.differing else any(words)


def totals(figures: Sequence[Figure]) -> Element:
    """Every total, beside its limit where there are any."""
    limited = any(figure.limit is not None for figure in figures)
    rows = [
        el(
            "tr",
            el("th", figure.label, scope="row"),
            el("td", el("data", figure.words, value=_exact(figure), data_total=figure.key or None), class_="n"),
            [el("td", figure.limit_words, class_="n"), el("td", _share(figure))] if limited else None,
        )
        for figure in figures
    ]
    looks = {"Total": None, "Used": "n"} | ({"Limit": "n", "Share": None} if limited else {})
    heads = el("tr", (el("th", head, scope="col", class_=look) for head, look in looks.items()))
    return el("table", el("thead", heads), el("tbody", rows), class_="totals")


def _exact(figure: Figure) -> str:
    return f"{figure.value:f}" if figure.unit == "$" else str(figure.value)


def _share(figure: Figure) -> list[Element | str]:
    if figure.share is None:
        return []
    bar = el("progress", value=f"{min(figure.share, 1.0):.4f}", max=1, aria_label=f"{figure.label}: share of its limit")
    return [bar, f" {figure.share:.0%}"]


def calls(lines: Sequence[CallLine]) -> Element:
    """Every call, to be sorted."""
    return sortable("calls", "Calls", _CALLS, lines, of=len(lines))


def tasks(reports: Sequence[TaskReport], *, of: int) -> Element:
    """The dearest of *of* tasks, to be sorted."""
    return sortable("tasks", "Tasks, the dearest first", _TASKS, reports, of=of)


_CALLS: tuple[Column[CallLine], ...] = (
    Column("#", lambda line: str(line.number), lambda line: line.number, always=True),
    Column("Call", lambda line: line.name, always=True),
    Column("Kind", lambda line: line.kind, always=True),
    Column("What happened", lambda line: ", ".join(line.words) or "ok", always=True),
    Column("Began", lambda line: seconds(line.begin), lambda line: line.begin),
    Column("Took", lambda line: seconds(line.end - line.begin), lambda line: line.end - line.begin),
    Column("Cost", lambda line: money(line.cost), lambda line: line.cost, always=True),
    Column("Reserved", lambda line: money(line.reserved) if line.reserved else "", lambda line: line.reserved),
    Column("Tokens in", lambda line: _count(line.input_tokens), lambda line: line.input_tokens),
    Column("From cache", lambda line: _count(line.cached_tokens), lambda line: line.cached_tokens),
    Column("Tokens out", lambda line: _count(line.output_tokens), lambda line: line.output_tokens),
    Column("Agent", lambda line: line.agent),
    Column("Node", lambda line: line.node),
    Column("Task", lambda line: line.task, differing=True),
    Column("Why", lambda line: line.detail),
)

_TASKS: tuple[Column[TaskReport], ...] = (
    Column("Task", lambda report: report.name or report.task_id, always=True),
    Column("Id", lambda report: report.task_id),
    Column("Status", lambda report: report.status, always=True),
    Column("Cost", lambda report: dollars_shown(report.cost), lambda report: float(report.cost), always=True),
    Column("Model calls", lambda report: _count(report.model_calls), lambda report: report.model_calls),
    Column("Tool calls", lambda report: _count(report.tool_calls), lambda report: report.tool_calls),
    Column("Wasted", lambda report: dollars_shown(report.wasted) if report.wasted else "", lambda r: float(r.wasted)),
    Column("Denied", lambda report: _count(report.denied), lambda report: report.denied),
    Column("Took", lambda report: seconds(report.seconds), lambda report: report.seconds),
    Column("Started", lambda report: moment(report.started)),
    Column("Outcome", lambda report: report.outcome or ""),
    Column("Why it stopped", lambda report: report.stopped_by.reason if report.stopped_by else ""),
)


def sortable(name: str, caption: str, columns: Sequence[Column[T]], rows: Sequence[T], *, of: int) -> Element:
    """A table of the first of *of* rows, whose headings are buttons that sort it. Columns that tell nothing are left
    out."""
    shown = rows[:MAX_ROWS]
    kept = [column for column in columns if column.serves(shown)]
    heads = [
        el("th", el("button", column.heading, type="button"), scope="col", class_="n" if column.number else None)
        for column in kept
    ]
    body = [el("tr", *(_cell(column, row) for column in kept)) for row in shown]
    more = f"; {of - len(shown):,} more are in the totals only" if of > len(shown) else ""
    label = f"{caption}: {len(shown):,}{more}. The headings sort."
    table = el("table", el("caption", label), el("thead", el("tr", heads)), el("tbody", body), class_="sortable")
    scrolled = el("div", table, class_="scroll", role="region", aria_label=caption, tabindex=0)
    return el("div", el("p", class_="unseen", role="status"), scrolled, id=name)


def _cell(column: Column[T], row: T) -> Element:
    if column.number is None:
        return el("td", column.words(row))
    number = column.number(row)
    return el("td", column.words(row), class_="n", data_v=str(number) if isinstance(number, int) else f"{number:.9f}")


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def moment(at: float | None) -> str:
    """Seconds since 1970 as a time in UTC; empty where none is known: traces from elsewhere may count from 0."""
    if at is None or at < _FIRST_MOMENT:
        return ""
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return ""
