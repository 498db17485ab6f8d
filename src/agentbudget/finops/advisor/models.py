"""A cheaper model: where recorded outcomes show that it is good enough, or where the user says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from agentbudget.domain.money import format_dollars
from agentbudget.finops.advisor.asked import Asked, each, named
from agentbudget.finops.advisor.calls import Swapped, cost_of, model_calls, moved_cost
from agentbudget.finops.advisor.evidence import LEAST_RUNS, Comparison, comparisons, judged
from agentbudget.finops.advisor.values import Lever, Saving
from agentbudget.replay.prices import Repricer, tokenizer_range

_EVERY = "*"
"""The kind of a swap that the user asked for: every task."""


class _Swap(NamedTuple):
    kind: str
    model: str
    provider: str
    other: str


def cheaper_models(asked: Asked) -> None:
    """The same tokens at another model's price, for models with evidence or on the user's ladder."""
    known = list(comparisons(judged(asked.record, asked.options.ok)))
    ladder = [_Swap(_EVERY, "", *Repricer.named(name)) for name in asked.options.ladder]
    wanted: dict[tuple[str, str], list[_Swap]] = {}
    for found in known:
        swap = _Swap(found.now.name, found.now.model, found.other.provider, found.other.model)
        wanted.setdefault((found.now.name, found.now.model), []).append(swap)
    if not wanted and not ladder:
        asked.note(
            "cheaper models: no kind of task has outcomes under two models (task.outcome(..., ok=...)), and no ladder "
            "was named (--ladder): without either, none is recommended"
        )
        return
    swapped, unpriced = _swap_all(asked, wanted, ladder)
    if unpriced:
        asked.note(f"cheaper models: {asked.record.part(unpriced)} could not be priced anew, here or there")
    _told_by_outcomes(asked, known, swapped)
    _told_by_user(asked, known, {swap: total for swap, total in swapped.items() if swap.kind == _EVERY})


def _swap_all(
    asked: Asked, wanted: Mapping[tuple[str, str], list[_Swap]], ladder: list[_Swap]
) -> tuple[dict[_Swap, Swapped], int]:
    """What each swap comes to, and the nano-dollars of calls that have no price, now or elsewhere."""
    found: dict[_Swap, Swapped] = {}
    unpriced = 0
    for call in model_calls(asked.record):
        swaps = [*wanted.get((call.kind, call.model), ()), *(rung._replace(model=call.model) for rung in ladder)]
        now = asked.rater.now(call) if swaps else None
        old = cost_of(now, call.usage) if now is not None else None
        lost = False
        for swap in swaps:
            rates = asked.rater.elsewhere(call, swap.provider, swap.other)
            new = cost_of(rates, call.usage) if rates is not None else None
            if old is None or new is None:
                lost = True
                continue
            found.setdefault(swap, Swapped()).add(call, moved_cost(call, old, new))
        unpriced += call.cost if lost else 0
    return found, unpriced


def _told_by_outcomes(asked: Asked, known: list[Comparison], swapped: Mapping[_Swap, Swapped]) -> None:
    """The best proven swap of each kind and model; what is promising and not proven is a note."""
    best: dict[tuple[str, str], tuple[int, Lever]] = {}
    for found in known:
        swap = _Swap(found.now.name, found.now.model, found.other.provider, found.other.model)
        total = swapped.get(swap)
        if total is None or total.after >= total.before:
            continue
        if not found.holds(asked.options.margin):
            _not_proven(asked, found, total)
            continue
        lever = _proven(asked, found, total)
        key = found.now.name, found.now.model
        if lever.saving.expected > 0 and (key not in best or lever.saving.expected > best[key][0]):
            best[key] = lever.saving.expected, lever
    asked.levers.extend(lever for _, lever in best.values())


def _proven(asked: Asked, found: Comparison, total: Swapped) -> Lever:
    now, other, record = found.now, found.other, asked.record
    measured = total.before - round(other.cost / other.runs * len(total.roots))
    saving = Saving.between(*_range(total, now.model, other.model), measured)
    return Lever(
        kind="model",
        title=f"{named(now.name)}: {other.model} instead of {now.model}",
        saving=saving,
        month=record.month(saving),
        confidence="estimate",
        reason=f"recorded outcomes: {other}, {now}; worse by at most {max(0.0, -found.worst_difference):.1%} with 95 % "
        f"confidence (allowed: {asked.options.margin:.0%}). Who got which model was not drawn by lot.",
        computed=f"{total.calls:,} calls in {len(total.roots):,} tasks, the same tokens at the other price, as another "
        f"tokenizer may count them; the range includes what its own tasks cost: {each(other.cost, other.runs)} each, "
        f"against {each(now.cost, now.runs)}",
        change=f'create_agent("{_full(other.provider, other.model)}", ...) for {named(now.name)}; or, by feature, '
        f'BudgetMiddleware(model_for={{"FEATURE": "{_full(other.provider, other.model)}"}})',
        verify=f"agentbudget replay {record.replayable} --model {now.model}={_full(other.provider, other.model)} "
        "(it moves the calls of all kinds of tasks)",
        risk="the tasks it served may have been the easier ones: send it a random tenth first, and compare outcomes",
    )


def _not_proven(asked: Asked, found: Comparison, total: Swapped) -> None:
    saved = format_dollars(total.before - total.after)
    what = f"{found.other.model} instead of {found.now.model} for {named(found.now.name)} would save {saved}"
    fewest = min(found.now.runs, found.other.runs)
    why = (
        f"only {fewest} judged runs of one of them (at least {LEAST_RUNS})"
        if fewest < LEAST_RUNS
        else f"it may be worse by {-found.worst_difference:.0%} (allowed: {asked.options.margin:.0%})"
    )
    asked.note(f"not recommended: {what}, but {why}: {found.other}, {found.now}")


def _told_by_user(asked: Asked, known: list[Comparison], swapped: Mapping[_Swap, Swapped]) -> None:
    """For each recorded model the rung that saves most."""
    best: dict[str, tuple[_Swap, Swapped]] = {}
    for swap, total in swapped.items():
        if total.after < total.before and (swap.model not in best or total.after < best[swap.model][1].after):
            best[swap.model] = swap, total
    for model, (swap, total) in best.items():
        expected, low, high = _range(total, model, swap.other)
        saving = Saving(low=min(0, low), expected=expected, high=high)
        seen = [f"{found.other} against {found.now} in {named(found.now.name)}" for found in known if _is(found, swap)]
        asked.levers.append(
            Lever(
                kind="model",
                title=f"every task: {swap.other} instead of {model}",
                saving=saving,
                month=asked.record.month(saving),
                confidence="upper bound",
                reason="you named it as good enough; " + ("; ".join(seen) or "no recorded outcome says so") + ". All "
                "calls are taken to move, with as many steps and tokens as now",
                computed=f"{total.calls:,} calls in {len(total.roots):,} tasks, the same tokens at the other price, as "
                "another tokenizer may count them",
                change=f'BudgetMiddleware(downgrade=["{_full(swap.provider, swap.other)}"]) when money gets short, or '
                f'create_agent("{_full(swap.provider, swap.other)}", ...) for all',
                verify=f"agentbudget replay {asked.record.replayable} "
                f"--model {model}={_full(swap.provider, swap.other)}",
                risk="a weaker model takes more steps or fails: record outcomes (task.outcome) on a random tenth",
            )
        )


def _range(total: Swapped, model: str, other: str) -> tuple[int, int, int]:
    """Expected, least and most saving."""
    fewest, most = tokenizer_range(model, other)
    saved = total.before - total.after
    return saved, total.before - round(total.after * most), total.before - round(total.after * fewest)


def _is(found: Comparison, swap: _Swap) -> bool:
    return found.now.model == swap.model and found.other.model == swap.other


def _full(provider: str, model: str) -> str:
    return f"{provider}:{model}" if provider else model
