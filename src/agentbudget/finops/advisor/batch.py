"""Batch processing for tasks that can wait, at the batch prices of the price data."""

from __future__ import annotations

from dataclasses import replace

from agentbudget.domain.usage import Usage
from agentbudget.finops.advisor.asked import Asked
from agentbudget.finops.advisor.calls import ModelCall, Swapped, cost_of, is_standard, model_calls, moved_cost
from agentbudget.finops.advisor.values import Lever, Saving
from agentbudget.finops.dimensions import quoted


def batches(asked: Asked) -> None:
    """The calls of tasks that can wait, in the batch tier: with their cached tokens, and without."""
    names = asked.options.can_wait
    if not names:
        asked.note("batch: nobody said which tasks can wait (--can-wait NAME), so none is priced as a batch")
        return
    listed = ", ".join(map(quoted, names))
    where = f"(root IN (SELECT task FROM tasks WHERE name IN ({listed})) OR feature IN ({listed}))"  # noqa: S608 - the names are quoted
    found: dict[str, _Totals] = {}
    for call in model_calls(asked.record, where):
        _take(asked, found.setdefault(_waiting(call, names), _Totals()), call)
    for name in names:
        if name not in found:
            asked.note(f"batch: no model call with a cost belongs to a task or feature called {name!r}")
    _tell_untagged(asked)
    for name, totals in found.items():
        if totals.unpriced:
            asked.note(
                f"batch: {asked.record.part(totals.unpriced)} of {name!r} is with models that have no batch price, or "
                "in another tier already"
            )
        if totals.cold.calls and totals.warm.before > totals.warm.after:
            asked.levers.append(_lever(asked, name, totals))


class _Totals:
    """One name: with cache reads as recorded, and with none."""

    def __init__(self) -> None:
        self.warm, self.cold = Swapped(), Swapped()
        self.unpriced = 0
        self.models: set[str] = set()


def _waiting(call: ModelCall, names: tuple[str, ...]) -> str:
    return call.kind if call.kind in names else call.feature


def _take(asked: Asked, totals: _Totals, call: ModelCall) -> None:
    pair = asked.rater.tier(call, "batch") if is_standard(call.tier) else None
    old = cost_of(pair[0], call.usage) if pair is not None else None
    prices = None if pair is None else [cost_of(pair[1], usage) for usage in (call.usage, _uncached(call.usage))]
    if old is None or prices is None or prices[0] is None or prices[1] is None:
        totals.unpriced += call.cost
        return
    totals.models.add(call.model)
    totals.warm.add(call, moved_cost(call, old, prices[0]))
    totals.cold.add(call, moved_cost(call, old, prices[1]))


def _uncached(usage: Usage) -> Usage:
    """The same tokens, none of them from or into a cache."""
    return replace(
        usage, cache_read_tokens=0, cache_write_5m_tokens=0, cache_write_1h_tokens=0, cache_audio_read_tokens=0
    )


def _tell_untagged(asked: Asked) -> None:
    (row,) = asked.record.history.rows(
        "SELECT coalesce(sum(cost), 0)::BIGINT AS cost FROM calls WHERE feature IS NULL AND task_name = ''"
    )
    if row["cost"]:
        asked.note(
            f"batch: {asked.record.part(row['cost'])} has neither a name nor a feature: it cannot be said to wait"
        )


def _lever(asked: Asked, name: str, totals: _Totals) -> Lever:
    warm, cold = totals.warm.before - totals.warm.after, totals.cold.before - totals.cold.after
    steps = totals.warm.calls / len(totals.warm.roots)
    same = warm == cold
    saving = Saving.between(warm, cold)
    return Lever(
        kind="batch",
        title=f"'{name}' as batches",
        saving=saving,
        month=asked.record.month(saving),
        confidence="exact" if same else "estimate",
        reason="the recorded tokens at the listed batch prices, nothing of them cached"
        if same
        else "cached tokens may lose their discount in a batch: the lower end has none",
        computed=f"{totals.warm.calls:,} calls in {len(totals.warm.roots):,} tasks at the batch prices of the price "
        "data, of their day, where none is listed for it of today",
        change=f"send the requests of '{name}' to the provider's batch API (it takes files of requests; LangChain's "
        "batch() is not that)",
        verify=f"agentbudget prices {' '.join(sorted(totals.models))} --tier batch; after a day: agentbudget reconcile "
        "TRACES BILL",
        risk=f"an answer may take 24 hours, and each of the {steps:.1f} calls in a row of a task waits so long"
        if steps > 1
        else "an answer may take 24 hours",
    )
