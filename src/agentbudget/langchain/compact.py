"""How contexts are made smaller, and what was done so far: LangChain's own context edits and summaries, remembered.

A context that was made smaller stays so: each later request of the task is changed in the same way, so the provider's
prompt cache is lost once, and nothing is decided or paid twice.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, RemoveMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately

from agentbudget.errors import ConfigurationError
from agentbudget.governor.task import Task

KEPT_MESSAGES: Final = 6
"""Messages that a summary leaves as they are, where the user named only the model that writes it."""
_Key = tuple[str, str]
Compacting = Any
"""What `compact=` takes: True, a context edit, a `ContextEditingMiddleware`, a `SummarizationMiddleware`, or the model
(or its name) that writes a summary. None or False: nothing."""


class Shorter:
    """What was made smaller in the context of one task."""

    __slots__ = ("_anchor", "_changed", "looked", "misses")

    def __init__(self) -> None:
        self._changed: dict[_Key, BaseMessage | None] = {}
        """What stands for a message now; None: nothing."""
        self._anchor: _Key | None = None
        """The last answer before the context was made smaller: its usage no longer says how long a request is."""
        self.looked = 0
        """Calls of the task that were planned when it was last looked at, whatever came of it."""
        self.misses = 0
        """Summaries that were asked for and made nothing smaller."""

    def __bool__(self) -> bool:
        return bool(self._changed)

    def view(self, messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
        """*messages* as they are sent; the same object where nothing was changed."""
        if not self._changed:
            return messages
        keys = _keys(messages)
        seen = [self._changed.get(key, each) if key else each for key, each in zip(keys, messages, strict=True)]
        found = [each for each in seen if each is not None]
        if self._anchor is not None and self._anchor == _anchor(found):
            return [_without_usage(each) for each in found]
        return found

    def edited(self, before: Sequence[BaseMessage], after: Sequence[BaseMessage]) -> None:
        """*before* is sent as *after* from now on."""
        kept = {key: each for key, each in zip(_keys(after), after, strict=True) if key}
        told = Counter(map(_key, before))
        for key, each in zip(_keys(before), before, strict=True):
            if key and told[key] == 1 and (key not in kept or kept[key] != each):
                self._changed[key] = kept.get(key)
        self._anchor = _anchor(before) or self._anchor

    def summarised(self, before: Sequence[BaseMessage], after: Sequence[BaseMessage]) -> bool:
        """As `edited`, where new messages stand for older ones, whose places they take; whether that could be done, and
        makes the context smaller."""
        known = {each.id for each in before}
        new = [each for each in after if each.id not in known and not isinstance(each, RemoveMessage)]
        kept = {each.id for each in after}
        gone = [each for each in before if each.id not in kept]
        if not new or len(new) > len(gone) or count_tokens_approximately(new) >= count_tokens_approximately(gone):
            return False
        for place, each in enumerate(gone):
            key = _key(each)
            if key:
                self._changed[key] = new[place].model_copy(update={"id": each.id}) if place < len(new) else None
        self._anchor = _anchor(before) or self._anchor
        return True

    def rewriting(self, messages: Sequence[BaseMessage]) -> list[AnyMessage | RemoveMessage]:
        """What a graph must be told for its *messages* to become what is sent in their place."""
        told: list[Any] = []
        for each in messages:
            key = _key(each)
            if key in self._changed and each.id is not None:
                now = self._changed[key]
                told += [RemoveMessage(id=each.id)] if now is None else [now] if now != each else []
        return told


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compact:
    """What makes contexts smaller: an edit, or a summary. Made by `of`."""

    edits: tuple[Any, ...] = ()
    """`ContextEdit`s: they change a copy of the messages, as LangChain's `ContextEditingMiddleware` has them do."""
    summariser: Any = None
    """A `SummarizationMiddleware`."""
    tasks: WeakKeyDictionary[Task, Shorter] = field(default_factory=WeakKeyDictionary, repr=False)

    @classmethod
    def of(cls, given: Compacting) -> Self | None:
        """What *given* means; None for nothing.

        Raises:
            ConfigurationError: it means nothing that is known here.
        """
        if given is None or given is False:
            return None
        from langchain.agents.middleware import (  # noqa: PLC0415 - slow to import, and only this option needs it
            ClearToolUsesEdit,
            ContextEditingMiddleware,
            SummarizationMiddleware,
        )

        if given is True:
            given = ClearToolUsesEdit()
        if isinstance(given, ContextEditingMiddleware):
            return cls(edits=tuple(_at_once(edit) for edit in given.edits))
        if isinstance(given, SummarizationMiddleware):
            if not given.trigger:
                raise ConfigurationError(
                    "compact=SummarizationMiddleware(...) without a trigger never summarises: say from when on a "
                    "summary makes sense at all, e.g. trigger=('messages', 10); the budget says when it pays."
                )
            return cls(summariser=given)
        if isinstance(given, str | BaseChatModel):
            quiet = _quiet(given)
            return cls(
                summariser=SummarizationMiddleware(
                    quiet,
                    trigger=("messages", KEPT_MESSAGES + 2),
                    keep=("messages", KEPT_MESSAGES),
                    trim_tokens_to_summarize=None,  # with LangChain's default most of a long context is never read
                )
            )
        if callable(getattr(given, "apply", None)) and not isinstance(given, type):
            return cls(edits=(_at_once(given),))
        msg = (
            f"compact={given!r}: True (old tool outputs are cleared), a ContextEdit such as ClearToolUsesEdit(keep=3), "
            "a ContextEditingMiddleware, a SummarizationMiddleware, or the model that writes a summary."
        )
        raise ConfigurationError(msg)

    def of_task(self, task: Task) -> Shorter:
        """What was done for *task*."""
        found = self.tasks.get(task)
        return found if found is not None else self.tasks.setdefault(task, Shorter())

    def edit(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """*messages* after all edits; the given ones are not touched."""
        edited: list[Any] = copy.deepcopy(list(messages))
        for edit in self.edits:
            edit.apply(edited, count_tokens=count_tokens_approximately)
        return edited


def _at_once(edit: Any) -> Any:
    """*edit* without the token threshold that LangChain triggers it at: the budget says when."""
    if hasattr(edit, "trigger"):
        edit = copy.copy(edit)
        edit.trigger = 0
    return edit


def _quiet(given: str | BaseChatModel) -> BaseChatModel:
    """The model that writes summaries, whose tokens are no part of what the agent streams."""
    from agentbudget.langchain.options import model_named  # noqa: PLC0415 - which imports this module

    model = model_named(given, "compact")
    return model.model_copy(update={"tags": [*(model.tags or []), "nostream"]})


def _key(message: BaseMessage) -> _Key | None:
    """What tells *message* again in a later request; None where nothing does. Some providers give the calls of every
    turn the same ids, so a message's own id comes first."""
    if message.id:
        return ("id", message.id)
    return ("tool", message.tool_call_id) if isinstance(message, ToolMessage) and message.tool_call_id else None


def _keys(messages: Sequence[BaseMessage]) -> list[_Key | None]:
    """The key of each of *messages*; of several with the same one, only the first is meant: what is new comes later."""
    seen: set[_Key | None] = set()
    keys: list[_Key | None] = []
    for message in messages:
        key = _key(message)
        keys.append(None if key in seen else key)
        seen.add(key)
    return keys


def _anchor(messages: Sequence[BaseMessage]) -> _Key | None:
    """The last answer whose usage was reported."""
    for message in reversed(messages):
        if isinstance(message, AIMessage) and message.usage_metadata is not None:
            return _key(message)
    return None


def _without_usage(message: BaseMessage) -> BaseMessage:
    if isinstance(message, AIMessage) and message.usage_metadata is not None:
        return message.model_copy(update={"usage_metadata": None})
    return message
