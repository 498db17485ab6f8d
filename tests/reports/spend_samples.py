"""Recorded spend for the tests of its page: four weeks with everything in them, and names that are markup."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from agentbudget.domain.budget import Limit
from agentbudget.finops.advisor.asked import Machine
from agentbudget.finops.advisor.values import Advice, Lever, Saving
from agentbudget.finops.alarms.rules import Watched
from agentbudget.finops.history import History
from agentbudget.pricing.selfhosted import SelfHosted
from agentbudget.reports.spend_material import SpendView
from agentbudget.trace.events import CallDenied, Event, OutcomeRecorded
from tests.finops.traces import DAY, called, closed, opened, write
from tests.reports.samples import HOSTILE

START = datetime(2026, 9, 2, tzinfo=UTC).timestamp()
NOW = datetime(2026, 9, 30, 12, tzinfo=UTC)
CENT = 10_000_000
USAGE = {"input_tokens": 4000, "output_tokens": 100, "cache_read_tokens": 1000}


def day(number: int, *, word: str = "") -> list[Event]:
    """One day: three features, a tool whose result stays, waste, a cache hit, a refusal, an outcome."""
    task, at = f"t{number}{word}", START + number * DAY + 10 * 3600
    tags = {"feature": word or ("triage", "chat", "digest")[number % 3], "team": word or "cx"}
    if number % 7 == 0 and not word:
        del tags["feature"]
    events = [*opened(task, at=at, name=word or "resolve", user=word or f"u{number % 4}", **tags)]
    tool: dict[str, object] = {"kind": "tool", "name": word or "search", "usage": {}, "price": None}
    for step in range(4):
        when = at + step * 60
        wasted: dict[str, object] = {"wasted": True, "outcome": "error"} if step == 2 else {}
        model: dict[str, object] = {"usage": USAGE, "model": word} if word else {"usage": USAGE}
        events += called(f"{task}m{step}", task, at=when, cost=20 * CENT + number, **model, **wasted)
        events += called(f"{task}s{step}", task, at=when + 9, cost=0, result_size=9000, **tool)
    events += called(f"{task}c", task, at=at + 300, cost=0, avoided=3 * CENT, outcome="cached", usage={}, price=None)
    events += called(f"{task}e", task, at=at + 310, cost=2 * CENT, source="reserved")
    events.append(
        CallDenied(at=at + 400, call=f"{task}d", tasks=(task,), kind="model", name="gpt-4o", stop={}, cost=7 * CENT)
    )
    events.append(OutcomeRecorded(at=at + 500, task=task, outcome=word or "resolved", ok=number % 5 > 0))
    return [*events, *closed(task, at=at + 510)]


def bug(number: int) -> list[Event]:
    """An hour that costs far more than any before it, until noon of a day."""
    task, at = "bug", START + number * DAY + 11 * 3600
    events = [*opened(task, at=at, name="resolve", feature="triage", team="cx", user="u1")]
    for minute in range(59):
        for call in range(5):
            events += called(f"bug{minute}-{call}", task, at=at + minute * 60 + call, cost=30 * CENT, usage=USAGE)
    return events


def plenty(folder: Path) -> Path:
    """Four weeks, the last hour of which is a bug."""
    for number in range(29):
        write(folder / f"{number}.jsonl", day(number))
    write(folder / "bug.jsonl", bug(28))
    return folder


@contextmanager
def open_plenty(folder: Path) -> Iterator[History]:
    with History.open(plenty(folder / "traces")) as history:
        yield history


@contextmanager
def open_hostile(folder: Path) -> Iterator[History]:
    """Three weeks in which every name is markup that wants to run."""
    for number in range(21):
        write(folder / "hostile" / f"{number}.jsonl", day(number, word=HOSTILE))
    with History.open(folder / "hostile") as history:
        yield history


def watched(amount: str = "$150", team: str = "cx") -> Watched:
    return Watched(limit=Limit("cost", amount, scope="team", window="month"), names={"team": team}, minimum="$0.10")


def advice(word: str = "a cheaper model") -> Advice:
    lever = Lever(
        kind="model",
        title=word,
        saving=Saving(low=1, expected=2 * 10**9, high=3 * 10**9),
        month=None,
        confidence="estimate",
        reason=word,
        computed=word,
        change=word,
        verify=word,
        risk=word,
    )
    return Advice(path="traces", recorded=10**10, days=35.0, levers=(lever,), notes=(word,))


def full_view(word: str = "a cheaper model", team: str = "cx") -> SpendView:
    machine = Machine(hosted=SelfHosted("gpt-4o", gpu_hour="$3.20", gpus=2), tokens_per_second=500.0)
    return SpendView(budgets=(watched(team=team),), advice=advice(word), machines=(machine,))
