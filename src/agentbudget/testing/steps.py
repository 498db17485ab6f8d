"""The steps of a trajectory, and where it passed a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agentbudget.domain.accounts import Meter
from agentbudget.domain.budget import Budget
from agentbudget.domain.money import NANOS_PER_DOLLAR, format_dollars
from agentbudget.trace.events import CallReserved, CallSettled, Event
from agentbudget.trace.report import TaskReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One settled attempt. `number` counts from 1 in the order of admission; `cost` is in nano-dollars."""

    number: int
    kind: str
    name: str
    where: str
    """Agent or node, if known."""
    cost: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    retry: bool
    priced: bool
    outcome: str
    request: str
    """Keyed hash of what was asked."""
    result: str
    """Keyed hash of what came back."""

    def __str__(self) -> str:
        where = f" in {self.where}" if self.where else ""
        tokens = f", {self.input_tokens:,} tokens in, {self.output_tokens:,} out" if self.kind == "model" else ""
        ended = f", {self.outcome}" if self.outcome != "ok" else ""
        again = ", a retry" if self.retry else ""
        return f"step {self.number}: {self.kind} {self.name}{where}, {format_dollars(self.cost)}{tokens}{again}{ended}"


def steps_of(events: Iterable[Event]) -> list[Step]:
    """The settled attempts in *events*, in the order of their admission."""
    reserved: dict[str, CallReserved] = {}
    settled: dict[str, CallSettled] = {}
    for event in events:
        if isinstance(event, CallReserved):
            reserved.setdefault(event.call, event)
        elif isinstance(event, CallSettled):
            settled.setdefault(event.call, event)
    return [_step(number, settled[call], asked) for number, (call, asked) in enumerate(reserved.items(), 1)
            if call in settled]  # fmt: skip


def _step(number: int, done: CallSettled, asked: CallReserved) -> Step:
    usage = done.usage
    return Step(
        number=number,
        kind=done.kind,
        name=done.name,
        where=done.agent or done.node,
        cost=done.cost,
        input_tokens=usage.get("input_tokens", 0),
        output_tokens=usage.get("output_tokens", 0),
        cache_read_tokens=usage.get("cache_read_tokens", 0),
        retry=done.retry,
        priced=done.priced,
        outcome=done.outcome,
        request=asked.request,
        result=done.result,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A limit that was passed; amounts in the unit of the meter (nano-dollars, tokens, calls, seconds)."""

    limit: str
    meter: Meter
    allowed: int
    actual: int
    step: Step | None = None
    """The step with which it was passed, if the steps are known."""

    def __str__(self) -> str:
        show = self.meter.show
        unit = " s" if self.meter is Meter.SECONDS else ""
        over = f"{show(self.actual - self.allowed)}{unit} too much"
        text = f"{self.limit} is {show(self.allowed)}{unit}, but {show(self.actual)}{unit} were taken: {over}."
        return text if self.step is None else f"{text}\n  passed with {self.step}"


_TAKES: dict[Meter, Callable[[Step], int]] = {
    Meter.COST: lambda step: step.cost,
    Meter.TOTAL_TOKENS: lambda step: step.input_tokens + step.output_tokens,
    Meter.INPUT_TOKENS: lambda step: step.input_tokens,
    Meter.OUTPUT_TOKENS: lambda step: step.output_tokens,
    Meter.UNCACHED_TOKENS: lambda step: step.input_tokens + step.output_tokens - step.cache_read_tokens,
    Meter.MODEL_CALLS: lambda step: int(step.kind == "model"),
    Meter.TOOL_CALLS: lambda step: int(step.kind == "tool"),
    Meter.RETRIES: lambda step: int(step.retry),
}
"""What a step takes of each meter."""


def violations(report: TaskReport, budget: Budget, steps: Sequence[Step] = ()) -> list[Violation]:
    """The limits of *budget* that *report* has passed, with the step of *steps* that passed each."""
    found = []
    taken = _taken(report)
    for meter, allowed in budget.limits():
        if taken[meter] > allowed:
            step = _passed(steps, allowed, _TAKES[meter])
            found.append(
                Violation(limit=f"max_{meter.value}", meter=meter, allowed=allowed, actual=taken[meter], step=step)
            )
    most = budget.max_seconds
    if most is not None and report.seconds > most:
        seconds = math.ceil(report.seconds)
        found.append(Violation(limit="max_seconds", meter=Meter.SECONDS, allowed=int(most), actual=seconds))
    for tool, spend in report.by_tool.items():
        limit = budget.tool_limit(tool)
        if limit is not None and spend.calls > limit:
            step = _passed([step for step in steps if step.kind == "tool" and step.name == tool], limit, lambda _: 1)
            found.append(
                Violation(
                    limit=f"tools[{tool!r}]", meter=Meter.TOOL_CALLS, allowed=limit, actual=spend.calls, step=step
                )
            )
    return found


def dearest(steps: Iterable[Step], count: int = 3) -> list[Step]:
    """The *count* steps that cost most, the dearest first."""
    return sorted((step for step in steps if step.cost), key=lambda step: (-step.cost, step.number))[:count]


def _taken(report: TaskReport) -> dict[Meter, int]:
    usage = report.usage
    total = usage.input_tokens + usage.output_tokens
    return {
        Meter.COST: int(report.cost * NANOS_PER_DOLLAR),
        Meter.TOTAL_TOKENS: total,
        Meter.INPUT_TOKENS: usage.input_tokens,
        Meter.OUTPUT_TOKENS: usage.output_tokens,
        Meter.UNCACHED_TOKENS: total - usage.cache_read_tokens,
        Meter.MODEL_CALLS: report.model_calls,
        Meter.TOOL_CALLS: report.tool_calls,
        Meter.RETRIES: report.retries,
    }


def _passed(steps: Iterable[Step], allowed: int, takes: Callable[[Step], int]) -> Step | None:
    total = 0
    for step in steps:
        total += takes(step)
        if total > allowed:
            return step
    return None
