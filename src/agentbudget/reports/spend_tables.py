"""The columns of the tables on the page of spend."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from agentbudget.finops.anomaly import Change, Contributor, signed
from agentbudget.finops.attribution import Attribution, Share, UnitCost
from agentbudget.finops.bloat import Carried, Resent
from agentbudget.reports.charts import dollars_shown, money
from agentbudget.reports.spend_values import Hosted, value_shown
from agentbudget.reports.tables import Column

_SHARE = "{:.1%}".format
_WASTE = {"Wasted", "Avoided", "Refused", "Denied"}


def shares(table: Attribution) -> tuple[Column[Share], ...]:
    """Of one table by a dimension."""
    name = table.dimensions[0]
    return (
        Column(name.capitalize(), lambda row: value_shown(name, row.key[0]), always=True),
        Column("Cost", lambda row: dollars_shown(row.cost), lambda row: float(row.cost), always=True),
        Column("Share", lambda row: _SHARE(table.share(row.cost)), lambda row: table.share(row.cost), always=True),
        Column("Wasted", _money(lambda row: row.wasted), lambda row: float(row.wasted)),
        Column("Avoided", _money(lambda row: row.avoided), lambda row: float(row.avoided)),
        Column("Refused", _money(lambda row: row.refused), lambda row: float(row.refused)),
        Column("Estimated", _money(lambda row: row.estimated), lambda row: float(row.estimated)),
        Column("Calls", lambda row: f"{row.calls:,}", lambda row: row.calls, always=True),
        Column("Denied", lambda row: _count(row.denied), lambda row: row.denied),
        Column("No price", lambda row: _count(row.unpriced_calls), lambda row: row.unpriced_calls),
        Column("Tokens in", lambda row: _count(row.input_tokens), lambda row: row.input_tokens),
        Column("From cache", lambda row: _count(row.cache_read_tokens), lambda row: row.cache_read_tokens),
        Column("Tokens out", lambda row: _count(row.output_tokens), lambda row: row.output_tokens),
    )


def waste(table: Attribution) -> tuple[Column[Share], ...]:
    """The columns of *table* that are no use, or no charge."""
    return tuple(column for column in shares(table) if column.always or column.heading in _WASTE)


def units(per: str) -> tuple[Column[UnitCost], ...]:
    """Of unit costs."""
    return (
        Column(per.capitalize(), lambda unit: unit.unit if unit.unit is not None else f"(no {per})", always=True),
        Column("Tasks", lambda unit: f"{unit.tasks:,}", lambda unit: unit.tasks, always=True),
        Column("Cost", lambda unit: dollars_shown(unit.cost), lambda unit: float(unit.cost), always=True),
        Column("Each", lambda unit: dollars_shown(unit.each), lambda unit: float(unit.each), always=True),
        Column("Good", lambda unit: _count(unit.ok), lambda unit: unit.ok),
        Column(
            "For each good one",
            lambda unit: dollars_shown(unit.each_ok) if unit.each_ok is not None else "",
            lambda unit: float(unit.each_ok or 0),
        ),
    )


CONTRIBUTORS: tuple[Column[Contributor], ...] = (
    Column("Who", lambda each: each.who, always=True),
    Column("Expected", lambda each: money(each.expected), lambda each: each.expected, always=True),
    Column("Actual", lambda each: money(each.actual), lambda each: each.actual, always=True),
    Column("Impact", lambda each: signed(each.impact), lambda each: each.impact, always=True),
    Column("By volume", lambda each: signed(each.split.volume), lambda each: each.split.volume, always=True),
    Column("By tokens a call", lambda each: signed(each.split.tokens), lambda each: each.split.tokens, always=True),
    Column("By price of a token", lambda each: signed(each.split.price), lambda each: each.split.price, always=True),
    Column(
        "Without tokens",
        lambda each: signed(each.split.other) if each.split.other else "",
        lambda each: each.split.other,
    ),
)


def _carried_cost(each: Carried) -> str:
    """Not zero where only the price is missing."""
    return dollars_shown(each.cost) if each.cost or not each.carried_tokens else "no price recorded"


CARRIED: tuple[Column[Carried], ...] = (
    Column("Tool", lambda each: each.tool, always=True),
    Column("Calls", lambda each: f"{each.calls:,}", lambda each: each.calls, always=True),
    Column("Bytes of results", lambda each: f"{each.bytes:,}", lambda each: each.bytes, always=True),
    Column("Tokens carried", lambda each: f"{each.carried_tokens:,}", lambda each: each.carried_tokens, always=True),
    Column("Cost of that", _carried_cost, lambda each: float(each.cost), always=True),
)

RESENT: tuple[Column[Resent], ...] = (
    Column("Task", lambda each: each.name or "(no name)", always=True),
    Column("Model calls", lambda each: f"{each.model_calls:,}", lambda each: each.model_calls, always=True),
    Column("Tokens in", lambda each: f"{each.input_tokens:,}", lambda each: each.input_tokens, always=True),
    Column("Sent again", lambda each: f"{each.resent_tokens:,}", lambda each: each.resent_tokens, always=True),
    Column("Share", lambda each: _SHARE(each.share), lambda each: each.share, always=True),
    Column("From cache", lambda each: _count(each.cached_tokens), lambda each: each.cached_tokens),
)

CHANGES: tuple[Column[Change], ...] = (
    Column("From", lambda each: f"{each.start:%Y-%m-%d %H:%M}", always=True),
    Column("To", lambda each: f"{each.end:%Y-%m-%d %H:%M}", always=True),
    Column("Expected", lambda each: money(each.before.total), lambda each: each.before.total, always=True),
    Column("Actual", lambda each: money(each.now.total), lambda each: each.now.total, always=True),
    Column("Impact", lambda each: signed(each.impact), lambda each: each.impact, always=True),
    Column("In %", lambda each: f"{each.share:+.0%}" if each.share is not None else "", lambda each: each.share or 0.0),
    Column("Planned", lambda each: each.planned),
    Column("Because", lambda each: f"{each.because}; most from {_most(each)}", always=True),
)

HOSTED: tuple[Column[Hosted], ...] = (
    Column("Model", lambda each: each.model, always=True),
    Column("Hours", lambda each: f"{each.hours:,.1f}", lambda each: each.hours, always=True),
    Column("Bill", lambda each: dollars_shown(each.charges.bill), lambda each: float(each.charges.bill), always=True),
    Column("Idle", lambda each: dollars_shown(each.charges.idle), lambda each: float(each.charges.idle), always=True),
    Column("Used", lambda each: _SHARE(each.charges.utilisation), lambda each: each.charges.utilisation, always=True),
    Column("Tokens", lambda each: f"{each.tokens:,}", lambda each: each.tokens, always=True),
    Column(
        "Charged to",
        lambda each: ", ".join(f"{who} {dollars_shown(cost)}" for who, cost in each.charges.charges.items()),
        always=True,
    ),
)


def _money(part: Callable[[Share], Decimal]) -> Callable[[Share], str]:
    return lambda row: dollars_shown(part(row)) if part(row) else ""


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _most(change: Change) -> str:
    return ", ".join(str(each) for each in change.contributors[:3]) or "nobody in particular"
