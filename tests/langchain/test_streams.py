"""A stream nobody capped extends its reservation as it grows, and is stopped when there is no room."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda

import agentbudget as ab
from agentbudget.testing import FakeClock, ProviderServer, Reply
from agentbudget.trace import events
from tests.langchain.support import assert_nothing_held, metered, nanos, openai, report_of, search, truth, using

NewGovernor = Callable[..., ab.Governor]

LIMIT = 50_000_000
"""$0.05: 5,000 tokens of gpt-4o's output, less the input."""

ENDLESS = Reply(text="some words of a long story " * 3_000)
"""81,000 characters: $0.20 at the stand-in's four characters a token."""

STEP = 256 // 4 + 4
"""Tokens that may come between two looks at the reservation: 256 bytes and one chunk."""


async def _stream(app: Any, given: Any, callback: Any) -> int:
    return sum(len(str(getattr(chunk, "content", ""))) for chunk in app.stream(given, config=using(callback)))


async def _astream(app: Any, given: Any, callback: Any) -> int:
    return sum([len(str(getattr(chunk, "content", ""))) async for chunk in app.astream(given, config=using(callback))])


async def _agent_stream(app: Any, given: Any, callback: Any) -> int:
    parts = app.stream(given, config=using(callback), stream_mode="messages")
    return sum(len(str(part[0].content)) for part in parts)


async def _agent_astream(app: Any, given: Any, callback: Any) -> int:
    parts = app.astream(given, config=using(callback), stream_mode="messages")
    return sum([len(str(part[0].content)) async for part in parts])


async def _astream_events(app: Any, given: Any, callback: Any) -> int:
    return sum([1 async for _ in app.astream_events(given, config=using(callback), version="v2")])


PLAYS = {
    "stream": _stream,
    "astream": _astream,
    "astream_events": _astream_events,
    "agent.stream": _agent_stream,
    "agent.astream": _agent_astream,
}


@pytest.mark.parametrize("play", PLAYS)
async def test_a_stream_without_a_cap_is_stopped_inside_its_budget(new_governor: NewGovernor, play: str) -> None:
    seen: list[events.Event] = []
    governor = new_governor(sinks=[seen.append])
    callback = metered(governor, max_cost="$0.05")
    with ProviderServer([ENDLESS]) as server:
        model = openai(server, max_tokens=None)
        app: Any = create_agent(model, [search]) if play.startswith("agent") else model
        given: Any = {"messages": [HumanMessage("go")]} if play.startswith("agent") else "go"
        with pytest.raises(ab.BudgetExceeded) as stop:
            await PLAYS[play](app, given, callback)
        await model.root_async_client.close()
    report = report_of(callback)
    assert len(server.requests) == 1
    assert stop.value.stop.limit == "max_cost"
    assert report.status == "stopped"
    assert 0.7 * LIMIT < nanos(report.cost) <= LIMIT
    assert report.estimated == report.wasted == report.cost
    grown = [event for event in seen if isinstance(event, events.CallExtended)]
    assert 3 <= len(grown) <= 12
    assert report.model_calls == 1


async def test_what_a_stopped_stream_sent_is_what_it_is_charged(governor: ab.Governor) -> None:
    callback = metered(governor, max_cost="$0.05")
    received = 0
    with ProviderServer([ENDLESS]) as server:
        stream = openai(server, max_tokens=None).stream("go", config=using(callback))
        with suppress(ab.BudgetExceeded):
            for chunk in stream:
                received += len(str(chunk.content))
    assert report_of(callback).status == "stopped"
    charged = report_of(callback).usage.output_tokens
    assert received // 4 <= charged <= received // 4 + STEP


async def test_a_stream_that_fits_is_extended_and_billed_exactly(new_governor: NewGovernor) -> None:
    seen: list[events.Event] = []
    governor = new_governor(sinks=[seen.append])
    callback = metered(governor, max_cost="$0.50")
    with ProviderServer([ENDLESS]) as server:
        assert await _stream(openai(server, max_tokens=None), "go", callback) == len(ENDLESS.text)
    report = report_of(callback)
    assert nanos(report.cost) == truth(server)
    assert report.overrun == 0
    assert any(isinstance(event, events.CallExtended) for event in seen)


async def test_a_stream_under_a_declared_cap_never_asks_for_more(new_governor: NewGovernor) -> None:
    """The cap is reserved in full, so the budget may be exactly as large as that."""
    seen: list[events.Event] = []
    governor = new_governor(sinks=[seen.append])
    callback = metered(governor, max_output_tokens=4_000)
    with ProviderServer([ENDLESS]) as server:
        await _stream(openai(server, max_tokens=4_000), "go", callback)
    assert not any(isinstance(event, events.CallExtended) for event in seen)
    assert report_of(callback).usage.output_tokens == 4_000
    assert nanos(report_of(callback).cost) == truth(server)


async def test_an_answer_longer_than_was_learned_is_an_overrun_that_is_recorded(governor: ab.Governor) -> None:
    """Without a cap and without a stream nobody can stop it: the whole excess is counted, and flagged."""
    callback = metered(governor, max_cost="$0.05", per="callback")
    with ProviderServer([ENDLESS]) as server:
        openai(server, max_tokens=None).invoke("go", config=using(callback))
        report = report_of(callback)
        assert nanos(report.cost) == truth(server) > LIMIT
        assert nanos(report.overrun) > 0
        assert nanos(report.cost) - nanos(report.overrun) <= LIMIT
        with pytest.raises(ab.BudgetExceeded):
            openai(server, max_tokens=None).invoke("go", config=using(callback))


async def test_two_streams_side_by_side_share_what_is_left(governor: ab.Governor) -> None:
    callback = metered(governor, max_cost="$0.08")
    with ProviderServer([ENDLESS, ENDLESS]) as server:
        model = openai(server, max_tokens=None)

        def both(_: Any) -> None:
            left, right = model.stream("a"), model.stream("b")
            for _ in zip(left, right, strict=False):
                pass

        with pytest.raises(ab.BudgetExceeded):
            RunnableLambda(both).invoke(1, config=using(callback))
    report = report_of(callback)
    assert report.model_calls == 2
    assert 0.6 * 80_000_000 < nanos(report.cost) <= 80_000_000


async def test_a_stream_keeps_its_lease_for_as_long_as_it_grows(clock: FakeClock) -> None:
    governor = ab.Governor(clock=clock, lease_seconds=60)
    callback = metered(governor, max_cost="$0.50")
    with ProviderServer([Reply(text="some words " * 500)]) as server:
        for _ in openai(server, max_tokens=None).stream("go", config=using(callback)):
            clock.advance(1)
            governor.ledger.verify()
            for account in governor.ledger.accounts():
                assert governor.ledger.balance(account).presumed == 0
    assert nanos(report_of(callback).cost) == truth(server)
    assert_nothing_held(governor)


async def test_tool_calls_that_are_streamed_count_as_output(governor: ab.Governor) -> None:
    from agentbudget.testing import ToolCall

    reply = Reply(text="", tool_calls=(ToolCall(name="search", args={"query": "x" * 4_000}),))
    callback = metered(governor, max_cost="$0.50")
    with ProviderServer([reply]) as server:
        model = openai(server, max_tokens=None, stream_usage=False).bind_tools([search])
        list(model.stream("go", config=using(callback)))
    assert nanos(report_of(callback).cost) >= truth(server)
