"""The charts as SVG: the trajectory's timeline, burn-down, context, bars.

Sizes across are in per cent, so that one drawing fits a page of any width, and a notebook's picture, with its letters
at their size. Colours are classes (`chart.css`), for light and dark; what a colour says stands beside it in words too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from itertools import pairwise
from xml.etree.ElementTree import Element

from agentbudget.domain.money import NANOS_PER_DOLLAR, format_dollars
from agentbudget.reports.markup import el
from agentbudget.reports.story import DENIED, CallLine, Story
from agentbudget.trace.report import Spend

ROW = 22
"""Height of a row of a timeline, in pixels."""
BAR = 36
"""Height of a bar with its name above it."""
PLOT = 150
"""Height of the plotted part of a chart."""

_TOP, _BOTTOM = 18, 22
_LABELS, _VALUES = 42, 17
"""Per cent of a timeline's width for names on the left and amounts on the right."""
_AMOUNT = 25
"""Per cent of a bar's width for its amount."""
_INDENT, _MOST_INDENT = 14, 8
_THINNEST = 0.4
"""Per cent: a call is never too short to be seen."""
_STEPS = 1000
"""Units across the plotted part of a chart."""


def timeline(story: Story, calls: Sequence[CallLine]) -> Element:
    """*calls* of *story* from above to below, each at its time: those side by side in time ran in parallel."""
    span = story.seconds or 1.0
    height = ROW * (len(calls) + 1)
    rows = [_timeline_row(line, y=ROW * (number + 1), span=span) for number, line in enumerate(calls)]
    return drawing(height, "Timeline of the calls; the table of calls says the same in words", _clock(story), *rows)


def _timeline_row(line: CallLine, *, y: int, span: float) -> Element:
    across = 100 - _LABELS - _VALUES
    begin = min(line.begin / span, 1.0)
    width = max((line.end - line.begin) / span * across, _THINNEST)
    left = min(_LABELS + begin * across, 100 - _VALUES - width)
    beside = "∥ " if line.parallel else ""
    words = f" · {', '.join(line.words)}" if line.words else ""
    indent = 4 + _INDENT * min(line.depth, _MOST_INDENT)
    label = el("text", beside + line.name, el("tspan", words, class_="note") if words else None, x=indent, y=15)
    return el(
        "g",
        el("title", f"{line.number}. {line.kind} {line.name}{words}: {_took(line)}, {money(line.cost)}"),
        el("svg", label, y=y, width=_pct(_LABELS - 1), height=ROW),
        _mark(line, left=left, width=width, y=y),
        el("text", _cost_or_state(line), x="99%", y=y + 15, class_="end"),
    )


def _took(line: CallLine) -> str:
    return seconds(line.end - line.begin)


def _mark(line: CallLine, *, left: float, width: float, y: int) -> Element:
    """A bar, thick for a model; a cross for what never ran."""
    if line.state == DENIED:
        return el("text", "✕", x=_pct(left), y=y + 16, class_="denied")
    tall, look = (12, "model") if line.kind == "model" else (6, "tool")
    look = "wasted" if "wasted" in line.marks else look
    return el("rect", x=_pct(left), y=y + (ROW - tall) // 2, width=_pct(width), height=tall, rx=2, class_=look)


def _cost_or_state(line: CallLine) -> str:
    return DENIED if line.state == DENIED else money(line.cost)


def _clock(story: Story) -> list[Element]:
    """When the plotted part begins and ends."""
    first, last = ("0 s", seconds(story.seconds)) if story.timed else ("first call", "last call")
    right = f"{100 - _VALUES}%"
    return [
        el("text", first, x=_pct(_LABELS), y=14, class_="note"),
        el("text", last, x=right, y=14, class_="note end"),
        el("line", x1=_pct(_LABELS), x2=right, y1=ROW - 2, y2=ROW - 2, class_="axis"),
    ]


def burn_down(story: Story) -> Element:
    """What was left of `max_cost` over time, or what was spent, where there is no such limit."""
    limited = all(point.limit is not None for point in story.points[-1:]) and bool(story.points)
    rest: Callable[[int, int | None], int] = (lambda spent, limit: (limit or 0) - spent) if limited else _spent
    settled = [(point.at, rest(point.settled, point.limit)) for point in story.points]
    held = [(point.at, rest(point.settled + point.held, point.limit)) for point in story.points]
    most = max((value for _, value in settled + held), default=0)
    least = min(0, *(value for _, value in settled + held)) if settled else 0
    frame = Frame(least, most, story.seconds)
    what = "What was left of the budget" if limited else "What was spent"
    return frame.chart(
        what,
        [
            el("path", d=frame.steps(held), class_="held"),
            el("path", d=frame.steps(settled), class_="line"),
        ],
        ticks=money,
        ends=("0 s", seconds(story.seconds)) if story.timed else ("first", "last"),
    )


def _spent(spent: int, _limit: int | None) -> int:
    return spent


def context(calls: Iterable[CallLine]) -> Element | None:
    """Input tokens of each model call, in order, and the part of them that came from a cache. None: nothing known."""
    asked = [line for line in calls if line.kind == "model" and line.input_tokens]
    counted = sorted(asked, key=lambda line: line.begin)
    if not counted:
        return None
    frame = Frame(0, max(line.input_tokens for line in counted), float(len(counted)))
    paths = [
        el("path", d=frame.area([float(getattr(line, part)) for line in counted]), class_=look)
        for part, look in (("input_tokens", "model"), ("cached_tokens", "cached"))
    ]
    return frame.chart("Input tokens of each model call", paths, ticks="{:,}".format, ends=("1", f"{len(counted):,}"))


def bars(rows: Sequence[tuple[str, Spend]], *, title: str) -> Element:
    """What each of *rows* cost: its name and the amount above a bar."""
    most = max((spend.cost for _, spend in rows), default=Decimal(0)) or Decimal(1)
    drawn = [_bar(name, spend, share=float(spend.cost / most), y=BAR * row) for row, (name, spend) in enumerate(rows)]
    return drawing(BAR * len(rows), title, drawn)


def _bar(name: str, spend: Spend, *, share: float, y: int) -> Element:
    tokens = f", {spend.input_tokens:,} tokens in, {spend.output_tokens:,} out" if spend.input_tokens else ""
    calls = f"{spend.calls:,} call{'s' * (spend.calls != 1)}"
    label = el("text", el("tspan", f"{spend.calls:,}x ", class_="note"), name, x=0, y=15)
    return el(
        "g",
        el("title", f"{name}: {dollars_shown(spend.cost)}, {calls}{tokens}"),
        el("svg", label, y=y, width=_pct(100 - _AMOUNT), height=ROW),
        el("text", dollars_shown(spend.cost), x="100%", y=y + 15, class_="end"),
        el("rect", x=0, y=y + ROW - 1, width="100%", height=6, rx=2, class_="ground"),
        el("rect", x=0, y=y + ROW - 1, width=_pct(100 * share), height=6, rx=2, class_="line"),
    )


class Frame:
    """Axes: values from *least* to *most* above a stretch from 0 to *length*."""

    def __init__(self, least: float, most: float, length: float) -> None:
        self.least, self.most = least, most if most > least else least + 1
        self.length = length or 1.0

    def across(self, at: float) -> str:
        """Where *at* is, in units of the drawing."""
        return _short(at / self.length * _STEPS)

    def up(self, value: float) -> str:
        """How high *value* is, from above."""
        return _short(PLOT * (self.most - value) / (self.most - self.least))

    def steps(self, points: Sequence[tuple[float, float]]) -> str:
        """A line that stays at each value until the next."""
        if not points:
            return ""
        drawn = [f"M{self.across(points[0][0])} {self.up(points[0][1])}"]
        for (_, before), (at, value) in pairwise(points):
            if value != before:
                drawn.append(f"H{self.across(at)}V{self.up(value)}")
        return "".join([*drawn, f"H{_STEPS}"])

    def area(self, values: Sequence[float]) -> str:
        """A column of each value, side by side."""
        columns = "".join(f"V{self.up(value)}H{self.across(number + 1)}" for number, value in enumerate(values))
        return f"M0 {self.up(0)}{columns}V{self.up(0)}Z"

    def chart(
        self, title: str, paths: Sequence[Element], *, ticks: Callable[[int], str], ends: tuple[str, str]
    ) -> Element:
        """The paths with their axes; *ticks* says a value in words."""
        marks = [self.most, (self.most + max(self.least, 0)) / 2, 0.0, *([self.least] if self.least < 0 else [])]
        lines = [
            el(
                "g",
                el("line", x1="18%", x2="100%", y1=y, y2=y, class_="axis"),
                el("text", ticks(int(mark)), x="17%", y=y + 4, class_="note end"),
            )
            for mark in marks
            for y in [_TOP + round(PLOT * (self.most - mark) / (self.most - self.least))]
        ]
        plot = el(
            "svg", paths, x="18%", y=_TOP, width="82%", height=PLOT, viewBox=f"0 0 {_STEPS} {PLOT}",
            preserveAspectRatio="none",
        )  # fmt: skip
        below = _TOP + PLOT + 16
        labels = [el("text", ends[0], x="18%", y=below, class_="note")]
        labels.append(el("text", ends[1], x="100%", y=below, class_="note end"))
        return drawing(_TOP + PLOT + _BOTTOM, title, lines, plot, labels)


def money(nanos: int) -> str:
    """`$0.0123`."""
    return format_dollars(nanos)


def dollars_shown(amount: Decimal) -> str:
    """The same of dollars."""
    return format_dollars(int(amount * NANOS_PER_DOLLAR))


def seconds(length: float) -> str:
    """`850 ms`, `12.3 s`, `4 min 05 s`."""
    if length < 1:
        return f"{length * 1000:.0f} ms"
    if length < 100:  # noqa: PLR2004 - below two minutes a tenth of a second is of interest
        return f"{length:.1f} s"
    minutes, rest = divmod(round(length), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def drawing(height: int, title: str, *children: Element | Iterable[Element]) -> Element:
    """A picture of *height* pixels and the width there is, with *title* for those who listen."""
    return el("svg", *children, class_="chart", width="100%", height=height, role="img", aria_label=title)


def _pct(value: float) -> str:
    return f"{_short(value)}%"


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
