"""Requests that a provider's client repeats by itself: each is an attempt, admitted before it leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import openai as openai_sdk
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool
from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy

import agentbudget as ab
from agentbudget.langchain import transport
from agentbudget.testing import ProviderServer, Reply
from tests.langchain.actors import HELLO, answer, scripted
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import WAYS, anthropic, metered, openai, report_of, truth, using

NOT_SERVED = Reply(status=429, headers={"retry-after-ms": "1"})
OVERLOADED = Reply(status=503, headers={"retry-after-ms": "1"})
CLIENTS: dict[str, Callable[..., Any]] = {"openai": openai, "anthropic": anthropic}


def outage(_: object) -> Reply:
    return OVERLOADED


def watched(make: Callable[..., Any], server: ProviderServer, **options: Any) -> Any:
    return transport.watch(make(server, **{"max_retries": 2, **options}))


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An answer that is held for it comes when the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("client", CLIENTS)
def test_every_request_behind_one_call_is_an_attempt(governor: ab.Governor, client: str, way: str) -> None:
    callback = metered(governor)
    with ProviderServer([OVERLOADED, NOT_SERVED, Reply(text="at last")]) as server:
        asyncio.run(WAYS[way](watched(CLIENTS[client], server), "hi", using(callback)))
    report = report_of(callback)
    assert len(server.requests) == 3
    assert (report.model_calls, report.retries) == (3, 2)
    assert report.wasted == 0
    assert report.by_layer["sdk"].calls == 2
    assert report.multiplication == 3
    assert report.cost > 0
    if client == "openai":
        assert report.cost == Decimal(truth(server)) / 10**9


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_hidden_retry_beyond_max_retries_is_refused_before_it_leaves(
    governor: ab.Governor, client: str, way: str
) -> None:
    callback = metered(governor, max_retries=1)
    with ProviderServer(outage) as server, pytest.raises(ab.BudgetExceeded) as stopped:
        asyncio.run(WAYS[way](watched(CLIENTS[client], server, max_retries=5), "hi", using(callback)))
    assert len(server.requests) == 2
    assert stopped.value.stop.limit == "max_retries"
    report = report_of(callback)
    assert (report.model_calls, report.retries, report.denied, report.status) == (2, 1, 1, "stopped")


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_wraps_the_refusal_still_ends_with_it(
    governor: ab.Governor, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(transport, "_ERRORS", ())  # as clients do that know no errors to hand on
    callback = metered(governor, max_retries=0)
    with ProviderServer(outage) as server, pytest.raises(ab.BudgetExceeded):
        asyncio.run(WAYS[way](watched(anthropic, server, max_retries=1), "hi", using(callback)))
    assert len(server.requests) == 1
    assert report_of(callback).status == "stopped"


@pytest.mark.parametrize(("limits", "leave"), [({"max_model_calls": 2}, 2), ({"max_cost": "$0.0101"}, 1)])
def test_a_hidden_retry_passes_every_limit_of_the_budget(
    governor: ab.Governor, limits: dict[str, Any], leave: int, never: threading.Event
) -> None:
    callback = metered(governor, **limits)
    with ProviderServer(lambda _: Reply(hold=never)) as server, pytest.raises(ab.BudgetExceeded):
        watched(openai, server, max_retries=9, timeout=0.1).invoke("hi", config=using(callback))
    assert len(server.requests) == report_of(callback).model_calls == leave
    assert report_of(callback).cost > 0


def test_law_10_each_request_that_timed_out_is_charged_once(governor: ab.Governor, never: threading.Event) -> None:
    one, three = metered(governor), metered(governor)
    with ProviderServer(lambda _: Reply(hold=never)) as server:
        for callback, retries in ((one, 0), (three, 2)):
            with pytest.raises(openai_sdk.APITimeoutError):
                watched(openai, server, max_retries=retries, timeout=0.1).invoke("hi", config=using(callback))
    assert len(server.requests) == 4
    assert report_of(three).cost == 3 * report_of(one).cost > 0
    assert report_of(three).wasted == report_of(three).cost


def test_law_10_a_timeout_before_the_answer_is_charged_and_a_refusal_is_not(
    governor: ab.Governor, never: threading.Event
) -> None:
    callback = metered(governor)
    with ProviderServer([OVERLOADED, Reply(hold=never), Reply()]) as server:
        watched(openai, server, timeout=0.3).invoke("hi", config=using(callback))
        answered = server.served[-1]
    report = report_of(callback)
    paid = report.cost - report.wasted
    assert report.wasted > 0
    assert paid == Decimal(answered.usage.input_tokens * 2_500 + answered.usage.output_tokens * 10_000) / 10**9


@pytest.mark.parametrize("way", WAYS)
def test_law_10_a_provider_that_was_never_reached_costs_nothing(governor: ab.Governor, way: str) -> None:
    with ProviderServer() as server:
        model = watched(openai, server)
    callback = metered(governor)
    with pytest.raises(openai_sdk.APIConnectionError):
        asyncio.run(WAYS[way](model, "hi", using(callback)))
    report = report_of(callback)
    assert report.model_calls == 3
    assert report.cost == 0


def test_without_watching_a_timeout_is_still_charged_for_what_may_have_run(
    governor: ab.Governor, never: threading.Event
) -> None:
    callback = metered(governor)
    with ProviderServer(lambda _: Reply(hold=never)) as server, pytest.raises(openai_sdk.APITimeoutError):
        openai(server, max_retries=1, timeout=0.1).invoke("hi", config=using(callback))
    assert report_of(callback).model_calls == 1
    assert report_of(callback).by_layer == {}


@pytest.mark.parametrize("way", WAYS)
def test_of_27_requests_leave_only_those_the_retry_budget_has_room_for(governor: ab.Governor, way: str) -> None:
    """A node's RetryPolicy (3) around an agent with ModelRetryMiddleware (3) around the client's own retries (3)."""
    with ProviderServer(outage) as server:
        callback = metered(governor, max_retries=2)
        with pytest.raises(ab.BudgetExceeded):
            asyncio.run(WAYS[way](_stack(server), HELLO, using(callback)))
        assert len(server.requests) == 3
    report = report_of(callback)
    assert (report.model_calls, report.retries, report.by_layer["sdk"].calls) == (3, 2, 2)


def test_without_a_limit_all_27_requests_are_in_the_report_by_layer(governor: ab.Governor) -> None:
    with ProviderServer(outage) as server:
        callback = metered(governor)
        with pytest.raises(openai_sdk.InternalServerError):
            _stack(server).invoke(HELLO, using(callback))
        assert len(server.requests) == 27
    report = report_of(callback)
    assert (report.model_calls, report.retries, report.multiplication) == (27, 26, 27)
    assert {name: row.calls for name, row in report.by_layer.items()} == {"sdk": 18, "middleware": 6, "node": 2}
    assert "27 attempts of 1 call" in str(report)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("limits", [{"max_retries": 2}, {"max_retries_per_call": 2}])
def test_of_27_requests_of_a_sub_agent_leave_as_many(governor: ab.Governor, way: str, limits: dict[str, int]) -> None:
    with ProviderServer(outage) as server:
        stack = _stack(server)

        def ask() -> str:
            return str(stack.invoke(HELLO))

        async def aask() -> str:
            return str(await stack.ainvoke(HELLO))

        delegate = StructuredTool.from_function(ask, coroutine=aask, name="delegate", description="Ask.")
        agent = create_agent(scripted(answer("", [("delegate", {})])), [delegate])
        callback = metered(governor, **limits)
        with pytest.raises(ab.BudgetExceeded, match=next(iter(limits))):
            asyncio.run(WAYS[way](agent, HELLO, using(callback)))
        assert len(server.requests) == 3
    assert (report_of(callback).model_calls, report_of(callback).by_layer["sdk"].calls) == (4, 2)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_of_54_requests_of_two_branches_leave_only_those_there_is_room_for(governor: ab.Governor, way: str) -> None:
    with ProviderServer(outage) as server:
        graph: Any = StateGraph(dict[str, Any])
        for branch in "ab":
            graph.add_node(branch, _saying(branch) | _stack(server))
            graph.add_edge(START, branch)
        callback = metered(governor, max_retries=2)
        with pytest.raises(ab.BudgetExceeded, match="max_retries"):
            asyncio.run(WAYS[way](graph.compile(), HELLO, using(callback)))
        assert len(server.requests) <= 2 + 2
        assert report_of(callback).retries <= 2
        assert report_of(callback).model_calls == len(server.requests)


def _saying(text: str) -> Any:
    def said(_: Any) -> dict[str, Any]:
        return {"messages": [("user", text)]}

    return RunnableLambda(said)


def _stack(server: ProviderServer) -> Any:
    retrying = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False, on_failure="error")
    agent = create_agent(watched(openai, server), [], middleware=[retrying])
    policy = RetryPolicy(max_attempts=3, initial_interval=0.0, jitter=False, retry_on=Exception)
    graph: Any = StateGraph(dict[str, Any])
    graph.add_node("agent", agent, retry_policy=policy)
    graph.add_edge(START, "agent")
    return graph.compile()


# -- which requests are whose ------------------------------------------------------------------------------------------


def test_requests_of_calls_that_run_at_once_are_told_apart(governor: ab.Governor) -> None:
    def by_text(request: Any) -> Reply:
        failures = int(request.messages[0]["content"])
        return Reply() if request.sdk_retry >= failures else OVERLOADED

    callback = metered(governor, max_retries=6)

    async def all_at_once(model: Any) -> None:
        with ab.task("calls", governor=governor):
            await asyncio.gather(*[model.ainvoke(str(n), config=using(callback)) for n in (0, 1, 2, 3)])

    with ProviderServer(by_text) as server:
        asyncio.run(all_at_once(watched(openai, server, max_retries=3)))
    assert sorted(report.retries for report in callback.reports) == [0, 1, 2, 3]


def _embed(client: Any) -> None:
    client.embeddings.create(model="text-embedding-3-small", input="text")


def _ask(client: Any) -> None:
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("use", [_embed, _ask])
def test_what_else_is_asked_while_a_stream_is_read_is_not_part_of_the_stream(
    governor: ab.Governor, use: Callable[[Any], None]
) -> None:
    callback = metered(governor, max_retries=0)
    with ProviderServer([Reply(), OVERLOADED, OVERLOADED, Reply()]) as server:
        model = watched(openai, server)
        stream = model.stream("hi", config=using(callback))
        next(stream)
        use(model.root_client)
        list(stream)
    assert len(server.requests) == 4
    assert (report_of(callback).retries, report_of(callback).status) == (0, "completed")


def test_a_request_that_is_redirected_is_one_and_ends_as_its_last_answer_says(governor: ab.Governor) -> None:
    answers = iter([307, 503, 307, 503])

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(next(answers), headers={"location": "/elsewhere", "retry-after-ms": "1"})

    client = httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=True)
    callback = metered(governor)
    with ProviderServer() as server, client, pytest.raises(openai_sdk.InternalServerError):
        watched(openai, server, max_retries=1, http_client=client).invoke("hi", config=using(callback))
    report = report_of(callback)
    assert (report.model_calls, report.retries, list(answers)) == (2, 1, [])
    assert report.cost == 0


def test_watching_twice_counts_once(governor: ab.Governor) -> None:
    callback = metered(governor)
    with ProviderServer([OVERLOADED, Reply()]) as server:
        model = transport.watch(watched(openai, server))
        transport.watch(openai(server, max_retries=2))  # shares the HTTP client
        model.invoke("hi", config=using(callback))
    assert report_of(callback).retries == 1


def test_several_governors_each_see_every_request(new_governor: NewGovernor) -> None:
    callbacks = [metered(new_governor()), metered(new_governor())]
    with ProviderServer([OVERLOADED, Reply()]) as server:
        watched(openai, server).invoke("hi", config=using(*callbacks))
    assert [report_of(callback).retries for callback in callbacks] == [1, 1]
    assert [report_of(callback).model_calls for callback in callbacks] == [2, 2]


def test_a_refusal_by_one_of_several_governors_gives_back_what_the_others_held(new_governor: NewGovernor) -> None:
    callbacks = [metered(new_governor()), metered(new_governor(), max_retries=0)]
    with ProviderServer(outage) as server, pytest.raises(ab.BudgetExceeded):
        watched(openai, server).invoke("hi", config=using(*callbacks))
    assert len(server.requests) == 1
    assert [report_of(callback).cost for callback in callbacks] == [0, 0]
    assert [report_of(callback).model_calls for callback in callbacks] == [1, 1]


def test_a_watched_model_without_a_budget_works_as_before() -> None:
    with ProviderServer([OVERLOADED, Reply(text="fine")]) as server:
        assert watched(openai, server).invoke("hi").content == "fine"


def test_the_prompts_of_one_generate_are_not_told_apart(governor: ab.Governor) -> None:
    with ProviderServer([OVERLOADED, Reply(), Reply()]) as server, ab.task("two", governor=governor) as task:
        watched(anthropic, server).generate([[HumanMessage("a")], [HumanMessage("b")]])
    assert (task.report.model_calls, len(server.requests)) == (2, 3)


def test_a_governor_that_observes_counts_hidden_retries_and_refuses_none(new_governor: NewGovernor) -> None:
    callback = metered(new_governor(mode="observe"), max_retries=0)
    with ProviderServer([OVERLOADED, Reply(text="fine")]) as server:
        assert watched(openai, server).invoke("hi", config=using(callback)).content == "fine"
    report = report_of(callback)
    assert (report.retries, report.would_deny, report.denied) == (1, 1, 0)


@pytest.mark.parametrize("wrap", [lambda m: m.bind_tools([]), lambda m: m.with_fallbacks([m]), ab.governed])
def test_a_model_is_found_below_what_is_wrapped_around_it(governor: ab.Governor, wrap: Callable[[Any], Any]) -> None:
    with ProviderServer([OVERLOADED, Reply()]) as server, ab.task("job", governor=governor) as task:
        transport.watch(wrap(openai(server, max_retries=2))).invoke("hi")
    assert task.report.retries == 1


def test_a_model_without_such_a_client_is_an_error_that_names_the_fix() -> None:
    with pytest.raises(ab.ConfigurationError, match="max_retries=0"):
        transport.watch(FakeListChatModel(responses=["hi"]))


def test_a_live_report_and_its_trace_agree_about_hidden_retries(new_governor: NewGovernor, tmp_path: Path) -> None:
    callback = metered(new_governor(trace=tmp_path))
    with ProviderServer([OVERLOADED, Reply()]) as server:
        watched(openai, server).invoke("hi", config=using(callback))
    loaded = ab.Trace.load(str(tmp_path)).report
    assert loaded.by_layer == report_of(callback).by_layer
    assert loaded.retries == 1
