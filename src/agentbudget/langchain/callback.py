"""`BudgetCallback`: the meter with a budget of its own for every run it is added to."""

from __future__ import annotations

import contextlib
import uuid
import warnings
import weakref
from collections.abc import Mapping
from typing import Any

from agentbudget.domain.accounts import check_name
from agentbudget.domain.budget import LIMIT_OPTIONS, Budget
from agentbudget.domain.options import refuse_unknown
from agentbudget.errors import BudgetWarning, ConfigurationError, LedgerError
from agentbudget.governor.default import default_governor
from agentbudget.governor.governor import Governor
from agentbudget.governor.reports import Reports
from agentbudget.governor.task import Task
from agentbudget.langchain import ambient
from agentbudget.langchain.identity import Root
from agentbudget.langchain.meter import MeteringHandler
from agentbudget.langchain.runs import RUNS, Run
from agentbudget.trace.report import TaskReport


class BudgetCallback(MeteringHandler):
    """Add it to an agent, graph, chain or bare model: it meters, and refuses the call that would break the budget.

    Args:
        budget: the limits of a task; or give them as keywords (`max_cost="$0.50"`), not both.
        governor: where things are kept and shared; by default one in memory per process.
        per: what one task is: `"run"` (default: each top-level invoke), `"thread"` (all runs of a LangGraph thread) or
            `"callback"` (everything this handler ever hears).
        name: name of the tasks in reports; by default that of the run.
        tags: feature, team, user … of the tasks.
        **limits: the options of `Budget`.

    Raises:
        TypeError: an unknown option, or a budget together with limits. ConfigurationError: a limit that cannot mean
            anything.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        *,
        governor: Governor | None = None,
        per: str = "run",
        name: str = "",
        tags: Mapping[str, str] | None = None,
        **limits: Any,
    ) -> None:
        self.budget = budget_of(budget, limits, where="BudgetCallback", own=("governor", "per", "name", "tags"))
        if per not in {"run", "thread", "callback"}:
            msg = f"per={per!r}: one of 'run', 'thread', 'callback'."
            raise ConfigurationError(msg)
        self.governor = governor_of(governor, where="BudgetCallback") or default_governor()
        self.per = per
        self.name = name
        self.tags = checked_tags(tags or {})
        self.reports = Reports()
        """Reports of the last closed tasks, oldest first."""
        self._shared: Task | None = None
        self._bare_roots = 0
        self._key = uuid.uuid4().hex
        _HANDLERS[self._key] = self

    @property
    def report(self) -> TaskReport | None:
        """The report of the last closed task."""
        return self.reports[-1] if self.reports else None

    def open_root(self, run: Run, root: Root) -> None:
        """Open, join or resume the task that *run* belongs to."""
        if (named := root.task_id) and (block := ambient.named(named)) is not None:
            run.add(block)
            return
        try:
            with self.governor.lock:  # of roots that begin at once, one finds or opens the task and the others join
                task = self._task_for(run, root)
                self.governor.enter(task)
        except BaseException:
            RUNS.leave(run.id)  # the host tells no end of a run that could not begin
            self._close(run, "failed")
            raise
        if run.tasks or task.parent is not None:
            # A task that is resumed no longer draws on a block that is over.
            run.pay([payer for payer in task.chain if payer is task or payer.is_open or not payer.block])
        else:
            run.tasks = (task,)
        run.opened += ((task, self.reports),)

    def _task_for(self, run: Run, root: Root) -> Task:
        governor, named = self.governor, root.task_id
        if named and (found := governor.find_task(named)) is not None:
            return self._again(found, root)
        if self.per == "thread" and (root.thread or not root.orphan):
            return self._of_thread(run, root)
        if self.per == "callback" or (root.orphan and root.bare):
            return self._one_for_all(root)
        if root.resumes and run.parent is None and (found := self._latest_of_thread(run, root.thread)) is not None:
            return self._again(found, root)
        if root.bare and not run.tasks:
            self._bare_roots += 1
            if self._bare_roots == 2:  # noqa: PLR2004 - the second is the first surprise
                warnings.warn(_BARE_ROOTS, BudgetWarning, stacklevel=2)
        parent = next((task for task in run.tasks if task.governor is governor), None)
        return self._open(root, named or self._new_id(run), parent=parent)

    def _new_id(self, run: Run) -> str:
        """The id of the run for the task of the first handler on it; empty, which makes a new one, for others."""
        own = run.hex
        for task in run.tasks:
            if task.id == own:
                return ""
        return "" if self.governor.find_task(own) is not None else own

    def _open(
        self, root: Root, task_id: str, *, parent: Task | None = None, scope: tuple[str, str] | None = None
    ) -> Task:
        return self.governor.open_task(
            self.name or root.name or "task",
            self.budget,
            task_id=task_id,
            parent=parent,
            tags={**root.tags, **self.tags} if self.tags else root.tags,
            thread=root.thread,
            scope=scope,
        )

    def _again(self, task: Task, root: Root) -> Task:
        """Go on with *task*. A stop is lifted by whoever resumes the thread, not by whatever calls next."""
        if not task.roots:
            self.governor.resume(task, self.budget, lift=root.resumes)
        return task

    def _latest_of_thread(self, run: Run, thread: str) -> Task | None:
        """The task to go on with; of several handlers on one run, each goes on with its own."""
        latest = self.governor.task_of_thread(thread)
        outermost_first = reversed(latest.chain) if latest is not None else ()
        mine = (task for task in outermost_first if task.thread == thread and not task.block and task not in run.tasks)
        return next(mine, None)

    def _one_for_all(self, root: Root) -> Task:
        if self._shared is not None:
            return self._again(self._shared, root)
        self._shared = self._open(root, f"callback-{self._key}", scope=("callback", self._key))
        weakref.finalize(self, _discard, self._shared).atexit = False
        return self._shared

    def _of_thread(self, run: Run, root: Root) -> Task:
        if not root.thread:
            msg = (
                "BudgetCallback(per='thread') needs a thread: pass config={'configurable': {'thread_id': ...}} to a "
                "graph, or config={'metadata': {'thread_id': ...}} to anything else."
            )
            raise ConfigurationError(msg)
        others = sum(task.scope[0] == "thread" and task.governor is self.governor for task in run.tasks)
        scope = ("thread", f"{root.thread}#{others + 1}" if others else root.thread)
        found = self.governor.find_task("-".join(scope))
        return self._again(found, root) if found is not None else self._open(root, "-".join(scope), scope=scope)

    def __copy__(self) -> BudgetCallback:
        return self

    def __deepcopy__(self, memo: object) -> BudgetCallback:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (self._key, self.budget.to_dict(), self.per, self.name, self.tags))


def checked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """*tags* if each can name a scope; a ConfigurationError otherwise."""
    return {check_name(key, what="tag"): check_name(value, what=f"tag {key!r}") for key, value in tags.items()}


def governor_of(given: object, *, where: str) -> Governor | None:
    """The governor *given* to an entry; None for none.

    Raises:
        ConfigurationError: it is something else, such as the URL of a ledger.
    """
    if given is None or isinstance(given, Governor):
        return given
    msg = f"{where}: governor={given!r} is no Governor; for a ledger write governor=Governor(ledger={given!r})."
    raise ConfigurationError(msg)


def budget_of(budget: object, limits: Mapping[str, Any], *, where: str, own: tuple[str, ...]) -> Budget:
    """The budget given as one value or as keywords.

    Raises:
        TypeError: both were given, an unknown keyword, or a value that is no `Budget`.
    """
    refuse_unknown(limits, (*LIMIT_OPTIONS, *own), where=where)
    if budget is None:
        return Budget(**limits)
    if limits:
        msg = f"{where} got a budget and {', '.join(limits)} as well: give one Budget, or its limits as keywords."
        raise TypeError(msg)
    if not isinstance(budget, Budget):
        msg = f"{where}: {budget!r} is not a Budget; for a cost limit write max_cost={budget!r}."
        raise TypeError(msg)
    return budget


_BARE_ROOTS = (
    "a second bare call under one BudgetCallback opened a budget of its own: LangChain shows no link between them. Put "
    "`with agentbudget.task('name', max_cost=...):` around calls that belong together, or use "
    "BudgetCallback(per='callback')."
)
_HANDLERS: weakref.WeakValueDictionary[str, BudgetCallback] = weakref.WeakValueDictionary()
"""Live handlers by key, so that a pickled one comes back as itself within its process."""


def _discard(task: Task) -> None:
    """The handler is gone, so nobody can go on with the task of all its runs."""
    with contextlib.suppress(LedgerError):
        task.governor.ledger.collect(task.accounts())


def _restore(key: str, budget: dict[str, Any], per: str, name: str, tags: dict[str, str]) -> BudgetCallback:
    handler = _HANDLERS.get(key)
    if handler is None:
        handler = BudgetCallback(Budget.from_dict(budget), per=per, name=name, tags=tags)
        handler._key = key  # noqa: SLF001 - every copy in this process is one handler
        _HANDLERS[key] = handler
    return handler
