"""What is only worth knowing, what could not be tried, and how it is all shown."""

from __future__ import annotations

import socket
import time
from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.tools import tool
from langgraph.config import get_config
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime

import agentbudget as ab
from tests.checking.wirings import answering, chat, graph_of, search, uncapped


class Tenant(TypedDict):
    tenant: str


def codes(report: Any) -> list[str]:
    return [finding.code for finding in report.findings]


def test_a_connection_to_another_machine_is_refused_and_told() -> None:
    def look_up(state: MessagesState) -> dict[str, Any]:
        with pytest.raises(OSError, match="lets nothing out"), socket.socket() as one:
            one.connect(("192.0.2.1", 443))
        return {}

    report = ab.check(graph_of(look_up, answering(chat())))
    (found,) = report.of("connection")
    assert "192.0.2.1:443" in found.what
    assert "look_up" in found.where
    assert report.ok


def test_a_connection_within_the_machine_is_let_through() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def look_up(state: MessagesState) -> dict[str, Any]:
            with socket.create_connection(server.getsockname()):
                return {}

        assert codes(ab.check(graph_of(look_up, answering(chat())))) == ["no-limit"]


def test_embeddings_are_told_of() -> None:
    vectors = DeterministicFakeEmbedding(size=3)

    @tool
    def recall(text: str) -> str:
        """Look into the memory."""
        return str(vectors.embed_query(text))

    assert "embeddings" in codes(ab.check(create_agent(chat(), [recall])))


def test_a_pause_for_a_person_is_told() -> None:
    stack = [HumanInTheLoopMiddleware(interrupt_on={"search": True})]
    report = ab.check(create_agent(chat(), [search], middleware=stack))
    assert report.of("paused")
    assert report.ok


def test_an_agent_that_cannot_read_the_answer_is_not_called_clean_until_it_is_given_one() -> None:
    chain = chat() | JsonOutputParser()
    report = ab.check(chain)
    assert codes(report) == ["not-run"]
    assert "OutputParserException" in report.findings[0].what
    assert ab.check(chain, answer="{}").findings == ()


def test_an_agent_that_calls_no_model_proves_nothing() -> None:
    assert "no-model-call" in codes(ab.check(graph_of(lambda state: {"messages": [AIMessage("hi")]})))


def test_a_recursion_limit_or_a_budget_is_a_limit() -> None:
    graph = graph_of(answering(chat()))
    assert codes(ab.check(graph)) == ["no-limit"]
    assert ab.check(graph.with_config(recursion_limit=50)).findings == ()
    assert ab.check(ab.guard(graph, max_cost="$1")).findings == ()


def test_a_run_that_takes_too_long_is_ended_before_the_stand_ins_are_gone() -> None:
    ended: list[bool] = []

    def wait(state: MessagesState) -> dict[str, Any]:
        try:
            while True:
                time.sleep(1)
        finally:
            ended.append(True)

    assert codes(ab.check(graph_of(wait), seconds=0.1)) == ["never-ends", "no-limit"]
    assert ended == [True]


def test_an_agent_is_given_its_config_and_context() -> None:
    model = chat()

    def answer(state: MessagesState, runtime: Runtime[Tenant]) -> dict[str, Any]:
        asked = f"{get_config()['configurable']['user_id']} of {runtime.context['tenant']}"
        return {"messages": [model.invoke(asked)]}

    builder = StateGraph(MessagesState, context_schema=Tenant)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    graph = builder.compile()
    assert "not-run" in codes(ab.check(graph))
    callback = ab.BudgetCallback(max_cost="$1")
    config = {"configurable": {"user_id": "u1"}, "callbacks": [callback]}
    assert ab.check(graph, config=config, context={"tenant": "t1"}).findings == ()
    assert callback.report is None


def test_prices_of_the_agents_own_governor_count() -> None:
    model = chat(model="our-own-tune-7")
    governor = ab.Governor(aliases={"our-own-tune-7": "openai/gpt-4o"})
    assert codes(ab.check(model)) == ["unpriced-model"]
    assert ab.check(model, governor=governor).findings == ()
    assert ab.check(ab.guard(graph_of(answering(model)), max_cost="$1", governor=governor)).findings == ()


def test_the_findings_are_ordered_by_how_bad_they_are_and_the_summary_counts_them() -> None:
    model = uncapped().model_copy(update={"model_name": "our-own-tune-7"})
    report = ab.check(graph_of(answering(model)))
    assert codes(report) == ["unpriced-model", "output-cap", "no-limit"]
    assert str(report).startswith("LangGraph: 1 error, 1 warning, 1 info\n")
    plain = report.to_dict()
    assert plain["ok"] is False
    assert plain["findings"][0]["severity"] == "error"
    assert plain["models"] == ("ChatOpenAI(our-own-tune-7)",)


@pytest.mark.parametrize("thing", [7, None, "openai:gpt-4o", lambda state: state])
def test_what_langchain_cannot_run_is_refused(thing: Any) -> None:
    with pytest.raises(ab.ConfigurationError, match="give it an agent"):
        ab.check(thing)


def test_a_kind_that_does_not_exist_cannot_be_ignored() -> None:
    with pytest.raises(ab.ConfigurationError, match="the kinds are"):
        ab.check(chat(), ignore=["stop-swalowed"])
