"""The tally: the same numbers live and from disk, each call once, and nothing that could be lost silently."""

from __future__ import annotations

import gc
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentbudget.domain.money import dollars
from agentbudget.domain.usage import Usage
from agentbudget.domain.verdict import StopReport
from agentbudget.trace.events import (
    ActionTaken,
    CallDenied,
    CallExtended,
    CallReleased,
    CallReserved,
    CallSettled,
    Discrepancy,
    Event,
    LimitRaised,
    OutcomeRecorded,
    TaskClosed,
    TaskOpened,
    TaskResumed,
    TraceOpened,
)
from agentbudget.trace.reader import Trace
from agentbudget.trace.report import Spend
from agentbudget.trace.tally import MAX_KEPT, Tally
from agentbudget.trace.writer import TraceWriter


def reserved(call: str = "c", *tasks: str, **facts: Any) -> CallReserved:
    known: dict[str, Any] = {"at": 1.0, "kind": "model", "name": "m"}
    return CallReserved(call=call, tasks=tasks or ("t",), **known | facts)


def settled(call: str = "c", *tasks: str, **facts: Any) -> CallSettled:
    known: dict[str, Any] = {"at": 2.0, "kind": "model", "name": "m", "outcome": "ok"}
    return CallSettled(call=call, tasks=tasks or ("t",), **known | facts)


def denied(task_id: str = "t", *tasks: str, **facts: Any) -> CallDenied:
    stop = StopReport(limit="max_cost", meter="cost", limit_amount=5, call="model m", task_id=task_id)
    known: dict[str, Any] = {"at": 3.0, "call": "d", "kind": "model", "name": "m", "stop": stop.to_dict()}
    return CallDenied(tasks=tasks or ("t",), **known | facts)


def closed(task: str = "t", **facts: Any) -> TaskClosed:
    known: dict[str, Any] = {"at": 9.0, "status": "completed"}
    return TaskClosed(task=task, **known | facts)


def tally(*events: Event, task: str = "t") -> Tally:
    folded = Tally(task)
    for event in events:
        folded.apply(event)
    return folded


ZERO = dollars(0)
NOTHING: list[dict[str, Any]] = []

# -- live and loaded ----------------------------------------------------------------------------------------------

ATS = st.floats(0, 4e9)
NANOS = st.integers(0, 2**53)
NAMES = st.text(max_size=5)
CHAINS = st.sampled_from(
    [("root",), ("inner", "root"), ("deep", "inner", "root"), ("other",), ("inner", "root", "other")]
)
CALLS = st.sampled_from([f"c{number}" for number in range(8)])
KINDS = st.sampled_from(["model", "tool"])
TASKS = st.sampled_from(["root", "inner", "deep", "other"])
USAGES = st.builds(
    lambda base, cached, output: Usage(
        input_tokens=base + cached, output_tokens=output, cache_read_tokens=cached, reasoning_tokens=output // 2
    ).to_dict(),
    *[st.integers(0, 10**6)] * 3,
)
JSON = st.dictionaries(NAMES, st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False))
STOPS = (
    st.builds(
        lambda scope, task, calls: StopReport(limit=scope, task_id=task, last_calls=tuple(calls)).to_dict(),
        NAMES,
        TASKS,
        st.lists(NAMES, max_size=2),
    )
    | JSON
)
CALL = {"at": ATS, "call": CALLS, "tasks": CHAINS, "kind": KINDS, "name": NAMES, "agent": NAMES, "node": NAMES}
FLAGS = {name: st.booleans() for name in ("priced", "retry", "wasted", "late")}
MONEY = dict.fromkeys(("cost", "avoided", "overrun"), NANOS)
SOURCES = st.sampled_from(["reported", "estimated", "reserved", "none"])
EVENTS = st.one_of(
    st.builds(TaskOpened, at=ATS, task=TASKS, name=NAMES, tags=st.dictionaries(NAMES, NAMES), budget=JSON),
    st.builds(TaskResumed, at=ATS, task=TASKS, budget=JSON),
    st.builds(CallReserved, **CALL, cost=NANOS, attempt=st.integers(1, 3)),
    st.builds(CallExtended, at=ATS, call=CALLS, tasks=CHAINS, cost=NANOS, estimate_output=NANOS),
    st.builds(CallReleased, at=ATS, call=CALLS, tasks=CHAINS),
    st.builds(CallSettled, **CALL, **MONEY, **FLAGS, outcome=NAMES, usage=USAGES, source=SOURCES),
    st.builds(CallDenied, **CALL, stop=STOPS, enforced=st.booleans()),
    st.builds(ActionTaken, at=ATS, tasks=CHAINS, action=NAMES, reason=NAMES, numbers=JSON),
    st.builds(Discrepancy, at=ATS, tasks=CHAINS, kind=NAMES, detail=NAMES),
    st.builds(OutcomeRecorded, at=ATS, task=TASKS, outcome=NAMES, ok=st.none() | st.booleans()),
    st.builds(LimitRaised, at=ATS, task=TASKS, meter=st.just("cost"), amount=NANOS, grant=NAMES),
    st.builds(
        TaskClosed, at=ATS, task=TASKS, status=st.sampled_from(["completed", "stopped"]), cost=NANOS, seconds=ATS
    ),
)


@settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
@given(events=st.lists(EVENTS, max_size=25, unique_by=repr))
def test_the_report_from_disk_equals_the_live_one(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event]
) -> None:
    target = tmp_path_factory.mktemp("live") / "run.jsonl"
    writer = TraceWriter(target, header=TraceOpened(at=0.0, schema=1, version="0"))
    live = {task: Tally(task) for task in ("root", "inner", "deep", "other")}
    for event in events:
        for one in live.values():
            one.apply(event)
        writer.write("", [event])
    writer.close()
    trace = Trace.load(target)
    assert not trace.problems
    for task, one in live.items():
        try:
            loaded = trace.task(task).report
        except LookupError:
            continue
        assert loaded == one.report(trace_path=str(target))
    for report in trace.reports:
        assert report.task_id in {"root", "other"} or any(
            getattr(event, "task", "") == report.task_id for event in events
        )


# -- what counts --------------------------------------------------------------------------------------------------


def test_a_task_includes_the_calls_of_the_tasks_within_it_and_no_others() -> None:
    calls = [settled("1", "inner", "t", cost=5), settled("2", "t", cost=7), settled("3", "other", cost=100)]
    assert tally(*calls).report().cost == dollars(12)
    assert tally(*calls, task="inner").report().cost == dollars(5)


def test_an_attempt_counts_once_whether_in_flight_or_settled_and_not_at_all_if_released() -> None:
    events = [reserved("1"), settled("1"), reserved("2", attempt=2), reserved("3", kind="tool"), reserved("4")]
    report = tally(
        *events, CallReleased(at=1.0, call="4", tasks=("t",)), settled("unseen", kind="tool", retry=True)
    ).report()
    assert (report.model_calls, report.tool_calls, report.attempts, report.retries) == (2, 2, 4, 2)


def test_money_in_flight_is_reserved_until_the_task_closes_and_presumed_spent_after_it_until_a_late_settle() -> None:
    events: list[Event] = [
        reserved("1", cost=50),
        CallExtended(at=1.5, call="1", tasks=("t",), estimate_output=9, cost=80),
    ]
    one = tally(*events)
    assert (one.report().reserved, one.report().presumed) == (dollars(80), ZERO)
    one.apply(closed())
    assert (one.report().reserved, one.report().presumed) == (ZERO, dollars(80))
    assert one.report(presumed=3).presumed == dollars(3)
    one.apply(settled("1", cost=30, late=True))
    assert (one.report().presumed, one.report().cost, one.report().discrepancies) == (ZERO, dollars(30), NOTHING)


def test_waste_overrun_savings_and_estimates_are_parts_of_the_cost_named_apart() -> None:
    report = tally(
        settled("1", cost=10, wasted=True, overrun=4),
        settled("2", cost=20, source="estimated"),
        settled("3", cost=30, source="reserved"),
        settled("4", outcome="cached", avoided=40, source="none"),
        settled("5", cost=50, priced=False),
        settled("6", kind="tool", name="search", priced=False, source="none", cost=7),
    ).report()
    assert (report.cost, report.wasted, report.overrun) == (dollars(117), dollars(10), dollars(4))
    assert (report.estimated, report.avoided) == (dollars(50), dollars(40))
    assert (report.unpriced_calls, report.coverage) == (1, 0.8)


def test_spend_is_split_by_model_tool_agent_and_node() -> None:
    usage = {"input_tokens": 10, "output_tokens": 2}
    report = tally(
        settled("1", cost=5, name="big", node="plan", agent="a", usage=usage),
        settled("2", cost=6, name="big", node="write", usage=usage),
        settled("3", cost=7, kind="tool", name="search", node="tools"),
        settled("4", cost=1, kind="tool", name="big"),
    ).report()
    assert report.by_model == {"big": Spend(cost=dollars(11), calls=2, input_tokens=20, output_tokens=4)}
    assert report.by_tool == {"search": Spend(cost=dollars(7), calls=1), "big": Spend(cost=dollars(1), calls=1)}
    assert {name: spend.cost for name, spend in report.by_node.items()} == {
        "plan": dollars(5),
        "write": dollars(6),
        "tools": dollars(7),
    }
    assert list(report.by_agent) == ["a"]
    assert report.usage == Usage(input_tokens=20, output_tokens=4)


def test_limits_include_grants_and_a_new_budget_of_a_resume() -> None:
    opened = TaskOpened(at=0.0, task="t", budget={"max_cost_nanos": 5 * 10**8, "max_model_calls": 3, "tools": {"x": 1}})
    raised = [
        LimitRaised(at=1.0, task="t", meter=meter, amount=2, grant="g") for meter in ("cost", "model_calls", "retries")
    ]
    one = tally(opened, *raised)
    assert one.report().limits == {"max_cost": Decimal("0.500000002"), "max_model_calls": 5, "tools": {"x": 1}}
    one.apply(TaskResumed(at=2.0, task="t", budget={"max_seconds": 3.0}))
    assert one.report().limits == {"max_seconds": 3.0}


# -- stops --------------------------------------------------------------------------------------------------------


def test_the_first_enforced_refusal_is_what_stopped_the_task() -> None:
    first = denied("", call="first")
    report = tally(denied(enforced=False), first, denied(call="second")).report()
    assert report.stopped_by is not None
    assert report.stopped_by.to_dict() == first.stop
    assert report.would_stop is not None
    assert (report.denied, report.would_deny) == (2, 1)


def test_a_refusal_by_the_limit_of_a_task_within_stops_that_task_only() -> None:
    inner = denied("inner", "inner", "t")
    assert tally(inner, task="inner").report().stopped_by is not None
    assert tally(inner).report().stopped_by is None
    own = tally(inner, denied("t", "inner", "t")).report().stopped_by
    assert own is not None
    assert own.task_id == "t"
    assert tally(inner, closed(status="stopped")).report().stopped_by is not None


@pytest.mark.parametrize(
    "lift", [TaskResumed(at=4.0, task="t"), LimitRaised(at=4.0, task="t", meter="cost", amount=1, grant="g")]
)
def test_a_task_that_goes_on_is_no_longer_stopped(lift: Event) -> None:
    one = tally(denied(), closed(status="stopped"))
    one.apply(lift)
    assert one.report().stopped_by is None


@pytest.mark.parametrize("stop", [{}, {"limit": 3}, {"limit": "x", "meter": "bananas"}])
def test_an_unreadable_refusal_is_still_a_refusal(stop: dict[str, Any]) -> None:
    report = tally(denied(stop=stop)).report()
    assert report.stopped_by is not None
    assert report.stopped_by.reason == "model m refused: unreadable"


# -- checks -------------------------------------------------------------------------------------------------------


def test_a_closing_that_disagrees_with_the_calls_is_a_discrepancy_and_a_late_call_is_none() -> None:
    late = settled("2", cost=3, late=True)
    for order in ([settled(cost=10), late, closed(cost=10)], [settled(cost=10), closed(cost=10), late]):
        assert tally(*order).report().discrepancies == []
    (found,) = tally(settled(cost=10), closed(cost=25)).report().discrepancies
    assert (found["kind"], "0.000000015 less" in found["detail"]) == ("incomplete", True)


def test_usage_that_cannot_be_right_is_shown_without_its_parts_and_flagged() -> None:
    for usage in ({"input_tokens": 1, "cache_read_tokens": 2}, {"bananas": 3}, {"input_tokens": 10**13}):
        report = tally(settled(usage=usage)).report()
        assert report.usage.cache_read_tokens == 0
        assert [entry["kind"] for entry in report.discrepancies] == ["usage"]


def test_actions_and_discrepancies_are_kept_up_to_a_bound_and_counted_beyond_it() -> None:
    one = Tally("t")
    for number in range(3 * MAX_KEPT):
        one.apply(ActionTaken(at=1.0, tasks=("t",), action="nudge", reason=str(number)))
        one.apply(Discrepancy(at=1.0, tasks=("t",), kind="k", detail=str(number)))
    report = one.report()
    assert (len(report.actions), len(report.discrepancies)) == (MAX_KEPT, MAX_KEPT + 1)
    assert report.discrepancies[-1]["detail"].startswith("400 further")


def test_time_is_what_the_closing_says_else_what_the_caller_says_else_from_first_to_last_event() -> None:
    one = tally(TaskOpened(at=10.0, task="t"), settled(at=12.5), settled("x", "other", at=99.0), reserved(at=11.0))
    assert (one.report().seconds, one.report(seconds=4.0).seconds, one.report().started) == (2.5, 4.0, 10.0)
    one.apply(closed(seconds=7.0))
    assert one.report(seconds=4.0).seconds == 7.0


def test_a_task_with_20_settled_calls_takes_less_than_2_kb() -> None:
    tools = ["search", "read", "write"]
    events: list[Event] = []
    for number in range(20):
        kind, name = ("model", "gpt-4o") if number % 2 else ("tool", tools[number % 3])
        usage = (
            {"input_tokens": 1000 + number, "output_tokens": 300, "cache_read_tokens": 500} if kind == "model" else {}
        )
        call = f"call-{number}"
        events += [reserved(call, kind=kind, name=name, cost=10**6 + number)]
        events += [settled(call, kind=kind, name=name, node=kind, cost=10**6 + number, usage=usage)]
    one = tally(*events)
    del events

    seen: set[int] = set()

    def size(value: object) -> int:
        if id(value) in seen or isinstance(value, type | str) or value is None:
            return 0
        seen.add(id(value))
        return sys.getsizeof(value) + sum(map(size, gc.get_referents(value)))

    assert size(one) < 1900
    assert one._open is None  # the memory of what was in flight is given back
