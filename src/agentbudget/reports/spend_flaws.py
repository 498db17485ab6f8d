"""What is wrong or missing in a record, with its share of the money: nothing is dropped, nothing is taken for zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from agentbudget.domain.money import dollars
from agentbudget.finops.attribution import Attribution
from agentbudget.finops.history import History
from agentbudget.reports.charts import dollars_shown
from agentbudget.reports.spend_values import EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """When the calls of a history were. Money in dollars."""

    first: datetime | None
    """Of the calls whose times can be; None: there is none. Likewise `last`."""
    last: datetime | None
    timeless_calls: int
    timeless: Decimal
    """Cost of calls before the year 2000: without a time."""
    early_calls: int
    early: Decimal
    """Cost of calls dated after the moment the page is of: a clock was wrong, or they are to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """Model calls with a price and without. Money in dollars."""

    cost: Decimal
    """Of priced calls that have token counts."""
    tokens: int
    """Of those calls."""
    unpriced_tokens: int
    uncounted: int
    """Calls without a price whose tokens are not known either."""


def priced(history: History) -> Priced:
    """What is known of the price of a token in *history*."""
    (row,) = history.rows("""
        SELECT coalesce(sum(cost) FILTER (priced AND tokens > 0), 0)::BIGINT AS cost,
               coalesce(sum(tokens) FILTER (priced), 0)::BIGINT AS tokens,
               coalesce(sum(tokens) FILTER (NOT priced), 0)::BIGINT AS unpriced_tokens,
               count(*) FILTER (NOT priced AND tokens = 0) AS uncounted
        FROM (SELECT cost, priced, input_tokens + output_tokens AS tokens FROM calls
              WHERE kind = 'model' AND outcome <> 'denied')
    """)
    return Priced(**{**row, "cost": dollars(row["cost"])})


def extent(history: History, *, at: datetime) -> Extent:
    """When the calls of *history* were, as seen *at* a moment."""
    (row,) = history.rows(f"""
        SELECT min(ended) FILTER (timed) AS first, max(ended) FILTER (timed) AS last,
               count(*) FILTER (ended < since) AS timeless_calls, count(*) FILTER (ended > until) AS early_calls,
               coalesce(sum(cost) FILTER (ended < since), 0)::BIGINT AS timeless,
               coalesce(sum(cost) FILTER (ended > until), 0)::BIGINT AS early
        FROM (SELECT ended, cost, ended >= since AND ended <= until AS timed, since, until FROM calls,
              (SELECT TIMESTAMPTZ '{EPOCH.isoformat()}' AS since, TIMESTAMPTZ '{at.isoformat()}' AS until))
    """)  # noqa: S608 - times of our own
    return Extent(**{**row, "timeless": dollars(row["timeless"]), "early": dollars(row["early"])})


def flaws(table: Attribution, times: Extent, days: Sequence[date], known: Priced) -> Iterator[str]:
    """The flaws in sentences. *days*: those with a call, ascending."""
    total = table.total
    if not total.calls and not total.denied:
        yield "Nothing was recorded: no call, so no spend to attribute or to forecast."
        return
    yield from _unpriced(table, known)
    if total.estimated:
        yield f"{dollars_shown(total.estimated)} ({_share(table, total.estimated)}) rest on estimated usage."
    for name, amount in table.untagged.items():
        if amount:
            yield f"{dollars_shown(amount)} ({_share(table, amount)}) have no {name}."
        if total.cost and amount == total.cost:
            yield f"No call has a {name}: tag tasks with ab.task(..., {name}=...), or history with rules (--tags)."
    for tag, amount in table.contradictions.items():
        if amount:
            share = _share(table, amount)
            yield f"Rules of {tag} contradict each other on {dollars_shown(amount)} ({share}): the first one counts."
    if times.timeless_calls:
        yield (
            f"{times.timeless_calls:,} calls, {dollars_shown(times.timeless)} ({_share(table, times.timeless)}), have "
            "no time: they are in the totals, and in nothing over time."
        )
    if times.early_calls:
        yield (
            f"{times.early_calls:,} calls, {dollars_shown(times.early)} ({_share(table, times.early)}), are dated "
            "after the moment this page is of: they are in the totals, and in nothing over time."
        )
    yield from _gaps(days)


def _unpriced(table: Attribution, known: Priced) -> Iterator[str]:
    unpriced = table.total.unpriced_calls
    if not unpriced:
        return
    said = f"{unpriced:,} model calls have no price: their cost is missing everywhere."
    if known.unpriced_tokens and known.tokens and known.cost:
        about = known.cost * known.unpriced_tokens / known.tokens
        said += (
            f" Their {known.unpriced_tokens:,} tokens would be about {dollars_shown(about)} ({_share(table, about)}) "
            "at the average price of a token here."
        )
    elif known.unpriced_tokens:
        said += (
            f" What share of the money their {known.unpriced_tokens:,} tokens are cannot be known: no token is priced."
        )
    if known.uncounted:
        said += f" Of {known.uncounted:,} of them not even the tokens are known."
    yield said


def _gaps(days: Sequence[date]) -> Iterator[str]:
    """Days between the first and the last without any call."""
    if not days:
        return
    missing = (days[-1] - days[0]).days + 1 - len(days)
    if missing:
        longest, before = max((later - earlier, earlier) for earlier, later in pairwise(days))
        begin, end = before + timedelta(days=1), before + longest - timedelta(days=1)
        yield (
            f"{missing:,} days between the first and the last call have no call, the longest stretch {begin} to {end}: "
            "they count as days without spend."
        )


def _share(table: Attribution, part: Decimal) -> str:
    return f"{float(part / table.total.cost):.1%} of the cost" if table.total.cost else "no known cost"
