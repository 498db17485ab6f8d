"""Compact: a context is made smaller where that is projected to pay, and stays so; the user loses nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
    ToolCallLimitMiddleware,
)
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState

import agentbudget as ab
from agentbudget.langchain.compact import Compact
from agentbudget.testing import ScriptedChatModel, assert_valid_history, scripted_reply
from agentbudget.trace import events
from tests.langchain.actors import HELLO, graph_of, scripted
from tests.langchain.conftest import NewGovernor

PAGE = "word " * 800
"""About a thousand tokens."""
DEAR = {
    "dear": {"input": "10", "output": "40", "cache_read": "1"},
    "free-to-re-read": {"input": "10", "output": "40", "cache_read": "0.01"},
    "cheap": {"input": "1", "output": "4"},
}
THREAD: Any = {"configurable": {"thread_id": "t"}}


@tool
def read(page: int) -> str:
    """Read a page."""
    return f"page {page}: {PAGE}"


def length(messages: Sequence[BaseMessage]) -> int:
    """Tokens of *messages*, as the scripted provider counts them."""
    return 50 + sum(len(message.text) // 4 + 10 for message in messages)


def reader(pages: int, *, cached: bool = False, name: str = "dear") -> ScriptedChatModel:
    """A model that reads *pages* pages, one a turn, and is billed for the whole context every time."""

    def turn(messages: list[BaseMessage]) -> AIMessage:
        done = 0
        for message in messages:
            done = max([done, *[call["args"]["page"] for call in getattr(message, "tool_calls", ())]])
        calls = [("read", {"page": done + 1})] if done < pages else []
        tokens = length(messages)
        reply = scripted_reply("" if calls else "done", calls=calls, input_tokens=tokens, output_tokens=20)
        if cached:
            reply.usage_metadata["input_token_details"] = {"cache_read": tokens - 20}  # type: ignore[index]  # this script reports usage
        return reply.model_copy(update={"response_metadata": {"model_name": name}})

    return ScriptedChatModel(script=(turn,), repeat_last=True, max_tokens=30, model_name=name)


def compacted(middleware: ab.BudgetMiddleware) -> list[dict[str, Any]]:
    assert middleware.report is not None
    return [dict(action) for action in middleware.report.actions if action["action"] == "compact"]


def sizes(model: ScriptedChatModel) -> list[int]:
    return [length(call.messages) for call in model.calls]


@pytest.fixture
def governor(new_governor: NewGovernor) -> ab.Governor:
    return new_governor(prices=DEAR)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_old_tool_outputs_are_cleared_when_the_rest_would_not_be_paid(
    governor: ab.Governor, *, asynchronous: bool
) -> None:
    spent = {}
    for compact in (False, True):
        model = reader(12)
        middleware = ab.BudgetMiddleware(max_cost="$0.60", governor=governor, compact=compact)
        agent = create_agent(model, [read], middleware=[middleware])
        result = asyncio.run(agent.ainvoke(HELLO)) if asynchronous else agent.invoke(HELLO)
        assert_valid_history(result["messages"])
        for call in model.calls:
            assert_valid_history(list(call.messages))
        assert middleware.report is not None
        spent[compact] = (middleware.report.status, middleware.report.cost)
        assert all(PAGE in message.text for message in result["messages"] if isinstance(message, ToolMessage)), (
            "the user's history lost what a tool had found"
        )
    assert spent[False][0] == "stopped"
    assert spent[True][0] == "completed"


def test_what_was_cleared_once_stays_cleared_and_nothing_is_done_at_every_step(governor: ab.Governor) -> None:
    model = reader(15)
    middleware = ab.BudgetMiddleware(max_cost="$0.60", governor=governor, compact=ClearToolUsesEdit(keep=2))
    create_agent(model, [read], middleware=[middleware]).invoke(HELLO)
    seen = sizes(model)
    drops = [step for step in range(1, len(seen)) if seen[step] < seen[step - 1]]
    assert len(drops) == len(compacted(middleware))
    assert 1 <= len(drops) <= 4
    assert all(after - before >= 3 for before, after in itertools.pairwise(drops))


def test_it_is_recorded_with_the_numbers_it_was_decided_by(governor: ab.Governor) -> None:
    middleware = ab.BudgetMiddleware(max_cost="$0.60", governor=governor, compact=True)
    create_agent(reader(12), [read], middleware=[middleware]).invoke(HELLO)
    action = compacted(middleware)[0]
    numbers = action["numbers"]
    assert numbers["compact"] < numbers["stay"]
    assert numbers["stay"] > numbers["left"] > 0
    assert (numbers["own"], numbers["meter"]) == (0, "cost")
    assert numbers["tokens"] > 0
    assert "cold prompt cache" in action["reason"]


def test_what_is_reserved_for_the_smaller_request_is_less_than_the_larger_one_took(new_governor: NewGovernor) -> None:
    seen: list[Any] = []
    governor = new_governor(prices=DEAR, sinks=[seen.append])
    middleware = ab.BudgetMiddleware(max_cost="$0.60", governor=governor, compact=ClearToolUsesEdit(keep=1))
    create_agent(reader(12), [read], middleware=[middleware]).invoke(HELLO)
    taken = next(place for place, event in enumerate(seen) if getattr(event, "action", "") == "compact")
    bounds = [
        event.estimate_input for event in seen if isinstance(event, events.CallReserved) and event.kind == "model"
    ]
    before = sum(isinstance(e, events.CallReserved) and e.kind == "model" for e in seen[: taken + 1])
    assert bounds[before - 1] < max(bounds[: before - 1])


def test_a_smaller_context_that_was_not_enough_is_on_record_all_the_same(governor: ab.Governor) -> None:
    model = reader(99)
    middleware = ab.BudgetMiddleware(
        max_cost="$0.30", governor=governor, compact=ClearToolUsesEdit(keep=0), shrink=False
    )
    create_agent(model, [read], middleware=[middleware]).invoke(HELLO)
    seen = sizes(model)
    drops = sum(after < before for before, after in itertools.pairwise(seen))
    assert len(compacted(middleware)) >= drops
    assert middleware.report is not None
    assert middleware.report.status == "stopped"


def test_a_budget_that_is_enough_leaves_the_context_alone(governor: ab.Governor) -> None:
    model = reader(12)
    middleware = ab.BudgetMiddleware(max_cost="$9", governor=governor, compact=True)
    create_agent(model, [read], middleware=[middleware]).invoke(HELLO)
    assert not compacted(middleware)
    assert sizes(model) == sorted(sizes(model))


def test_a_context_that_is_read_from_the_cache_for_nothing_is_not_worth_losing_it(governor: ab.Governor) -> None:
    model = reader(12, cached=True, name="free-to-re-read")
    middleware = ab.BudgetMiddleware(max_cost="$0.09", governor=governor, compact=ClearToolUsesEdit(keep=3))
    create_agent(model, [read], middleware=[middleware]).invoke(HELLO)
    assert not compacted(middleware)


def test_a_limit_on_tokens_is_a_reason_too(governor: ab.Governor) -> None:
    for compact, status in ((False, "stopped"), (True, "completed")):
        middleware = ab.BudgetMiddleware(max_input_tokens=70_000, governor=governor, compact=compact)
        create_agent(reader(12), [read], middleware=[middleware]).invoke(HELLO)
        assert middleware.report is not None
        assert middleware.report.status == status
        assert [action["numbers"]["meter"] for action in compacted(middleware)][:1] == ["input_tokens"] * compact


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_summary_replaces_older_messages_in_the_state_and_is_paid_once(
    governor: ab.Governor, *, asynchronous: bool
) -> None:
    model = reader(14)
    writer = scripted(scripted_reply("all pages say word", input_tokens=900, output_tokens=30), model_name="cheap")
    middleware = ab.BudgetMiddleware(max_cost="$0.75", governor=governor, compact=writer)
    agent = create_agent(model, [read], middleware=[middleware], checkpointer=InMemorySaver())
    result = asyncio.run(agent.ainvoke(HELLO, THREAD)) if asynchronous else agent.invoke(HELLO, THREAD)
    messages = agent.get_state(THREAD).values["messages"]
    assert_valid_history(result["messages"])
    assert messages == result["messages"]
    assert "all pages say word" in messages[0].text
    assert isinstance(messages[0], HumanMessage)
    assert len(messages) < 20
    taken = compacted(middleware)
    assert 1 <= len(taken) <= 3
    assert len(writer.calls) == len(taken)
    assert taken[0]["numbers"]["own"] > 0
    assert middleware.report is not None
    assert middleware.report.model_calls == len(model.calls) + len(writer.calls)
    assert middleware.report.status == "completed"


def test_a_summary_dearer_than_what_it_saves_is_not_written(new_governor: NewGovernor) -> None:
    governor = new_governor(prices={**DEAR, "cheap": {"input": "400", "output": "4000"}})
    writer = scripted(model_name="cheap")
    middleware = ab.BudgetMiddleware(max_cost="$0.75", governor=governor, compact=writer)
    create_agent(reader(14), [read], middleware=[middleware]).invoke(HELLO)
    assert not writer.calls
    assert not compacted(middleware)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_summary_that_fails_leaves_the_agent_going_and_is_no_secret(
    governor: ab.Governor, *, asynchronous: bool
) -> None:
    class Broken(SummarizationMiddleware):
        def before_model(self, state: Any, runtime: Any) -> Any:
            raise ValueError("the summariser is down")

        async def abefore_model(self, state: Any, runtime: Any) -> Any:
            return self.before_model(state, runtime)

    model = reader(14)
    summarise = Broken(model=scripted(model_name="cheap"), trigger=("messages", 8), keep=("messages", 4))
    middleware = ab.BudgetMiddleware(max_cost="$0.75", governor=governor, compact=summarise)
    agent = create_agent(model, [read], middleware=[middleware])
    result = asyncio.run(agent.ainvoke(HELLO)) if asynchronous else agent.invoke(HELLO)
    assert_valid_history(result["messages"])
    assert not compacted(middleware)
    assert middleware.report is not None
    found = [str(each) for each in middleware.report.discrepancies]
    assert any("the summariser is down" in each for each in found)
    assert len(found) < len(model.calls) / 2, "it is not tried at every step"


def test_a_summary_that_the_budget_refuses_lands_the_agent(governor: ab.Governor) -> None:
    """The summariser is metered like any call: what its price book did not foresee is refused, and landed."""
    model = reader(14)
    writer = scripted(model_name="cheap")

    class Greedy(SummarizationMiddleware):
        def before_model(self, state: Any, runtime: Any) -> Any:
            for _ in range(99):
                writer.invoke(state["messages"])

    summarise = Greedy(model=writer, trigger=("messages", 8), keep=("messages", 4))
    middleware = ab.BudgetMiddleware(max_cost="$0.75", max_model_calls=20, governor=governor, compact=summarise)
    result = create_agent(model, [read], middleware=[middleware]).invoke(HELLO)
    assert_valid_history(result["messages"])
    assert writer.calls
    assert len(model.calls) + len(writer.calls) <= 20
    assert middleware.report is not None
    assert middleware.report.status == "stopped"


def test_the_tokens_of_a_summary_are_no_part_of_what_the_agent_streams(governor: ab.Governor) -> None:
    writer = scripted(scripted_reply("S-U-M", input_tokens=900, output_tokens=30), model_name="cheap")
    middleware = ab.BudgetMiddleware(max_cost="$0.75", governor=governor, compact=writer)
    agent = create_agent(reader(14), [read], middleware=[middleware])
    chunks = [part for part, _ in agent.stream(HELLO, stream_mode="messages") if isinstance(part, AIMessage)]
    assert writer.calls
    assert all("S-U-M" not in part.text for part in chunks)


def test_the_last_answer_is_asked_with_the_smaller_context(governor: ab.Governor) -> None:
    model = reader(99)
    middleware = ab.BudgetMiddleware(max_cost="$0.60", governor=governor, compact=True)
    result = create_agent(model, [read], middleware=[middleware]).invoke(HELLO)
    assert_valid_history(result["messages"])
    assert middleware.report is not None
    assert middleware.report.actions[-1]["action"] in {"finish", "end"}
    assert sizes(model)[-1] < 12_000


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("summary", [False, True])
@pytest.mark.parametrize(
    "other",
    [
        lambda: ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=6_000, keep=2)]),
        lambda: SummarizationMiddleware(model=scripted(), trigger=("messages", 9), keep=("messages", 4)),
        ModelRetryMiddleware,
        lambda: ToolCallLimitMiddleware(run_limit=99),
    ],
    ids=["context editing", "summarisation", "retry", "tool limit"],
)
def test_it_lives_with_other_middleware_on_either_side(
    governor: ab.Governor, other: Any, *, first: bool, summary: bool
) -> None:
    model = reader(14)
    writer = scripted(scripted_reply("in short", input_tokens=900, output_tokens=30), model_name="cheap")
    middleware = ab.BudgetMiddleware(max_cost="$0.75", governor=governor, compact=writer if summary else True)
    stack: list[Any] = [middleware, other()] if first else [other(), middleware]
    agent = create_agent(model, [read], middleware=stack, checkpointer=InMemorySaver())
    for _ in agent.stream(HELLO, THREAD, stream_mode="updates"):
        pass
    assert_valid_history(agent.get_state(THREAD).values["messages"])
    for call in model.calls:
        assert_valid_history(list(call.messages))
    assert middleware.report is not None
    assert middleware.report.cost <= Decimal("0.75")


def test_a_deep_agent_is_compacted_too(governor: ab.Governor) -> None:
    model = reader(12)
    middleware = ab.BudgetMiddleware(max_cost="$0.90", governor=governor, compact=ClearToolUsesEdit(keep=1))
    result = create_deep_agent(model=model, tools=[read], middleware=[middleware]).invoke(HELLO)
    assert_valid_history(result["messages"])
    assert middleware.report is not None
    assert middleware.report.status == "completed"


def test_a_summary_that_was_paid_before_a_stop_is_not_paid_again_after_it(governor: ab.Governor) -> None:
    model = reader(30)
    writer = scripted(scripted_reply("in short", input_tokens=900, output_tokens=30), model_name="cheap")
    saver = InMemorySaver()

    def run(given: Any, most: str) -> Any:
        middleware = ab.BudgetMiddleware(max_cost=most, governor=governor, compact=writer, on_limit="raise")
        agent = create_agent(model, [read], middleware=[middleware], checkpointer=saver)
        return agent.invoke(given, THREAD)

    with pytest.raises(ab.BudgetExceeded):
        run(HELLO, "$0.75")
    summaries = len(writer.calls)
    assert summaries
    result = run(None, "$9")
    assert len(writer.calls) == summaries
    assert_valid_history(result["messages"])
    assert result["messages"][-1].content == "done"


def test_a_governed_model_sends_less_too_and_remembers_it(governor: ab.Governor) -> None:
    inner = reader(99)
    model = ab.governed(inner, compact=ClearToolUsesEdit(keep=1))

    def think(state: MessagesState) -> Any:
        messages = list(state["messages"])
        for _ in range(14):
            reply = model.invoke(messages)
            messages.append(reply)
            messages += [ToolMessage(f"{PAGE}", tool_call_id=call["id"]) for call in reply.tool_calls]
        return {"messages": messages}

    graph = ab.guard(graph_of(think=think).compile(), max_cost="$0.90", governor=governor)
    graph.invoke(HELLO)
    report = governor.reports[-1]
    assert (report.status, report.model_calls) == ("completed", 14)
    drops = [b < a for a, b in itertools.pairwise(sizes(inner))]
    assert 1 <= sum(drops) <= 4


def test_a_governed_model_cannot_rewrite_the_history_of_its_node() -> None:
    with pytest.raises(ab.ConfigurationError, match="BudgetMiddleware"):
        ab.governed(reader(1), compact=scripted())


def test_in_observe_mode_the_context_is_left_alone(new_governor: NewGovernor) -> None:
    model = reader(9)
    middleware = ab.BudgetMiddleware(
        max_cost="$0.20", governor=new_governor(prices=DEAR, mode="observe"), compact=ClearToolUsesEdit(keep=1)
    )
    create_agent(model, [read], middleware=[middleware]).invoke(HELLO)
    assert sizes(model) == sorted(sizes(model))


@pytest.mark.parametrize(
    "given", [7, object(), ["x"], ClearToolUsesEdit], ids=["a number", "an object", "a list of text", "a class"]
)
def test_what_makes_nothing_smaller_is_refused_with_what_would(given: Any) -> None:
    with pytest.raises(ab.ConfigurationError, match="SummarizationMiddleware"):
        ab.BudgetMiddleware(max_cost="$1", compact=given)


def test_a_summariser_without_a_trigger_is_refused() -> None:
    with pytest.raises(ab.ConfigurationError, match="trigger="):
        ab.BudgetMiddleware(max_cost="$1", compact=SummarizationMiddleware(model=scripted()))


def test_the_token_threshold_of_an_edit_is_replaced_by_the_budget_and_the_given_one_is_left_alone() -> None:
    given = ClearToolUsesEdit(trigger=100_000, keep=1)
    for each in (given, ContextEditingMiddleware(edits=[given])):
        compact = Compact.of(each)
        assert compact is not None
        assert [getattr(edit, "trigger", None) for edit in compact.edits] == [0]
    assert given.trigger == 100_000


def test_tool_calls_of_every_turn_may_have_the_same_id(governor: ab.Governor) -> None:
    seen: list[tuple[int, str]] = []
    scripted_turn = reader(14).script[0]

    def turn(messages: list[BaseMessage]) -> AIMessage:
        reply: AIMessage = scripted_turn(messages)
        asked = [call["args"]["page"] for each in messages for call in getattr(each, "tool_calls", ())]
        if asked:
            seen.append((max(asked), messages[-1].text[:9]))
        return reply.model_copy(update={"tool_calls": [{**call, "id": "call_0"} for call in reply.tool_calls]})

    model = ScriptedChatModel(script=(turn,), repeat_last=True, max_tokens=30, model_name="dear")
    middleware = ab.BudgetMiddleware(max_cost="$0.75", governor=governor, compact=ClearToolUsesEdit(keep=1))
    create_agent(model, [read], middleware=[middleware]).invoke(HELLO)
    assert compacted(middleware)
    assert all(text.startswith(f"page {page}:") for page, text in seen), seen


@pytest.mark.parametrize("text", ["blah " * 20_000, "Error generating summary: the provider is down"])
def test_a_summary_that_makes_nothing_smaller_is_not_taken_and_not_paid_for_ever(
    text: str, governor: ab.Governor
) -> None:
    class Old(SummarizationMiddleware):
        """As LangChain once was: an error is a summary like any other."""

        def _create_summary(self, messages_to_summarize: Any) -> str:
            self.model.invoke("summarise")
            return text

    model, writer = reader(30), scripted(model_name="cheap")
    summarise = Old(model=writer, trigger=("messages", 8), keep=("messages", 4))
    middleware = ab.BudgetMiddleware(max_cost="$0.75", governor=governor, compact=summarise)
    result = create_agent(model, [read], middleware=[middleware]).invoke(HELLO)
    assert_valid_history(result["messages"])
    assert not compacted(middleware)
    assert sizes(model) == sorted(sizes(model)), "nothing was taken out"
    assert 1 <= len(writer.calls) <= 2
    assert middleware.report is not None
    assert sum(each["kind"] == "compact" for each in middleware.report.discrepancies) == len(writer.calls)
