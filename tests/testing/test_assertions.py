"""The assertions that work anywhere: on reports, live traces and files."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import agentbudget as ab
from agentbudget.domain.usage import Usage
from agentbudget.testing.repetition import repetition
from agentbudget.testing.steps import Step, dearest, steps_of, violations
from agentbudget.trace import events


def step(number: int, name: str = "search", **options: Any) -> Step:
    known: dict[str, Any] = {
        "kind": "tool", "where": "", "cost": 0, "input_tokens": 0, "output_tokens": 0, "cache_read_tokens": 0,
        "retry": False, "priced": True, "outcome": "ok", "request": "a", "result": "b",
    }  # fmt: skip
    return Step(number=number, name=name, **(known | options))


def trace_of(tmp_path: Path, *calls: dict[str, Any], request: str = "a") -> ab.Trace:
    """A trace with these settled calls."""
    written: list[events.Event] = [
        events.TraceOpened(at=1.0, schema=1, version="1"),
        events.TaskOpened(at=1.0, task="t"),
    ]
    for number, call in enumerate(calls):
        settled = {"kind": "model", "name": "gpt-4o", "outcome": "ok", **call}
        about: dict[str, Any] = {"call": str(number), "tasks": ("t",), "at": 1.0}
        written += [
            events.CallReserved(kind=settled["kind"], name=settled["name"], request=request, **about),
            events.CallSettled(**about, **settled),
        ]
    path = tmp_path / "run.jsonl"
    return ab.Trace([(str(path), written)], path=str(path))


def test_every_limit_that_was_passed_is_named_with_its_step(tmp_path: Path) -> None:
    usage = {"input_tokens": 100, "output_tokens": 10, "cache_read_tokens": 50}
    trace = trace_of(
        tmp_path,
        {"cost": 1_000_000, "usage": usage},
        {"kind": "tool", "name": "search"},
        {"cost": 3_000_000, "usage": usage, "retry": True},
    )
    limits = ab.Budget(
        max_cost="$0.002", max_model_calls=1, max_tool_calls=0, max_retries=0, max_input_tokens=150,
        max_output_tokens=15, max_total_tokens=200, max_uncached_tokens=100, tools={"search": 0},
    )  # fmt: skip
    with pytest.raises(AssertionError) as failed:
        ab.assert_within(trace, limits)
    text = str(failed.value)
    for told in (
        "max_cost is $0.0020, but $0.0040 were taken: $0.0020 too much.\n  passed with step 3: model gpt-4o, $0.0030",
        "max_total_tokens is 200, but 220 were taken: 20 too much.\n  passed with step 3",
        "max_input_tokens is 150, but 200",
        "max_output_tokens is 15, but 20",
        "max_uncached_tokens is 100, but 120",
        "max_model_calls is 1, but 2 were taken: 1 too much.\n  passed with step 3",
        "max_tool_calls is 0, but 1 were taken: 1 too much.\n  passed with step 2: tool search",
        "max_retries is 0, but 1 were taken: 1 too much.\n  passed with step 3",
        "tools['search'] is 0, but 1",
        "dearest steps:\n  step 3: model gpt-4o, $0.0030, 100 tokens in, 10 out, a retry\n  step 1: ",
        f"agentbudget report {tmp_path / 'run.jsonl'}",
    ):
        assert told in text
    ab.assert_within(trace, max_cost="$0.004", max_model_calls=2, max_tool_calls=1)


def test_a_report_is_judged_by_its_numbers() -> None:
    report = ab.TaskReport(task_id="t", cost=Decimal("0.5"), usage=Usage(input_tokens=5), model_calls=1, seconds=2.5)
    ab.assert_within(report, max_cost="$0.50", max_seconds=3)
    with pytest.raises(AssertionError, match="max_cost is \\$0.49, but \\$0.50 were taken: \\$0.01 too much"):
        ab.assert_within(report, max_cost="$0.49")
    with pytest.raises(AssertionError, match="max_seconds is 2 s, but 3 s were taken: 1 s too much"):
        ab.assert_within(report, max_seconds=2)


def test_what_cannot_be_compared_is_a_type_error() -> None:
    report = ab.TaskReport(task_id="t")
    with pytest.raises(TypeError, match="no limit"):
        ab.assert_within(report)
    with pytest.raises(TypeError, match="Did you mean 'max_cost'"):
        ab.assert_within(report, max_cst=1)
    with pytest.raises(TypeError, match="one Budget, or limits as keywords"):
        ab.assert_within(report, ab.Budget(max_cost=1), max_cost=1)
    with pytest.raises(TypeError, match="one Budget, or limits"):
        ab.assert_within(report, "$1")  # type: ignore[arg-type]  # what a user may try
    with pytest.raises(TypeError, match="not str"):
        ab.assert_within("run.jsonl", max_cost=1)  # type: ignore[arg-type]  # what a user may try
    with pytest.raises(TypeError, match="needs a Trace"):
        ab.assert_no_loops(report)  # type: ignore[arg-type]  # what a user may try


def test_an_unpriced_call_is_named(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, {"name": "of-our-own", "priced": False}, {"cost": 5})
    with pytest.raises(AssertionError, match="1 of 2 model calls had no price \\(of-our-own\\)"):
        ab.assert_priced(trace)
    with pytest.raises(AssertionError, match="1 of 2 model calls had no price"):
        ab.assert_priced(trace.report)
    ab.assert_priced(trace_of(tmp_path, {"cost": 5}))


def test_loops_are_found_in_a_trace_with_hashes_and_refused_without(tmp_path: Path) -> None:
    look = {"kind": "tool", "name": "look", "result": "same"}
    with pytest.raises(AssertionError, match="tool look was called 4 times in a row with the same arguments"):
        ab.assert_no_loops(trace_of(tmp_path, *[look] * 4))
    ab.assert_no_loops(trace_of(tmp_path, *[look] * 3))
    ab.assert_no_loops(trace_of(tmp_path, *[look] * 4), in_a_row=5)
    with pytest.raises(AssertionError, match="has no hashes"):
        ab.assert_no_loops(trace_of(tmp_path, look, request=""))


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ([step(n) for n in range(4)], (4, 4)),
        ([step(n) for n in range(3)], None),
        ([step(n, result=str(n)) for n in range(30)], None),
        ([step(n, request=str(n)) for n in range(30)], None),
        ([step(n, name="ab"[n % 2]) for n in range(16)], (8, 15)),
        ([step(n, name="abc"[n % 3]) for n in range(21)], None),
        ([step(n, name="a" if n % 3 == 0 else str(n)) for n in range(40)], None),
        ([s for n in range(4) for s in (step(n), step(n, kind="model", name="gpt"))], (4, 4)),
    ],
)
def test_only_exact_repetition_counts(steps: list[Step], found: tuple[int, int] | None) -> None:
    seen = repetition(steps)
    assert (None if seen is None else (seen.times, seen.window)) == found


def test_the_dearest_steps_come_first_and_free_ones_not_at_all() -> None:
    steps = [step(1, cost=5), step(2), step(3, cost=9), step(4, cost=5), step(5, cost=1)]
    assert [s.number for s in dearest(steps)] == [3, 1, 4]


def test_a_call_in_flight_is_no_step_but_keeps_its_number() -> None:
    about: dict[str, Any] = {"tasks": ("t",), "at": 1.0, "kind": "tool", "name": "x"}
    steps = steps_of([
        events.CallReserved(call="a", **about),
        events.CallReserved(call="b", **about),
        events.CallSettled(call="b", outcome="ok", **about),
    ])  # fmt: skip
    assert [s.number for s in steps] == [2]


def test_no_limit_no_violation() -> None:
    assert violations(ab.TaskReport(task_id="t", model_calls=9), ab.Budget()) == []


def test_the_assertions_need_neither_pytest_nor_langchain() -> None:
    code = "import agentbudget as ab, sys; ab.assert_within; print({'pytest', 'langchain_core'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
