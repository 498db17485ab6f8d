"""Who pays for one call of a governed model, found out before the call is planned."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from langchain_core.callbacks import BaseCallbackManager, Callbacks
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.utils.uuid import uuid7

from agentbudget.governor.hold import Refusal
from agentbudget.governor.task import Task
from agentbudget.langchain import identity, nudges
from agentbudget.langchain.acting import Prepared, current_tasks
from agentbudget.langchain.meter import MeteringHandler
from agentbudget.langchain.runs import RUNS, Run


class Planning:
    """Who pays for one call that is about to be planned."""

    def __init__(self, config: RunnableConfig, params: Mapping[str, Any], model: BaseChatModel) -> None:
        self.config = config
        self.params = params
        callbacks = config.get("callbacks")
        around = RUNS.find(getattr(callbacks, "parent_run_id", None)) or identity.surrounding_run()
        seen = around.seen if around is not None else ()
        self._handlers = [handler for handler in _meters(callbacks, model.callbacks) if handler not in seen]
        self._run: Run | None = None
        self._around = around
        self.telling = ExitStack()
        """Open while the call is made: what it was told of counts as told when it succeeds."""
        self.tasks: tuple[Task, ...] = current_tasks(around)
        if self._handlers:  # they open or join a task for this call: it must be known before, so the run begins here
            run_id = config.get("run_id") or uuid7()
            self.config = {**config, "run_id": run_id}
            for handler in self._handlers:
                self._run = handler.announce(run_id, getattr(callbacks, "parent_run_id", None), config.get("metadata"))
                self.tasks = self._run.tasks

    def answer(self, found: Prepared | Refusal) -> Prepared:
        """The call that fits.

        Raises:
            BudgetExceeded: it does not fit; its task is latched.
        """
        if isinstance(found, Prepared):
            return found
        from agentbudget.langchain.errors import BudgetExceeded  # noqa: PLC0415 - importing LangGraph is slow

        found.hold.tasks[0].governor.refuse(found)
        stopped = next((task for task in self.tasks if task.id == found.stop.task_id), found.latch)
        raise BudgetExceeded(found.stop, stopped)

    def told(self, messages: list[BaseMessage]) -> list[BaseMessage]:
        """*messages* with what the model should be told about a loop."""
        texts = self.telling.enter_context(nudges.delivering(self.tasks, self._around))
        return nudges.appended(messages, texts) if texts else messages

    def withdraw(self, status: str) -> None:
        """The call was not made, or failed: if no handler heard of it, its run ends here."""
        if self._run is not None:
            self._handlers[0].withdraw(self._run, status)


def _meters(*callbacks: Callbacks) -> list[MeteringHandler]:
    """The metering handlers among *callbacks*, each once."""
    found: list[MeteringHandler] = []
    for given in callbacks:
        handlers = given.handlers if isinstance(given, BaseCallbackManager) else given or ()
        found += [each for each in handlers if isinstance(each, MeteringHandler) and each not in found]
    return found
