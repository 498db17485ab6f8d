"""The parts of a page, each made of one side of the material. A part that has nothing to say is None."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from agentbudget.domain.verdict import StopReport
from agentbudget.replay.whatif import WhatIf
from agentbudget.reports import charts, tables
from agentbudget.reports.charts import dollars_shown
from agentbudget.reports.figures import figures
from agentbudget.reports.markup import Child, el
from agentbudget.reports.material import Material
from agentbudget.reports.story import Story
from agentbudget.trace.rendering import ordered
from agentbudget.trace.report import Spend, TaskReport

KINDS = ("model", "tool", "agent", "node")
MAX_BARS = 12
_MAX_NOTES = 20


def header(material: Material) -> Element:
    """Whose numbers these are, and the one that matters."""
    report = material.report
    cost, *_ = figures(report)
    share = f" ({cost.share:.0%})" if cost.share is not None else ""
    of = f"of {cost.limit_words}{share}" if cost.limit is not None else "no cost limit"
    facts = [
        ("Task", report.task_id),
        ("Started", tables.moment(report.started)),
        ("Outcome", (report.outcome or "") + {True: " (ok)", False: " (not ok)", None: ""}[report.ok]),
        ("Tags", ", ".join(f"{key}={value}" for key, value in report.tags.items())),
        ("Shared limits", ", ".join(material.story.shared) if material.story else ""),
        ("Trace", report.trace_path or ""),
    ]
    return el(
        "header",
        el("h1", heading(report)),
        el("p", el("strong", report.status, class_=f"status {_look(report.status)}"), class_="state"),
        el("p", el("span", cost.words, class_="hero"), f" {of}", class_="cost"),
        _pairs(facts),
    )


def heading(report: TaskReport) -> str:
    """The name of what is shown."""
    if report.task_id:
        return report.name or "Task"
    return f"{report.tasks:,} task{'s' * (report.tasks != 1)} of {report.name}"


def _look(status: str) -> str:
    return {"completed": "good", "open": "", "interrupted": ""}.get(status, "bad")


def replayed(replay: WhatIf | None) -> Element | None:
    """What may be claimed of a replay."""
    return section("replay", "A replay under other rules", _pairs(claims(replay))) if replay is not None else None


def claims(replay: WhatIf) -> list[tuple[str, str]]:
    """What a replay answers, and how far that can be known."""
    low, high = replay.cost_range
    facts = [
        ("Cost here", f"{dollars_shown(replay.cost)} ({replay.label})"),
        ("Recorded cost", dollars_shown(replay.recorded)),
        ("Saved", dollars_shown(replay.saved)),
        ("Between", f"{dollars_shown(low)} and {dollars_shown(high)}" if low != high else ""),
        ("Calls refused", f"{replay.skipped:,} of {replay.calls:,}"),
        ("Parts from the recording", str(replay.diverged_at) if replay.diverged_at else "nowhere"),
        *(("It assumes", note) for note in replay.assumptions),
    ]
    return [(label, said) for label, said in facts if said]


def stops(report: TaskReport) -> Element | None:
    """Why it stopped, and what would have let it go on."""
    told = [
        *_stop("Why it stopped", report.stopped_by),
        *_stop("What would have stopped it", report.would_stop),
    ]
    return el("section", told, id="stop", class_="stop") if told else None


def _stop(title: str, stop: StopReport | None) -> list[Element]:
    if stop is None:
        return []
    last = [el("p", "The last calls before it:"), el("ol", (el("li", call) for call in stop.last_calls))]
    return [
        el("h2", title),
        el("p", f"{stop.reason}."),
        *(last if stop.last_calls else []),
        *([el("p", el("strong", "To go on: "), stop.remedy)] if stop.remedy else []),
    ]


def notes(material: Material) -> Element | None:
    """What was done short of a stop, what the meter could not account for, and what could not be read."""
    report = material.report
    said = [f"{action.get('action', '')}: {action.get('reason', '')}" for action in report.actions]
    said += [str(entry.get("detail", "")) for entry in report.discrepancies]
    said += [f"Skipped: {problem}" for problem in material.problems]
    if report.unpriced_calls:
        priced = report.model_calls - report.unpriced_calls
        said.insert(0, f"Only {priced:,} of {report.model_calls:,} model calls have a price: the cost is too low.")
    if not said:
        return None
    hidden = max(0, len(said) - _MAX_NOTES) + material.more_problems
    more = el("li", f"and {hidden:,} more") if hidden else None
    return section("notes", "To be noted", el("ul", (el("li", note) for note in said[:_MAX_NOTES]), more))


def totals(report: TaskReport) -> Element:
    """Every total beside its limit."""
    return section("totals", "Totals", scroll("Totals", tables.totals(figures(report))))


def trajectory(story: Story | None) -> Element | None:
    """The timeline."""
    if story is None or not story.calls:
        return None
    drawn = story.calls[: tables.MAX_ROWS]
    more = f" The first {len(drawn):,} of {len(story.calls):,} calls." if len(drawn) < len(story.calls) else ""
    key = el("p", f"{LEGEND}{more}", class_="key")
    return section("timeline", "Timeline", key, scroll("Timeline", charts.timeline(story, drawn)))


LEGEND = (
    "One row a call, indented inside the call it ran in; thick bars are model calls, thin ones tool calls, "
    "orange ones were paid for and thrown away. ✕ was denied; ∥ ran in parallel."
)


def course(story: Story | None) -> Element | None:
    """How the budget was used up, and how the context grew."""
    if story is None or not story.calls:
        return None
    drawn = [el("div", el("h3", title), el("p", key, class_="key"), chart) for title, key, chart in courses(story)]
    return section("course", "Course", el("div", drawn, class_="pair"))


def courses(story: Story) -> list[tuple[str, str, Element]]:
    """The charts over time: title, key, drawing."""
    if story.points[-1].limit is not None:
        budget = ("Budget left", "Left of max_cost. Dashed: what calls in flight left of it.")
    else:
        budget = ("Spent so far", "Settled cost. Dashed: with what calls in flight held.")
    grown = charts.context(story.calls)
    key = "Input tokens of each model call. Lighter: the part from the provider's cache."
    return [(*budget, charts.burn_down(story)), *([("Context", key, grown)] if grown is not None else [])]


def spending(report: TaskReport) -> Element | None:
    """Cost by model, tool, agent, node, and by what repeated calls."""
    parts = [
        el(
            "div",
            el("h3", title),
            charts.bars(rows[:MAX_BARS], title=title),
            el("p", f"and {len(rows) - MAX_BARS:,} more", class_="key") if len(rows) > MAX_BARS else None,
        )
        for title, rows in spendings(report)
    ]
    return section("spending", "Where the money went", el("div", parts, class_="pair")) if parts else None


def spendings(report: TaskReport) -> list[tuple[str, list[tuple[str, Spend]]]]:
    """The tables of what was spent that have rows, the dearest first."""
    tables_ = [(f"By {kind}", getattr(report, f"by_{kind}")) for kind in KINDS]
    return [
        (title, ordered(spends)) for title, spends in [*tables_, ("What repeated calls", report.by_layer)] if spends
    ]


def calls(story: Story | None) -> Element | None:
    """Every call."""
    if story is None or not story.calls:
        return None
    return section("calls-section", "Calls", tables.calls(story.calls))


def several(material: Material) -> Element | None:
    """The dearest tasks, where there are several."""
    if not material.reports:
        return None
    return section("tasks-section", "Tasks", tables.tasks(material.reports, of=material.report.tasks))


def section(name: str, title: str, *children: Child) -> Element:
    """A part of the page under its heading."""
    return el("section", el("h2", title, id=f"{name}-title"), children, id=name, aria_labelledby=f"{name}-title")


def scroll(label: str, content: Element) -> Element:
    """*content* in a region of its own that keyboards can scroll."""
    return el("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)


def _pairs(facts: Sequence[tuple[str, str]]) -> Element | None:
    said = [el("div", el("dt", label), el("dd", value)) for label, value in facts if value]
    return el("dl", said) if said else None
