"""The story of a trace: each call once, with what became of it; the tree; the budget's course."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentbudget.reports.charts import burn_down, context, seconds
from agentbudget.reports.story import CallLine, Story, tell
from agentbudget.reports.tree import arranged
from agentbudget.trace.events import (
    ActionTaken,
    CallDenied,
    CallExtended,
    CallReleased,
    Event,
    LimitRaised,
    TaskClosed,
    TaskOpened,
    TaskResumed,
)
from tests.reports.samples import AT, everything, hostile, long_trace, reserved, settled, stop, trace

OPENED = TaskOpened(at=AT, task="t", name="x", budget={"max_cost_nanos": 50_000_000})


def told(*events: Event) -> Story:
    return tell([OPENED, *events])


def words(story: Story) -> list[tuple[str, list[str]]]:
    return [(line.call, line.words) for line in story.calls]


def test_each_call_of_the_report_is_a_line_and_their_costs_add_up() -> None:
    for events in (everything(), hostile(), long_trace(50).events):
        report, story = trace(list(events)).report, tell(events)
        assert len(story.calls) == report.attempts + report.denied
        assert sum(line.cost for line in story.calls) == report.cost * 10**9
        assert story.points[-1].settled == report.cost * 10**9
        assert story.points[-1].held == 0


def test_calls_stand_behind_the_call_they_ran_in() -> None:
    assert [(line.call, line.depth) for line in tell(everything()).calls] == [
        *(("m1", 0), ("s1", 0), ("s2", 0), ("r1", 0), ("m2", 1), ("s3", 1), ("m3", 0), ("m4", 0), ("m5", 0)),
    ]


def test_only_what_overlapped_a_call_beside_it_ran_in_parallel() -> None:
    assert [line.call for line in tell(everything()).calls if line.parallel] == ["s1", "s2"]


def test_a_call_without_an_end_is_in_flight_or_presumed_spent() -> None:
    assert words(told(reserved("a", 1), settled("b", 2))) == [("a", ["in flight"]), ("b", [])]
    closed = TaskClosed(at=AT + 3, task="t", status="failed")
    assert words(told(reserved("a", 1), closed)) == [("a", ["in flight", "presumed spent"])]


def test_a_released_call_never_ran_and_holds_nothing() -> None:
    story = told(reserved("a", 1), CallReleased(at=AT + 2, call="a", tasks=("t",)))
    assert words(story) == [("a", ["never ran"])]
    assert story.points[-1].held == 0


def test_a_stream_that_was_refused_more_room_stays_one_call() -> None:
    grown = CallExtended(at=AT + 2, call="a", tasks=("t",), estimate_output=900, cost=30_000_000)
    refused = CallDenied(at=AT + 3, call="a", tasks=("t",), kind="model", name="gpt-4o", stop=stop())
    story = told(reserved("a", 1), grown, refused, settled("a", 4, outcome="cancelled", cost=7))
    assert words(story) == [("a", ["cancelled", "denied more output"])]
    assert max(point.held for point in story.points) == 30_000_000
    assert story.points[-1].held == 0


def test_what_was_only_observed_ran_and_says_that_it_would_be_denied() -> None:
    seen = CallDenied(at=AT + 1, call="a", tasks=("t",), kind="model", name="gpt-4o", stop=stop(), enforced=False)
    assert words(told(seen, reserved("a", 1), settled("a", 2))) == [("a", ["would be denied"])]
    assert words(told(seen, settled("a", 2))) == [("a", ["would be denied"])]


def test_a_tool_call_that_was_refused_while_its_task_went_on_is_a_line() -> None:
    numbers = {"tool": "search", "cost": 0, "attempt": 1}
    refusal = ActionTaken(at=AT + 1, tasks=("t",), action="refuse", reason="no", call="a", numbers=numbers)
    assert words(told(refusal)) == [("a", ["denied", "the task went on"])]


def test_the_limit_follows_grants_and_new_budgets() -> None:
    story = told(
        LimitRaised(at=AT + 1, task="t", meter="cost", amount=10_000_000, grant="g"),
        TaskResumed(at=AT + 2, task="t", budget={"max_cost_nanos": 90_000_000}),
        TaskResumed(at=AT + 3, task="t", budget={}, redeclared=True),
    )
    assert [point.limit for point in story.points] == [50_000_000, 60_000_000, 90_000_000, None]


def test_a_trace_without_times_is_drawn_in_its_order() -> None:
    story = told(*(event for number in range(3) for event in (reserved(f"{number}", 0), settled(f"{number}", 0))))
    assert not story.timed
    assert [(line.begin, line.end) for line in story.calls] == [(0, 1), (1, 2), (2, 3)]
    assert [line.parallel for line in story.calls] == [False] * 3


def test_context_is_drawn_only_where_tokens_are_known() -> None:
    assert context(told(reserved("a", 1), settled("a", 2)).calls) is None
    assert context(told(settled("a", 2, usage={"input_tokens": 5})).calls) is not None


def test_the_budget_is_drawn_down_to_what_was_left() -> None:
    drawn = burn_down(told(reserved("a", 1), settled("a", 2, cost=20_000_000)))
    path = next(element for element in drawn.iter("path") if element.get("class") == "line")
    assert path.get("d") == "M0 0H1000V60H1000"


def test_lengths_of_time_are_said_in_fitting_units() -> None:
    lengths = (0, 0.0256, 1, 75.04, 245, 7260)
    assert [seconds(length) for length in lengths] == ["0 ms", "26 ms", "1.0 s", "75.0 s", "4 min 05 s", "2 h 01 min"]


NAMES = st.sampled_from(["a", "b", "c", "d", "e"])


@given(st.lists(st.tuples(NAMES, NAMES, st.floats(0, 10), st.floats(0, 10)), max_size=12))
def test_any_parents_even_circles_and_repeated_ids_give_each_call_once(
    drawn: list[tuple[str, str, float, float]],
) -> None:
    lines = [line(call, inside, begin, begin + length) for call, inside, begin, length in drawn]
    order = arranged(lines)
    assert sorted(map(id, order)) == sorted(map(id, lines))
    assert [each.number for each in order] == list(range(1, len(lines) + 1))


def line(call: str, inside: str, begin: float, end: float, **more: Any) -> CallLine:
    return CallLine(call=call, kind="model", name=call, begin=begin, end=end, state="ok", inside=inside, **more)
