"""How a trace, a report or a replay shows itself in a notebook: one picture, and its numbers as a plain table.

Notebooks are read in many places, and some of them (GitHub) take scripts, styles and inline SVG out of an output but
keep tables and images. So the picture is an image with its styles inside, on a ground of its own, and the table needs
none.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from xml.etree.ElementTree import Element

from agentbudget.replay.whatif import WhatIf
from agentbudget.reports import charts, sections
from agentbudget.reports.document import asset
from agentbudget.reports.figures import figures
from agentbudget.reports.markup import SVG, el, html, image, raw
from agentbudget.reports.material import Material, Source, gathered
from agentbudget.trace import rendering
from agentbudget.trace.report import TaskReport

WIDTH = 900
"""Of the picture, in pixels."""
MAX_CALLS = 40
"""Rows of the picture's timeline."""

_PRINCIPAL = 6
_EDGE, _GAP, _LINE = 16, 14, 20
_HALF = (WIDTH - 3 * _EDGE) // 2


def output(source: Source) -> str:
    """HTML for the output of a notebook's cell. It holds no script, and is legible where styles are taken out of it."""
    material = gathered(source)
    drawn = image(picture(material), width=WIDTH, description=_description(material))
    replay = _claims(material.replay) if material.replay is not None else None
    table = f"<details><summary>The numbers as text</summary>{rendering.html(material.report)}</details>"
    return html(el("div", drawn, replay)) + table


def _claims(replay: WhatIf) -> Element:
    """What may be claimed of a replay."""
    rows = [el("tr", el("th", label, scope="row"), el("td", said)) for label, said in sections.claims(replay)]
    return el("table", el("tbody", rows))


def _description(material: Material) -> str:
    """What the picture shows, in words."""
    report = material.report
    return f"{sections.heading(report)}: {report.status}, {_spent(report)}"


def picture(material: Material) -> Element:
    """The whole picture as one SVG that needs nothing around it."""
    sheet = _Sheet()
    report, story = material.report, material.story
    sheet.text(sections.heading(report), "title")
    sheet.text(f"{report.status}, {_spent(report)}")
    if report.stopped_by is not None:
        sheet.text(f"Stopped: {report.stopped_by.reason}", "note")
    if material.replay is not None:
        parts = material.replay.diverged_at
        sheet.text(f"A replay: {material.replay.label}" + (f", for {parts}" if parts is not None else ""), "note")
    if story is not None and story.calls:
        calls = story.calls[:MAX_CALLS]
        more = f", the first {len(calls)} of {len(story.calls):,} calls" if len(calls) < len(story.calls) else ""
        sheet.full(f"Timeline{more}", sections.LEGEND, charts.timeline(story, calls))
        sheet.pairs(sections.courses(story))
    sheet.pairs(
        (title, "", charts.bars(rows[: sections.MAX_BARS], title=title)) for title, rows in sections.spendings(report)
    )
    return sheet.drawn()


def _spent(report: TaskReport) -> str:
    """The principal figures, each with its limit."""
    said = [(figure, f" of {figure.limit_words}" if figure.limit is not None else "") for figure in figures(report)]
    return ", ".join(f"{figure.label.lower()} {figure.words}{of}" for figure, of in said[:_PRINCIPAL])


class _Sheet:
    """Parts put below and beside each other."""

    def __init__(self) -> None:
        self.parts: list[Element] = []
        self.bottom = _EDGE

    def text(self, words: str, look: str | None = None) -> None:
        """A line; one that is too long goes on in the next."""
        for line in _lines(words, 80 if look == "title" else 125):
            self.bottom += _LINE
            self.parts.append(el("text", line, x=_EDGE, y=self.bottom, class_=look))

    def full(self, title: str, key: str, chart: Element) -> None:
        """A chart over the whole width."""
        self.bottom += _GAP
        self._heading(title, x=_EDGE, y=self.bottom)
        self.bottom += _LINE + 6
        self.text(key, "note")
        self._place(chart, x=_EDGE, y=self.bottom + 6, width=WIDTH - 2 * _EDGE)
        self.bottom += 6 + int(chart.get("height", "0"))

    def pairs(self, charts_: Iterable[tuple[str, str, Element]]) -> None:
        """Charts in two columns."""
        waiting = list(charts_)
        for left in range(0, len(waiting), 2):
            row = waiting[left : left + 2]
            top, lines = self.bottom + _GAP, 0
            for column, (title, key, _) in enumerate(row):
                x = _EDGE + column * (_HALF + _EDGE)
                self._heading(title, x=x, y=top)
                keys = _lines(key, 62)
                lines = max(lines, len(keys))
                for number, line in enumerate(keys):
                    self.parts.append(el("text", line, x=x, y=top + (number + 2) * _LINE, class_="note"))
            below = top + _LINE * (lines + 1) + 10
            for column, (_, _, chart) in enumerate(row):
                self._place(chart, x=_EDGE + column * (_HALF + _EDGE), y=below, width=_HALF)
            self.bottom = below + max(int(chart.get("height", "0")) for _, _, chart in row)

    def drawn(self) -> Element:
        """The sheet, on its ground."""
        height = self.bottom + _EDGE
        return el(
            "svg",
            raw("style", asset("chart.css")),
            el("rect", width=WIDTH, height=height, class_="sheet", rx=6),
            self.parts,
            xmlns=SVG,
            class_="chart",
            width=WIDTH,
            height=height,
            viewBox=f"0 0 {WIDTH} {height}",
        )

    def _heading(self, title: str, *, x: int, y: int) -> None:
        self.parts.append(el("text", title, x=x, y=y + _LINE, class_="heading"))

    def _place(self, chart: Element, *, x: int, y: int, width: int) -> None:
        chart.set("x", str(x))
        chart.set("y", str(y))
        chart.set("width", str(width))
        self.parts.append(chart)


def _lines(words: str, width: int) -> list[str]:
    return textwrap.wrap(words, width)
