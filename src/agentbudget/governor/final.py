"""The last answer of a task: what ordinary calls leave for it, and the one call that may use it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import structs

from agentbudget.domain.accounts import Meter
from agentbudget.domain.budget import Budget
from agentbudget.domain.money import format_dollars
from agentbudget.errors import ConfigurationError
from agentbudget.governor.plan import NOTHING, Amounts, Line
from agentbudget.governor.values import Call, Estimate, Kind

if TYPE_CHECKING:
    from agentbudget.governor.task import Task

ANSWER_TOKENS = 256
"""Output tokens that a last answer is given at least, where a call may have as many."""
_SHARE = 10
"""By default one part in ten of every limit is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What a task keeps back at least for its last answer. `cost` is in nano-dollars, `seconds` in seconds."""

    least: Amounts
    seconds: float = 0.0

    @classmethod
    def of(cls, budget: Budget, cost: int | None = None) -> Keep:
        """One model call and a tenth of every limit of *budget*; of the cost limit *cost*, where it is given.

        Raises:
            ConfigurationError: *cost* without a cost limit, or not below it.
        """
        if cost is not None and (budget.max_cost is None or cost >= budget.max_cost):
            limit = (
                "there is no max_cost" if budget.max_cost is None else f"max_cost is {format_dollars(budget.max_cost)}"
            )
            msg = f"finish_reserve={format_dollars(cost)!r} must be below max_cost, of which it is a part; {limit}."
            raise ConfigurationError(msg)
        shares = {meter.value: amount // _SHARE for meter, amount in budget.limits() if meter in _SHARED}
        if cost is not None:
            shares[Meter.COST.value] = cost
        return cls(least=Amounts(**shares, model_calls=1), seconds=(budget.max_seconds or 0.0) / _SHARE)


_SHARED = frozenset({Meter.COST, Meter.INPUT_TOKENS, Meter.OUTPUT_TOKENS, Meter.TOTAL_TOKENS, Meter.UNCACHED_TOKENS})


def wanted(
    keep: Keep, call: Call, estimate: Estimate, answer_tokens: int, answer_cost: int, before: Amounts
) -> Amounts:
    """What must be left after *call* so that the last answer can be paid; before the first model call, the least.

    The last answer reads what *call* reads and writes, and writes *answer_tokens*, which together cost *answer_cost*.
    A tool call leaves what the last model call left (*before*).
    """
    if call.kind is not Kind.MODEL:
        return before if before is not NOTHING else keep.least
    into, out = estimate.input_tokens + estimate.output_tokens, answer_tokens
    needed = Amounts(answer_cost, into, out, into + out, into + out, 1)
    return Amounts(*map(max, keep.least, needed))


def leaving(lines: Sequence[Line], task: Task, amounts: Amounts) -> list[Line]:
    """*lines* with *amounts* of the limits of *task* itself out of reach."""
    return [
        structs.replace(line, kept=amounts[line.place])
        if line.owner == task.id and line.most is not None and amounts[line.place]
        else line
        for line in lines
    ]
