"""Playback: a recorded trajectory of an agent, offline and exact."""

from __future__ import annotations

import pytest

from tests.plugin.projects import Project

pytest_plugins = ["pytester"]

AGENT = '''
from langchain.agents import create_agent
from langchain_core.tools import tool
from agentbudget.testing import ScriptedChatModel, scripted_reply

@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"

def scripted():
    return ScriptedChatModel(model_name="gpt-5", max_tokens=300, script=[
        scripted_reply("", calls=[("search", {"query": "weather"}), ("search", {"query": "time"})],
                       input_tokens=120, output_tokens=30),
        scripted_reply("sunny at noon", input_tokens=200, output_tokens=10),
    ])

def answer(model, tools, question="how is it?", prompt="Be brief."):
    agent = create_agent(model, tools, system_prompt=prompt)
    return agent.invoke({"messages": [("user", question)]})["messages"][-1].content

async def aanswer(model, tools):
    agent = create_agent(model, tools, system_prompt="Be brief.")
    chunks = [chunk async for chunk in agent.astream({"messages": [("user", "how is it?")]}, stream_mode="values")]
    return chunks[-1]["messages"][-1].content
'''
RECORDED = "recorded/test_record.py-test_record.jsonl"


@pytest.fixture
def recorded(project: Project) -> Project:
    """A project with the recording of an agent."""
    project.write("agent.py", AGENT)
    project.write(
        "test_record.py",
        """
        from agent import answer, scripted, search

        def test_record():
            assert answer(scripted(), [search]) == "sunny at noon"
        """,
    )
    options = ("--budget-trace=recorded", "--budget-trace-content=full")
    project.run(*options).assert_outcomes(passed=1)
    (project.path / "test_record.py").unlink()
    return project


def played(project: Project, body: str, *, head: str = "") -> None:
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    text = f"from agent import aanswer, answer, scripted, search\n{head}\ndef test_it(budget):\n{indented}\n"
    project.tests(text)


def test_a_recorded_agent_plays_again_to_the_nano_dollar(recorded: Project, workers: int) -> None:
    played(
        recorded,
        f"""
model, tools = budget.playback("{RECORDED}")
assert [tool.name for tool in tools] == ["search"]
assert answer(model, tools) == "sunny at noon"
before = ab.Trace.load("{RECORDED}").report
now = budget.report
assert (now.cost, now.model_calls, now.tool_calls, now.usage) == (before.cost, 2, 2, before.usage)
assert list(now.by_model) == ["gpt-5"]
""",
        head='@pytest.mark.budget(max_cost="$0.02")',
    )
    recorded.run(workers=workers).assert_outcomes(passed=1)


def test_it_plays_async_and_streamed(recorded: Project) -> None:
    recorded.tests(f"""
        from agent import aanswer

        @pytest.mark.asyncio
        async def test_it(budget):
            assert await aanswer(*budget.playback("{RECORDED}")) == "sunny at noon"
            assert budget.report.model_calls == 2
    """)
    recorded.run().assert_outcomes(passed=1)


def test_the_tools_may_be_the_real_ones(recorded: Project) -> None:
    played(
        recorded,
        f'assert answer(budget.playback("{RECORDED}").model, [search]) == "sunny at noon"',
    )
    recorded.run().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            'question="another?"',
            ("departs from the recording at call 1 (model gpt-5): message 2 is another", "another?"),
        ),
        ('prompt="Be long."', ("departs from the recording at call 1 (model gpt-5): message 1 is another", "Be long.")),
    ],
)
def test_another_request_fails_with_the_first_different_call(
    recorded: Project, change: str, told: tuple[str, ...]
) -> None:
    played(recorded, f'answer(*budget.playback("{RECORDED}"), {change})')
    result = recorded.run()
    result.assert_outcomes(failed=1)
    for text in told:
        assert text in recorded.said(result)


def test_a_departure_that_is_swallowed_fails_the_test_at_its_end(recorded: Project) -> None:
    body = f"""
try:
    answer(*budget.playback("{RECORDED}"), question="another?")
except AssertionError:
    pass
"""
    played(recorded, body)
    result = recorded.run()
    result.assert_outcomes(failed=1)
    assert "departs from the recording at call 1" in recorded.said(result)


def test_another_tool_result_is_found_in_the_next_request(recorded: Project) -> None:
    head = '''
from langchain_core.tools import tool

@tool("search")
def other(query: str) -> str:
    """Search."""
    return "nothing"
'''
    played(recorded, f'answer(budget.playback("{RECORDED}").model, [other])', head=head)
    result = recorded.run()
    result.assert_outcomes(failed=1)
    assert "call 4 (model gpt-5): message 4 is another" in recorded.said(result)


def test_a_call_beyond_the_recording_fails(recorded: Project) -> None:
    body = f"""
play = budget.playback("{RECORDED}")
answer(play.model, play.tools)
answer(play.model, play.tools)
"""
    played(recorded, body)
    result = recorded.run()
    result.assert_outcomes(failed=1)
    assert "a call of model gpt-5 that was not recorded" in recorded.said(result)


def test_an_agent_that_ends_early_fails_unless_that_is_allowed(recorded: Project) -> None:
    call = "m, _ = budget.playback('{}'{})\nm.invoke([('system', 'Be brief.'), ('user', 'how is it?')])"
    played(recorded, call.format(RECORDED, ""))
    result = recorded.run()
    result.assert_outcomes(failed=1)
    assert "the recording goes on with call 4 (model gpt-5), but the test ended" in recorded.said(result)
    played(recorded, call.format(RECORDED, ", whole=False"))
    recorded.run().assert_outcomes(passed=1)


def test_a_trace_without_content_says_how_to_record_one(recorded: Project) -> None:
    recorded.write(
        "test_record.py",
        "from agent import answer, scripted, search\ndef test_record():\n    answer(scripted(), [search])\n",
    )
    recorded.run("--budget-trace=hashed").assert_outcomes(passed=1)
    (recorded.path / "test_record.py").unlink()
    played(recorded, "budget.playback('hashed/test_record.py-test_record.jsonl')")
    result = recorded.run()
    result.assert_outcomes(failed=1)
    assert "recorded without content" in recorded.said(result)
    assert "trace_content='full'" in recorded.said(result)


def test_recorded_failures_fail_again_and_are_retried_again(project: Project) -> None:
    project.tests("""
        from langchain_core.tools import tool
        from agentbudget.testing import ScriptedChatModel, scripted_reply

        def flow(model, fetch):
            answer = model.with_retry(stop_after_attempt=2, wait_exponential_jitter=False).invoke("go")
            try:
                fetch.invoke({"url": "x"})
            except ValueError as error:
                return answer.content, str(error)

        @tool
        def fetch(url: str) -> str:
            "Fetch."
            raise ValueError("no such page")

        def test_record():
            up = scripted_reply("up", input_tokens=5, output_tokens=5)
            chat = ScriptedChatModel(script=[ConnectionError("down"), up])
            governor = ab.Governor(trace="run.jsonl", trace_content="full")
            with ab.task("record", governor=governor):
                assert flow(chat, fetch) == ("up", "no such page")
            governor.close()

        def test_play(budget):
            play = budget.playback("run.jsonl")
            assert flow(play.model, play.tools[0]) == ("up", "no such page")
            before = ab.Trace.load("run.jsonl").report
            assert (budget.report.retries, budget.report.model_calls) == (before.retries, before.model_calls) == (1, 2)
            assert budget.report.cost == before.cost
    """)
    project.run().assert_outcomes(passed=2)


def test_several_models_are_taken_by_name(project: Project) -> None:
    project.tests("""
        def test_record():
            governor = ab.Governor(trace="run.jsonl", trace_content="full")
            with ab.task("record", governor=governor):
                model("gpt-4o").invoke("a")
                model("gpt-5").invoke("b")
            governor.close()

        def test_play(budget):
            play = budget.playback("run.jsonl")
            with pytest.raises(LookupError, match="2 models: take each from .models by name"):
                play.model
            play.models["gpt-5"].invoke("b")
            play.models["gpt-4o"].invoke("a")

        def test_no_model(budget):
            governor = ab.Governor(trace="tools.jsonl", trace_content="full")
            with ab.task("record", governor=governor):
                search.invoke({"query": "x"})
            governor.close()
            with pytest.raises(LookupError, match="no model call is recorded there"):
                budget.playback("tools.jsonl")
            with pytest.raises(ab.TraceError):
                budget.playback("missing.jsonl")
    """)
    project.run().assert_outcomes(passed=3)
