"""Trace files made by hand for the tests of finops."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from agentbudget.trace.events import CallReserved, CallSettled, Event, TaskClosed, TaskOpened, TraceOpened

START = 1_793_491_200.0
"""2026-11-01T00:00:00Z, in seconds since 1970."""
DAY = 86_400.0
PRICE = {
    "source": "genai-prices",
    "version": "0.2.3",
    "provider": "openai",
    "model": "gpt-4o",
    "tier": "standard",
    "prices": {"input": "2.5", "cache_read": "1.25", "output": "10"},
}

_ENCODE = msgspec.json.Encoder().encode


def write(file: Path, events: Iterable[Event], *, append: bool = False) -> Path:
    """*events* as lines of *file*."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab" if append else "wb") as out:
        out.writelines(_ENCODE(event) + b"\n" for event in events)
    return file


def opened(task: str, *, at: float = START, parent: str = "", name: str = "job", **tags: str) -> list[Event]:
    """The head of a trace of one task."""
    head: list[Event] = [] if parent else [TraceOpened(at=at, schema=1, version="0")]
    return [*head, TaskOpened(at=at, task=task, parent=parent, name=name, tags=tags)]


def called(call: str, *tasks: str, at: float = START + 1, cost: int = 1_000_000, **changes: object) -> list[Event]:
    """A model call that was admitted and settled."""
    reserved = CallReserved(
        at=at, call=call, tasks=tasks, kind="model", name="gpt-4o", provider="openai", cost=2 * cost, messages=3
    )
    fields: dict[str, object] = {"usage": {"input_tokens": 100, "output_tokens": 10}, "price": PRICE, **changes}
    settled = CallSettled(
        at=at + 1, call=call, tasks=tasks, kind="model", name="gpt-4o", outcome="ok", cost=cost, seconds=1.0
    )
    return [reserved, msgspec.structs.replace(settled, **fields)]


def closed(task: str, *, at: float = START + 60, status: str = "completed", cost: int = 0) -> list[Event]:
    """The end of a task."""
    return [TaskClosed(at=at, task=task, status=status, cost=cost)]
