"""Loops in a trace: what the loop rules found while it was recorded; where they saw nothing, exact repetition.

Exact repetition is the same tool called with the same arguments, with the same result, again and again. Its thresholds
are those that stopped none of 502 successful recorded runs: four times in a row, or eight times within twenty calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agentbudget.testing.steps import Step, steps_of
from agentbudget.trace.events import ActionTaken, CallSettled
from agentbudget.trace.reader import Trace

IN_A_ROW = 4
WITHIN = 20
TIMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """A tool call that was repeated *times* times within *window* tool calls, the last time with *step*."""

    step: Step
    times: int
    window: int

    def __str__(self) -> str:
        how = f"{self.times} times in a row" if self.times == self.window else f"{self.times} times in {self.window}"
        return f"tool {self.step.name} was called {how} with the same arguments and the same result, up to {self.step}."


def loop_in(trace: Trace) -> str:
    """What the loop rules of the recorded tasks found that is enough to halt one (`Loops(halt=...)`); empty: nothing.

    Each task was watched by the rules of its budget, by default those of `Loops()`; exempt tools (`polling`) do not
    count. A trace whose tool calls the rules did not see is looked through for exact repetition.
    """
    events = trace.events
    halts = [event for event in events if isinstance(event, ActionTaken) and event.action == "halt"]
    found = next((event.reason for event in halts if "rule" in event.numbers), "")
    if not found and any(isinstance(event, CallSettled) and event.signed for event in events):
        return ""
    repeated = repetition(steps_of(events))
    return str(repeated) if repeated is not None else found


def repetition(steps: Sequence[Step], *, in_a_row: int = IN_A_ROW, times: int = TIMES) -> Repetition | None:
    """The first repetition among the tool calls of *steps*, or None."""
    tools = [step for step in steps if step.kind == "tool"]
    row = 0
    for index, step in enumerate(tools):
        row = row + 1 if index and _same(tools[index - 1], step) else 1
        if row >= in_a_row:
            return Repetition(step=step, times=row, window=row)
        recent = Counter(_key(other) for other in tools[max(0, index + 1 - WITHIN) : index + 1])
        if recent[_key(step)] >= times:
            return Repetition(step=step, times=recent[_key(step)], window=min(index + 1, WITHIN))
    return None


def _key(step: Step) -> tuple[str, str, str]:
    return step.name, step.request, step.result


def _same(one: Step, other: Step) -> bool:
    return _key(one) == _key(other)
