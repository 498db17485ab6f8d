"""What the tests of the trace share: the events of one small task, and a writer's header."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentbudget.trace.events import (
    SCHEMA,
    CallReserved,
    CallSettled,
    Event,
    TaskClosed,
    TaskOpened,
    TraceOpened,
)
from agentbudget.trace.writer import TraceWriter

AT = 1_767_225_600.0

TaskEvents = Callable[..., list[Event]]
WriteTrace = Callable[..., Path]


@pytest.fixture
def header() -> TraceOpened:
    return TraceOpened(at=AT, schema=SCHEMA, version="0.1.0", key_id="k")


@pytest.fixture
def task_events() -> TaskEvents:
    """The events of a task with model calls of 1,000 nano-dollars each."""

    def build(task: str = "t1", calls: int = 3, name: str = "ticket") -> list[Event]:
        events: list[Event] = [TaskOpened(at=AT, task=task, name=name, budget={"max_cost_nanos": 10**9})]
        for number in range(calls):
            call, tasks, at = f"{task}-c{number}", (task,), AT + number
            events.append(CallReserved(at=at, call=call, tasks=tasks, kind="model", name="gpt-4o", cost=2000))
            events.append(
                CallSettled(
                    at=at + 0.5,
                    call=call,
                    tasks=tasks,
                    kind="model",
                    name="gpt-4o",
                    outcome="ok",
                    cost=1000,
                    usage={"input_tokens": 100, "output_tokens": 10},
                )
            )
        events.append(TaskClosed(at=AT + calls, task=task, status="completed", cost=1000 * calls, seconds=float(calls)))
        return events

    return build


@pytest.fixture
def write_trace(header: TraceOpened) -> WriteTrace:
    """Write events to a file through the real writer."""

    def write(target: Path, *files: list[Event]) -> Path:
        writer = TraceWriter(target, header=header)
        for number, events in enumerate(files):
            writer.write(f"file-{number}", events)
        writer.close()
        return target

    return write
