"""Ambient tasks: everything LangChain runs inside a `with task(...)` block belongs to the task."""

from __future__ import annotations

import weakref
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agentbudget.governor.values import Call, Kind

if TYPE_CHECKING:
    from agentbudget.governor.task import Task

TASKS: ContextVar[tuple[Task, ...]] = ContextVar("agentbudget_tasks", default=())
"""The tasks of this context, innermost first. A task of another governor is nobody's child: all count."""
LAST_ANSWER: ContextVar[str] = ContextVar("agentbudget_last_answer", default="")
"""Id of the stopped task whose last answer is being asked for in this context."""
CAUGHT: ContextVar[tuple[str, ...]] = ContextVar("agentbudget_caught", default=())
"""Ids of the tasks that are landed by whoever made this context, should a call in it be refused."""
_BY_ID: weakref.WeakValueDictionary[str, Task] = weakref.WeakValueDictionary()


def placed(call: Call) -> Call:
    """*call* with what its context says of refusals: who would catch one, and whether it is a last answer."""
    caught, answered = CAUGHT.get(), LAST_ANSWER.get()
    if not caught and not answered:
        return call
    return replace(call, caught=caught, final=answered if call.kind is Kind.MODEL else "")


def named(task_id: str) -> Task | None:
    """The task of a block by its id, whatever its governor and context; closed ones as long as they are remembered."""
    return _BY_ID.get(task_id)


def push(task: Task) -> Token[tuple[Task, ...]]:
    """Make *task* the innermost ambient one."""
    _BY_ID[task.id] = task
    return TASKS.set((task, *TASKS.get()))


def pop(task: Task, token: Token[tuple[Task, ...]]) -> None:
    """Undo a push. A context other than the one that pushed may be a copy of it, and then has *task* too."""
    try:
        TASKS.reset(token)
    except ValueError:
        TASKS.set(tuple(other for other in TASKS.get() if other is not task))
