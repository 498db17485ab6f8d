"""The gate: the way of a run from its start to its end, the same for every kind of call. Who pays, whether it may
begin, and what ends with it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Never
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from agentbudget.domain.verdict import StopReport
from agentbudget.governor.hold import Hold
from agentbudget.governor.values import Call, Kind, Result
from agentbudget.langchain import ambient, identity, nesting, transport
from agentbudget.langchain.handover import OFFERED
from agentbudget.langchain.layers import layered
from agentbudget.langchain.runs import RUNS, Attempt, Run, cancelled, reserve

_MODEL = Kind.MODEL


class Gate(BaseCallbackHandler):
    """Admits, watches and settles the attempts of the runs that a handler hears of.

    A sync handler that runs inline and raises: the only kind that stops a call on every path of LangChain.
    """

    raise_error = True
    run_inline = True
    # Not the host's properties, which are true of a class: `callbacks=[BudgetCallback]` would be skipped in silence.
    ignore_llm = ignore_chain = ignore_agent = ignore_retriever = ignore_chat_model = ignore_retry = False
    ignore_custom_event = False

    def open_root(self, run: Run, root: identity.Root) -> None:
        """*run* is the first run this handler sees of its tree: open or join a task for it. Nothing by default."""

    def _enter(
        self,
        run_id: UUID,
        parent_id: UUID | None,
        metadata: dict[str, Any] | None,
        *,
        inputs: object = identity.NO_INPUT,
        bare: bool = False,
        name: str = "",
    ) -> Run:
        """The run, with its place in the tree and the tasks that pay for it."""
        parent = RUNS.find(parent_id) if parent_id is not None else None
        if parent is None:
            parent = identity.parent_of(parent_id)
        run = RUNS.enter(run_id, parent)
        for task in reversed(ambient.TASKS.get()):
            if task not in run.tasks:
                run.add(task)
        if parent is None and not bare:
            identity.begin_tree(run)
        if self not in run.seen:
            run.seen = (*run.seen, self)
            orphan = parent is None and parent_id is not None
            self.open_root(run, identity.Root(inputs, metadata or {}, bare, orphan, name))
        if bare and not run.tasks:
            RUNS.leave(run_id)  # nobody pays, so nobody need hear of its end, which may never be told
        return run

    def _admit(self, run: Run, call: Call, *, batch: int = 1) -> None:
        siblings = RUNS.siblings(run, batch) if batch > 1 else []
        call = ambient.placed(call)
        for task in run.tasks:
            if task.failed or task.budget.has_shape:
                call = self._in_shape(run, call, siblings)
                break
        attempt, tasks = run.attempt, run.tasks
        if attempt is None:
            attempt = Attempt(call, self)
            offered = OFFERED.get()
            if offered is not None and offered.awaits(call):
                offered.adopt(attempt, tasks)
                offered.end = partial(self._lost, run)
        else:
            attempt.call = call
        if attempt.holds:
            tasks = tuple([task for task in tasks if not attempt.pays(task)])
        try:
            stop = reserve(attempt, tasks)
        except BaseException:
            self._end_unbegun(run, siblings, "failed")
            raise
        if stop is not None:
            self._deny(run, stop, siblings)
        if run.attempt is None:
            RUNS.begin(run, attempt)
            siblings.append(run)
            self._watch(run, attempt)
            if call.kind is _MODEL:
                transport.calling(run, batch)

    def _in_shape(self, run: Run, call: Call, siblings: list[Run]) -> Call:
        """*call* with the layer that repeats it; refused where it does not fit the shape of its tasks."""
        call = layered(call, run)
        if (misfit := nesting.refused(run, call)) is not None:
            self._deny(run, misfit, siblings)
        return call

    def _deny(self, run: Run, stop: StopReport, siblings: list[Run]) -> Never:
        """Refuse the run."""
        from agentbudget.langchain.errors import BudgetExceeded  # noqa: PLC0415 - importing LangGraph is slow

        task = next((task for task in run.tasks if task.id == stop.task_id), run.tasks[0])
        self._end_unbegun(run, siblings, "stopped")
        raise BudgetExceeded(stop, task)

    def _end_unbegun(self, run: Run, siblings: list[Run], status: str) -> None:
        """The call is not made. The host tells no end of it, nor of its siblings in the same `generate`: they end
        here."""
        for ended in (*siblings, run):
            RUNS.leave(ended.id)
            attempt = RUNS.finish(ended)
            if attempt is not None:
                attempt.release()
            self._close(ended, status)
        siblings.clear()

    def _watch(self, run: Run, attempt: Attempt) -> None:
        """A cancelled `ainvoke` tells no end: listen for the end of the asyncio task that makes the call.

        The task that begins a stream may be over with its first chunk; the rest is asked for by others.
        """
        if asyncio._get_running_loop() is not None and (task := asyncio.current_task()) is not None:  # noqa: SLF001 - the documented cheap check
            attempt.watch(task, partial(self._over, run, attempt))
        for stale in RUNS.stale():
            self._lost(stale, "lease expired")

    def _over(self, run: Run, attempt: Attempt, ended: asyncio.Task[object]) -> None:
        if ended.cancelled() or not attempt.chunks:
            self._lost(run, "CancelledError")

    def _lost(self, run: Run, why: str) -> None:
        RUNS.leave(run.id)
        attempt = RUNS.finish(run)
        if attempt is not None:
            self._settle(run, attempt, cancelled(why), status="cancelled")

    def _extend(self, run: Run, attempt: Attempt, hold: Hold) -> None:
        governor = hold.tasks[0].governor
        governor.keep_alive(hold)
        stop = governor.grow(hold, chunks=attempt.chunks, size=attempt.bytes)
        if stop is not None:
            from agentbudget.langchain.errors import BudgetExceeded  # noqa: PLC0415 - importing LangGraph is slow

            raise BudgetExceeded(stop, next((t for t in run.tasks if t.id == stop.task_id), run.tasks[0]))

    def _settle(self, run: Run, attempt: Attempt, result: Result, *, status: str) -> None:
        attempt.settle(result, flush=not run.opened)
        if run.opened:
            self._close(run, status)

    def _close(self, run: Run, status: str) -> None:
        """End the tasks that end with *run*."""
        for task, reports in reversed(run.opened):
            if task.governor.leave(task, status):
                reports.file(task)
