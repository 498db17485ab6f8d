"""What a replay changes: budgets, shared limits, prices, models. Nothing given means: as recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from agentbudget.domain.budget import Budget, Limit
from agentbudget.errors import ConfigurationError

_MODES = ("enforce", "observe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules a recorded trajectory is run through.

    Args:
        budget: replaces the budget of every root task; a mapping replaces it by task name. Tasks within keep theirs.
        limits: replace the shared limits of the recording.
        model: models to exchange, `{"gpt-5": "gpt-5-mini"}`; the new name may say its provider, `"openai:gpt-5-mini"`.
        downgrade: cheaper models for calls that do not fit, in the order in which they are tried, as for the
            middleware: the same rules decide, over the recorded token bounds.
        prices: overrides in front of the price data, as for `Governor`; with it every call is priced anew.
        on: the day whose prices hold; with it every call is priced anew. By default each call's own day.
        mode: `"enforce"` or `"observe"`. By default as recorded, and `"enforce"` where budget or limits are replaced.

    Raises:
        ConfigurationError: a value that cannot mean anything.
    """

    budget: Budget | Mapping[str, Budget] | None = None
    limits: tuple[Limit, ...] | None = None
    model: Mapping[str, str] = field(default_factory=dict)
    downgrade: tuple[str, ...] = ()
    prices: Mapping[str, Any] | str | Path | None = None
    on: date | None = None
    mode: str | None = None

    def __post_init__(self) -> None:
        budgets = self.budget.values() if isinstance(self.budget, Mapping) else [self.budget]
        if not all(budget is None or isinstance(budget, Budget) for budget in budgets):
            raise ConfigurationError(f"budget={self.budget!r}: a Budget, or a mapping of task names to Budgets.")
        if not isinstance(self.model, Mapping) or not all(
            isinstance(name, str) and isinstance(other, str) and name and other for name, other in self.model.items()
        ):
            raise ConfigurationError(f"model={self.model!r}: names to names, such as {{'gpt-5': 'gpt-5-mini'}}.")
        if not all(isinstance(name, str) and name for name in self.downgrade):
            raise ConfigurationError(f"downgrade={self.downgrade!r}: names of models, such as ['openai:gpt-5-mini'].")
        if self.on is not None and (not isinstance(self.on, date) or isinstance(self.on, datetime)):
            raise ConfigurationError(f"on={self.on!r}: a date.")
        if self.mode is not None and self.mode not in _MODES:
            raise ConfigurationError(f"mode={self.mode!r}: one of {', '.join(map(repr, _MODES))}.")
        if not all(isinstance(limit, Limit) for limit in self.limits or ()):
            raise ConfigurationError(f"limits={self.limits!r}: Limits, e.g. Limit('cost', '$200', scope='team').")

    @classmethod
    def of(
        cls,
        *,
        limits: Iterable[Limit] | None,
        model: Mapping[str, str] | None,
        downgrade: str | Iterable[str] = (),
        **rest: Any,
    ) -> Policy:
        """The policy of the options of `Trace.replay`."""
        return cls(
            limits=None if limits is None else tuple(limits),
            model={} if model is None else model,
            downgrade=(downgrade,) if isinstance(downgrade, str) else tuple(downgrade),
            **rest,
        )

    @property
    def reprices(self) -> bool:
        """Whether every call is priced anew."""
        return self.prices is not None or self.on is not None

    @property
    def changes_limits(self) -> bool:
        """Whether any limit is replaced."""
        return self.budget is not None or self.limits is not None

    def budget_of(self, name: str) -> Budget | None:
        """The new budget of a root task called *name*; None: the recorded one."""
        return self.budget.get(name) if isinstance(self.budget, Mapping) else self.budget
