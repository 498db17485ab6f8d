"""Law 13 in live agents: loops are told, nudged and halted; work that looks like one is left alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ToolRetryMiddleware
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

import agentbudget as ab
from agentbudget.policies.loops import LoopWatch
from agentbudget.testing import ScriptedChatModel, scripted_reply
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import metered, report_of, using

Asked = tuple[str, dict[str, Any]]
MODES = pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
LOOPS = ab.Budget(loops=ab.Loops())
SAME = "the same long page of text that was there before and will be there again tomorrow"


def tool(name: str, answer: Callable[..., str]) -> BaseTool:
    """A tool, sync and async, of any arguments."""

    def run(**given: Any) -> str:
        return answer(**given["given"])

    async def arun(**given: Any) -> str:
        return answer(**given["given"])

    schema = {"title": name, "type": "object", "properties": {"given": {"type": "object"}}, "required": ["given"]}
    return StructuredTool.from_function(
        run, coroutine=arun, name=name, description="Do it.", args_schema=schema, handle_tool_error=True
    )


def script(*turns: Sequence[Asked]) -> ScriptedChatModel:
    """A model that asks for the tools of each turn, and then is done."""
    replies = [
        scripted_reply(
            "on it", calls=[(name, {"given": args}) for name, args in turn], input_tokens=100, output_tokens=10
        )
        for turn in turns
    ]
    return ScriptedChatModel(script=[*replies, scripted_reply("done", input_tokens=100, output_tokens=10)])


def run(model: ScriptedChatModel, tools: Sequence[BaseTool], callback: ab.BudgetCallback, mode: str = "invoke") -> Any:
    """Run an agent to its end, or to its stop, which is returned."""
    agent: Any = create_agent(model, list(tools))
    inputs = {"messages": [HumanMessage("go")]}
    try:
        if mode == "invoke":
            return agent.invoke(inputs, config=using(callback))
        return asyncio.run(agent.ainvoke(inputs, config=using(callback)))
    except ab.BudgetExceeded as stop:
        return stop


def said(report: ab.TaskReport) -> list[tuple[str, str]]:
    return [(action["action"], action["numbers"]["rule"]) for action in report.actions]


def failing(times: int) -> Callable[..., str]:
    """Fails *times* times, then works."""
    left = [times]

    def answer(**_: Any) -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise ToolException("no route to the host")
        return "the page"

    return answer


def counted(text: str) -> Callable[..., str]:
    """Another number at each call."""
    numbers = iter(range(1_000))
    return lambda **_: text.format(n=next(numbers))


def once(count: int, name: str, arguments: Callable[[int], dict[str, Any]]) -> list[list[Asked]]:
    """*count* turns that ask for one tool each."""
    return [[(name, arguments(n))] for n in range(count)]


LOOPING: dict[str, Callable[[], tuple[list[list[Asked]], dict[str, Callable[..., str]], str, int]]] = {
    "exact repeat": lambda: (once(9, "find", lambda _: {"q": "x"}), {"find": lambda **_: SAME}, "in_a_row", 4),
    "A-B-A-B": lambda: (once(12, "find", lambda n: {"q": "ab"[n % 2]}), {"find": lambda q: SAME + q}, "cycles", 6),
    "period 3": lambda: (once(12, "find", lambda n: {"q": "abc"[n % 3]}), {"find": lambda q: SAME + q}, "cycles", 9),
    "nonce argument": lambda: (
        once(9, "find", lambda n: {"q": "x", "nonce": f"n{n}"}),
        {"find": lambda **_: SAME},
        "in_a_row",
        4,
    ),
    "paraphrased searches": lambda: (
        once(20, "find", lambda n: {"q": f"{n} ways to put it"}),
        {"find": lambda **_: "No results found."},
        "nothing_new",
        13,
    ),
    "error loop": lambda: (once(9, "find", lambda n: {"q": f"{n}"}), {"find": failing(99)}, "same_error", 5),
    "growing context without progress": lambda: (
        once(20, "think", lambda n: {"thought": "and yet " * (n + 1)}),
        {"think": lambda **_: "noted"},
        "nothing_new",
        13,
    ),
}
WORKING: dict[str, Callable[[], tuple[list[list[Asked]], dict[str, Callable[..., str]]]]] = {
    "polling whose result changes": lambda: (
        once(20, "status", lambda _: {"job": 1}),
        {"status": counted("running, {n} %")},
    ),
    "pagination": lambda: (
        once(30, "page", lambda n: {"page": n + 1}),
        {"page": lambda page: f"page {page}: nothing special"},
    ),
    "map over 40 files": lambda: (
        once(40, "save", lambda n: {"path": f"{n}.txt", "text": "a b"}),
        {"save": lambda **_: "ok"},
    ),
    "transient error, then success": lambda: (
        [*once(3, "find", lambda _: {"q": "x"}), *once(5, "save", lambda n: {"path": f"{n}"})],
        {"find": failing(2), "save": lambda **_: "ok"},
    ),
    "long varied run": lambda: (
        once(60, "find", lambda n: {"q": f"{n}, please"}),
        {"find": lambda q: f"{q}: an answer of its own, as long as answers are and about {q} alone"},
    ),
}


@MODES
@pytest.mark.parametrize("case", LOOPING.values(), ids=LOOPING)
def test_a_loop_is_halted_before_its_next_call(case: Callable[[], Any], mode: str, new_governor: NewGovernor) -> None:
    turns, tools, rule, halted = case()
    callback = metered(new_governor(), loops=ab.Loops())
    model = script(*turns)
    stop = run(model, [tool(*each) for each in tools.items()], callback, mode)
    assert isinstance(stop, ab.BudgetExceeded)
    report = report_of(callback)
    assert (report.status, report.tool_calls, len(model.calls)) == ("stopped", halted, halted)
    assert said(report) == [("nudge", rule), ("halt", rule)]
    assert report.stopped_by is not None
    assert report.stopped_by.limit == "loops"


def halts_nothing(case: Callable[[], tuple[Any, Any]]) -> Callable[[], Any]:
    return lambda: (*case(), "", 0)


CASES: dict[str, Callable[[], Any]] = {
    **LOOPING,
    **{name: halts_nothing(case) for name, case in WORKING.items()},
}


def in_a_sub_agent(model: ScriptedChatModel, tools: Sequence[BaseTool]) -> Any:
    """An agent whose tool is the agent of *model*."""
    helper: Any = create_agent(model, list(tools))

    def ask() -> str:
        return str(helper.invoke({"messages": [HumanMessage("go")]})["messages"][-1].content)

    async def aask() -> str:
        return str((await helper.ainvoke({"messages": [HumanMessage("go")]}))["messages"][-1].content)

    delegate = StructuredTool.from_function(ask, coroutine=aask, name="delegate", description="Ask a helper.")
    return create_agent(script([("delegate", {})]), [delegate])


@MODES
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_twelve_cases_are_judged_alike_in_a_sub_agent(
    case: Callable[[], Any], mode: str, new_governor: NewGovernor
) -> None:
    turns, tools, rule, halted = case()
    callback = metered(new_governor(), loops=ab.Loops())
    agent = in_a_sub_agent(script(*turns), [tool(*each) for each in tools.items()])
    stopped = stopped_by(agent, callback, mode)
    calls = sum(row.calls for name, row in report_of(callback).by_tool.items() if name != "delegate")
    assert (stopped, calls) == (bool(rule), halted or sum(map(len, turns)))


@MODES
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_twelve_cases_are_judged_alike_in_parallel_branches(
    case: Callable[[], Any], mode: str, new_governor: NewGovernor
) -> None:
    """Beside a branch that does the same: what one agent does is not taken for what the other does."""
    turns, _, rule, _ = case()
    callback = metered(new_governor(), loops=ab.Loops())
    graph: Any = StateGraph(MessagesState)
    agents = [create_agent(script(*turns), [tool(*each) for each in case()[1].items()]) for _ in range(2)]
    for place, agent in enumerate(agents):
        graph.add_node(f"branch {place}", agent)
        graph.add_edge(START, f"branch {place}")
    stopped = stopped_by(graph.compile(), callback, mode)
    rules = {found for _, found in said(report_of(callback))}
    assert (stopped, rules) == (bool(rule), {rule} - {""})


def stopped_by(agent: Any, callback: ab.BudgetCallback, mode: str) -> bool:
    """Whether the loop rules stopped *agent*."""
    inputs = {"messages": [HumanMessage("go")]}
    with contextlib.suppress(ab.BudgetExceeded):
        if mode == "invoke":
            agent.invoke(inputs, config=using(callback))
        else:
            asyncio.run(agent.ainvoke(inputs, config=using(callback)))
    stop = report_of(callback).stopped_by
    return stop is not None and stop.limit == "loops"


@MODES
@pytest.mark.parametrize("case", WORKING.values(), ids=WORKING)
def test_work_that_looks_like_a_loop_runs_to_its_end(
    case: Callable[[], Any], mode: str, new_governor: NewGovernor
) -> None:
    turns, tools = case()
    callback = metered(new_governor(), loops=ab.Loops())
    assert run(script(*turns), [tool(*each) for each in tools.items()], callback, mode)["messages"][-1].text == "done"
    assert said(report_of(callback)) == []


@MODES
def test_calls_side_by_side_are_one_decision(mode: str, new_governor: NewGovernor) -> None:
    callback = metered(new_governor(), loops=ab.Loops())
    turns: list[list[Asked]] = [[("find", {"q": "x"})] * 8, [("find", {"q": f"is {n} there"}) for n in range(40)]]
    run(script(*turns), [tool("find", lambda **_: SAME)], callback, mode)
    assert said(report_of(callback)) == []
    assert report_of(callback).tool_calls == 48


@MODES
def test_rounds_of_calls_side_by_side_are_a_loop(mode: str, new_governor: NewGovernor) -> None:
    callback = metered(new_governor(), loops=ab.Loops())
    turns: list[list[Asked]] = [[("find", {"q": "x"})] * 3] * 9
    fresh = [list(turn) for turn in turns]
    run(script(*fresh), [tool("find", lambda **_: SAME)], callback, mode)
    assert said(report_of(callback)) == [("nudge", "in_a_row"), ("halt", "in_a_row")]
    assert report_of(callback).tool_calls in {10, 11, 12}, "the last round may be stopped before its siblings"


def test_by_default_a_loop_is_reported_and_nothing_is_stopped(new_governor: NewGovernor) -> None:
    callback = metered(new_governor(), max_cost="$1")
    run(script(*once(5, "find", lambda _: {"q": "x"})), [tool("find", lambda **_: SAME)], callback)
    report = report_of(callback)
    assert (report.status, report.tool_calls) == ("completed", 5)
    assert said(report) == [("nudge", "in_a_row"), ("halt", "in_a_row")]
    assert [action["numbers"]["acted"] for action in report.actions] == [False, False]


def test_in_observe_mode_the_stop_is_told_and_not_made(new_governor: NewGovernor) -> None:
    callback = metered(new_governor(mode="observe"), loops=ab.Loops())
    run(script(*once(5, "find", lambda _: {"q": "x"})), [tool("find", lambda **_: SAME)], callback)
    report = report_of(callback)
    assert (report.status, report.stopped_by) == ("completed", None)
    assert report.would_stop is not None
    assert report.would_stop.limit == "loops"


def test_a_stop_says_which_calls_and_what_they_cost(new_governor: NewGovernor) -> None:
    callback = metered(new_governor(), loops=ab.Loops())
    stop = run(script(*once(9, "find", lambda _: {"q": "x"})), [tool("find", lambda **_: SAME)], callback)
    halt = report_of(callback).actions[-1]["numbers"]
    # gpt-4o: 100 tokens in and 10 out are 350,000 nano-dollars; three replies came after the first result.
    assert (halt["steps"], halt["cost"], stop.stop.settled) == (["find"] * 4, 3 * 350_000, 3 * 350_000)
    assert stop.stop.reason == (
        "model gpt-4o refused: find was called 4 times in a row with the same arguments and the same result, "
        "at $0.0010 so far"
    )
    assert "polling={'find'}" in stop.stop.remedy


def test_a_nudge_alone_never_ends_a_task_and_waits_for_whoever_takes_it(new_governor: NewGovernor) -> None:
    governor = new_governor()
    seen: list[tuple[str, str]] = []

    def answer(**_: Any) -> str:
        task = governor.find_task(t.id)
        assert task is not None
        lane = next(iter(task.nudges), "")
        seen.append((task.pending_nudge, task.take_nudge(lane)))
        return SAME

    with ab.task("nudged", ab.Budget(loops=ab.Loops(halt=ab.Thresholds())), governor=governor) as t:
        model = script(*once(6, "find", lambda _: {"q": "x"}))
        create_agent(model, [tool("find", answer)]).invoke({"messages": [HumanMessage("go")]})
    assert t.report.status == "completed"
    assert [bool(pending) for pending, _ in seen] == [False, False, False, True, False, False]
    assert seen[3][0] == seen[3][1]
    assert seen[3][0].startswith("Note: find was called 3 times in a row with the same arguments and the same result.")


@MODES
def test_helpers_that_do_the_same_side_by_side_are_no_loop(mode: str, new_governor: NewGovernor) -> None:
    look = tool("look", lambda **_: SAME)

    def ask(given: dict[str, Any]) -> str:
        helper: Any = create_agent(script([("look", {"at": "README"})]), [look])
        return str(helper.invoke({"messages": [HumanMessage(str(given))]})["messages"][-1].text) + str(given)

    async def aask(given: dict[str, Any]) -> str:
        helper: Any = create_agent(script([("look", {"at": "README"})]), [look])
        state = await helper.ainvoke({"messages": [HumanMessage(str(given))]})
        return str(state["messages"][-1].text) + str(given)

    helpers = StructuredTool.from_function(ask, coroutine=aask, name="ask", description="Ask a helper.")
    callback = metered(new_governor(), loops=ab.Loops())
    turns: list[list[Asked]] = [[("ask", {"n": n})] for n in range(12)]
    run(script(*turns), [helpers], callback, mode)
    assert said(report_of(callback)) == []
    assert report_of(callback).by_tool["look"].calls == 12


@MODES
def test_a_helper_that_goes_in_circles_stops_the_task_that_has_the_rules(mode: str, new_governor: NewGovernor) -> None:
    look = tool("look", lambda **_: SAME)

    def ask(given: dict[str, Any]) -> str:
        helper: Any = create_agent(script(*once(9, "look", lambda _: {"at": "README"})), [look])
        return str(helper.invoke({"messages": [HumanMessage("go")]}))

    async def aask(given: dict[str, Any]) -> str:
        helper: Any = create_agent(script(*once(9, "look", lambda _: {"at": "README"})), [look])
        return str(await helper.ainvoke({"messages": [HumanMessage("go")]}))

    helpers = StructuredTool.from_function(ask, coroutine=aask, name="ask", description="Ask a helper.")
    callback = metered(new_governor(), loops=ab.Loops())
    assert isinstance(run(script([("ask", {})]), [helpers], callback, mode), ab.BudgetExceeded)
    assert report_of(callback).by_tool["look"].calls == 4


def test_a_task_within_a_task_with_rules_is_stopped_by_them(new_governor: NewGovernor) -> None:
    governor = new_governor()
    find = tool("find", lambda **_: SAME)
    agent: Any = create_agent(script(*once(9, "find", lambda _: {"q": "x"})), [find])
    with (
        pytest.raises(ab.BudgetExceeded) as stop,
        ab.task("outer", LOOPS, governor=governor) as outer,
        ab.task("inner", governor=governor),
    ):
        agent.invoke({"messages": []})
    assert stop.value.stop.task_id == outer.id
    assert said(outer.report) == [("nudge", "in_a_row"), ("halt", "in_a_row")]


def test_an_agent_that_ends_by_itself_after_the_last_repeat_has_completed(new_governor: NewGovernor) -> None:
    """The halt is for the next call; a task without one is not stopped."""
    governor = new_governor()
    find = tool("find", lambda **_: SAME)
    with ab.task("hand-written", LOOPS, governor=governor) as t:
        for _ in range(4):
            find.invoke({"given": {"q": "x"}})
    assert (t.report.status, t.report.stopped_by) == ("completed", None)
    assert said(t.report)[-1] == ("halt", "in_a_row")


def test_a_person_asked_within_a_tool_is_no_error(new_governor: NewGovernor) -> None:
    callback = metered(new_governor(), loops=ab.Loops())
    turns: list[list[Asked]] = [[("ask", {})]]
    for _ in range(6):
        run(script(*turns), [tool("ask", lambda **_: str(interrupt("may I?")))], callback)
    assert all(said(report) == [] for report in callback.reports)


def test_replies_that_cannot_be_read_are_nudged(new_governor: NewGovernor) -> None:
    bad = {"name": "find", "args": "{not json", "id": "1", "error": "bad", "type": "invalid_tool_call"}
    model: Any = ScriptedChatModel(script=[AIMessage("", invalid_tool_calls=[bad])], repeat_last=True)
    with ab.task("broken", LOOPS, governor=new_governor()) as t:
        for _ in range(10):
            model.invoke("go")
        with pytest.raises(ab.BudgetExceeded):
            model.invoke("go")
    assert said(t.report) == [("nudge", "unparsable"), ("halt", "unparsable")]
    assert t.report.model_calls == 10


def test_a_rule_that_fails_is_reported_and_stops_nobody(
    new_governor: NewGovernor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(LoopWatch, "step", broken)
    callback = metered(new_governor(), loops=ab.Loops())
    state = run(script(*once(5, "find", lambda _: {"q": "x"})), [tool("find", lambda **_: SAME)], callback)
    assert state["messages"][-1].text == "done"
    found = report_of(callback).discrepancies
    assert {each["kind"] for each in found} == {"loops"}
    assert "a defect" in found[0]["detail"]


def test_exempt_tools_and_volatile_arguments_are_taken_from_the_budget(new_governor: NewGovernor) -> None:
    turns = once(5, "find", lambda n: {"q": "x", "seed": n})
    for loops, halts in (
        (ab.Loops(), False),
        (ab.Loops(volatile={"find": ("seed",)}), True),
        (ab.Loops(volatile={"find": ("seed",)}, polling={"find"}), False),
    ):
        callback = metered(new_governor(), loops=loops)
        stopped = isinstance(run(script(*turns), [tool("find", lambda **_: SAME)], callback), ab.BudgetExceeded)
        assert stopped is halts


def test_a_tool_declared_to_poll_is_exempt(new_governor: NewGovernor) -> None:
    callback = metered(new_governor(), loops=ab.Loops())
    waits = ab.polling(tool("wait_for_it", lambda **_: SAME))
    run(script(*once(9, "wait_for_it", lambda _: {"job": 1})), [waits], callback)
    assert (report_of(callback).status, said(report_of(callback))) == ("completed", [])
    with pytest.raises(ab.ConfigurationError, match="neither a tool nor a function"):
        ab.polling(7)


def test_attempts_of_one_request_are_one_call(new_governor: NewGovernor) -> None:
    """A retry by the host is no decision of the model."""
    callback = metered(new_governor(), loops=ab.Loops())
    left = [4]

    def answer(given: dict[str, Any]) -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionError("no route")
        return "the page"

    flaky = StructuredTool.from_function(answer, name="flaky", description="Do it.")
    agent: Any = create_agent(
        script(*once(1, "flaky", lambda _: {"q": "x"})),
        [flaky],
        middleware=[ToolRetryMiddleware(max_retries=5, initial_delay=0, jitter=False)],
    )
    agent.invoke({"messages": [HumanMessage("go")]}, config=using(callback))
    assert (report_of(callback).tool_calls, said(report_of(callback))) == (5, [])


def test_the_spelling_of_loops_is_a_limit_like_any_other(new_governor: NewGovernor) -> None:
    assert ab.BudgetCallback(loops=ab.Loops(), governor=new_governor()).budget == LOOPS
    assert repr(ab.Budget()) == "Budget()"


def test_law_15_a_recorded_halt_is_replayed(new_governor: NewGovernor, tmp_path: Path) -> None:
    for mode in ("enforce", "observe"):
        path = tmp_path / f"{mode}.jsonl"
        governor = new_governor(trace=path, mode=mode)
        callback = metered(governor, loops=ab.Loops())
        run(script(*once(6, "find", lambda _: {"q": "x"})), [tool("find", lambda **_: SAME)], callback)
        governor.close()
        replayed = ab.Trace.load(path).replay()
        assert replayed.diverged_at is None
        assert (replayed.stopped_by is not None) is (mode == "enforce")
