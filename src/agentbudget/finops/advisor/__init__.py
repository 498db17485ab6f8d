"""The adviser: changes that would save money, with the amount, how sure it is, and how to see whether it held."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from os import PathLike
from pathlib import Path

from agentbudget.errors import ConfigurationError
from agentbudget.finops.advisor.asked import Asked, Machine, Options
from agentbudget.finops.advisor.batch import batches
from agentbudget.finops.advisor.caching import prompt_caching
from agentbudget.finops.advisor.calls import Rater
from agentbudget.finops.advisor.ceilings import ceilings
from agentbudget.finops.advisor.context import context_growth
from agentbudget.finops.advisor.machines import idle_machines
from agentbudget.finops.advisor.models import cheaper_models
from agentbudget.finops.advisor.record import open_record
from agentbudget.finops.advisor.values import Advice, Lever, Saving
from agentbudget.finops.advisor.waste import loops, outcomes, repeated_calls, retry_waste
from agentbudget.finops.compact import OnProgress
from agentbudget.finops.history import Period
from agentbudget.pricing.book import PriceBook

__all__ = ["Advice", "Lever", "Machine", "Options", "Saving", "advise"]

LEAST_SHARE = 0.001
"""Levers below this share of the spend are counted, not shown."""

_ASK = (
    cheaper_models,
    prompt_caching,
    batches,
    repeated_calls,
    context_growth,
    retry_waste,
    loops,
    ceilings,
    idle_machines,
    outcomes,
)


def advise(
    path: str | PathLike[str],
    options: Options | None = None,
    *,
    period: Period | None = None,
    prices: Mapping[str, object] | str | Path | None = None,
    aliases: Mapping[str, str] | None = None,
    today: date | None = None,
    least_share: float = LEAST_SHARE,
    on_progress: OnProgress = lambda _done, _all: None,
) -> Advice:
    """Changes that would have saved money on what is recorded at *path*, those that save most first.

    Args:
        path: an archive, a trace file, a folder or glob of them, or of another format that an importer reads.
        options: what the user says beside the record: which tasks can wait, which models are good enough.
        period: only calls of this time. Loops and ceilings are judged on whole traces all the same.
        prices: overrides in front of the price data, as for `Governor`.
        aliases: what deployments really are, as for `Governor`.
        today: whose prices stand in where a day has none.
        least_share: levers that save less than this share of the spend are left out, and counted in a note.
        on_progress: told the bytes of traces read, and in all.

    Raises:
        TraceError: there is nothing to read. ConfigurationError: an option that cannot mean anything.
    """
    if not 0 <= least_share < 1:
        msg = f"least_share={least_share!r}: a share of the spend, from 0 to below 1."
        raise ConfigurationError(msg)
    book = PriceBook(overrides=prices, aliases=aliases)
    today = today or datetime.now(UTC).date()
    with open_record(path, period=period, today=today, on_progress=on_progress) as record:
        rater = Rater(book, today=today)
        asked = Asked(record=record, rater=rater, options=options or Options())
        for ask in _ASK:
            ask(asked)
        if period is not None and (period.since or period.until) and record.traces is not None:
            asked.note("loops and ceilings are of all traces, not only of the time asked for")
        return _advice(asked, least_share)


def _advice(asked: Asked, least_share: float) -> Advice:
    """The levers that are worth it, those that save most first."""
    record = asked.record
    shown = [each for each in asked.levers if _is_worth(each, record.cost, least_share)]
    hidden = len(asked.levers) - len(shown)
    if hidden:
        asked.note(f"{hidden:,} more levers save less than {least_share:.1%} each and are left out (--least-share)")
    return Advice(
        path=record.path,
        recorded=record.cost,
        days=record.days,
        levers=tuple(sorted(shown, key=lambda each: (-each.saving.expected, -each.saving.high, each.title))),
        notes=(*record.notes, *asked.notes),
        unread=len(record.history.problems),
    )


def _is_worth(lever: Lever, recorded: int, least: float) -> bool:
    return lever.saving.high > 0 and (lever.kind == "machines" or lever.saving.high >= least * recorded)
