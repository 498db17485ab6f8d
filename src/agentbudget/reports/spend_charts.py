"""The charts of the page of spend: stacked columns over time, the month with its forecast, budgets as bars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from xml.etree.ElementTree import Element

from agentbudget.domain.money import NANOS_PER_DOLLAR
from agentbudget.reports.charts import Frame, drawing, money
from agentbudget.reports.markup import el
from agentbudget.reports.spend_values import Columns, Course, Pot

_BAR = 16
"""Height of a budget's bar in pixels."""
_PAD = 4
_SWATCH = 12


def stacked(columns: Columns) -> Element:
    """Spend over time, one colour a series; the legend and the table say the same in words."""
    totals = [sum(costs) for costs in zip(*(costs for _, costs in columns.series), strict=True)]
    frame = Frame(0, max(totals, default=0), float(len(columns.starts)))
    ground = [0] * len(columns.starts)
    paths = []
    for number, (name, costs) in enumerate(columns.series):
        top = [below + cost for below, cost in zip(ground, costs, strict=True)]
        tip = el("title", f"{name}: {money(sum(costs))}")
        paths.append(el("path", tip, d=_layer(frame, ground, top), class_=f"s{number}"))
        ground = top
    ends = (_when(columns.starts[0], columns.width), _when(columns.starts[-1], columns.width))
    return frame.chart(f"Spend by {columns.unit}", paths, ticks=money, ends=ends)


def _layer(frame: Frame, below: Sequence[int], top: Sequence[int]) -> str:
    """Columns between two outlines; nothing where they touch."""
    return "".join(
        f"M{frame.across(place)} {frame.up(low)}V{frame.up(high)}H{frame.across(place + 1)}V{frame.up(low)}Z"
        for place, (low, high) in enumerate(zip(below, top, strict=True))
        if high > low
    )


def _when(start: datetime, width: timedelta) -> str:
    return f"{start:%Y-%m-%d}" if width >= timedelta(days=1) else f"{start:%Y-%m-%d %H:%M}"


def legend(columns: Columns) -> Element:
    """What each colour stands for, with its amount."""
    whole = sum(sum(costs) for _, costs in columns.series) or 1
    return el(
        "ul",
        (
            el("li", swatch(f"s{number}"), f"{name} {money(sum(costs))} ({sum(costs) / whole:.0%})")
            for number, (name, costs) in enumerate(columns.series)
        ),
        class_="legend",
    )


def swatch(look: str) -> Element:
    """A square in a series' colour; it says nothing that does not stand beside it."""
    square = el("rect", width=_SWATCH, height=_SWATCH, rx=2, class_=look)
    return el("svg", square, width=_SWATCH, height=_SWATCH, class_="chart", aria_hidden="true")


def month(course: Course, budget: int | None = None) -> Element:
    """The month day by day as it was spent, the expected end dashed, and the interval around it."""
    told = course.forecast
    days = (told.until - course.start).days + 1
    high = int((told.high or told.spent) * NANOS_PER_DOLLAR)
    frame = Frame(0, max(high, budget or 0, *course.spent, 1), float(days))
    gone = len(course.spent)
    points = [(0, 0), *((day + 1, total) for day, total in enumerate(course.spent))]
    paths = [el("path", d=_line(frame, points), class_="line")]
    last = points[-1][1]
    if told.expected is not None and told.low is not None:
        low, expected = (int(amount * NANOS_PER_DOLLAR) for amount in (told.low, told.expected))
        band = [(gone, last), (days, high), (days, low), (gone, last)]
        paths.insert(0, el("path", d=f"{_line(frame, band)}Z", class_="band"))
        paths.append(el("path", d=_line(frame, [(gone, last), (days, expected)]), class_="expected"))
    if budget is not None:
        paths.append(el("path", d=_line(frame, [(0, budget), (days, budget)]), class_="alarm"))
    return frame.chart("Spend of the month, and its forecast", paths, ticks=money, ends=_days(course.start, told.until))


def _line(frame: Frame, points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{frame.across(at)} {frame.up(value)}" for at, value in points)


def _days(start: date, until: date) -> tuple[str, str]:
    return start.isoformat(), until.isoformat()


def budget_bar(pot: Pot) -> Element:
    """One budget: spent, what is expected by its end, the alarm line, the limit, and how much of the time is gone."""
    whole = max(pot.limit, pot.spent, pot.expected or 0) or 1

    def across(amount: float) -> str:
        return f"{100 * amount / whole:.2f}%"

    inside = min(pot.spent, pot.limit)
    bars = [
        el("rect", x=0, y=_PAD, width=across(pot.limit), height=_BAR, class_="ground"),
        el("rect", x=0, y=_PAD, width=across(inside), height=_BAR, class_="line"),
    ]
    if pot.spent > pot.limit:
        bars.append(
            el("rect", x=across(pot.limit), y=_PAD, width=across(pot.spent - pot.limit), height=_BAR, class_="over")
        )
    if pot.expected is not None and pot.expected > pot.spent:
        ahead = across(pot.expected - pot.spent)
        bars.append(el("rect", x=across(pot.spent), y=_PAD, width=ahead, height=_BAR, class_="ahead"))
    lines = [(pot.alarm_at, "alarm"), (pot.limit, "axis"), (pot.limit * pot.gone, "gone")]
    marks = [el("line", x1=across(at), x2=across(at), y1=0, y2=_BAR + 2 * _PAD, class_=look) for at, look in lines]
    title = f"Budget of {pot.scope}: {money(pot.spent)} of {money(pot.limit)} spent"
    return drawing(_BAR + 2 * _PAD, title, bars, marks)
