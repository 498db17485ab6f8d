"""Law 12: what a stop leaves behind is resumable and valid, and nothing that was done is paid twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send

import agentbudget as ab
from agentbudget.domain.usage import Usage
from agentbudget.testing import (
    ProviderServer,
    Reply,
    Request,
    ScriptedChatModel,
    assert_valid_history,
    scripted_reply,
)
from tests.langchain.support import SEARCH, WAYS, metered, nanos, openai, report_of, search, truth, using


def busy(request: Request) -> Reply:
    """Two searches, then the answer."""
    answered = sum(message["role"] == "tool" for message in request.messages)
    used = Usage(input_tokens=400, output_tokens=100)
    return Reply(text="", tool_calls=(SEARCH,), usage=used) if answered < 2 else Reply(text="done", usage=used)


@pytest.fixture(params=["memory", "sqlite"])
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "memory":
        yield InMemorySaver()
    else:
        with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as opened:
            yield opened


@pytest.mark.parametrize("how", ["top_up", "new callback"])
def test_law_12_a_stopped_agent_goes_on_where_it_was_and_pays_nothing_twice(
    governor: ab.Governor, saver: Any, how: str
) -> None:
    config: Any = {"configurable": {"thread_id": "t"}}
    with ProviderServer(busy) as server:
        agent: Any = create_agent(openai(server), [search], checkpointer=saver)
        callback = metered(governor, max_cost="$0.0064")
        with pytest.raises(ab.BudgetExceeded):
            agent.invoke({"messages": [HumanMessage("go")]}, config={**config, **using(callback)})
        before = len(server.requests)
        assert before == 1
        assert_valid_history(agent.get_state(config).values["messages"])
        task = report_of(callback).task_id
        if how == "top_up":
            governor.top_up(task, "$0.50", grant="g1", approver="ann")
        else:
            callback = metered(governor, max_cost="$0.50")
        done = agent.invoke(None, config={**config, **using(callback)})
    assert done["messages"][-1].content == "done"
    assert_valid_history(done["messages"])
    assert len(server.requests) == 3
    report = report_of(callback)
    assert report.task_id == task
    assert report.status == "completed"
    assert report.stopped_by is None
    assert nanos(report.cost) == truth(server)
    assert (report.model_calls, report.tool_calls) == (3, 2)


def test_law_12_without_a_top_up_the_stopped_task_is_stopped_again_at_no_cost(governor: ab.Governor) -> None:
    config: Any = {"configurable": {"thread_id": "t"}}
    with ProviderServer(busy) as server:
        agent: Any = create_agent(openai(server), [search], checkpointer=InMemorySaver())
        callback = metered(governor, max_cost="$0.0064")
        for given in ({"messages": [HumanMessage("go")]}, None, None):
            with pytest.raises(ab.BudgetExceeded):
                agent.invoke(given, config={**config, **using(callback)})
    assert len(server.requests) == 1
    assert nanos(report_of(callback).cost) == truth(server)


def test_law_12_a_grant_counts_once(governor: ab.Governor) -> None:
    model = ScriptedChatModel(
        script=[scripted_reply("ok", input_tokens=0, output_tokens=500)], repeat_last=True, max_tokens=500
    )
    with ab.task("t", max_cost="$0.0055", governor=governor) as task:
        model.invoke("hi")
        with pytest.raises(ab.BudgetExceeded):
            model.invoke("hi")
        task.top_up("$0.0055", grant="g1")
        task.top_up("$0.0055", grant="g1")
        model.invoke("hi")
        with pytest.raises(ab.BudgetExceeded):
            model.invoke("hi")
    assert len(model.calls) == 2
    assert nanos(task.report.limits["max_cost"]) == 11_000_000


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("branches", [3])
async def test_law_12_branches_that_were_paid_are_kept_when_one_is_refused(
    governor: ab.Governor, way: str, branches: int
) -> None:
    """All branches of a superstep but the refused one finish, are saved, and are not run again."""
    with ProviderServer(lambda request: Reply(text=request.messages[-1]["content"])) as server:
        model = openai(server)
        graph = StateGraph(MessagesState)

        def sync(state: MessagesState) -> dict[str, Any]:
            return {"messages": [model.invoke([state["messages"][-1]])]}

        async def on_loop(state: MessagesState) -> dict[str, Any]:
            return {"messages": [await model.ainvoke([state["messages"][-1]])]}

        graph.add_node("branch", RunnableLambda(sync, afunc=on_loop))
        sends = [Send("branch", {"messages": [HumanMessage(f"branch {n}")]}) for n in range(branches)]
        graph.add_conditional_edges(START, lambda _: sends, ["branch"])
        graph.add_edge("branch", END)
        app = graph.compile(checkpointer=InMemorySaver())
        config: Any = {"configurable": {"thread_id": "t"}}
        callback = metered(governor, max_model_calls=branches - 1)
        with pytest.raises(ab.BudgetExceeded):
            await WAYS[way](app, {"messages": [HumanMessage("go")]}, {**config, **using(callback)})
        assert len(server.requests) == branches - 1
        larger = metered(governor, max_model_calls=branches)
        await WAYS[way](app, None, {**config, **using(larger)})
        await model.root_async_client.close()
    assert len(server.requests) == branches
    said = {str(message.content) for message in app.get_state(config).values["messages"]}
    assert said == {"go", *(f"branch {n}" for n in range(branches))}
    report = report_of(larger)
    assert nanos(report.cost) == truth(server)
    assert report.task_id == report_of(callback).task_id
