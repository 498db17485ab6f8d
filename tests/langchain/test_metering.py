"""Laws 7 and 9: every paid attempt is counted once; missing usage is estimated and marked."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import CallbackManagerForLLMRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseLLM, FakeListLLM
from langchain_core.messages import HumanMessage
from langchain_core.outputs import Generation, LLMResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from openai import LengthFinishReasonError
from pydantic import BaseModel, ValidationError

import agentbudget as ab
from agentbudget.domain.usage import Usage
from agentbudget.testing import ProviderServer, Reply, ScriptedChatModel, ToolCall, scripted_reply
from tests.langchain.support import (
    SEARCH,
    anthropic,
    assert_nothing_held,
    metered,
    nanos,
    openai,
    report_of,
    search,
    truth,
    using,
)


class City(BaseModel):
    """A city."""

    name: str
    people: int


# -- law 7: each paid attempt is counted once -------------------------------------------------------------------------


def test_law_7_an_agent_costs_what_the_provider_bills(governor: ab.Governor) -> None:
    cached = Usage(input_tokens=2_000, output_tokens=30, cache_read_tokens=1_500)
    replies = [Reply(text="", tool_calls=(SEARCH,)), Reply(text="", tool_calls=(SEARCH,), usage=cached), Reply()]
    with ProviderServer(replies) as server:
        model = openai(server)
        callback = metered(governor, max_cost="$0.50")
        create_agent(model, [search]).invoke({"messages": [HumanMessage("go")]}, config=using(callback))
    report = report_of(callback)
    assert nanos(report.cost) == truth(server)
    assert report.usage == server.usage
    assert (report.model_calls, report.tool_calls, report.retries) == (3, 2, 0)
    assert report.estimated == report.overrun == 0


def test_law_7_anthropic_cache_writes_of_both_lifetimes_are_billed_apart(governor: ab.Governor) -> None:
    usage = Usage(
        input_tokens=1_000,
        output_tokens=50,
        cache_read_tokens=600,
        cache_write_5m_tokens=200,
        cache_write_1h_tokens=100,
    )
    with ProviderServer([Reply(usage=usage)]) as server:
        callback = metered(governor, max_cost="$0.50")
        anthropic(server).invoke("hi", config=using(callback))
    assert nanos(report_of(callback).cost) == 100 * 3_000 + 600 * 300 + 200 * 3_750 + 100 * 6_000 + 50 * 15_000


def test_law_7_several_answers_to_one_request_are_counted_once(governor: ab.Governor) -> None:
    with ProviderServer([Reply(text="x" * 400)]) as server:
        model = openai(server, n=3)
        callback = metered(governor, max_cost="$0.50")
        model.invoke("hi", config=using(callback))
    report = report_of(callback)
    assert nanos(report.cost) == truth(server)
    assert server.usage.output_tokens == 300
    assert (report.model_calls, report.usage.output_tokens) == (1, 300)
    assert "gpt-4o" in report.by_model


def test_law_7_the_reservation_of_several_answers_covers_them_all(governor: ab.Governor) -> None:
    """500 tokens of output cost $0.005: three answers do not fit into $0.012, two do."""
    with ProviderServer() as server:
        with pytest.raises(ab.BudgetExceeded):
            openai(server, n=3).invoke("hi", config=using(metered(governor, max_cost="$0.012")))
        openai(server, n=2).invoke("hi", config=using(metered(governor, max_cost="$0.012")))
    assert len(server.requests) == 1


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # LangChain's, in older versions
@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_law_7_structured_output_is_counted_once(governor: ab.Governor, method: Any) -> None:
    answer = '{"name": "Berlin", "people": 4}'
    call = ToolCall(name="City", args=answer)
    reply = Reply(text=answer) if method == "json_schema" else Reply(text="", tool_calls=(call,))
    with ProviderServer([reply]) as server:
        model = openai(server)
        callback = metered(governor, max_cost="$0.50")
        city = model.with_structured_output(City, method=method).invoke("hi", config=using(callback))
    assert city == City(name="Berlin", people=4)
    report = report_of(callback)
    assert (nanos(report.cost), report.model_calls, nanos(report.estimated)) == (truth(server), 1, 0)


def test_law_7_structured_output_that_does_not_parse_is_paid_for_by_its_reported_usage(governor: ab.Governor) -> None:
    with ProviderServer([Reply(text='{"name": 3')]) as server:
        model = openai(server)
        callback = metered(governor, max_cost="$0.50")
        with pytest.raises(ValidationError):
            model.with_structured_output(City, method="json_schema").invoke("hi", config=using(callback))
    report = report_of(callback)
    assert (nanos(report.cost), nanos(report.estimated)) == (truth(server), 0)
    assert report.wasted == report.cost > 0
    assert report.status == "failed"


def test_law_7_structured_output_cut_at_its_length_is_paid_for_by_its_reported_usage(governor: ab.Governor) -> None:
    with ProviderServer([Reply(text="x" * 4_000)]) as server:
        model = openai(server)
        callback = metered(governor, max_cost="$0.50")
        with pytest.raises(LengthFinishReasonError):
            model.with_structured_output(City, method="json_schema").invoke("hi", config=using(callback))
    report = report_of(callback)
    assert (nanos(report.cost), nanos(report.estimated)) == (truth(server), 0)
    assert report.usage.output_tokens == 500


def test_law_7_a_handler_on_the_model_on_the_chain_and_in_the_config_counts_once(governor: ab.Governor) -> None:
    callback = metered(governor, max_cost="$0.50", per="callback")
    with ProviderServer() as server:
        model = openai(server, callbacks=[callback])
        chain = (RunnableLambda(str) | model).with_config(callbacks=[callback])
        chain.invoke("hi", config=using(callback, callback))
    assert nanos(governor.report(callback._shared).cost) == truth(server)  # type: ignore[arg-type]  # opened by now


def test_law_7_several_handlers_of_one_governor_bill_one_provider_call_to_each_of_their_tasks(
    governor: ab.Governor,
) -> None:
    first, second = metered(governor, max_cost="$0.50"), metered(governor, max_model_calls=3)
    with ProviderServer() as server:
        model = openai(server)
        model.invoke("hi", config=using(first, second))
    for callback in (first, second):
        assert nanos(report_of(callback).cost) == truth(server)
        assert report_of(callback).model_calls == 1


class Completion(BaseLLM):
    """A text completion model that reports its usage as OpenAI's does, in `llm_output` alone."""

    @property
    def _llm_type(self) -> str:
        return "completion"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": "gpt-3.5-turbo-instruct", "max_tokens": 100}

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        usage = {"prompt_tokens": 40, "completion_tokens": 10, "total_tokens": 50}
        output = {"token_usage": usage, "model_name": "gpt-3.5-turbo-instruct"}
        return LLMResult(generations=[[Generation(text="ok")] for _ in prompts], llm_output=output)


def test_law_7_a_text_completion_model_is_counted_by_the_usage_beside_its_answer(governor: ab.Governor) -> None:
    callback = metered(governor, max_cost="$0.50")
    Completion().invoke("hi", config=using(callback))
    report = report_of(callback)
    assert nanos(report.cost) == 40 * 1_500 + 10 * 2_000
    assert (report.model_calls, nanos(report.estimated)) == (1, 0)


def test_law_7_a_text_completion_model_without_usage_is_estimated(governor: ab.Governor) -> None:
    callback = metered(governor, max_model_calls=2)
    FakeListLLM(responses=["ok"]).invoke("hi", config=using(callback))
    assert report_of(callback).model_calls == 1
    assert report_of(callback).usage.output_tokens > 0


class AskingRetriever(BaseRetriever):
    """A retriever that asks a model what to look for."""

    model: Any

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [Document(str(self.model.invoke(query, config={"callbacks": run_manager.get_child()}).content))]


def test_law_7_a_model_inside_a_retriever_is_counted_and_belongs_to_the_retrievers_task(governor: ab.Governor) -> None:
    model = ScriptedChatModel(script=[scripted_reply("b", input_tokens=100, output_tokens=10)], repeat_last=True)
    callback = metered(governor, max_cost="$0.50")
    retriever = AskingRetriever(model=model)
    retriever.invoke("a", config=using(callback))
    assert nanos(report_of(callback).cost) == 100 * 2_500 + 10 * 10_000
    (RunnableLambda(str) | retriever | RunnableLambda(lambda _: model.invoke("c"))).invoke("a", config=using(callback))
    assert report_of(callback).model_calls == 2


def test_law_7_every_breakdown_adds_up_to_the_whole(governor: ab.Governor) -> None:
    big = ScriptedChatModel(
        script=[
            scripted_reply(
                calls=[("search", {"query": "a"}), ("ask", {"question": "b"})], input_tokens=90, output_tokens=7
            ),
            scripted_reply("done", input_tokens=200, output_tokens=9),
        ]
    )
    small = ScriptedChatModel(
        model_name="gpt-4o-mini", script=[scripted_reply("c", input_tokens=1_000, output_tokens=100)]
    )
    helper = create_agent(small, [], name="helper")

    @tool
    def ask(question: str) -> str:
        """Ask the helper."""
        return str(helper.invoke({"messages": [HumanMessage(question)]})["messages"][-1].content)

    governor.close()
    priced = ab.Governor(prices={"tool:search": "$0.01"})
    callback = metered(priced, max_cost="$0.50")
    create_agent(big, [search, ask], name="boss").invoke({"messages": [HumanMessage("go")]}, config=using(callback))
    report = report_of(callback)
    assert nanos(report.by_model["gpt-4o"].cost) == 290 * 2_500 + 16 * 10_000
    assert nanos(report.by_model["gpt-4o-mini"].cost) == 1_000 * 150 + 100 * 600
    assert report.by_tool["search"].cost == Decimal("0.01")
    assert report.by_tool["ask"].cost == 0
    total = sum(row.cost for row in (*report.by_model.values(), *report.by_tool.values()))
    assert total == report.cost
    assert sum(row.cost for row in report.by_node.values()) == report.cost
    assert sum(row.cost for row in report.by_agent.values()) == report.cost
    assert sum(row.calls for row in report.by_agent.values()) == report.attempts == 5
    assert {"boss", "helper"} == set(report.by_agent)
    assert sum(row.input_tokens for row in report.by_model.values()) == report.usage.input_tokens
    assert_nothing_held(priced)


# -- law 9: missing usage is estimated, zero is zero, a cache hit is avoided -------------------------------------------


def test_law_9_missing_usage_is_estimated_and_marked(governor: ab.Governor) -> None:
    with ProviderServer([Reply(text="x" * 400, report_usage=False)]) as server:
        model = openai(server)
        callback = metered(governor, max_cost="$0.50")
        model.invoke("hi", config=using(callback))
    report = report_of(callback)
    assert report.estimated == report.cost
    assert nanos(report.cost) >= truth(server)
    assert report.usage.output_tokens >= server.usage.output_tokens == 100
    assert "estimated" in str(report)


def test_law_9_reported_zero_is_zero(governor: ab.Governor) -> None:
    with ProviderServer([Reply(usage=Usage())]) as server:
        model = openai(server)
        callback = metered(governor, max_cost="$0.50")
        model.invoke("hi", config=using(callback))
    report = report_of(callback)
    assert (nanos(report.cost), nanos(report.estimated), report.model_calls) == (0, 0, 1)


@pytest.mark.parametrize("reported", [True, False], ids=["usage reported", "usage missing"])
def test_law_9_an_answer_from_the_cache_costs_nothing_and_counts_as_avoided(
    governor: ab.Governor, reported: bool
) -> None:
    with ProviderServer([Reply(text="four", report_usage=reported)]) as server:
        model = openai(server, cache=InMemoryCache())
        paid, free = metered(governor, max_cost="$0.50"), metered(governor, max_cost="$0.50")
        model.invoke("hi", config=using(paid))
        model.invoke("hi", config=using(free))
    assert len(server.requests) == 1
    report = report_of(free)
    assert report.cost == 0
    assert report.avoided == report_of(paid).cost if reported else report.avoided > 0
    assert report.wasted == report.estimated == 0


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt_tokens": -5, "completion_tokens": 10, "total_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": -1, "total_tokens": 9},
        {"prompt_tokens": 10**15, "completion_tokens": 1, "total_tokens": 10**15 + 1},
        {
            "prompt_tokens": 10,
            "completion_tokens": 1,
            "total_tokens": 11,
            "prompt_tokens_details": {"cached_tokens": 400},
        },
    ],
    ids=["negative input", "negative output", "absurd", "more cached than sent"],
)
def test_law_9_nonsense_usage_is_charged_as_reserved_and_flagged(governor: ab.Governor, raw: dict[str, Any]) -> None:
    with ProviderServer([Reply(raw_usage=raw)]) as server:
        model = openai(server)
        callback = metered(governor, max_cost="$0.50")
        model.invoke("hi", config=using(callback))
    report = report_of(callback)
    assert nanos(report.cost) > 500 * 10_000  # the whole cap and the input
    assert report.estimated == report.cost
    assert [found["kind"] for found in report.discrepancies] == ["usage"]


def test_law_9_a_stream_without_usage_is_estimated_by_what_it_sent(governor: ab.Governor) -> None:
    with ProviderServer([Reply(text="some words " * 40)]) as server:
        model = openai(server, stream_usage=False)
        callback = metered(governor, max_cost="$0.50")
        list(model.stream("hi", config=using(callback)))
    report = report_of(callback)
    assert report.estimated == report.cost
    assert nanos(report.cost) >= truth(server)


def test_law_9_the_tier_and_model_of_the_answer_are_what_is_billed(governor: ab.Governor) -> None:
    usage = Usage(input_tokens=1_000, output_tokens=100)
    with ProviderServer([Reply(usage=usage, model="gpt-4o-mini-2024-07-18")]) as server:
        callback = metered(governor, max_cost="$0.50")
        openai(server).invoke("hi", config=using(callback))
    assert nanos(report_of(callback).cost) == 1_000 * 150 + 100 * 600


def test_law_9_a_tier_without_a_price_is_charged_as_reserved_and_flagged(governor: ab.Governor) -> None:
    usage = Usage(input_tokens=1_000, output_tokens=100)
    with ProviderServer([Reply(usage=usage, service_tier="platinum")]) as server:
        model = openai(server)
        callback = metered(governor, max_cost="$0.50")
        model.invoke("hi", config=using(callback))
    report = report_of(callback)
    assert nanos(report.cost) >= 500 * 10_000
    assert report.coverage == 0
    assert "platinum" in report.discrepancies[0]["detail"]
