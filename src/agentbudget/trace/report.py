"""What a task cost and why it ended, in one value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any

from agentbudget.domain.money import dollars
from agentbudget.domain.usage import Usage
from agentbudget.domain.verdict import StopReport

ZERO = dollars(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """What one model, tool, agent or node took: dollars, settled attempts and tokens."""

    cost: Decimal = ZERO
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Spend) -> Spend:
        return Spend(
            cost=self.cost + other.cost,
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """The numbers of one task, those of the tasks within it included; or of several tasks together (`combine`).

    Money is in exact dollars. A report of a live task and one loaded from its complete trace are equal.
    """

    task_id: str
    """Empty for several tasks together."""
    name: str = ""
    status: str = "open"
    """`open`, or how the task closed: `completed`, `stopped`, `failed`, `cancelled`, `interrupted`."""
    cost: Decimal = ZERO
    """Settled."""
    reserved: Decimal = ZERO
    """Held for calls in flight."""
    presumed: Decimal = ZERO
    """Held for calls of which the end was never seen although the task is closed: counted as spent."""
    overrun: Decimal = ZERO
    """Spent above what had been reserved; part of `cost`."""
    estimated: Decimal = ZERO
    """The part of `cost` that rests on estimated usage."""
    limits: dict[str, Any] = field(default_factory=dict)
    """The options of the budget, grants included; `max_cost` in dollars."""
    usage: Usage = field(default_factory=Usage)
    model_calls: int = 0
    """Admitted attempts of model calls: what `max_model_calls` counts."""
    tool_calls: int = 0
    """Admitted attempts of tool calls."""
    retries: int = 0
    """Attempts beyond the first of the same operation."""
    denied: int = 0
    """Attempts refused before they ran."""
    would_deny: int = 0
    """Attempts that only ran because the governor observes and does not enforce."""
    unpriced_calls: int = 0
    """Model calls without a price: their cost is missing from `cost`."""
    wasted: Decimal = ZERO
    """Cost of attempts whose result was thrown away; part of `cost`."""
    avoided: Decimal = ZERO
    """What answers from a cache would have cost; not part of `cost`."""
    started: float | None = None
    """Seconds since 1970 UTC; None where no event of the task is known."""
    seconds: float = 0.0
    """How long the task took; up to its last event while it is open."""
    by_model: dict[str, Spend] = field(default_factory=dict)
    by_tool: dict[str, Spend] = field(default_factory=dict)
    by_agent: dict[str, Spend] = field(default_factory=dict)
    """Only calls whose agent is known; likewise `by_node`."""
    by_node: dict[str, Spend] = field(default_factory=dict)
    by_layer: dict[str, Spend] = field(default_factory=dict)
    """Only attempts beyond the first of their operation, by what repeated it: `sdk` (the provider's client, where
    it is watched), `middleware`, `with_retry`, `node`, `fallback`, `caller` (tenacity, a loop of your own)."""
    tags: dict[str, str] = field(default_factory=dict)
    outcome: str | None = None
    """What the user recorded; `ok` is the user's verdict."""
    ok: bool | None = None
    stopped_by: StopReport | None = None
    """The first refusal that stopped the task."""
    would_stop: StopReport | None = None
    """The first refusal that was only observed."""
    actions: list[dict[str, Any]] = field(default_factory=list)
    """What was done short of a stop: `action`, `reason`, `call`, `numbers`, `at`."""
    discrepancies: list[dict[str, Any]] = field(default_factory=list)
    """What the meter could not account for: `kind`, `detail`, `call`, `at`."""
    tasks: int = 1
    """How many root tasks the numbers are of."""
    trace_path: str | None = None

    @property
    def attempts(self) -> int:
        """Everything that was admitted: model and tool calls."""
        return self.model_calls + self.tool_calls

    @property
    def multiplication(self) -> float:
        """Attempts for each operation: 1 without retries. 27 for a node, a middleware and a client that each try
        three times."""
        return self.attempts / (self.attempts - self.retries) if self.attempts > self.retries else 1.0

    @property
    def coverage(self) -> float | None:
        """Priced share of the model calls, from 0 to 1; None where there was none."""
        return 1 - self.unpriced_calls / self.model_calls if self.model_calls else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON. Money as decimal strings in dollars; inside `stopped_by` in nano-dollars."""
        known = {item.name: _plain(getattr(self, item.name)) for item in fields(self)}
        return known | {"attempts": self.attempts, "coverage": self.coverage, "multiplication": self.multiplication}

    def __str__(self) -> str:
        from agentbudget.trace.rendering import text  # noqa: PLC0415 - rendering builds on this module

        return text(self)

    def _repr_html_(self) -> str:
        from agentbudget.trace.rendering import notebook  # noqa: PLC0415 - see above

        return notebook(self, self)


MOST_NOTES = 1000
"""Discrepancies that a report of several tasks keeps."""


class Combined:
    """Several root tasks as one, added one by one. `task_id` is empty, there are no limits, and `status` counts the
    tasks where they differ."""

    def __init__(self) -> None:
        self.tasks = 0
        self._states: Counter[str] = Counter()
        self._seconds = 0.0
        self._presumed = ZERO
        self._discrepancies: list[dict[str, Any]] = []

    def add(self, report: TaskReport) -> None:
        """One more root task."""
        self.tasks += 1
        self._states[report.status] += 1
        self._seconds += report.seconds
        self._presumed += report.presumed
        self._discrepancies += report.discrepancies[: MOST_NOTES - len(self._discrepancies)]

    def report(self, total: TaskReport, *, name: str, trace_path: str | None) -> TaskReport:
        """All of them; *total* has the numbers of all their calls, each counted once."""
        states = self._states
        status = (
            ", ".join(f"{count} {state}" for state, count in states.items()) if len(states) > 1 else "".join(states)
        )
        held = total.reserved + total.presumed
        presumed = min(held, self._presumed)
        return replace(
            total,
            task_id="",
            name=name,
            status=status,
            reserved=held - presumed,
            presumed=presumed,
            seconds=self._seconds,
            stopped_by=None,
            would_stop=None,
            discrepancies=list(self._discrepancies),
            tasks=self.tasks,
            trace_path=trace_path,
        )


def combine(reports: Sequence[TaskReport], total: TaskReport, *, name: str, trace_path: str | None) -> TaskReport:
    """*reports* as one; see `Combined`."""
    combined = Combined()
    for report in reports:
        combined.add(report)
    return combined.report(total, name=name, trace_path=trace_path)


def merge(tables: Iterable[Mapping[str, Spend]]) -> dict[str, Spend]:
    """The sum of several tables of spend, name by name."""
    total: dict[str, Spend] = {}
    for table in tables:
        for name, spend in table.items():
            total[name] = total[name] + spend if name in total else spend
    return total


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, Usage | StopReport):
        return value.to_dict()
    if isinstance(value, Spend):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
