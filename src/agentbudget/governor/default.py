"""The governor of a process that configured none: in memory, without a trace."""

from __future__ import annotations

import threading

from agentbudget.domain.verdict import StopReport
from agentbudget.errors import ConfigurationError
from agentbudget.governor.governor import GOVERNORS, Governor

_LOCK = threading.Lock()
_DEFAULT: list[Governor] = []


def default_governor() -> Governor:
    """The one governor of this process for every entry that was given none."""
    if not _DEFAULT:
        with _LOCK:
            if not _DEFAULT:
                _DEFAULT.append(Governor())
    return _DEFAULT[0]


def stop(task_id: str) -> None:
    """Stop a running task by hand, from any thread of this process: nothing more is admitted for it, not even a last
    answer. Calls in flight run to their end and are charged.

    Raises:
        ConfigurationError: no task with this id is open in this process.
    """
    for governor in list(GOVERNORS):
        task = governor.find_task(task_id)
        if task is not None and task.is_open:
            by_hand = StopReport(
                limit="stopped",
                call=f"task {task.name}",
                remedy="it was stopped by hand: Governor.lift(task) lets it go on",
                task_id=task.id,
                task=task.name,
            )
            with governor.lock:
                task.last_answer = "used"
                task.stop = None  # a stop by hand is final, whatever stop there was
                governor.stop_task(task, by_hand)
            return
    msg = f"task {task_id!r} is not open in this process."
    raise ConfigurationError(msg)
