"""`governed`: the whole surface of a chat model, each call metered once and made to fit."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import BaseModel

import agentbudget as ab
from agentbudget.governor.governor import Governor
from agentbudget.testing import ProviderServer, Reply, ScriptedChatModel, ToolCall, scripted_reply
from tests.langchain.actors import CALL, ENTRIES, scripted
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import anthropic, metered, openai, report_of, search, truth, using


class Weather(BaseModel):
    """The weather."""

    sky: str


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("paid_by", ["task", "callback", "own budget", "two callbacks"])
def test_every_entry_is_metered_once(entry: str, paid_by: str, governor: Governor) -> None:
    inner = scripted()
    if paid_by == "task":
        with ab.task("t", max_cost="$1", governor=governor) as task:
            ENTRIES[entry](ab.governed(inner), "a", {})
        reports = [task.report]
    elif paid_by == "own budget":
        model = ab.governed(inner, max_cost="$1", governor=governor)
        ENTRIES[entry](model, "a", {})
        assert model.own is not None
        reports = [report_of(model.own)]
    else:
        callbacks = [metered(governor, max_cost="$1") for _ in range(1 + (paid_by == "two callbacks"))]
        ENTRIES[entry](ab.governed(inner), "a", using(*callbacks))
        reports = [report_of(callback) for callback in callbacks]
    assert [(report.model_calls, report.cost) for report in reports] == [(1, CALL)] * len(reports)
    assert len(inner.calls) == 1


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_is_shrunk_and_then_stopped(entry: str, new_governor: NewGovernor) -> None:
    governor = new_governor(prices={"gpt-4o": {"input": "0", "output": "10"}})
    inner = ScriptedChatModel(
        script=[scripted_reply("ok", input_tokens=10, output_tokens=600)], repeat_last=True, max_tokens=1_000
    )
    callback = metered(governor, max_cost="$0.01", per="callback")
    model = ab.governed(inner)
    for _ in range(2):
        ENTRIES[entry](model, "a", using(callback))
    assert [call.kwargs.get("max_tokens") for call in inner.calls] == [None, 400]
    with pytest.raises(ab.BudgetExceeded):
        ENTRIES[entry](model, "a", using(callback))
    assert len(inner.calls) == 2


def test_without_a_budget_it_is_the_model_itself() -> None:
    inner = scripted()
    assert ab.governed(inner).invoke("a").content == inner.invoke("a").content
    assert inner.calls[0].kwargs == inner.calls[1].kwargs


def test_the_callbacks_of_the_inner_model_hear_each_call_once(governor: Governor) -> None:
    callback = metered(governor, max_cost="$1")
    inner = scripted().model_copy(update={"callbacks": [callback]})
    ab.governed(inner).invoke("a", using(callback))
    assert report_of(callback).model_calls == 1


def test_a_node_of_a_graph_is_paid_by_the_task_of_the_graph(governor: Governor) -> None:
    model = ab.governed(scripted())
    builder = StateGraph(MessagesState)
    builder.add_node("ask", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    callback = metered(governor, max_cost="$1")
    builder.compile().invoke({"messages": [HumanMessage("a")]}, using(callback))
    report = report_of(callback)
    assert (report.model_calls, report.by_node["ask"].calls) == (1, 1)


@pytest.mark.parametrize("entry", ["invoke", "ainvoke", "stream", "batch"])
def test_a_budget_of_its_own_works_in_a_node_on_a_real_client(entry: str, governor: Governor) -> None:
    """What the graph keeps in the config of its nodes is no argument of the provider's client."""
    with ProviderServer() as server:
        model = ab.governed(openai(server), max_cost="$1", governor=governor)
        graph = StateGraph(MessagesState)
        graph.add_node("answer", lambda state: {"messages": [model.invoke(state["messages"])]})
        graph.add_edge(START, "answer")
        ENTRIES[entry](graph.compile(), {"messages": [HumanMessage("hi")]}, {"recursion_limit": 30})
    assert model.own is not None
    assert report_of(model.own).model_calls == len(server.requests) == 1


def test_a_stop_leaves_no_run_behind_and_latches_the_task(governor: Governor) -> None:
    callback = metered(governor, max_cost="$0.000001")
    with pytest.raises(ab.BudgetExceeded) as stopped:
        ab.governed(scripted()).invoke("a", using(callback))
    assert stopped.value.stop.limit == "max_cost"
    assert report_of(callback).status == "stopped"
    assert report_of(callback).stopped_by is not None


def test_an_error_of_the_provider_is_not_charged_and_holds_nothing(governor: Governor) -> None:
    with ProviderServer([Reply(status=400, error="no")]) as server:
        callback = metered(governor, max_cost="$1")
        with pytest.raises(Exception, match="no"):
            ab.governed(openai(server)).invoke("a", using(callback))
    assert report_of(callback).cost == 0


def test_a_stream_that_is_left_early_ends_with_it(governor: Governor) -> None:
    model = ab.governed(scripted(scripted_reply("a long answer in many chunks", input_tokens=100, output_tokens=10)))
    with ab.task("left", max_cost="$1", governor=governor) as task:
        stream = model.stream("a")
        next(stream)
        stream.close()  # type: ignore[attr-defined]  # a generator
        assert task.report.reserved == 0
    assert task.report.model_calls == 1


def test_a_call_made_while_a_stream_is_suspended_is_a_call_of_its_own(governor: Governor) -> None:
    model = ab.governed(scripted())
    with ab.task("two", max_cost="$1", governor=governor) as task:
        stream = model.stream("a")
        next(stream)
        model.invoke("a")
        assert list(stream)
    assert task.report.model_calls == 2


def test_prompts_of_one_generate_are_calls_of_their_own(governor: Governor) -> None:
    model = ab.governed(scripted())
    prompts: list[list[BaseMessage]] = [[HumanMessage("a")], [HumanMessage("b")]]
    with ab.task("generate", max_cost="$1", governor=governor) as task:
        assert len(model.generate(prompts).generations) == 2
        assert len(asyncio.run(model.agenerate(prompts)).generations) == 2
    assert task.report.model_calls == 4


@pytest.mark.parametrize("client", [openai, anthropic], ids=["openai", "anthropic"])
def test_tools_arrive_as_the_inner_model_binds_them(client: Any, governor: Governor) -> None:
    with ProviderServer([Reply(tool_calls=(ToolCall(name="search", args={"query": "a"}),))] * 2) as server:
        inner = client(server)
        with ab.task("tools", max_cost="$1", governor=governor):
            answer = ab.governed(inner).bind_tools([search], tool_choice="search").invoke("a")
        inner.bind_tools([search], tool_choice="search").invoke("a")
    assert answer.tool_calls[0]["name"] == "search"
    assert server.requests[0].body == server.requests[1].body


@pytest.mark.parametrize("include_raw", [False, True], ids=["parsed", "raw"])
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_that_of_the_inner_model(method: Any, include_raw: bool, governor: Governor) -> None:
    said = (
        Reply(text='{"sky": "blue"}')
        if method == "json_schema"
        else Reply(tool_calls=(ToolCall(name="Weather", args={"sky": "blue"}),))
    )
    with ProviderServer([said] * 2) as server:
        inner = openai(server)
        with ab.task("structured", max_cost="$1", governor=governor) as task:
            chain = ab.governed(inner).with_structured_output(Weather, method=method, include_raw=include_raw)
            found = chain.invoke("a")
        inner.with_structured_output(Weather, method=method, include_raw=include_raw).invoke("a")
    parsed = found["parsed"] if isinstance(found, dict) else found
    assert parsed == Weather(sky="blue")
    assert server.requests[0].body == server.requests[1].body
    assert task.report.model_calls == 1


def test_structured_output_is_by_tool_call_where_providers_are_mixed(new_governor: NewGovernor) -> None:
    governor = new_governor(prices={"gpt-4o": {"input": "100", "output": "400"}})
    with ProviderServer([Reply(tool_calls=(ToolCall(name="Weather", args={"sky": "blue"}),))]) as server:
        model = ab.governed(openai(server), downgrade=[anthropic(server)])
        with ab.task("mixed", max_cost="$0.10", governor=governor):
            assert model.with_structured_output(Weather).invoke("a") == Weather(sky="blue")
    assert server.requests[0].path == "/messages"


def test_each_attempt_of_with_retry_is_planned_and_paid(governor: Governor) -> None:
    with ProviderServer([Reply(status=500), Reply()]) as server:
        model = ab.governed(openai(server)).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
        with ab.task("retried", max_cost="$1", governor=governor) as task:
            model.invoke("a")
        assert task.report.attempts == 2
        assert task.report.retries == 1


def test_fallbacks_and_chains_go_on_working(governor: Governor) -> None:
    failing = ScriptedChatModel(script=[ValueError("no")], repeat_last=True, max_tokens=10)
    chain = RunnableLambda(str) | ab.governed(failing).with_fallbacks([ab.governed(scripted())])
    with ab.task("chain", max_cost="$1", governor=governor) as task:
        assert chain.invoke("a").content == "ok"
    assert task.report.model_calls == 2


def test_a_cached_answer_costs_nothing_and_holds_nothing(governor: Governor) -> None:
    inner = scripted().model_copy(update={"cache": InMemoryCache()})
    with ab.task("cached", max_cost="$1", governor=governor) as task:
        for _ in range(2):
            ab.governed(inner).invoke("a")
    assert (len(inner.calls), task.report.cost) == (1, CALL)


def test_a_budget_of_its_own_holds_for_everything_called_through_it(governor: Governor) -> None:
    model = ab.governed(scripted(), max_model_calls=2, governor=governor)
    model.invoke("a")
    model.invoke("a")
    with pytest.raises(ab.BudgetExceeded):
        model.invoke("a")


def test_a_nested_budget_draws_on_the_task_around_it(governor: Governor) -> None:
    model = ab.governed(scripted(), max_cost="$1", governor=governor)
    with ab.task("outer", max_model_calls=1, governor=governor) as task:
        model.invoke("a")
        with pytest.raises(ab.BudgetExceeded):
            model.invoke("a")
    assert task.report.model_calls == 1


def test_the_truth_and_the_report_agree_on_a_real_client(governor: Governor) -> None:
    with ProviderServer() as server:
        model = ab.governed(openai(server, max_tokens=None))
        with ab.task("true", max_cost="$0.05", governor=governor) as task:
            model.invoke("a")
            list(model.stream("b"))
            asyncio.run(model.ainvoke("c"))
        assert task.report.cost == Decimal(truth(server)) * Decimal("1e-9")


def test_it_knows_what_the_inner_model_knows() -> None:
    with ProviderServer() as server:
        inner = openai(server)
        model = ab.governed(inner)
    assert model.profile == inner.profile
    assert model._get_ls_params() == inner._get_ls_params()
    assert model._llm_type == inner._llm_type


@pytest.mark.parametrize("thing", ["gpt-4o", None, RunnableLambda(str), scripted().bind(stop=["a"])])
def test_only_a_chat_model_can_be_governed(thing: Any) -> None:
    with pytest.raises(ab.ConfigurationError, match="not a chat model"):
        ab.governed(thing)


def test_a_misspelt_option_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(TypeError, match="downgrade"):
        ab.governed(scripted(), downgrad=[])


def test_a_model_that_returns_itself_from_bind_tools_stays_governed(governor: Governor) -> None:
    class Own(ScriptedChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self.model_copy()

    bound = ab.governed(Own(script=[AIMessage("ok")], max_tokens=5)).bind_tools([search])
    assert isinstance(bound, BaseChatModel)
    with ab.task("own", max_cost="$1", governor=governor) as task:
        bound.invoke("a")
    assert task.report.model_calls == 1
