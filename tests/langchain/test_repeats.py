"""Work of a task that is executed again: kept results of tools and models, in every way a node is run anew."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool, ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel

import agentbudget as ab
from agentbudget.langchain import repeats
from agentbudget.retries.results import MemoryResults
from agentbudget.testing import ProviderServer
from tests.langchain.actors import CALL, HELLO, answer, graph_of, scripted
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import anthropic, metered, openai, report_of, using

POLICY = RetryPolicy(max_attempts=3, initial_interval=0.0, jitter=False, retry_on=ConnectionError)
MODES = pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
CENT = Decimal("0.01")


class Counted:
    """A tool of $0.01 that counts its runs."""

    def __init__(self, name: str, **options: Any) -> None:
        self.ran: list[str] = []

        def run(query: str) -> str:
            self.ran.append(query)
            return f"found {query}"

        async def arun(query: str) -> str:
            return run(query)

        made = StructuredTool.from_function(run, coroutine=arun, name=name, description="Search.")
        self.tool: BaseTool = ab.idempotent(**options)(made) if options else ab.idempotent(made)


def go(work: Any, given: Any, config: Any, mode: str) -> Any:
    return asyncio.run(work.ainvoke(given, config)) if mode == "ainvoke" else work.invoke(given, config)


def settled(report: ab.TaskReport, name: str) -> tuple[int, Decimal]:
    return report.by_tool[name].calls, report.by_tool[name].cost


@MODES
def test_a_tool_that_is_asked_the_same_again_gives_its_kept_result(mode: str, new_governor: NewGovernor) -> None:
    find = Counted("find")
    governor = new_governor(prices={"tool:find": "$0.01"})
    callback = metered(governor, max_cost="$1")
    model = scripted(*[answer("", [("find", {"query": "a"})]) for _ in range(3)], answer("done"))
    state = go(create_agent(model, [find.tool]), HELLO, using(callback), mode)
    report = report_of(callback)
    assert find.ran == ["a"]
    assert [m.content for m in state["messages"] if isinstance(m, ToolMessage)] == ["found a"] * 3
    assert (settled(report, "find"), report.avoided) == ((3, CENT), 2 * CENT)
    assert len({m.tool_call_id for m in state["messages"] if isinstance(m, ToolMessage)}) == 3


@MODES
def test_calls_side_by_side_run_once(mode: str, new_governor: NewGovernor) -> None:
    find = Counted("find")
    callback = metered(new_governor(prices={"tool:find": "$0.01"}))
    model = scripted(answer("", [("find", {"query": "a"})] * 5), answer("done"))
    go(create_agent(model, [find.tool]), HELLO, using(callback), mode)
    assert (find.ran, settled(report_of(callback), "find")) == (["a"], (5, CENT))


@MODES
def test_a_node_that_is_retried_pays_for_nothing_twice(mode: str, new_governor: NewGovernor) -> None:
    find, model = Counted("find"), scripted()
    asked = ab.governed(model, dedupe=True)
    failed: list[int] = []

    def fail_twice() -> None:
        failed.append(1)
        if len(failed) < 3:
            raise ConnectionError

    def node(state: MessagesState) -> Any:
        said, found = asked.invoke(state["messages"]), find.tool.invoke({"query": "a"})
        fail_twice()
        return {"messages": [said, HumanMessage(found)]}

    async def anode(state: MessagesState) -> Any:
        said, found = await asked.ainvoke(state["messages"]), await find.tool.ainvoke({"query": "a"})
        fail_twice()
        return {"messages": [said, HumanMessage(found)]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("step", anode if mode == "ainvoke" else node, retry_policy=POLICY)
    graph.add_edge(START, "step")
    governor = new_governor(prices={"tool:find": "$0.01"})
    callback = metered(governor, max_cost="$1")
    state = go(graph.compile(), HELLO, using(callback), mode)
    report = report_of(callback)
    assert (len(model.calls), len(find.ran), len(failed)) == (1, 1, 3)
    assert [m.content for m in state["messages"]] == ["hello", "ok", "found a"]
    assert (report.cost, report.avoided, report.model_calls) == (CALL + CENT, 2 * (CALL + CENT), 3)
    assert report.wasted == 0


@MODES
def test_a_node_that_waits_for_a_person_pays_once(mode: str, new_governor: NewGovernor) -> None:
    find, model = Counted("find"), scripted()
    asked = ab.governed(model, dedupe=True)

    def node(state: MessagesState) -> Any:
        said, found = asked.invoke(state["messages"]), find.tool.invoke({"query": "a"})
        return {"messages": [said, HumanMessage(found), HumanMessage(interrupt("may I?"))]}

    work = ab.guard(
        graph_of(step=node).compile(checkpointer=InMemorySaver()), max_model_calls=5, governor=new_governor()
    )
    thread: Any = {"configurable": {"thread_id": "t"}}
    go(work, HELLO, thread, mode)
    state = go(work, Command(resume="yes"), thread, mode)
    assert [m.content for m in state["messages"]] == ["hello", "ok", "found a", "yes"]
    assert (len(model.calls), len(find.ran)) == (1, 1)


def test_after_a_restart_the_thread_that_goes_on_gets_what_was_kept(new_governor: NewGovernor, tmp_path: Path) -> None:
    """Another governor stands for another process: it knows the thread, and only the file knows the results."""
    find, model, saver = Counted("find"), scripted(), InMemorySaver()
    asked = ab.governed(model, dedupe=True)
    broken = [True]

    def node(state: MessagesState) -> Any:
        said, found = asked.invoke(state["messages"]), find.tool.invoke({"query": "a"})
        if broken.pop() if broken else False:
            raise ConnectionError("the process dies")
        return {"messages": [said, HumanMessage(found)]}

    thread: Any = {"configurable": {"thread_id": "t"}}
    url = f"sqlite:///{tmp_path}/results.db"
    graph = graph_of(step=node).compile(checkpointer=saver)
    with pytest.raises(ConnectionError):
        ab.guard(graph, governor=new_governor(results=url)).invoke(HELLO, thread)
    governor = new_governor(results=url)
    state = ab.guard(graph, governor=governor).invoke(None, thread)
    assert [m.content for m in state["messages"]] == ["hello", "ok", "found a"]
    assert (len(model.calls), len(find.ran)) == (1, 1)
    ab.guard(graph, governor=governor).invoke(HELLO, thread)
    assert (len(model.calls), len(find.ran)) == (2, 2), "a new question is a new task"


def test_after_a_restart_a_person_may_answer(new_governor: NewGovernor, tmp_path: Path) -> None:
    find, saver = Counted("find"), InMemorySaver()

    def node(_: Any) -> Any:
        find.tool.invoke({"query": "a"})
        return {"messages": [HumanMessage(interrupt("may I?"))]}

    graph = graph_of(step=node).compile(checkpointer=saver)
    thread: Any = {"configurable": {"thread_id": "t"}}

    def restarted(given: Any) -> Any:
        governor = new_governor(results=f"sqlite:///{tmp_path}/results.db")
        return ab.guard(graph, governor=governor).invoke(given, thread)

    restarted(HELLO)
    state = restarted(Command(resume="yes"))
    assert (state["messages"][-1].content, find.ran) == ("yes", ["a"])


def test_another_task_has_results_of_its_own(governor: ab.Governor) -> None:
    find = Counted("find")
    for _ in range(2):
        with ab.task("one", governor=governor):
            find.tool.invoke({"query": "a"})
    with ab.task("two", task_id="mine", governor=governor):
        find.tool.invoke({"query": "a"})
    with ab.task("two", task_id="mine", governor=governor):
        find.tool.invoke({"query": "a"})
    assert len(find.ran) == 3


def test_a_sub_task_shares_the_results_of_its_task(governor: ab.Governor) -> None:
    find = Counted("find")
    with ab.task("outer", governor=governor) as outer:
        for _ in range(2):
            with ab.task("inner", governor=governor):
                find.tool.invoke({"query": "a"})
    assert (find.ran, outer.report.tool_calls) == (["a"], 2)


def test_without_a_task_it_just_runs() -> None:
    find = Counted("find")
    assert [find.tool.invoke({"query": "a"}) for _ in range(2)] == ["found a"] * 2
    assert len(find.ran) == 2


@MODES
def test_per_node_only_what_is_executed_again_is_kept(mode: str, new_governor: NewGovernor) -> None:
    find = Counted("find", per="node")
    model = scripted(*[answer("", [("find", {"query": "a"})]) for _ in range(3)], answer("done"))
    go(create_agent(model, [find.tool]), HELLO, using(metered(new_governor())), mode)
    assert len(find.ran) == 3, "three turns are three executions"


def test_the_same_question_in_another_step_or_branch_is_asked_again(governor: ab.Governor) -> None:
    model = scripted()
    asked = ab.governed(model, dedupe=True)

    def branch(_: Any) -> Any:
        return {"messages": [asked.invoke("the same") for _ in range(2)]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("branch", branch)
    graph.add_node("after", branch)
    graph.add_conditional_edges(START, lambda _: [Send("branch", {}) for _ in range(3)], ["branch"])
    graph.add_edge("branch", "after")
    graph.add_edge("after", END)
    ab.guard(graph.compile(), governor=governor).invoke(HELLO)
    assert len(model.calls) == 4, "three branches and a step after them"


def test_an_error_is_not_kept(governor: ab.Governor) -> None:
    tried: list[int] = []

    @ab.idempotent
    @tool
    def flaky(query: str) -> str:
        """Fail once."""
        tried.append(1)
        if len(tried) == 1:
            raise ToolException("no route")
        return "found"

    model = scripted(ConnectionError(), answer())
    asked = ab.governed(model, dedupe=True)
    with ab.task("t", governor=governor):
        for work in (lambda: flaky.invoke({"query": "a"}), lambda: asked.invoke("q")):
            with pytest.raises((ToolException, ConnectionError)):
                work()
            first, second = work(), work()
            assert getattr(first, "content", first) == getattr(second, "content", second)
    assert (len(tried), len(model.calls)) == (2, 2)


def test_an_unknown_outcome_is_surfaced_costs_nothing_and_waits_for_a_person(new_governor: NewGovernor) -> None:
    governor = new_governor(prices={"tool:pay": "$0.01"})
    paid: list[int] = []

    @ab.idempotent
    @tool
    def pay(invoice: int) -> str:
        """Pay."""
        paid.append(invoice)
        raise KeyboardInterrupt

    with ab.task("t", governor=governor) as t:
        with pytest.raises(KeyboardInterrupt):
            pay.invoke({"invoice": 7})
        spent = t.report.cost
        agent = create_agent(scripted(answer("", [("pay", {"invoice": 7})]), answer("done")), [pay])
        with pytest.raises(ab.UnknownOutcomeError, match="not repeated blindly") as unknown:
            agent.invoke(HELLO)
        assert (paid, t.report.cost - CALL) == ([7], spent), "what did not run has no price"
        repeats.resolve(governor, unknown.value.key, "paid")
        assert pay.invoke({"invoice": 7}) == "paid"
    assert paid == [7]


def test_a_tool_that_bears_it_is_run_again_after_an_unknown_end(governor: ab.Governor) -> None:
    runs: list[int] = []

    @ab.idempotent(on_unknown="repeat")
    @tool
    def put(key: str) -> str:
        """Put."""
        runs.append(1)
        if len(runs) == 1:
            raise KeyboardInterrupt
        return "put"

    with ab.task("t", governor=governor):
        with pytest.raises(KeyboardInterrupt):
            put.invoke({"key": "a"})
        assert (put.invoke({"key": "a"}), put.invoke({"key": "a"}), len(runs)) == ("put", "put", 2)


def test_a_tool_that_pauses_for_a_person_is_run_again_from_its_beginning(governor: ab.Governor) -> None:
    runs: list[int] = []

    @ab.idempotent
    @tool
    def ask(question: str) -> str:
        """Ask."""
        runs.append(1)
        return str(interrupt(question))

    model = scripted(answer("", [("ask", {"question": "a"})]), answer("done"))
    agent = create_agent(model, [ask], checkpointer=InMemorySaver())
    work = ab.guard(agent, governor=governor)
    thread: RunnableConfig = {"configurable": {"thread_id": "t"}}
    work.invoke(HELLO, thread)
    state = work.invoke(Command(resume="yes"), thread)
    assert [m.content for m in state["messages"] if isinstance(m, ToolMessage)] == ["yes"]
    assert len(runs) == 2


def test_a_kept_answer_needs_no_room_in_a_budget(new_governor: NewGovernor) -> None:
    """It costs nothing, so it reserves nothing: only that it is a call is counted."""
    model = scripted()
    asked = ab.governed(model, dedupe=True)
    with ab.task("t", max_cost="$0.0006", max_model_calls=3, governor=new_governor()) as t:
        assert [asked.invoke("q").content for _ in range(3)] == ["ok"] * 3
        assert (t.report.cost, t.report.avoided, t.report.model_calls) == (CALL, 2 * CALL, 3)
        with pytest.raises(ab.BudgetExceeded, match="max_model_calls"):
            asked.invoke("q")


def test_a_kept_answer_is_the_message_that_was_paid_for(governor: ab.Governor) -> None:
    call = answer("", [("find", {"query": "a"})])
    model = scripted(call)
    asked = ab.governed(model, dedupe=True)

    async def every_way() -> list[AIMessage]:
        found: list[Any] = [asked.invoke("q"), await asked.ainvoke("q"), *asked.stream("q")]
        found += [chunk async for chunk in asked.astream("q")]
        return [*found, *asked.batch(["q", "q"])]

    with ab.task("t", governor=governor):
        messages = asyncio.run(every_way())
    assert len(model.calls) == 1
    for message in messages:
        assert [(each["name"], each["args"], each["id"]) for each in message.tool_calls] == [
            ("find", {"query": "a"}, call.tool_calls[0]["id"])
        ]
        assert message.usage_metadata is not None
        assert message.usage_metadata["total_tokens"] == 110


@pytest.mark.parametrize("streamed", ["stream", "astream"])
def test_a_stream_is_kept_when_it_was_read_to_its_end(streamed: str, governor: ab.Governor) -> None:
    model = scripted(answer("a long answer that comes in pieces"))
    asked = ab.governed(model, dedupe=True)

    async def read(most: int) -> str:
        text = ""
        if streamed == "stream":
            for number, chunk in enumerate(stream := asked.stream("q")):
                text += str(chunk.content)
                if number + 1 == most:
                    stream.close()  # type: ignore[attr-defined]  # a generator
        else:
            left = asked.astream("q")
            async for chunk in left:
                text += str(chunk.content)
                most -= 1
                if not most:
                    await left.aclose()  # type: ignore[attr-defined]  # the same
        return text

    async def main() -> None:
        await read(1)
        assert len(model.calls) == 1
        assert await read(-1) == await read(-1) == "a long answer that comes in pieces"
        assert len(model.calls) == 2, "the one that was left early is asked again"

    with ab.task("t", governor=governor):
        asyncio.run(main())


def test_requests_that_differ_in_anything_are_asked(governor: ab.Governor) -> None:
    find = Counted("find").tool
    model, other = scripted(), scripted(model_name="gpt-4o-mini")
    asked = ab.governed(model, dedupe=True)
    with ab.task("t", governor=governor):
        for given in ("q", [HumanMessage("q", name="you")], [HumanMessage("q"), AIMessage("x")]):
            asked.invoke(given)
        asked.invoke("q", stop=["."])
        asked.bind_tools([find]).invoke("q")
        asked.bind(temperature=1).invoke("q")
        ab.governed(other, dedupe=True).invoke("q")
    assert (len(model.calls), len(other.calls)) == (6, 1)


@pytest.mark.parametrize("client", [openai, anthropic])
def test_the_real_clients_ask_once(client: Any, new_governor: NewGovernor) -> None:
    with ProviderServer() as server:
        asked = ab.governed(client(server), dedupe=True).bind_tools([Counted("find").tool])
        with ab.task("t", governor=new_governor()) as t:
            first, second = asked.invoke("q"), asked.invoke("q")
        assert (first.content, len(server.requests)) == (second.content, 1)
        assert t.report.avoided == t.report.cost > 0


def test_threads_that_ask_a_model_the_same_wait_for_the_first(governor: ab.Governor) -> None:
    gate = threading.Event()
    model = scripted(gate=gate)
    asked = ab.governed(model, dedupe=True)

    def open_after_the_first() -> None:
        model.record.wait_for(1)
        gate.set()

    with ab.task("t", governor=governor) as t:
        opener = threading.Thread(target=open_after_the_first)
        opener.start()
        asked.batch(["q"] * 6)
        opener.join()
    assert (len(model.calls), t.report.model_calls, t.report.avoided) == (1, 6, 5 * CALL)


def test_in_observe_mode_kept_answers_are_given_as_well(new_governor: NewGovernor) -> None:
    model = scripted()
    asked = ab.governed(model, dedupe=True)
    with ab.task("t", governor=new_governor(mode="observe")) as t:
        asked.invoke("q")
        asked.invoke("q")
    assert (len(model.calls), t.report.avoided) == (1, CALL)


def test_a_loop_of_kept_results_is_a_loop(new_governor: NewGovernor) -> None:
    find = Counted("find")
    middleware = ab.BudgetMiddleware(loops=ab.Loops(), governor=new_governor(), on_limit="end")
    model = scripted(*[answer("", [("find", {"query": "a"})]) for _ in range(9)])
    create_agent(model, [find.tool], middleware=[middleware]).invoke(HELLO)
    assert middleware.report is not None
    assert (find.ran, middleware.report.tool_calls, middleware.report.status) == (["a"], 4, "stopped")


def test_what_the_host_passes_in_is_no_part_of_the_request(governor: ab.Governor) -> None:
    seen: list[str] = []

    @ab.idempotent
    @tool(response_format="content_and_artifact")
    def look(at: str, config: RunnableConfig) -> tuple[str, dict[str, int]]:
        """Look."""
        seen.append(at)
        return f"saw {at}", {"n": 1}

    call = {"name": "look", "args": {"at": "a"}, "type": "tool_call"}
    with ab.task("t", governor=governor):
        messages = [look.invoke({**call, "id": str(n)}, {"tags": [str(n)]}) for n in range(3)]
    assert seen == ["a"]
    assert [(m.content, m.artifact, m.tool_call_id) for m in messages] == [
        ("saw a", {"n": 1}, str(n)) for n in range(3)
    ]
    assert set(look.args) == {"at"}


def test_arguments_that_cannot_be_compared_just_run_and_say_so(governor: ab.Governor) -> None:
    ran: list[int] = []

    @ab.idempotent
    def read(stream: Any) -> str:
        ran.append(1)
        return "text"

    with ab.task("t", governor=governor):
        for _ in range(2):
            with pytest.warns(ab.BudgetWarning, match="cannot be compared"):
                assert read(iter([])) == "text"
    assert len(ran) == 2


def test_a_result_that_cannot_be_kept_is_given_and_not_asked_for_blindly_again(governor: ab.Governor) -> None:
    @ab.idempotent
    def stream(of: str) -> Any:
        return (each for each in of)

    with ab.task("t", governor=governor):
        assert list(stream("ab")) == ["a", "b"]
        with pytest.raises(ab.UnknownOutcomeError, match="cannot be kept"):
            stream("ab")


class Found(BaseModel):
    title: str


@pytest.mark.parametrize("value", ["text", None, 1.5, b"\x00", ["a", {"b": (1, 2)}], ("a", 1), {"a": {1, 2}}])
def test_results_come_back_as_they_were(value: Any) -> None:
    back = repeats.CODEC.decode(repeats.CODEC.encode(value))
    assert back in (value, ["a", {"b": [1, 2]}]), "a tuple within comes back as a list"
    assert type(back) is type(value)


def test_a_kept_result_is_a_new_value_each_time(governor: ab.Governor) -> None:
    @ab.idempotent
    def rows(of: str) -> list[str]:
        return [of]

    with ab.task("t", governor=governor):
        rows("a").append("changed")
        rows("a").append("changed")
        assert rows("a") == ["a"]


def test_what_is_no_tool_is_refused() -> None:
    for wrong in (7, "search", object()):
        with pytest.raises(ab.ConfigurationError, match="idempotent"):
            ab.idempotent(wrong)
    with pytest.raises(ab.ConfigurationError, match="per='call'"):
        ab.idempotent(per="call")  # type: ignore[call-overload]  # what a user may try


def test_the_store_may_be_shared_by_governors(new_governor: NewGovernor) -> None:
    find, store = Counted("find"), MemoryResults()
    for _ in range(2):
        with ab.task("t", task_id="mine", governor=new_governor(results=store)):
            find.tool.invoke({"query": "a"})
    assert find.ran == ["a"]


CHILD = """
import sys
sys.path[:0] = {path!r}
from tests.langchain.test_repeats import crashing
crashing({folder!r}, dies=True)
"""


def crashing(folder: str, *, dies: bool) -> list[str]:
    """A graph whose node asks a model, pays, and dies while it sends; what was said in the end."""

    @ab.idempotent
    @tool
    def pay(invoice: int) -> str:
        """Pay."""
        with (Path(folder) / "paid").open("a") as file:
            file.write("x")
        return f"paid {invoice}"

    @ab.idempotent
    @tool
    def send(to: str) -> str:
        """Send."""
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"sent to {to}"

    def ask(messages: list[Any]) -> AIMessage:
        with (Path(folder) / "asked").open("a") as file:
            file.write("x")
        return answer()

    model = ab.governed(scripted(ask), dedupe=True)

    def node(state: MessagesState) -> Any:
        said = model.invoke(state["messages"])
        return {"messages": [said, HumanMessage(pay.invoke({"invoice": 7})), HumanMessage(send.invoke({"to": "you"}))]}

    governor = ab.Governor(results=f"sqlite:///{folder}/results.db")
    thread: Any = {"configurable": {"thread_id": "t"}}
    with closing(governor), SqliteSaver.from_conn_string(f"{folder}/graph.db") as saver:
        work = ab.guard(graph_of(step=node).compile(checkpointer=saver), governor=governor)
        state = work.invoke(HELLO if dies else None, thread)
    return [str(message.content) for message in state["messages"]]


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_after_kill_9_a_resumed_graph_pays_for_nothing_twice(tmp_path: Path) -> None:
    folder = str(tmp_path)
    child = subprocess.run([sys.executable, "-c", CHILD.format(path=sys.path, folder=folder)], check=False)
    assert child.returncode == -9
    with pytest.raises(ab.UnknownOutcomeError, match="send") as unknown:
        crashing(folder, dies=False)
    with closing(ab.Governor(results=f"sqlite:///{folder}/results.db")) as governor:
        repeats.resolve(governor, unknown.value.key, "sent before the crash")
    assert crashing(folder, dies=False) == ["hello", "ok", "paid 7", "sent before the crash"]
    assert [(tmp_path / name).read_text() for name in ("asked", "paid")] == ["x", "x"]
