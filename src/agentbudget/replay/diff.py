"""Two recordings side by side: where they part, which step costs more, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import SequenceMatcher
from os import PathLike, fspath
from typing import Any

from agentbudget.domain.money import dollars
from agentbudget.replay.importers import Source, events_of
from agentbudget.trace.events import CallSettled, TaskOpened
from agentbudget.trace.reader import Trace

MAX_ALIGNED = 5_000
"""Steps of one task that are aligned one by one; the steps behind them are compared in sum only."""
CAUSES = ("model", "price", "input", "cache", "output", "retries", "other", "only in one")
"""Why a step costs more; see `Step.causes`."""


@dataclass(slots=True)
class Attempted:
    """One settled attempt of a recording."""

    kind: str
    name: str
    cost: int
    usage: dict[str, int]
    prices: dict[str, Any]
    retry: bool
    priced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the two recordings, aligned. Nano-dollars; None where only one of them has it."""

    kind: str
    name: str
    before: int | None
    after: int | None
    causes: dict[str, int]
    """Parts of the difference by cause (`CAUSES`): another model, another price of the same, more input, less of it
    from the cache, more output, an attempt more. They add up to the difference."""

    @property
    def difference(self) -> int:
        """Nano-dollars more."""
        return (self.after or 0) - (self.before or 0)


@dataclass(slots=True)
class KindDiff:
    """All tasks of one name. Nano-dollars."""

    name: str
    tasks: tuple[int, int] = (0, 0)
    calls: tuple[int, int] = (0, 0)
    cost: tuple[int, int] = (0, 0)
    unpriced: tuple[int, int] = (0, 0)
    """Model calls without a price, which are in no amount."""
    causes: Counter[str] = field(default_factory=Counter)
    steps: list[Step] = field(default_factory=list)
    """The steps that differ most, largest first."""
    parted_at: int | None = None
    """Steps the first two tasks have in common before they part; None where they never do."""


@dataclass(frozen=True, slots=True)
class Diff:
    """The comparison of two recordings, by kind of task."""

    before: str
    after: str
    kinds: tuple[KindDiff, ...]

    @property
    def cost(self) -> tuple[Decimal, Decimal]:
        """Dollars of both."""
        before, after = (dollars(sum(kind.cost[side] for kind in self.kinds)) for side in (0, 1))
        return before, after

    @property
    def difference(self) -> Decimal:
        """Dollars more."""
        return self.cost[1] - self.cost[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money in nano-dollars below `kinds`."""
        return {
            "before": self.before,
            "after": self.after,
            "cost": [f"{cost:f}" for cost in self.cost],
            "kinds": [
                {
                    "name": kind.name,
                    "tasks": kind.tasks,
                    "calls": kind.calls,
                    "cost": kind.cost,
                    "unpriced_calls": kind.unpriced,
                    "parted_at": kind.parted_at,
                    "causes": dict(kind.causes),
                    "steps": [
                        {
                            "kind": step.kind,
                            "name": step.name,
                            "before": step.before,
                            "after": step.after,
                            "causes": step.causes,
                        }
                        for step in kind.steps
                    ],
                }
                for kind in self.kinds
            ],
        }

    def __str__(self) -> str:
        before, after = self.cost
        lines = [f"{self.before} ${before:f} -> {self.after} ${after:f} ({self.difference:+f})"]
        for kind in self.kinds:
            lines.append(
                f"  {kind.name or 'tasks without a name'}: {_pair(kind.tasks)} tasks, {_pair(kind.calls)} calls"
            )
            if kind.parted_at is not None:
                lines.append(f"    parts after {kind.parted_at} steps")
            lines += [f"    {cause}: {dollars(part):+f}" for cause, part in kind.causes.most_common() if part]
            lines += [
                f"    {step.kind} {step.name}: {_shown(step.before)} -> {_shown(step.after)}" for step in kind.steps[:5]
            ]
        return "\n".join(lines)


def diff(before: Source, after: Source, *, most_steps: int = 20) -> Diff:
    """Compare two traces, files or folders: tasks of one name with each other, in their order.

    Tasks that have no partner count in full. *most_steps* of the differing steps are kept for each name.
    """
    kinds: dict[str, KindDiff] = {}
    groups = _by_name(before), _by_name(after)
    for name in sorted({*groups[0], *groups[1]}):
        kind = kinds[name] = KindDiff(name)
        _compare(kind, groups[0].get(name, []), groups[1].get(name, []), most_steps)
    return Diff(_named(before), _named(after), tuple(kinds.values()))


def _compare(
    kind: KindDiff, before: Sequence[list[Attempted]], after: Sequence[list[Attempted]], most_steps: int
) -> None:
    kind.tasks = len(before), len(after)
    kind.calls = sum(map(len, before)), sum(map(len, after))
    kind.cost = _cost(before), _cost(after)
    kind.unpriced = _unpriced(before), _unpriced(after)
    for number in range(max(len(before), len(after))):
        one = before[number] if number < len(before) else []
        other = after[number] if number < len(after) else []
        steps = list(_steps(one, other))
        if number == 0:
            kind.parted_at = next((at for at, step in enumerate(steps) if None in {step.before, step.after}), None)
        for step in steps:
            kind.causes.update(step.causes)
        changed = [step for step in steps if step.difference]
        kind.steps = sorted([*kind.steps, *changed], key=lambda step: -abs(step.difference))[:most_steps]


def _unpriced(tasks: Sequence[list[Attempted]]) -> int:
    return sum(call.kind == "model" and not call.priced for calls in tasks for call in calls)


def _steps(before: Sequence[Attempted], after: Sequence[Attempted]) -> Iterator[Step]:
    """The steps of two tasks, aligned by what is called; a model exchanged for another is the same step."""
    left, right = before[:MAX_ALIGNED], after[:MAX_ALIGNED]
    matcher = SequenceMatcher(None, [_key(call) for call in left], [_key(call) for call in right], autojunk=False)
    for tag, start, end, other_start, other_end in matcher.get_opcodes():
        if tag == "equal":
            yield from map(_both, left[start:end], right[other_start:other_end])
        else:
            yield from (_alone(call, after=False) for call in left[start:end])
            yield from (_alone(call, after=True) for call in right[other_start:other_end])
    yield from (_alone(call, after=False) for call in before[MAX_ALIGNED:])
    yield from (_alone(call, after=True) for call in after[MAX_ALIGNED:])


def _key(call: Attempted) -> tuple[str, str]:
    return (call.kind, call.name if call.kind == "tool" else "")


def _alone(call: Attempted, *, after: bool) -> Step:
    cause = "retries" if call.retry else "only in one"
    part = call.cost if after else -call.cost
    return Step(
        kind=call.kind,
        name=call.name,
        before=None if after else call.cost,
        after=call.cost if after else None,
        causes={cause: part} if part else {},
    )


def _both(before: Attempted, after: Attempted) -> Step:
    name = after.name if before.name == after.name else f"{before.name} -> {after.name}"
    return Step(kind=after.kind, name=name, before=before.cost, after=after.cost, causes=_causes(before, after))


def _causes(before: Attempted, after: Attempted) -> dict[str, int]:
    """The difference in parts: the counts change one after the other at the old prices, then the prices do."""
    whole = after.cost - before.cost
    if not whole:
        return {}
    old = _rates(before.prices)
    if old is None:
        return {"model" if before.name != after.name else "other": whole}
    base = _counts(before.usage)
    parts: dict[str, int] = {}
    read = min(base.cached + base.fresh, after.usage.get("input_tokens", 0))
    now = _counts(after.usage)
    held = _Counts(max(0, now.fresh + now.cached - min(base.cached, read)), min(base.cached, read), base.output)
    parts["input"] = _amount(held, old) - _amount(base, old)
    cached = _Counts(now.fresh, now.cached, base.output)
    parts["cache"] = _amount(cached, old) - _amount(held, old)
    parts["output"] = _amount(now, old) - _amount(cached, old)
    new = _rates(after.prices)
    if new is not None and new != old:
        parts["model" if before.name != after.name else "price"] = _amount(now, new) - _amount(now, old)
    parts["other"] = whole - sum(parts.values())
    return {cause: part for cause, part in parts.items() if part}


@dataclass(frozen=True, slots=True)
class _Counts:
    fresh: int
    """Input tokens not read from a cache, written ones included."""
    cached: int
    output: int


def _counts(usage: dict[str, int]) -> _Counts:
    cached = usage.get("cache_read_tokens", 0)
    return _Counts(usage.get("input_tokens", 0) - cached, cached, usage.get("output_tokens", 0))


def _rates(prices: dict[str, Any]) -> tuple[Decimal, Decimal, Decimal] | None:
    """Nano-dollars a token of fresh input, cached input and output; None where they were not recorded."""
    listed = prices.get("prices")
    if not isinstance(listed, dict) or "input" not in listed:
        return None
    fresh = Decimal(str(listed["input"])) * 1000
    return (
        fresh,
        Decimal(str(listed.get("cache_read", listed["input"]))) * 1000,
        Decimal(str(listed.get("output", 0))) * 1000,
    )


def _amount(counts: _Counts, rates: tuple[Decimal, Decimal, Decimal]) -> int:
    return int(counts.fresh * rates[0] + counts.cached * rates[1] + counts.output * rates[2])


def _by_name(source: Source) -> dict[str, list[list[Attempted]]]:
    """The settled attempts of each root task, in the order they ended, by name of the task."""
    groups: dict[str, list[list[Attempted]]] = {}
    tasks: dict[str, list[Attempted]] = {}
    for event in events_of(source):
        if isinstance(event, TaskOpened) and not event.parent and event.task not in tasks:
            groups.setdefault(event.name, []).append(tasks.setdefault(event.task, []))
        elif isinstance(event, CallSettled) and event.tasks:
            calls = tasks.get(event.tasks[-1])
            if calls is None:
                calls = tasks[event.tasks[-1]] = []
                groups.setdefault("", []).append(calls)
            prices = event.price or {}
            calls.append(Attempted(event.kind, event.name, event.cost, event.usage, prices, event.retry, event.priced))
    return groups


def _cost(tasks: Sequence[list[Attempted]]) -> int:
    return sum(call.cost for calls in tasks for call in calls)


def _named(source: Source) -> str:
    if isinstance(source, Trace):
        return source.path
    return fspath(source) if isinstance(source, str | PathLike) else "events"


def _pair(values: tuple[int, int]) -> str:
    return f"{values[0]:,} -> {values[1]:,}"


def _shown(cost: int | None) -> str:
    return "none" if cost is None else f"${dollars(cost):f}"
