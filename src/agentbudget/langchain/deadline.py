"""Deadlines: what is awaited when a task runs out of time is cancelled, where the call is ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from agentbudget.governor.task import Task
from agentbudget.langchain import ambient
from agentbudget.langchain.errors import BudgetExceeded


def before_deadline(
    tasks: Iterable[Task], call: Callable[[], str], *, lost: Callable[[], None] | None = None
) -> AbstractAsyncContextManager[None]:
    """Within it, what is awaited is cancelled when the first of *tasks* is out of time, and *lost* is called.

    A task that only observes cancels nothing; and where no time is left already, the call is refused before it is made.
    *call* names what was cancelled, e.g. `"model gpt-4o"`. It must not stay open while a generator is suspended: the
    consumer would be cancelled.

    Raises:
        BudgetExceeded: the deadline passed; its task is stopped.
    """
    seconds, late = _nearest(tasks)
    return nullcontext() if late is None or seconds <= 0 else _cancelling(seconds, late, call, lost)


@asynccontextmanager
async def _cancelling(
    seconds: float, late: Task, call: Callable[[], str], lost: Callable[[], None] | None
) -> AsyncIterator[None]:
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            yield
    except TimeoutError:
        if not timer.expired():
            raise
        if lost is not None:
            lost()
        raise BudgetExceeded(late.governor.out_of_time(late, call()), late) from None


def _nearest(tasks: Iterable[Task]) -> tuple[float, Task | None]:
    """Seconds until the first of *tasks* is out of time, and which; None if none of them has a deadline."""
    nearest, late, answered = 0.0, None, ambient.LAST_ANSWER.get()
    for task in tasks:
        if task.budget.max_seconds is None or task.governor.mode == "observe":
            continue
        left = task.governor.time_left(task, last=answered == task.id)
        if left is not None and (late is None or left < nearest):
            nearest, late = left, task
    return nearest, late
