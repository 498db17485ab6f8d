"""What may be done to fit a call into the budget, and on which rung of the ladder each task stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from weakref import WeakKeyDictionary, WeakSet

from langchain_core.language_models import BaseChatModel

from agentbudget.errors import ConfigurationError
from agentbudget.governor.governor import Governor
from agentbudget.governor.task import Task
from agentbudget.langchain.compact import Compact


@dataclass(slots=True)
class Progress:
    """Where a task stands: its rung (0: the model asked for), the calls planned so far, the route recorded."""

    rung: int = 0
    calls: int = 0
    routed: bool = False
    model: BaseChatModel | None = None
    """The model that a person decided to go on with."""

    def change_to(self, model: BaseChatModel) -> None:
        """Go on with *model*, which has no ladder below it."""
        self.model, self.rung = model, 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Acting:
    """What may be done to fit a call into the budget. Make it with `Acting.of`, which resolves names of models.

    It also remembers the rung of each task that uses it: a task goes down the ladder, never up.
    """

    shrink: bool = True
    """Cap the output at what the budget affords."""
    min_output_tokens: int = 256
    """An output cap below this is no answer: the next rung is taken, or the task ends."""
    wait_seconds: float = 30.0
    """Longest wait for calls in flight to settle, where only their reservations are in the way; 0 never waits."""
    downgrade: tuple[BaseChatModel, ...] = ()
    """Cheaper models, in the order in which they are tried."""
    model_for: Mapping[str, BaseChatModel] = field(default_factory=dict)
    """The model to begin with, by the value of a tag (feature first): `{"triage": nano}`."""
    compact: Compact | None = None
    """Makes contexts smaller where that is projected to pay; None never does."""
    progress: WeakKeyDictionary[Task, Progress] = field(default_factory=WeakKeyDictionary, repr=False)
    checked: WeakSet[Governor] = field(default_factory=WeakSet, repr=False)
    """Governors whose prices the ladder was checked against."""

    @classmethod
    def of(
        cls,
        *,
        shrink: bool = True,
        min_output_tokens: int = 256,
        wait: float = 30.0,
        downgrade: str | BaseChatModel | Sequence[str | BaseChatModel] = (),
        model_for: Mapping[str, str | BaseChatModel] | None = None,
        compact: object = None,
    ) -> Self:
        """The options; models given as `"provider:name"` are made by LangChain's `init_chat_model`.

        Raises:
            ConfigurationError: a number that cannot mean anything, a model that cannot be made, or a *compact* that
                is none (`Compact.of`).
        """
        if isinstance(min_output_tokens, bool) or not isinstance(min_output_tokens, int) or min_output_tokens < 1:
            msg = f"min_output_tokens={min_output_tokens!r}: an int of at least 1."
            raise ConfigurationError(msg)
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < math.inf:
            msg = f"wait={wait!r}: a finite number of seconds; 0 never waits."
            raise ConfigurationError(msg)
        if isinstance(downgrade, str | BaseChatModel):
            downgrade = (downgrade,)
        if model_for is not None and not isinstance(model_for, Mapping):
            msg = f"model_for={model_for!r}: a mapping of tag to model, e.g. {{'triage': 'openai:gpt-5-nano'}}."
            raise ConfigurationError(msg)
        return cls(
            compact=Compact.of(compact),
            shrink=shrink,
            min_output_tokens=min_output_tokens,
            wait_seconds=float(wait),
            downgrade=tuple(model_named(each, "downgrade") for each in downgrade),
            model_for={tag: model_named(each, f"model_for[{tag!r}]") for tag, each in (model_for or {}).items()},
        )

    def of_task(self, task: Task) -> Progress:
        """Where *task* stands."""
        found = self.progress.get(task)
        return found if found is not None else self.progress.setdefault(task, Progress())

    def route(self, tasks: Sequence[Task]) -> tuple[str, BaseChatModel] | None:
        """The tag value and the model to begin with, where one of *tasks* has a tag that names one."""
        if self.model_for:
            for task in tasks:
                for value in (task.tags.get("feature", ""), *task.tags.values()):
                    if value in self.model_for:
                        return value, self.model_for[value]
        return None


def model_named(given: object, where: str) -> BaseChatModel:
    """The model *given* as one, or by name; *where* it was given.

    Raises:
        ConfigurationError: it is none, or LangChain cannot make it.
    """
    if isinstance(given, BaseChatModel):
        return given
    if not isinstance(given, str):
        msg = f"{where}: {given!r} is neither a chat model nor a name like 'openai:gpt-5-mini'."
        raise ConfigurationError(msg)
    from langchain.chat_models import init_chat_model  # noqa: PLC0415 - slow to import, and only names need it

    try:
        made: Any = init_chat_model(given)
    except Exception as error:
        msg = f"{where}: LangChain cannot make the model {given!r}: {error}"
        raise ConfigurationError(msg) from error
    return model_named(made, where)
