"""Exact repetition: the same tool called with the same arguments, with the same result, again and again.

The thresholds are those that stopped none of 502 successful recorded runs: four times in a row, or eight times within
twenty tool calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agentbudget.testing.steps import Step

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
