"""The parts of the page of spend. A part that has nothing to say is None."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TypeVar
from xml.etree.ElementTree import Element

from agentbudget.finops.advisor.values import Lever
from agentbudget.finops.anomaly import Change
from agentbudget.reports import spend_charts, tables
from agentbudget.reports import spend_tables as columns_of
from agentbudget.reports.charts import dollars_shown, money
from agentbudget.reports.figures import Figure
from agentbudget.reports.markup import Child, el
from agentbudget.reports.sections import scroll, section
from agentbudget.reports.spend_values import Pot, SpendMaterial, span

T = TypeVar("T")

MAX_NOTES = 20
MAX_LEVERS = 5
"""Changes that are not folded away."""
MAX_ROWS = 200
"""Rows of a table on this page."""


def header(material: SpendMaterial) -> Element:
    """Whose spend this is, and how much."""
    total = material.total
    firing = sum(alert.severity in {"critical", "error"} for alert in material.alarms)
    state = f"{firing:,} alarm{'s' * (firing != 1)}" if firing else "no alarm"
    status = el("strong", state, class_=f"status {'bad' if firing else 'good'}") if material.pots or firing else None
    when = span(material.columns.starts[:1] + ((material.at,) if material.first else ()))
    return el(
        "header",
        el("h1", f"Spend of {material.path}"),
        el("p", status, class_="state") if status is not None else None,
        el("p", el("span", dollars_shown(total.cost), class_="hero"), f" in {total.calls:,} calls", class_="cost"),
        el("p", f"{when}; as of {_moment(material.at)}" if when else f"as of {_moment(material.at)}", class_="key"),
    )


def alarms(material: SpendMaterial) -> Element | None:
    """What fires, with what is behind it."""
    if not material.alarms:
        return None
    source = "Judged from this history" if material.judged else "As the watch knows them"
    said, told = [], set[str]()
    for alert in material.alarms[:MAX_NOTES]:
        behind = " ".join(_behind(alert.details))
        known = not behind or behind in told
        told.add(behind)
        said.append(
            el(
                "li",
                el("strong", f"{alert.severity}: "),
                alert.summary,
                None if known else el("br"),
                None if known else behind,
            )
        )
    content = (el("h2", "Alarms", id="alarms-title"), el("p", f"{source}.", class_="key"), el("ul", said))
    return el("section", content, id="alarms", class_="fired", aria_labelledby="alarms-title")


def _behind(details: dict[str, object]) -> Iterator[str]:
    if details.get("because"):
        yield f"{details.get('impact')} against the days before: {details['because']}."
    if details.get("contributors"):
        yield f"Most from {details['contributors']}."


def notes(material: SpendMaterial) -> Element | None:
    """What is wrong or missing, with its share of the money."""
    said = [*material.flaws, *(f"Skipped: {problem}" for problem in material.problems)]
    if not said:
        return None
    more = el("li", f"and {len(said) - MAX_NOTES:,} more") if len(said) > MAX_NOTES else None
    return section("notes", "To be noted", el("ul", (el("li", note) for note in said[:MAX_NOTES]), more))


def totals(material: SpendMaterial) -> Element:
    """The sums; what is no charge stands apart."""
    total = material.total
    paid = [
        Figure("Cost", total.cost, "total.cost", unit="$"),
        Figure("of it wasted: results thrown away", total.wasted, "total.wasted", unit="$"),
        Figure("of it on estimated usage", total.estimated, "total.estimated", unit="$"),
        Figure("Avoided: a cache answered (no charge)", total.avoided, "total.avoided", unit="$"),
        Figure("Refused: denied calls would have reserved (no charge)", total.refused, "total.refused", unit="$"),
        Figure("Calls", total.calls, "total.calls"),
        Figure("Calls denied", total.denied, "total.denied"),
        Figure("Model calls without a price", total.unpriced_calls, "total.unpriced_calls"),
        Figure("Input tokens", total.input_tokens, "total.input_tokens"),
        Figure("Input tokens from cache", total.cache_read_tokens, "total.cache_read_tokens"),
        Figure("Output tokens", total.output_tokens, "total.output_tokens"),
    ]
    untagged = [
        Figure(f"Without {name}", amount, f"spend.0.untagged.{name}", unit="$")
        for name, amount in material.tables[0].untagged.items()
    ]
    return section("totals", "Totals", scroll("Totals", tables.totals([*paid, *untagged])))


def over_time(material: SpendMaterial) -> Element | None:
    """Spend by feature over time."""
    columns = material.columns
    if not columns.series:
        return None
    return section(
        "over-time",
        f"Spend by {material.by} over time",
        el("p", f"One column a {columns.unit}, {span(columns.starts)}, UTC.", class_="key"),
        spend_charts.stacked(columns),
        spend_charts.legend(columns),
    )


def forecast(material: SpendMaterial) -> Element | None:
    """The month's forecast with its interval, and how often such intervals held."""
    if not material.columns.series:
        return None
    told = material.course.forecast
    if told.expected is None or told.low is None or told.high is None:
        return section("forecast", "Forecast of the month", el("p", f"{told}."))
    if told.coverage is None:
        held = "There is too little history to say how often such intervals hold."
    else:
        held = f"Intervals made this way held {told.coverage:.0%} of {told.checked:,} times on this very history."
    regime = (
        " The last week differs so much from those before it that only it counts." if "regime" in told.method else ""
    )
    return section(
        "forecast",
        "Forecast of the month",
        el(
            "p",
            f"{dollars_shown(told.spent)} were spent before {material.course.today}; expected by {told.until}: ",
            el("strong", dollars_shown(told.expected)),
            f", between {dollars_shown(told.low)} and {dollars_shown(told.high)}. {held}{regime}",
        ),
        el("p", "Solid: spent. Dashed: expected. Shaded: the interval.", class_="key"),
        spend_charts.month(material.course),
    )


def budgets(material: SpendMaterial) -> Element | None:
    """Each budget as a bar."""
    if not material.pots:
        return None
    key = (
        "Blue: spent; light: expected by the end; red line: from there what is left lasts less than people need to "
        "react, at the rate of the last day; dotted: the share of the time that is gone."
    )
    drawn = [el("div", el("h3", pot.scope), el("p", _stands(pot)), spend_charts.budget_bar(pot), class_="budget")
             for pot in material.pots]  # fmt: skip
    return section("budgets", "Budgets", el("p", key, class_="key"), *drawn)


def _stands(pot: Pot) -> str:
    said = f"{money(pot.spent)} of {money(pot.limit)} a {pot.window}"
    said += f" ({pot.spent / pot.limit:.0%})" if pot.limit else ""
    said += f", {pot.gone:.0%} of the {pot.window} gone"
    if pot.expected is not None:
        said += f"; expected {money(pot.expected)}, between {money(pot.low or 0)} and {money(pot.high or 0)}"
    return f"{said}; alarm line at {money(pot.alarm_at)} ({pot.react_hours:g} h to react)."


def changed(material: SpendMaterial) -> Element | None:
    """What changed in the last week, and unusual hours."""
    week, found = material.week, material.anomalies
    if week is None and not found:
        return None
    parts: list[Child] = []
    if week is not None:
        parts += [el("h3", "The last seven days against the seven before"), el("p", f"{week}."), _contributors(week)]
    if found:
        parts += [
            el("h3", "Unusual hours"),
            el("p", "Hours that cost more than twice what nearly all hours before them did.", class_="key"),
            _table("anomalies", "Unusual hours, the latest first", columns_of.CHANGES, found),
        ]
    return section("changed", "What changed", *parts)


def _contributors(change: Change) -> Element | None:
    rows = change.contributors
    if not rows:
        return None
    caption = "Who changed most, of each dimension the three largest"
    return _table("contributors", caption, columns_of.CONTRIBUTORS, rows)


def spending(material: SpendMaterial) -> Element:
    """Who spent what: a table a dimension, whose rows add up to the total."""
    parts = []
    for table in material.tables:
        name = table.dimensions[0]
        parts.append(_table(f"spend-{name}", f"By {name}, the dearest first", columns_of.shares(table), table.rows))
    key = "Wasted is a part of the cost. Avoided and refused are no charges, and in no sum with it."
    return section("spending", "Who spent what", el("p", key, class_="key"), *parts)


def units(material: SpendMaterial) -> Element | None:
    """What an outcome, a user, a decision costs."""
    if not material.units:
        return None
    parts = [
        _table(f"unit-{per}", f"By {per}, the dearest first", columns_of.units(per), rows)
        for per, rows in material.units
    ]
    return section("units", "Unit costs", *parts)


def context(material: SpendMaterial) -> Element | None:
    """Tokens that are sent again, and whose results they are."""
    parts: list[Child] = []
    if any(each.resent_tokens for each in material.resent):
        parts.append(_table("resent", "Input sent again, by task", columns_of.RESENT, material.resent))
    staying = [each for each in material.carried if each.carried_tokens]
    if staying:
        caption = "Results that stay in the context, by tool"
        parts.append(_table("carried", caption, columns_of.CARRIED, staying))
    key = "What a result costs by staying is an estimate: its bytes as tokens, once for each later call of the task."
    return section("context", "Context that is carried", el("p", key, class_="key"), *parts) if parts else None


def hosted(material: SpendMaterial) -> Element | None:
    """Hardware paid by the hour: charges, and the idle line."""
    if not material.hosted:
        return None
    table = _table("hosted-table", "Machines", columns_of.HOSTED, material.hosted)
    key = "Charges and idle add up to the bill; the share used is measured."
    return section("hosted", "Models on your own hardware", el("p", key, class_="key"), table)


def advice(material: SpendMaterial) -> Element | None:
    """What would have cost less."""
    told = material.advice
    if told is None:
        return None
    key = f"Savings overlap and must not be added up; all together they cannot exceed {money(told.at_most)}."
    first, rest = told.levers[:MAX_LEVERS], told.levers[MAX_LEVERS:]
    listed = el("ol", (_lever(lever) for lever in first))
    more = el("ol", (_lever(lever) for lever in rest), start=MAX_LEVERS + 1)
    folded = el("details", el("summary", f"{len(rest):,} more"), more) if rest else None
    found: Sequence[Child] = (el("p", key, class_="key"), listed, folded)
    nothing = (el("p", "Nothing was found."),)
    left = el("ul", (el("li", note) for note in told.notes[:MAX_NOTES]), class_="key") if told.notes else None
    return section("advice", "What would save money", *(found if told.levers else nothing), left)


def _lever(lever: Lever) -> Element:
    saving, month = lever.saving, lever.month
    up_to = "up to " if lever.confidence == "upper bound" else ""
    between = f", between {money(saving.low)} and {money(saving.high)}" if saving.low != saving.high else ""
    monthly = f"; {money(month.expected)} a month" if month else ""
    facts = [
        ("How sure", f"{lever.confidence}: {lever.reason}"),
        ("Change", lever.change),
        ("Verify", lever.verify),
        ("Risk", lever.risk),
    ]
    return el(
        "li",
        el("h3", lever.title),
        el("p", el("strong", f"saves {up_to}{money(saving.expected)}"), f"{between}{monthly}"),
        el("dl", (el("div", el("dt", label), el("dd", said)) for label, said in facts), class_="facts"),
    )


def waste(material: SpendMaterial) -> Element:
    """Money without use, and money that was not spent: apart from each other and from the cost."""
    total, table = material.total, material.tables[0]
    share = f" ({table.share(total.wasted):.1%} of it)" if total.wasted else ""
    said = [
        f"Wasted: {dollars_shown(total.wasted)} of the cost{share}, for results that were thrown away.",
        f"Avoided: {dollars_shown(total.avoided)} that calls would have cost which a cache answered. No charge.",
        f"Refused: {dollars_shown(total.refused)} that {total.denied:,} denied calls would have reserved. No charge.",
    ]
    rows = [row for row in table.rows if row.wasted or row.avoided or row.refused]
    columns = columns_of.waste(table)
    drawn = _table("waste-table", f"By {material.by}", columns, rows) if rows else None
    return section(
        "waste", "Waste, and what was kept from being spent", el("ul", (el("li", each) for each in said)), drawn
    )


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _table(name: str, caption: str, columns: Sequence[tables.Column[T]], rows: Sequence[T]) -> Element:
    return tables.sortable(name, caption, columns, rows[:MAX_ROWS], of=len(rows))
