"""Nudges delivered: the model is told, once, that its agent repeats itself. Nothing is added to the agent's state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from langchain_core.messages import BaseMessage, HumanMessage

from agentbudget.governor.task import Task
from agentbudget.langchain.runs import Run

_M = TypeVar("_M", bound=BaseMessage)


@contextmanager
def delivering(tasks: Sequence[Task], run: Run | None) -> Iterator[tuple[str, ...]]:
    """What the model that is called within should be told, by the tasks that pay for *run*, the code around the call.

    A call that fails has told nobody: the next one is given the same.
    """
    waiting = [task for task in tasks if task.nudges and task.governor.mode == "enforce"]
    if not waiting:
        yield ()
        return
    lane = run.lane if run is not None else ""
    taken = [(task, text) for task in waiting if (text := task.take_nudge(lane))]
    try:
        yield tuple(dict.fromkeys(text for _, text in taken))
    except BaseException:
        for task, text in taken:
            if lane not in task.nudges:
                task.nudge(lane, text)
        raise
    for task, text in taken:
        task.governor.acted((task,), "told", text, lane=lane)


def appended(messages: Sequence[_M], texts: Sequence[str]) -> list[_M | HumanMessage]:
    """*messages* with *texts* as one message of the user at the end: valid after answers to tool calls, too."""
    return [*messages, HumanMessage("\n\n".join(texts))]
