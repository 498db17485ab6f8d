"""Records for the tests of the adviser, priced by the list."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from agentbudget.domain.usage import Usage
from agentbudget.finops.advisor import Advice, Lever, Options, advise
from agentbudget.pricing.book import PriceBook
from agentbudget.trace.events import CallReserved, CallSettled, Event, OutcomeRecorded, Signed, TraceOpened
from tests.finops.traces import START, closed, opened, write

TODAY = date(2026, 11, 22)
BOOK = PriceBook()


def priced(model: str, usage: dict[str, int], provider: str = "openai", tier: str | None = None) -> int:
    """Nano-dollars of *usage* at list price."""
    return BOOK.rates(model, provider=provider, tier=tier, on=TODAY).cost(Usage(**usage))


def called(call: str, task: str, at: float, model: str, usage: dict[str, int], **changes: Any) -> list[Event]:
    """A model call at its list price; *changes* are of its end, but `request` and `messages` of its beginning."""
    provider = "anthropic" if model.startswith("claude") else "openai"
    asked = {"request": changes.pop("request", ""), "messages": changes.pop("messages", 3)}
    common: dict[str, Any] = {"call": call, "tasks": (task,), "kind": "model", "name": model}
    ref = BOOK.rates(model, provider=provider, on=TODAY).ref.to_dict()
    fields = {"outcome": "ok", "cost": priced(model, usage, provider), "usage": usage, "price": ref, **changes}
    return [
        CallReserved(at=at, provider=provider, **asked, **common),
        CallSettled(at=at + 1, seconds=1.0, **common, **fields),
    ]


def run(task: str, at: float, model: str, *, name: str = "job", ok: bool | None = None, **usage: int) -> list[Event]:
    """A task of one call."""
    counts = usage or {"input_tokens": 1000, "output_tokens": 100}
    told: list[Event] = [] if ok is None else [OutcomeRecorded(at=at + 3, task=task, outcome="judged", ok=ok)]
    head = opened(task, at=at, name=name)[1:]
    return [*head, *called(f"{task}-c", task, at, model, counts), *told, *closed(task, at=at + 4)]


def folder(tmp_path: Path, *parts: list[Event], key: str = "k1") -> Path:
    """A folder with one trace file of all *parts*."""
    header = TraceOpened(at=START, schema=1, version="0", key_id=key)
    write(tmp_path / "traces" / "a.jsonl", [header, *(event for part in parts for event in part)])
    return tmp_path / "traces"


def judged(model: str, ok: int, failed: int, start: float = START) -> Iterator[list[Event]]:
    """So many successes and failures of *model*, an hour apart."""
    for number in range(ok + failed):
        yield run(f"{model}-{number}", start + 3600 * number, model, ok=number < ok)


def of(advice: Advice, kind: str) -> list[Lever]:
    return [lever for lever in advice.levers if lever.kind == kind]


def told(path: Path, options: Options | None = None, **more: Any) -> Advice:
    return advise(path, options, today=TODAY, least_share=0, **more)


def conversation(model: str, *inputs: int, gap: float = 10.0, **counts: int) -> list[Event]:
    """A task of calls with so many input tokens each."""
    events = opened("t")[1:]
    for number, tokens in enumerate(inputs):
        usage = {"input_tokens": tokens, "output_tokens": 50, **counts}
        events += called(f"c{number}", "t", START + gap * number, model, usage)
    return events


def looping(task: str, rounds: int, *, ok: bool | None) -> list[Event]:
    """A task that calls one tool again and again with one result, thinking in between."""
    signed = (Signed(b"c" * 8, b"t" * 8, b"r" * 8),)
    events = opened(task)[1:]
    for number in range(rounds):
        at = START + 10 * number
        events += called(f"{task}-m{number}", task, at, "gpt-4o", {"input_tokens": 900 - number, "output_tokens": 9})
        common: dict[str, Any] = {"call": f"{task}-t{number}", "tasks": (task,), "kind": "tool", "name": "look"}
        events += [
            CallReserved(at=at + 2, **common),
            CallSettled(at=at + 3, outcome="ok", signed=signed, source="none", **common),
        ]
    told = [] if ok is None else [OutcomeRecorded(at=START + 900, task=task, outcome="judged", ok=ok)]
    return [*events, *told, *closed(task, at=START + 901)]
