"""Summaries in place of older messages, written by LangChain's own summariser when the budget says that it pays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from langchain.agents.middleware.types import ModelRequest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langgraph.errors import GraphBubbleUp

from agentbudget.governor.task import Task
from agentbudget.langchain import acting, landing, shortening
from agentbudget.langchain.options import Acting
from agentbudget.langchain.shortening import Due

_FAILED: Final = "\n\nError generating summary: "
"""What older versions of LangChain make of an error of the summariser: a summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A summary that should be written before a call is made."""

    request: ModelRequest[Any]
    tasks: tuple[Task, ...]
    summariser: Any
    due: Due

    @property
    def _state(self) -> Any:
        return {**self.request.state, "messages": list(self.due.shorter.view(self.request.messages))}

    def write(self) -> None:
        """Have it written; from now on it is sent in place of what it stands for."""
        with self._spoken_for():
            self._take(self.summariser.before_model(self._state, self.request.runtime))

    async def awrite(self) -> None:
        """As `write`."""
        with self._spoken_for():
            self._take(await self.summariser.abefore_model(self._state, self.request.runtime))

    @contextmanager
    def _spoken_for(self) -> Iterator[None]:
        """A summary that fails is no reason to fail: the call is made with the context as it is."""
        try:
            yield
        except GraphBubbleUp:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the summariser's provider says
            self._missed(f"its summary failed: {error!r}")

    def _take(self, update: Any) -> None:
        after = (update or {}).get("messages", ())
        if any(_FAILED in each.text for each in after if isinstance(each, HumanMessage) and not each.id):
            self._missed("its summary failed")
        elif self.due.shorter.summarised(self.due.shorter.view(self.request.messages), after):
            taken = self.due.action
            self.tasks[0].governor.acted(self.tasks, taken.name, taken.reason, call="", **taken.numbers)
        elif after:
            self._missed("its summary is longer than what it stands for")

    def _missed(self, why: str) -> None:
        self.due.shorter.misses += 1
        self.tasks[0].governor.discrepancy(self.tasks, "compact", f"the context was not made smaller: {why}")


Planned = tuple[BaseChatModel, list[BaseMessage], dict[str, Any]]
"""The model, the messages and the parameters that the agent would call it with."""


def due(request: ModelRequest[Any], planned: Planned, options: Acting) -> Summary | None:
    """The summary to be written before the call of *request*, if it pays."""
    if options.compact is None or options.compact.summariser is None:
        return None
    tasks = acting.current_tasks()
    found = shortening.summary_due(*planned, tasks, options)
    if found is None:
        return None
    return Summary(request=request, tasks=tasks, summariser=options.compact.summariser, due=found)


def kept(answer: Any, request: ModelRequest[Any], options: Acting) -> Any:
    """*answer*, with what makes the summaries of the task part of the graph's state: they are paid once."""
    tasks = acting.current_tasks()
    if options.compact is None or options.compact.summariser is None or not tasks:
        return answer
    told = options.compact.of_task(tasks[0]).rewriting(request.state["messages"])
    if not told:
        return answer
    return landing.with_update(answer, {"messages": told})
