"""Ambient tasks: everything LangChain runs inside a `with task(...)` block belongs to the task."""

from __future__ import annotations

import weakref
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentbudget.governor.task import Task

_TASKS: ContextVar[tuple[Task, ...]] = ContextVar("agentbudget_tasks", default=())
_BY_ID: weakref.WeakValueDictionary[str, Task] = weakref.WeakValueDictionary()


def tasks() -> tuple[Task, ...]:
    """The ambient tasks of this context, innermost first. A task of another governor is nobody's child: all count."""
    return _TASKS.get()


def named(task_id: str) -> Task | None:
    """The task of a block by its id, whatever its governor and context; closed ones as long as they are remembered."""
    return _BY_ID.get(task_id)


def push(task: Task) -> Token[tuple[Task, ...]]:
    """Make *task* the innermost ambient one."""
    _BY_ID[task.id] = task
    return _TASKS.set((task, *_TASKS.get()))


def pop(task: Task, token: Token[tuple[Task, ...]]) -> None:
    """Undo a push. A context other than the one that pushed may be a copy of it, and then has *task* too."""
    try:
        _TASKS.reset(token)
    except ValueError:
        _TASKS.set(tuple(other for other in _TASKS.get() if other is not task))
