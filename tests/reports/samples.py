"""Recorded tasks for the tests of reports: one with everything in it, one whose every name is hostile, a long one."""

from __future__ import annotations

from typing import Any

from agentbudget.trace.events import (
    SCHEMA,
    ActionTaken,
    CallDenied,
    CallReserved,
    CallSettled,
    Discrepancy,
    Event,
    OutcomeRecorded,
    TaskClosed,
    TaskOpened,
    TraceOpened,
)
from agentbudget.trace.reader import Trace

AT = 1_767_225_600.0
HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">\u202e\x07'"
HEADER = TraceOpened(at=AT, schema=SCHEMA, version="0")


def reserved(call: str, at: float, name: str = "gpt-4o", *, tasks: tuple[str, ...] = ("t",), **more: Any) -> Event:
    """A call is admitted *at* seconds after the start."""
    kind = more.pop("kind", "model")
    cost = more.pop("cost", 20_000_000 if kind == "model" else 0)
    return CallReserved(at=AT + at, call=call, tasks=tasks, kind=kind, name=name, cost=cost, **more)


def settled(call: str, at: float, name: str = "gpt-4o", *, tasks: tuple[str, ...] = ("t",), **more: Any) -> Event:
    """And ends."""
    kind = more.pop("kind", "model")
    plain: dict[str, Any] = {"outcome": "ok", "source": "reported" if kind == "model" else "none", **more}
    return CallSettled(at=AT + at, call=call, tasks=tasks, kind=kind, name=name, **plain)


def stop(**more: Any) -> dict[str, Any]:
    """A refusal by `max_cost`."""
    known = {
        "limit": "max_cost",
        "scope": "task t",
        "meter": "cost",
        "requested": 20_000_000,
        "settled": 41_000_000,
        "limit_amount": 50_000_000,
        "call": "model gpt-4o",
        "last_calls": ["tool search $0.00", "model gpt-4o $0.012"],
        "remedy": "raise max_cost to at least $0.061",
        "task_id": "t",
        "reason": "model gpt-4o needs up to $0.02, but max_cost of task t is $0.05: $0.041 spent",
    }
    return known | more


def everything() -> list[Event]:
    """A task with parallel branches, a sub-agent in a tool, a wasted and an estimated attempt, and a stop."""
    usage = {"input_tokens": 1200, "output_tokens": 80, "cache_read_tokens": 0}
    more = {"input_tokens": 3400, "output_tokens": 120, "cache_read_tokens": 2800}
    tool: dict[str, Any] = {"kind": "tool", "node": "tools"}
    budget = {"max_cost_nanos": 50_000_000, "max_model_calls": 10, "tools": {"search": 5}}
    return [
        HEADER,
        TaskOpened(at=AT, task="t", name="resolve-ticket", tags={"team": "cx"}, budget=budget),
        reserved("m1", 0.1, node="model", agent="planner"),
        settled("m1", 1.3, cost=3_800_000, usage=usage, node="model", agent="planner"),
        reserved("s1", 1.4, "search", **tool),
        reserved("s2", 1.4, "search", **tool),
        settled("s1", 2.0, "search", **tool),
        settled("s2", 2.6, "search", outcome="error", error="TimeoutError", wasted=True, **tool),
        reserved("r1", 2.7, "research", **tool),
        reserved("m2", 2.8, parent="r1", node="model", agent="researcher"),
        settled("m2", 3.9, cost=9_700_000, usage=more, node="model", agent="researcher"),
        reserved("s3", 4.0, "search", parent="r1", **tool),
        settled("s3", 4.2, "search", **tool),
        settled("r1", 4.3, "research", **tool),
        reserved("m3", 4.4, node="model", agent="planner"),
        settled(
            "m3", 5.0, cost=12_500_000, outcome="timeout", wasted=True, source="reserved", node="model", agent="planner"
        ),
        reserved("m4", 5.1, attempt=2, layer="with_retry", operation="m3", node="model", agent="planner"),
        settled("m4", 6.4, cost=15_000_001, usage=more, retry=True, node="model", agent="planner"),
        ActionTaken(at=AT + 6.5, tasks=("t",), action="shrink", reason="8,000 tokens of output were not affordable"),
        Discrepancy(at=AT + 6.5, tasks=("t",), kind="sdk", detail="the provider's client repeated a request unseen"),
        CallDenied(
            at=AT + 6.6,
            call="m5",
            tasks=("t",),
            kind="model",
            name="gpt-4o",
            stop=stop(),
            node="model",
            cost=20_000_000,
        ),
        OutcomeRecorded(at=AT + 6.7, task="t", outcome="escalated", ok=False),
        TaskClosed(at=AT + 6.7, task="t", status="stopped", cost=41_000_001, seconds=6.7),
    ]


def small(task: str, *, cost: int = 1_000) -> list[Event]:
    """A task of one call."""
    return [
        TaskOpened(at=AT, task=task, name="small"),
        reserved(f"{task}-m", 1, tasks=(task,)),
        settled(f"{task}-m", 2, tasks=(task,), cost=cost),
        TaskClosed(at=AT + 2, task=task, status="completed", cost=cost, seconds=2.0),
    ]


def hostile() -> list[Event]:
    """A task in which every text is markup that wants to run."""
    bad: dict[str, Any] = {"agent": HOSTILE, "node": HOSTILE}
    tasks = (HOSTILE,)
    denied = stop(limit=HOSTILE, call=HOSTILE, remedy=HOSTILE, reason=HOSTILE, detail=HOSTILE, last_calls=[HOSTILE])
    return [
        TaskOpened(at=AT, task=HOSTILE, name=HOSTILE, tags={HOSTILE: HOSTILE}, budget={"tools": {HOSTILE: 3}}),
        reserved(HOSTILE, 1.0, HOSTILE, tasks=tasks, layer=HOSTILE, attempt=2, **bad),
        settled(HOSTILE, 2.0, HOSTILE, tasks=tasks, outcome=HOSTILE, error=HOSTILE, cost=7, retry=True, **bad),
        reserved("tool", 2.0, HOSTILE, tasks=tasks, kind="tool", **bad),
        settled("tool", 2.5, HOSTILE, tasks=tasks, kind="tool", **bad),
        ActionTaken(at=AT + 3, tasks=tasks, action=HOSTILE, reason=HOSTILE),
        Discrepancy(at=AT + 3, tasks=tasks, kind=HOSTILE, detail=HOSTILE),
        CallDenied(at=AT + 3, call="d", tasks=tasks, kind="model", name=HOSTILE, stop=denied, **bad),
        OutcomeRecorded(at=AT + 4, task=HOSTILE, outcome=HOSTILE),
        TaskClosed(at=AT + 5, task=HOSTILE, status=HOSTILE, cost=7),
    ]


def trace(events: list[Event]) -> Trace:
    """*events* as a loaded trace."""
    return Trace([("run.jsonl", events)], path="run.jsonl")


def long_trace(calls: int) -> Trace:
    """A task of *calls* model and tool calls in turn."""
    events: list[Event] = [TaskOpened(at=AT, task="t", name="long", budget={"max_cost_nanos": 10**10})]
    for number in range(calls):
        kind, name = ("model", "claude-sonnet-4-6") if number % 2 == 0 else ("tool", "search_the_knowledge_base")
        usage = {"input_tokens": 900 + 37 * number, "output_tokens": 150} if kind == "model" else {}
        call = f"0198c0de-0000-7000-8000-{number:012}"
        events += [
            reserved(call, number, name, kind=kind, node="agent", agent="support"),
            settled(
                call, number + 0.9, name, kind=kind, node="agent", agent="support", usage=usage, cost=1_000 * number
            ),
        ]
    events.append(TaskClosed(at=AT + calls, task="t", status="completed", seconds=float(calls)))
    return trace(events)
