"""Which task an agent run works for: found in the run tree, opened once, gone on with after a pause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.config import get_config
from langgraph.types import interrupt

from agentbudget.domain.budget import Budget
from agentbudget.errors import AgentBudgetError, ConfigurationError
from agentbudget.governor.default import default_governor
from agentbudget.governor.governor import Governor
from agentbudget.governor.reports import Reports
from agentbudget.governor.task import Task
from agentbudget.langchain import ambient, identity
from agentbudget.langchain.runs import Run
from agentbudget.ledgers.memory import MemoryLedger

_PAD = "__pregel_scratchpad"
"""Where LangGraph keeps the answers of a paused node. Not public: without it, a pause is a plain interrupt."""


class Place(msgspec.Struct, frozen=True):
    """Where code of a middleware runs."""

    graph: Run
    """The run of the agent."""
    within: tuple[Run, ...]
    """The runs from here up to the agent's node, innermost first."""

    @classmethod
    def here(cls) -> Place:
        """The place of the calling code.

        Raises:
            AgentBudgetError: it runs in no node of an agent.
        """
        within: list[Run] = []
        run = identity.surrounding_run()
        while run is not None:
            within.append(run)
            if run.node and run.parent is not None:
                return cls(run.parent, tuple(within))
            run = run.parent
        raise AgentBudgetError("BudgetMiddleware works within an agent made by create_agent, and was called outside.")


def metadata() -> Mapping[str, Any]:
    """The metadata of the surrounding run."""
    config = var_child_runnable_config.get()
    return (config or {}).get("metadata") or {}


def configurable() -> Mapping[str, Any]:
    """The configurable part of the surrounding run's config."""
    config = var_child_runnable_config.get()
    return (config or {}).get("configurable") or {}


def pause(question: Any) -> Any:
    """`interrupt(question)`, but for one thing: where nobody answered, an old answer is not taken for a new one.

    LangGraph hands the last `Command(resume=...)` out again to the next question of a node that is run anew by
    `invoke(None)`. For a grant that would be money which nobody gave.
    """
    run = identity.surrounding_run()
    config = get_config().get("configurable", {})
    pad = config.get(_PAD)
    if run is None or not run.root.blank or pad is None:
        return interrupt(question)
    config[_PAD] = replace(pad, get_null_resume=lambda *_: None)
    try:
        return interrupt(question)
    finally:
        config[_PAD] = pad


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opener:
    """Opens the tasks of one middleware, and finds them again."""

    budget: Budget
    governor: Governor | None
    reports: Reports
    name: str
    tags: Mapping[str, str]
    reserve: int | None
    """Nano-dollars kept for a last answer; None for the default share."""
    lands: bool
    """Whether somebody lands what is stopped; then a refused tool call is not the end of the task."""
    answers: bool
    """Whether a last answer may be asked for; then a part of the limits is kept for it."""
    patient: bool
    """Whether a person may be asked; then a stop outlives the pause."""

    def task(self, place: Place, known: str) -> Task:
        """The task of this middleware in the run of *place*; the one with the id *known* goes on, if there is one."""
        task = self._opened(place) or self._open_once(place, known)
        for run in place.within:
            if task not in run.tasks:
                run.add(task)
        return task

    def _opened(self, place: Place) -> Task | None:
        for task, reports in place.graph.opened:
            if reports is self.reports:
                return task
        return None

    def _open_once(self, place: Place, known: str) -> Task:
        meta = metadata()
        block = ambient.named(str(meta.get(identity.TASK_KEY) or ""))
        if block is not None and block not in place.graph.tasks:
            place.graph.add(block)
        around = place.graph.tasks
        governor = self.governor or (around[0].governor if around else default_governor())
        with governor.lock:  # tools of one turn begin at once: one opens the task, the others find it
            task = self._opened(place)
            if task is None:
                task = self._again(governor, known) if known else None
                task = task or self._open(governor, around, known, meta)
                governor.enter(task)
                place.graph.add(task)
                place.graph.opened += ((task, self.reports),)
        return task

    def _open(self, governor: Governor, around: tuple[Task, ...], known: str, meta: Mapping[str, Any]) -> Task:
        tags = {key: str(meta[key]) for key in identity.TAGS if meta.get(key)}
        task = governor.open_task(
            self.name or str(meta.get("lc_agent_name") or "agent"),
            self.budget,
            task_id=known,
            parent=next((each for each in around if each.governor is governor), None),
            tags={**tags, **self.tags},
        )
        task.thread = task.thread or str(meta.get("thread_id") or "")
        task.lenient = self.lands
        if self.answers:
            governor.keep_back(task, self.reserve)
        return task

    def _again(self, governor: Governor, known: str) -> Task | None:
        """The task that the agent worked for before it paused; None where only the ledger remembers it."""
        task = governor.find_task(known)
        if task is not None:
            if not task.roots:
                governor.resume(task, self.budget, lift=not (self.patient and task.status == "interrupted"))
            return task
        if isinstance(governor.ledger, MemoryLedger):
            raise ConfigurationError(
                f"this thread goes on with task {known!r}, but what it spent was kept in memory only, by a process "
                "that is gone, or so long ago that it was forgotten. Give BudgetMiddleware a governor with a ledger "
                "that lasts, e.g. governor=Governor(ledger='sqlite:///spend.db'), or begin a new thread."
            )
        return None
