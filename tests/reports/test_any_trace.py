"""Whatever a trace holds, in whatever order, there is a page of it, a picture, and its calls add up."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentbudget.reports import page
from agentbudget.reports.notebook import output
from agentbudget.reports.story import tell
from agentbudget.trace.events import (
    ActionTaken,
    CallDenied,
    CallExtended,
    CallReleased,
    CallReserved,
    CallSettled,
    Event,
    LimitRaised,
    TaskClosed,
    TaskOpened,
    TaskResumed,
)
from tests.reports.samples import HOSTILE, trace

IDS = st.sampled_from(["a", "b", "c", HOSTILE])
TASKS = st.sampled_from([(), ("t",), ("inner", "t"), ("u",)])
TIMES = st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 10)
NANOS = st.integers(0, 2**53)
WORDS = st.text(max_size=5) | st.just(HOSTILE)
KINDS = st.sampled_from(["model", "tool", "other"])
BUDGETS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"max_cost_nanos": 10**9, "max_seconds": 3.5, "tools": {"search": 3}},
        {"max_cost_nanos": 0, "max_model_calls": 0},
        {"max_cost_nanos": "much", "tools": 7, "max_retries": None, "max_uncached_tokens": 9, "max_total_tokens": 4},
    ]
)
STOPS: st.SearchStrategy[dict[str, Any]] = st.sampled_from([{}, {"reason": 7}, {"limit": HOSTILE, "reason": HOSTILE}])
CALLS = {"at": TIMES, "call": IDS, "tasks": TASKS}
NAMED = {**CALLS, "kind": KINDS, "name": WORDS, "agent": WORDS, "node": WORDS}
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(TaskOpened, at=TIMES, task=st.sampled_from(["t", "u"]), name=WORDS, budget=BUDGETS),
    st.builds(TaskResumed, at=TIMES, task=st.just("t"), budget=BUDGETS, redeclared=st.booleans()),
    st.builds(CallReserved, **NAMED, cost=NANOS, within=IDS, attempt=st.integers(-1, 3), layer=WORDS),
    st.builds(CallExtended, **CALLS, estimate_output=st.integers(0, 9), cost=NANOS),
    st.builds(CallReleased, **CALLS),
    st.builds(
        CallSettled,
        **NAMED,
        outcome=WORDS,
        cost=NANOS,
        usage=st.dictionaries(st.sampled_from(["input_tokens", "cache_read_tokens", "other"]), NANOS),
        source=st.sampled_from(["reported", "estimated", ""]),
        seconds=TIMES,
        wasted=st.booleans(),
        retry=st.booleans(),
        late=st.booleans(),
        priced=st.booleans(),
        overrun=NANOS,
        error=WORDS,
    ),
    st.builds(CallDenied, **NAMED, stop=STOPS, enforced=st.booleans(), within=IDS),
    st.builds(ActionTaken, at=TIMES, tasks=TASKS, action=st.just("refuse") | WORDS, reason=WORDS, call=IDS),
    st.builds(LimitRaised, at=TIMES, task=st.just("t"), meter=st.just("cost"), amount=NANOS, grant=IDS),
    st.builds(TaskClosed, at=TIMES, task=st.just("t"), status=WORDS, cost=NANOS, seconds=TIMES),
)


class Whole(HTMLParser):
    """Checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@settings(deadline=None, max_examples=60)
@given(st.lists(EVENTS, max_size=14))
def test_any_events_have_a_page_and_a_picture(events: list[Event]) -> None:
    for html in (page(trace(events)), output(trace(events))):
        whole = Whole()
        whole.feed(html)
        assert whole.open == []


@settings(deadline=None, max_examples=100)
@given(st.lists(EVENTS, max_size=14))
def test_the_calls_of_any_events_add_up_to_what_was_settled(events: list[Event]) -> None:
    story = tell(events)
    assert sum(line.cost for line in story.calls) == sum(
        event.cost for event in events if isinstance(event, CallSettled)
    )
    assert all(line.end >= line.begin >= 0 for line in story.calls)
