"""`task()` and `guard()`: budgets around a block of code and around a graph."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import Runnable
from langchain_core.tracers.context import register_configure_hook

from agentbudget.domain.accounts import check_name
from agentbudget.domain.budget import Budget
from agentbudget.domain.money import Money
from agentbudget.errors import AgentBudgetError, ConfigurationError
from agentbudget.governor.default import default_governor
from agentbudget.governor.governor import Governor
from agentbudget.governor.task import Task
from agentbudget.langchain import ambient, identity
from agentbudget.langchain.callback import BudgetCallback, budget_of, checked_tags, governor_of
from agentbudget.langchain.meter import MeteringHandler
from agentbudget.langchain.nodes import NodeBudgets, checked_nodes
from agentbudget.trace.report import TaskReport

_OWN = ("governor", "task_id", "tags", "feature", "team", "user", "tenant", "decision", "env")
METER = MeteringHandler()
"""The one handler of all ambient tasks: which task pays is read from the context, not from the handler."""
_HOOK: ContextVar[BaseCallbackHandler | None] = ContextVar("agentbudget_handler", default=None)
register_configure_hook(_HOOK, inheritable=True)
_R = TypeVar("_R", bound=Runnable[Any, Any])


class TaskScope:
    """A task around a block: `with task("name", max_cost="$0.50") as t:`, or `async with`. Made by `task`."""

    def __init__(
        self, name: str, budget: Budget, governor: Governor | None, task_id: str, tags: Mapping[str, str]
    ) -> None:
        self.name = name
        self.budget = budget
        self._governor = governor
        self._task_id = task_id
        self._tags = tags
        self._task: Task | None = None
        self._tokens: tuple[Token[tuple[Task, ...]], Token[BaseCallbackHandler | None]] | None = None

    @property
    def id(self) -> str:
        """Id of the task; what `metadata={"agentbudget_task": t.id}` makes a run elsewhere join."""
        return self._opened.id

    @property
    def report(self) -> TaskReport:
        """The report as of now; final after the block."""
        return self._opened.governor.report(self._opened)

    def outcome(self, outcome: str, *, ok: bool | None = None) -> None:
        """Say what the task was worth, e.g. `t.outcome("resolved", ok=True)`."""
        self._opened.governor.record_outcome(self._opened, outcome, ok=ok)

    def top_up(self, amount: Money, *, grant: str = "", approver: str = "") -> None:
        """Add dollars to the cost limit, once per *grant* id, and let a stopped task go on."""
        self._opened.governor.top_up(self._opened, amount, grant=grant, approver=approver)

    def __enter__(self) -> Self:
        if self._tokens is not None:
            msg = f"task {self.name!r} is open already: make a new one with agentbudget.task(...)."
            raise AgentBudgetError(msg)
        around = _surrounding_tasks()
        governor = self._governor or (around[0].governor if around else default_governor())
        parent = next((task for task in around if task.governor is governor), None)
        with governor.lock:
            self._task = self._open(governor, parent)
            self._task.block = True
        self._tokens = (ambient.push(self._task), _HOOK.set(METER))
        return self

    def _open(self, governor: Governor, parent: Task | None) -> Task:
        closed = governor.find_task(self._task_id) if self._task_id else None
        if closed is None or closed.is_open:
            return governor.open_task(self.name, self.budget, task_id=self._task_id, parent=parent, tags=self._tags)
        governor.resume(closed, self.budget)
        return closed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tokens is None:
            return
        pushed, hooked = self._tokens
        self._tokens = None
        ambient.pop(self._opened, pushed)
        try:
            _HOOK.reset(hooked)
        except ValueError:
            _HOOK.set(METER if ambient.TASKS.get() else None)
        self._opened.governor.close_task(self._opened, "completed" if error is None else identity.status_of(error))

    async def __aenter__(self) -> Self:
        if self._governor is None and not _surrounding_tasks():
            self._governor = await asyncio.to_thread(default_governor)  # the first one loads the price data
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    @property
    def _opened(self) -> Task:
        if self._task is None:
            msg = f"task {self.name!r} has not begun: use it in a `with` block."
            raise AgentBudgetError(msg)
        return self._task


def _surrounding_tasks() -> tuple[Task, ...]:
    """The tasks this code runs in, innermost first: blocks begun within the run, then those that pay for the run."""
    run = identity.surrounding_run()
    paying = run.tasks if run is not None else ()
    return (*[task for task in ambient.TASKS.get() if task not in paying], *paying)


def task(  # noqa: PLR0913 - one keyword per tag is the public face
    name: str,
    budget: Budget | None = None,
    *,
    governor: Governor | None = None,
    task_id: str = "",
    feature: str = "",
    team: str = "",
    user: str = "",
    tenant: str = "",
    decision: str = "",
    env: str = "",
    tags: Mapping[str, str] | None = None,
    **limits: Any,
) -> TaskScope:
    """A budget around a block of code: everything LangChain runs inside belongs to it, on any path, without a callback.

    Nested tasks draw on the one around them. Plain threads see nothing of it unless their context is copied
    (`contextvars.copy_context().run`).

    Args:
        name: name of the task in reports.
        budget: the limits; or give them as keywords, not both.
        governor: by default that of the surrounding task, else the one of the process.
        task_id: your own id, which a later block may go on with; by default a new one.
        feature, team, user, tenant, decision, env, tags: whom the spend belongs to; inherited by nested tasks.
        **limits: the options of `Budget`.

    Raises:
        TypeError: an unknown option, or a budget together with limits. ConfigurationError: a value that cannot mean
            anything.
    """
    known = {"feature": feature, "team": team, "user": user, "tenant": tenant, "decision": decision, "env": env}
    labels = checked_tags({**{key: value for key, value in known.items() if value}, **(tags or {})})
    check_name(name, what="task")
    keeper = governor_of(governor, where="task")
    return TaskScope(name, budget_of(budget, limits, where="task", own=_OWN), keeper, task_id, labels)


def guard(
    runnable: _R,
    budget: Budget | None = None,
    *,
    governor: Governor | None = None,
    per: str = "run",
    name: str = "",
    tags: Mapping[str, str] | None = None,
    nodes: Mapping[str, Budget] | None = None,
    **limits: Any,
) -> _R:
    """*runnable* with the gate attached: each invoke is a task with this budget.

    A graph keeps its type and its whole surface; other runnables come back as LangChain's own binding around them.
    The arguments are those of `BudgetCallback`, and:

    Args:
        nodes: budgets of single nodes of a graph, by name. All executions of a node within one task share its budget,
            which draws on the graph's. A node may catch its `BudgetExceeded` and return what it has: the graph goes on.

    Raises:
        ConfigurationError: a node that the graph does not have.
    """
    if not isinstance(runnable, Runnable):
        msg = f"guard got {runnable!r}: give it a graph, an agent, a chain or a model (a function: RunnableLambda)."
        raise ConfigurationError(msg)
    budget = budget_of(budget, limits, where="guard", own=("governor", "per", "name", "tags", "nodes"))
    options: dict[str, Any] = {"governor": governor, "per": per, "name": name, "tags": tags}
    handler = (
        BudgetCallback(budget, **options)
        if nodes is None
        else NodeBudgets(checked_nodes(runnable, nodes), budget, **options)
    )
    return cast("_R", runnable.with_config(callbacks=[handler]))
