"""The error that leaves an agent when its budget is at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langgraph.errors import GraphBubbleUp

from agentbudget.errors import BudgetError

if TYPE_CHECKING:
    from agentbudget.domain.verdict import StopReport
    from agentbudget.governor.task import Task
    from agentbudget.trace.report import TaskReport


class BudgetExceeded(GraphBubbleUp, BudgetError):  # noqa: N818 - the public name; an exhausted budget is no defect
    """A call was refused before it was made.

    A `GraphBubbleUp`, so that LangGraph's retry policies, node error handlers, tool nodes and LangChain's
    middleware let it pass; never a `GraphInterrupt`, which would make the run look successful.
    """

    def __init__(self, stop: StopReport, task: Task | None = None) -> None:
        super().__init__(str(stop))
        self.stop = stop
        """Which limit refused what, with the numbers."""
        self._task = task
        self._kept: TaskReport | None = None

    @property
    def report(self) -> TaskReport | StopReport:
        """The report of the stopped task as of now, or when the error left the process of the task."""
        if self._task is not None:
            return self._task.governor.report(self._task)
        return self._kept or self.stop

    def __reduce__(self) -> tuple[Any, ...]:
        kept = None if self._task is None else self._task.governor.report(self._task)
        return (BudgetExceeded, (self.stop,), {"_kept": kept or self._kept})
