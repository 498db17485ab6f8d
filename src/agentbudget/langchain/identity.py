"""Which task: what the first run of a tree says about where it belongs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final
from uuid import UUID

import msgspec
from langchain_core.runnables.config import var_child_runnable_config

from agentbudget.langchain.runs import RUNS, Run

TASK_KEY: Final = "agentbudget_task"
"""Metadata key that names the task of a run; not `task_id`, which LangGraph uses itself."""
TAGS: Final = ("feature", "team", "user", "tenant", "decision", "env")
"""Metadata keys that are taken as tags of a task."""
NO_INPUT: Final = object()
_TREE: ContextVar[UUID | None] = ContextVar("agentbudget_tree", default=None)
"""The last chain or graph that began in this context without a parent known here."""


class Root(msgspec.Struct, frozen=True):
    """The first run a handler sees of a tree."""

    inputs: object
    metadata: Mapping[str, Any]
    bare: bool
    """A model or tool without a chain or graph around it."""
    orphan: bool
    """It has a parent that nobody here has heard of."""
    run_name: str = ""

    @property
    def resumes(self) -> bool:
        """Whether it goes on with its thread: `invoke(None)` or `invoke(Command(...))`."""
        if self.inputs is NO_INPUT:
            return False
        kind = type(self.inputs)
        return self.inputs is None or (kind.__name__ == "Command" and kind.__module__.startswith("langgraph."))

    @property
    def thread(self) -> str:
        """The LangGraph thread, if any."""
        return str(self.metadata.get("thread_id") or "")

    @property
    def task_id(self) -> str:
        """The task named in inherited metadata, if any."""
        return str(self.metadata.get(TASK_KEY) or "")

    @property
    def name(self) -> str:
        """What the host calls it."""
        return str(self.metadata.get("lc_agent_name") or self.run_name or self.metadata.get("ls_model_name") or "")

    @property
    def tags(self) -> dict[str, str]:
        """Tags named in metadata."""
        metadata = self.metadata
        return {key: str(metadata[key]) for key in TAGS if metadata.get(key)}


def parent_of(parent_id: UUID | None) -> Run | None:
    """The run that a run with this parent belongs to, as far as it can be known.

    That is the parent itself, although it may have ended; else the run this code executes in; else, where the host
    names a parent that nobody here has heard of (a muted or late handler), the running tree this context is in.
    """
    if parent_id is None:
        return surrounding_run()
    return RUNS.find(parent_id) or surrounding_run() or RUNS.get(_TREE.get())


def begin_tree(run: Run) -> None:
    """*run* is the first of its tree: whatever is started from its context belongs to it while it runs."""
    _TREE.set(run.id)


def surrounding_run() -> Run | None:
    """The run this code executes in, even where its callbacks were replaced: LangChain keeps it in its context."""
    config = var_child_runnable_config.get()
    if config is None:
        return None
    return RUNS.find(getattr(config.get("callbacks"), "parent_run_id", None))


def status_of(error: BaseException) -> str:
    """How a task ended whose root run raised *error*."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt):
        return "cancelled"
    names = {kind.__name__ for kind in type(error).__mro__}
    if "BudgetExceeded" in names:
        return "stopped"
    return "interrupted" if "GraphInterrupt" in names else "failed"
