"""Nudges reach the model they are for, once, in a history that providers accept, and never end a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Send

import agentbudget as ab
from agentbudget.testing import ProviderServer, Reply, Request, ScriptedChatModel, ToolCall, assert_valid_history
from tests.langchain.actors import HELLO, answer, asking, scripted
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import WAYS, anthropic, openai

EVERY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
LOOPS = ab.Budget(loops=ab.Loops())
PATIENT = ab.Budget(loops=ab.Loops(halt=ab.Thresholds()))
NOTE = "Note: look was called 3 times in a row with the same arguments and the same result."
PAGE = "the same long page of text that was there before and will be there again tomorrow"


@tool
def look(at: str) -> str:
    """Look."""
    return PAGE


def agent(model: Any, budget: ab.Budget, governor: ab.Governor, **options: Any) -> tuple[Any, ab.BudgetMiddleware]:
    middleware = ab.BudgetMiddleware(budget, governor=governor, **options)
    return create_agent(model, [look], middleware=[middleware]), middleware


def notes(messages: Any) -> list[str]:
    """What the model was told that nobody of the conversation said."""
    return [str(m.content) for m in messages if isinstance(m, HumanMessage) and str(m.content).startswith("Note:")]


def told(model: ScriptedChatModel) -> list[int]:
    """How many notes each call of the model carried."""
    return [len(notes(call.messages)) for call in model.calls]


def report_of(middleware: ab.BudgetMiddleware) -> ab.TaskReport:
    assert middleware.report is not None, "no task was closed"
    return middleware.report


def actions(report: ab.TaskReport) -> list[str]:
    return [action["action"] for action in report.actions]


@EVERY_WAY
def test_the_model_is_told_once_and_the_state_does_not_keep_it(way: Any, new_governor: NewGovernor) -> None:
    model = scripted(asking("look", 5, at="a"))
    acting, middleware = agent(model, PATIENT, new_governor())
    states: list[Any] = []

    def keep(state: Any) -> Any:
        states.append(state)
        return state

    asyncio.run(way(acting | keep, HELLO, None))
    assert told(model) == [0, 0, 0, 1, 0, 0]
    assert notes(model.calls[3].messages) == [notes(model.calls[3].messages[-1:])[0]]
    assert notes(model.calls[3].messages)[0].startswith(NOTE)
    assert_valid_history(model.calls[3].messages)
    assert all(notes(state["messages"]) == [] for state in states if "messages" in state)
    assert (report_of(middleware).status, actions(report_of(middleware))) == ("completed", ["nudge", "told"])


@EVERY_WAY
def test_a_loop_that_goes_on_is_landed_by_its_budget(way: Any, new_governor: NewGovernor) -> None:
    model = scripted(asking("look", 99, at="a"))
    acting, middleware = agent(model, LOOPS, new_governor(), on_limit="end")
    asyncio.run(way(acting, HELLO, None))
    report = report_of(middleware)
    assert (told(model), report.tool_calls, report.status) == ([0, 0, 0, 1], 4, "stopped")
    assert actions(report) == ["nudge", "told", "halt", "end"]


def test_the_last_answer_of_a_looping_agent_is_given(new_governor: NewGovernor) -> None:
    model = scripted(*[answer("", [("look", {"at": "a"})]) for _ in range(4)], answer("what is known"))
    acting, middleware = agent(model, LOOPS, new_governor(), on_limit="finish")
    state = acting.invoke(HELLO)
    assert state["messages"][-1].content == "what is known"
    assert_valid_history(state["messages"])
    assert actions(report_of(middleware)) == ["nudge", "told", "halt", "finish"]


@pytest.mark.parametrize("client", [openai, anthropic])
def test_providers_accept_the_history_with_a_nudge(client: Callable[..., Any], new_governor: NewGovernor) -> None:
    def turn(request: Request) -> Reply:
        if request.number > 4:
            return Reply(text="done")
        return Reply(tool_calls=(ToolCall(name="look", args={"at": "a"}),))

    with ProviderServer(turn) as server:
        acting, middleware = agent(client(server), PATIENT, new_governor())
        assert acting.invoke(HELLO)["messages"][-1].text == "done"
        assert NOTE in str(server.requests[3].body)
        assert [NOTE in str(request.body) for request in server.requests].count(True) == 1
    assert report_of(middleware).status == "completed"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_sub_agent_in_a_tool_is_told_of_its_own_loop(new_governor: NewGovernor, *, asynchronous: bool) -> None:
    governor = new_governor()
    inner, outer = scripted(asking("look", 5, at="a")), scripted(asking("delegate", 1))
    helper, _ = agent(inner, PATIENT, governor, name="helper")

    def ask() -> str:
        return str(helper.invoke(HELLO)["messages"][-1].content)

    async def aask() -> str:
        return str((await helper.ainvoke(HELLO))["messages"][-1].content)

    delegate = StructuredTool.from_function(ask, coroutine=aask, name="delegate", description="Ask.")
    around = ab.BudgetMiddleware(PATIENT, governor=governor)
    chief = create_agent(outer, [delegate], middleware=[around])
    _ = asyncio.run(chief.ainvoke(HELLO)) if asynchronous else chief.invoke(HELLO)
    assert (told(inner), told(outer)) == ([0, 0, 0, 1, 0, 0], [0, 0])


def test_a_sub_agent_without_a_budget_is_told_by_its_governed_model(new_governor: NewGovernor) -> None:
    governor = new_governor()
    inner, outer = scripted(asking("look", 5, at="a")), scripted(asking("delegate", 1))
    helper = create_agent(ab.governed(inner), [look])

    @tool
    def delegate() -> str:
        """Ask the helper."""
        return str(helper.invoke(HELLO)["messages"][-1].content)

    middleware = ab.BudgetMiddleware(PATIENT, governor=governor)
    create_agent(outer, [delegate], middleware=[middleware]).invoke(HELLO)
    assert (told(inner), told(outer)) == ([0, 0, 0, 1, 0, 0], [0, 0])


def graph_of(model: Any, tools: list[BaseTool]) -> Any:
    """A hand-written agent."""
    bound = model.bind_tools(tools)

    def sync(state: MessagesState) -> dict[str, Any]:
        return {"messages": [bound.invoke(state["messages"])]}

    def stream(state: MessagesState) -> dict[str, Any]:
        chunks = list(bound.stream(state["messages"]))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return {"messages": [AIMessage(whole.content, tool_calls=whole.tool_calls)]}

    async def asynchronous(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    async def astream(state: MessagesState) -> dict[str, Any]:
        whole: Any = None
        async for chunk in bound.astream(state["messages"]):
            whole = chunk if whole is None else whole + chunk
        return {"messages": [AIMessage(whole.content, tool_calls=whole.tool_calls)]}

    compiled = {}
    nodes = {"invoke": sync, "stream": stream, "ainvoke": asynchronous, "astream": astream}
    for name, node in nodes.items():
        graph: Any = StateGraph(MessagesState)
        graph.add_node("model", node)
        graph.add_node("tools", ToolNode(tools))
        graph.add_edge(START, "model")
        graph.add_conditional_edges("model", tools_condition)
        graph.add_edge("tools", "model")
        compiled[name] = graph.compile()
    return compiled


@pytest.mark.parametrize("way", WAYS)
def test_a_governed_model_in_a_hand_written_graph_is_told(way: str, new_governor: NewGovernor) -> None:
    model = scripted(asking("look", 5, at="a"))
    work = ab.guard(graph_of(ab.governed(model), [look])[way], PATIENT, governor=new_governor())
    asyncio.run(WAYS[way.replace("stream", "invoke")](work, HELLO, None))
    assert told(model) == [0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_of_parallel_branches_only_the_one_that_loops_is_told(new_governor: NewGovernor, *, asynchronous: bool) -> None:
    looping, working = scripted(asking("look", 5, at="a")), scripted(asking("look", 2, at="b"))
    agents = [create_agent(ab.governed(each), [look]) for each in (looping, working)]

    def branch(given: dict[str, int]) -> dict[str, Any]:
        return {"messages": agents[given["place"]].invoke(HELLO)["messages"]}

    async def abranch(given: dict[str, int]) -> dict[str, Any]:
        return {"messages": (await agents[given["place"]].ainvoke(HELLO))["messages"]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("branch", abranch if asynchronous else branch)
    graph.add_conditional_edges(START, lambda _: [Send("branch", {"place": place}) for place in (0, 1)], ["branch"])
    graph.add_edge("branch", END)
    work = ab.guard(graph.compile(), PATIENT, governor=new_governor())
    _ = asyncio.run(work.ainvoke(HELLO)) if asynchronous else work.invoke(HELLO)
    assert (told(looping), told(working)) == ([0, 0, 0, 1, 0, 0], [0, 0, 0])


def test_a_call_that_failed_has_told_nobody(new_governor: NewGovernor) -> None:
    def turn(messages: list[BaseMessage]) -> AIMessage:
        answered = sum(isinstance(message, ToolMessage) for message in messages)
        if notes(messages) and not failed:
            failed.append(1)
            raise ConnectionError("no route")
        return answer("", [("look", {"at": "a"})]) if answered < 5 else answer("done")

    failed: list[int] = []
    model = scripted(turn)
    retrying = ab.governed(model).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    messages: list[Any] = [HumanMessage("go")]
    with ab.task("hand-written", PATIENT, governor=new_governor()):
        while not isinstance(messages[-1], AIMessage) or messages[-1].tool_calls:
            messages.append(retrying.invoke(messages))
            messages += [look.invoke({**call, "type": "tool_call"}) for call in messages[-1].tool_calls]
    assert told(model) == [0, 0, 0, 1, 1, 0, 0], "the attempt that failed, and its retry"


def test_in_observe_mode_nobody_is_told(new_governor: NewGovernor) -> None:
    model = scripted(asking("look", 5, at="a"))
    acting, middleware = agent(model, PATIENT, new_governor(mode="observe"))
    acting.invoke(HELLO)
    assert sum(told(model)) == 0
    assert actions(report_of(middleware)) == ["nudge"]


def test_what_a_nudge_says_is_metered_as_input(new_governor: NewGovernor) -> None:
    """The reservation is for what is sent, the note included: nothing is reserved twice."""
    model = scripted(asking("look", 5, at="a"))
    acting, middleware = agent(model, ab.Budget(max_model_calls=6, loops=PATIENT.loops), new_governor())
    assert acting.invoke(HELLO)["messages"][-1].content == "done"
    assert report_of(middleware).model_calls == 6


ANSWERING = ab.Loops(repeats="answer", halt=ab.Thresholds(in_a_row=8))


@EVERY_WAY
def test_a_repeated_result_may_be_given_without_running_the_tool(way: Any, new_governor: NewGovernor) -> None:
    ran: list[str] = []

    @tool
    def fetch(at: str) -> str:
        """Fetch."""
        ran.append(at)
        return PAGE

    model = scripted(asking("fetch", 5, at="a"))
    governor = new_governor(prices={"tool:fetch": "$0.01"})
    middleware = ab.BudgetMiddleware(ab.Budget(max_cost="$1", loops=ANSWERING), governor=governor)
    acting = create_agent(model, [fetch], middleware=[middleware])
    asyncio.run(way(acting, HELLO, None))
    answers = [str(m.content) for m in model.calls[-1].messages if isinstance(m, ToolMessage)]
    assert_valid_history(model.calls[-1].messages)
    report = report_of(middleware)
    assert (len(ran), [each.startswith(PAGE) for each in answers]) == (3, [True] * 5)
    assert ["Not run again" in each for each in answers] == [False, False, False, True, True]
    assert (report.by_tool["fetch"].calls, report.avoided, report.status) == (5, Decimal("0.02"), "completed")


def test_a_loop_of_repeated_results_is_halted_and_replayed(new_governor: NewGovernor, tmp_path: Path) -> None:
    model = scripted(asking("look", 99, at="a"))
    governor = new_governor(trace=tmp_path / "t.jsonl")
    acting, middleware = agent(model, ab.Budget(loops=ANSWERING), governor, on_limit="end")
    acting.invoke(HELLO)
    assert (report_of(middleware).tool_calls, report_of(middleware).status) == (8, "stopped")
    governor.close()
    assert ab.Trace.load(tmp_path / "t.jsonl").replay().diverged_at is None


def test_another_call_or_result_in_between_lets_the_tool_run_again(new_governor: NewGovernor) -> None:
    ran: list[str] = []

    @tool
    def fetch(at: str) -> str:
        """Fetch."""
        ran.append(at)
        return PAGE if len(ran) < 3 else f"{PAGE} {len(ran)}"

    asked = "aaaabaaaa"
    model = scripted(*[answer("", [("fetch", {"at": each})]) for each in asked], answer("done"))
    middleware = ab.BudgetMiddleware(loops=ANSWERING, governor=new_governor())
    create_agent(model, [fetch], middleware=[middleware]).invoke(HELLO)
    assert "".join(ran) == asked


def test_another_question_is_never_answered_with_the_repeated_result(new_governor: NewGovernor) -> None:
    ran: list[str] = []

    @tool
    def fetch(at: str) -> str:
        """Fetch."""
        ran.append(at)
        return PAGE

    asked = "aaabaaa"
    model = scripted(*[answer("", [("fetch", {"at": each})]) for each in asked], answer("done"))
    middleware = ab.BudgetMiddleware(loops=ANSWERING, governor=new_governor())
    create_agent(model, [fetch], middleware=[middleware]).invoke(HELLO)
    assert "".join(ran) == asked


def test_calls_side_by_side_do_not_make_a_row(new_governor: NewGovernor) -> None:
    ran: list[str] = []

    @tool
    def fetch(at: str) -> str:
        """Fetch."""
        ran.append(at)
        return PAGE

    model = scripted(*[answer("", [("fetch", {"at": "a"})] * 4) for _ in range(2)], answer("done"))
    middleware = ab.BudgetMiddleware(loops=ANSWERING, governor=new_governor())
    create_agent(model, [fetch], middleware=[middleware]).invoke(HELLO)
    assert len(ran) == 8


def test_what_is_done_with_repeats_is_one_of_two_things() -> None:
    with pytest.raises(ab.ConfigurationError, match="repeats='stop'"):
        ab.Loops(repeats="stop")
    assert ab.Loops.from_dict(ANSWERING.to_dict()) == ANSWERING


def test_a_person_may_let_a_looping_agent_go_on(new_governor: NewGovernor) -> None:
    model = scripted(asking("look", 6, at="a"))
    middleware = ab.BudgetMiddleware(LOOPS, governor=new_governor(), on_limit="ask")
    acting: Any = create_agent(model, [look], middleware=[middleware], checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "t"}}
    question = acting.invoke(HELLO, thread)["__interrupt__"][0].value
    assert "look was called 4 times in a row" in str(question)
    state = acting.invoke(Command(resume="retry"), thread)
    assert state["messages"][-1].content == "done"
    assert_valid_history(state["messages"])
    assert report_of(middleware).tool_calls == 6
