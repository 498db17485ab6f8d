"""Reports of closed tasks: kept as tallies, made when somebody reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from agentbudget.governor.task import Task
from agentbudget.trace.report import TaskReport

_KEPT = 100


class Reports(Sequence[TaskReport]):
    """Reports of the last 100 closed tasks, in the order in which they were closed last. A read-only sequence."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    def file(self, task: Task) -> None:
        """Take in *task*, which was closed just now."""
        tasks = self._tasks
        if task.id in tasks:
            del tasks[task.id]
        tasks[task.id] = task
        if len(tasks) > _KEPT:
            del tasks[next(iter(tasks))]

    @overload
    def __getitem__(self, index: int) -> TaskReport: ...
    @overload
    def __getitem__(self, index: slice) -> list[TaskReport]: ...
    def __getitem__(self, index: int | slice) -> TaskReport | list[TaskReport]:
        tasks = list(self._tasks.values())
        return tasks[index].report() if isinstance(index, int) else [task.report() for task in tasks[index]]

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[TaskReport]:
        return iter([task.report() for task in list(self._tasks.values())])

    def __repr__(self) -> str:
        return f"<Reports of {len(self)} tasks>"
