"""Reports of closed tasks: kept as tallies, made when somebody reads them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import overload

from agentbudget.governor.task import Task
from agentbudget.trace.report import TaskReport

_KEPT = 100


class Reports(Sequence[TaskReport]):
    """Reports of the last 100 closed tasks, in the order in which they were closed last. A read-only sequence."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, Task] = OrderedDict()

    def file(self, task: Task) -> None:
        """Take in *task*, which was closed just now."""
        self._tasks[task.id] = task
        self._tasks.move_to_end(task.id)
        if len(self._tasks) > _KEPT:
            self._tasks.popitem(last=False)

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
