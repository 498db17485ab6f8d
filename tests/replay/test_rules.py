"""Other rules in a replay: loops, retries, ladders and landings decide as they do live."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentbudget as ab
from agentbudget.governor.governor import Governor
from agentbudget.governor.hold import Hold
from agentbudget.governor.values import Call, Kind, Result
from agentbudget.replay.whatif import replay
from agentbudget.testing import FakeClock
from agentbudget.trace.events import CallReserved, CallSettled, Event

PRICES = {
    "big": {"input": "10", "output": "40"},
    "small": {"input": "1", "output": "4"},
    "tool:search": "$0.001",
}
Turn = tuple[str, Any, str]
"""A tool's argument, what it said, how it ended; one model call comes before each."""
LOOP: list[Turn] = [("a", "one", "ok"), ("b", "two", "ok"), *[("c", "same", "ok")] * 8]


def live(
    turns: Sequence[Turn],
    budget: ab.Budget | None = None,
    *,
    mode: str = "enforce",
    prepare: Callable[[Governor, Any], None] = lambda governor, task: None,
) -> list[Event]:
    """The events of a task that makes a model call and a tool call a turn, until it is stopped."""
    seen: list[Event] = []
    clock = FakeClock()
    governor = Governor(prices=PRICES, clock=clock, sinks=[seen.append], mode=mode)
    task = governor.open_task("ticket", budget or ab.Budget(), task_id="t")
    prepare(governor, task)
    for number, (argument, said, outcome) in enumerate(turns):
        for kind, name in ((Kind.MODEL, "big"), (Kind.TOOL, "search")):
            clock.advance(1)
            call = Call(
                id=f"{kind}{number}",
                kind=kind,
                name=name,
                cap=1000 if kind == Kind.MODEL else None,
                arguments={"q": argument},
                fingerprint=(kind, argument) if outcome == "error" else None,
                caught=("t",),
            )
            hold = governor.admit((task,), call)
            if not isinstance(hold, Hold):
                continue
            used = ab.Usage(input_tokens=100, output_tokens=100) if kind == Kind.MODEL else None
            ended = outcome if kind == Kind.TOOL else "ok"
            governor.settle(hold, Result(outcome=ended, usage=used, said=said, lane="agent"))
    governor.close_task(task)
    governor.close()
    return seen


def again(recorded: list[Event], **changes: Any) -> Any:
    return replay(ab.Trace([("run.jsonl", recorded)], path="run.jsonl"), **changes)


def cost(recorded: list[Event]) -> Decimal:
    return Decimal(sum(event.cost for event in recorded if isinstance(event, CallSettled))) / 10**9


turns = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["same", "other"]), st.sampled_from(["ok", "ok", "error"])),
    min_size=4,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(turns=turns, most=st.integers(2, 4), retries=st.sampled_from([None, 0, 2]))
def test_other_loop_and_retry_rules_stop_a_recorded_run_where_they_stop_a_live_one(
    turns: list[Turn], most: int, retries: int | None
) -> None:
    rules = ab.Loops(halt=ab.Thresholds(in_a_row=most, in_window=most + 1, nothing_new=4, same_error=most))
    budget = ab.Budget(loops=rules, max_retries=retries)
    stopped, what_if = live(turns, budget), again(live(turns), budget=budget)
    report = ab.Trace([("run.jsonl", stopped)], path="run.jsonl").report
    assert (what_if.cost, what_if.stopped_by) == (cost(stopped), report.stopped_by)
    assert what_if.report.actions == report.actions


def test_a_loop_is_halted_at_its_next_call_and_the_rest_is_saved() -> None:
    what_if = again(live(LOOP), budget=ab.Budget(loops=ab.Loops()))
    assert what_if.stopped_by is not None
    assert what_if.stopped_by.limit == "loops"
    assert "search was called 4 times in a row" in what_if.stopped_by.detail
    assert what_if.saved == 4 * Decimal("0.006")
    assert what_if.diverged_at.why == "refused"
    assert what_if.label == "estimate"


def test_a_run_that_was_halted_for_a_loop_is_a_lower_bound_without_the_rule() -> None:
    halted = live(LOOP, ab.Budget(loops=ab.Loops()))
    assert again(halted).label == "exact"
    assert again(halted, budget=ab.Budget()).label == "lower bound"
    assert again(halted, budget=ab.Budget()).report.status == "open", "it would have gone on"


def test_observed_loops_are_only_told() -> None:
    what_if = again(live(LOOP), budget=ab.Budget(loops=ab.Loops()), mode="observe")
    assert (what_if.label, what_if.saved, what_if.stopped_by) == ("exact", 0, None)
    assert what_if.report.would_stop is not None


def test_loop_rules_on_a_trace_without_signatures_say_that_they_saw_nothing() -> None:
    from msgspec.structs import replace as changed

    bare = [changed(event, signed=()) if isinstance(event, CallSettled) else event for event in live(LOOP)]
    what_if = again(bare, budget=ab.Budget(loops=ab.Loops()))
    assert what_if.saved == 0
    assert any("no signatures" in note for note in what_if.assumptions)


def test_fewer_retries_save_wasted_attempts_and_say_how_much() -> None:
    failing: list[Turn] = [("a", "boom", "error")] * 4
    what_if = again(live(failing), budget=ab.Budget(max_retries=1))
    stopped = live(failing, ab.Budget(max_retries=1))
    assert what_if.cost == cost(stopped)
    assert what_if.stopped_by.limit == "max_retries"
    assert what_if.saved_waste == 2 * Decimal("0.001"), "two of the four searches failed for nothing"


def test_a_refused_tool_call_leaves_a_lenient_task_running_until_its_next_model_call() -> None:
    def lenient(governor: Governor, task: Any) -> None:
        task.lenient = True

    free = live(LOOP, prepare=lenient)
    own = again(free, budget=ab.Budget(tools={"search": 3}))
    assert own.skipped == len(LOOP) - 3, "the tool's own limit ends nothing: the model calls go on"
    assert [action["action"] for action in own.report.actions if action["action"] == "refuse"] == ["refuse"] * 7
    shared = again(free, budget=ab.Budget(max_tool_calls=3))
    assert shared.stopped_by is not None
    assert shared.report.tool_calls == 3
    assert shared.report.model_calls == 4, "the model call that asked for the fourth tool call was paid already"


def test_a_recorded_lenient_refusal_is_replayed_and_admitted_under_a_larger_limit() -> None:
    def lenient(governor: Governor, task: Any) -> None:
        task.lenient = True

    tight = live(LOOP, ab.Budget(tools={"search": 3}), prepare=lenient)
    assert again(tight).label == "exact"
    assert again(tight, budget=ab.Budget(tools={"search": 5})).label == "lower bound"


def landed(budget: ab.Budget) -> list[Event]:
    """A task that is stopped by *budget* and lands with a last answer."""
    seen: list[Event] = []
    governor = Governor(prices=PRICES, clock=FakeClock(), sinks=[seen.append])
    task = governor.open_task("ticket", budget, task_id="t")
    governor.keep_back(task)
    for number in range(6):
        call = Call(id=f"c{number}", kind=Kind.MODEL, name="big", cap=500, caught=("t",))
        hold = governor.admit((task,), call)
        if not isinstance(hold, Hold):
            break
        governor.settle(hold, Result(outcome="ok", usage=ab.Usage(input_tokens=100, output_tokens=400)))
    if task.stop is not None:
        assert governor.allow_last_answer(task)
        governor.acted((task,), "finish", task.stop.reason)
        last = governor.admit((task,), Call(id="last", kind=Kind.MODEL, name="big", cap=100, caught=("t",), final="t"))
        assert isinstance(last, Hold)
        governor.settle(last, Result(outcome="ok", usage=ab.Usage(input_tokens=100, output_tokens=50)))
    governor.close_task(task)
    return seen


def test_a_landing_replays_with_its_last_answer() -> None:
    what_if = again(landed(ab.Budget(max_model_calls=4)))
    assert (what_if.label, what_if.report.status) == ("exact", "stopped")
    assert [action["action"] for action in what_if.report.actions] == ["finish"]


def test_without_the_stop_there_is_no_last_answer() -> None:
    recorded = landed(ab.Budget(max_model_calls=4))
    what_if = again(recorded, budget=ab.Budget(max_model_calls=40))
    assert what_if.cost == what_if.recorded - Decimal("0.003")
    assert what_if.report.actions == []
    assert any("needs no last answer" in note for note in what_if.assumptions)


def test_a_last_answer_that_was_not_recorded_is_in_the_range() -> None:
    recorded = landed(ab.Budget(max_model_calls=40))
    kept = next(event for event in recorded if isinstance(event, CallReserved) and event.call == "c3").kept["t"]["cost"]
    what_if = again(recorded, budget=ab.Budget(max_model_calls=4))
    low, high = what_if.cost_range
    assert low == what_if.cost == 3 * Decimal("0.017")
    assert high == what_if.cost + Decimal(kept) / 10**9
    assert any("last answer" in note for note in what_if.assumptions)


def test_a_ladder_sends_calls_that_do_not_fit_to_the_cheaper_model() -> None:
    free = live([(str(number), number, "ok") for number in range(10)])
    budget = ab.Budget(max_cost="$0.08")
    halted = again(free, budget=budget)
    assert halted.stopped_by is not None
    what_if = again(free, budget=budget, downgrade="small", prices=PRICES)
    assert what_if.downgraded > 0
    assert what_if.skipped < halted.skipped
    assert what_if.cost <= Decimal("0.08")
    assert what_if.report.by_model["small"].calls > 0
    assert {action["action"] for action in what_if.report.actions} >= {"downgrade"}
    assert what_if.diverged_at.why == "model"
    assert any("ladder" in note for note in what_if.assumptions)


def test_a_ladder_changes_nothing_where_everything_fits() -> None:
    what_if = again(live(LOOP), budget=ab.Budget(max_cost="$10"), downgrade=["openai:gpt-4o-mini"])
    assert (what_if.label, what_if.downgraded, what_if.saved) == ("exact", 0, 0)


def test_a_ladder_without_names_is_refused() -> None:
    with pytest.raises(ab.ConfigurationError, match="downgrade"):
        again(live(LOOP), downgrade=[3])


def test_a_path_with_a_ladder_streams(tmp_path: Path) -> None:
    from agentbudget.trace.writer import encode

    (tmp_path / "run.jsonl").write_bytes(encode(live(LOOP)))
    changes: dict[str, Any] = {"budget": ab.Budget(max_cost="$0.03"), "downgrade": ["small"], "prices": PRICES}
    assert replay(tmp_path / "run.jsonl", **changes).cost == again(live(LOOP), **changes).cost


def test_what_is_kept_for_a_last_answer_is_a_tenth_of_the_new_limit() -> None:
    recorded = landed(ab.Budget(max_cost="$1"))
    assert again(recorded, budget=ab.Budget(max_cost="$0.10")).cost > 0, "a tenth of $1 would leave nothing of $0.10"


def test_a_task_that_ended_by_itself_after_a_loop_goes_on_when_it_is_resumed() -> None:
    seen: list[Event] = []
    governor = Governor(prices=PRICES, clock=FakeClock(), sinks=[seen.append])
    task = governor.open_task("ticket", ab.Budget(loops=ab.Loops()), task_id="t")
    for number in range(5):
        if number == 4:
            governor.close_task(task)
            governor.resume(task)
        hold = governor.admit((task,), Call(id=f"c{number}", kind=Kind.TOOL, name="search", arguments={"q": "a"}))
        assert isinstance(hold, Hold)
        governor.settle(hold, Result(outcome="ok", said="same", lane="agent"))
    governor.close_task(task)
    assert again(seen).label == "exact"
    assert again(seen).skipped == 0
