"""The story of a live run: sub-agents stand inside the tools that ran them, side by side where they ran in parallel."""

from __future__ import annotations

import threading
from pathlib import Path

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

import agentbudget as ab
from agentbudget.reports.story import CallLine, tell
from agentbudget.testing import ScriptedChatModel, scripted_reply


def asks(*tools: str) -> AIMessage:
    """A turn that wants these tools."""
    return scripted_reply("", calls=[(name, {"topic": name}) for name in tools], input_tokens=10, output_tokens=5)


def says(text: str) -> AIMessage:
    """A last turn."""
    return scripted_reply(text, input_tokens=10, output_tokens=5)


@tool
def look(topic: str) -> str:
    """Look something up."""
    return f"nothing about {topic}"


def test_the_calls_of_parallel_sub_agents_stand_inside_their_own_tools(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=20)

    def sub_agent(name: str, script: list[AIMessage]) -> str:
        both.wait()  # now both tools are in flight
        model = ScriptedChatModel(script=script)
        agent = create_agent(model, [look], name=name)
        agent.invoke({"messages": [HumanMessage("go")]})
        both.wait()
        return name

    @tool
    def research(topic: str) -> str:
        """Find out."""
        return sub_agent("researcher", [asks("look"), says("found")])

    @tool
    def review(topic: str) -> str:
        """Check it."""
        return sub_agent("reviewer", [says("fine")])

    agent = create_agent(ScriptedChatModel(script=[asks("research", "review"), says("done")]), [research, review])
    governor = ab.Governor(trace=tmp_path / "traces")
    with ab.task("ask", max_model_calls=20, governor=governor):
        agent.invoke({"messages": [HumanMessage("go")]})
    governor.close()

    lines = tell(ab.Trace.load(tmp_path / "traces").events).calls
    assert inside(lines) == {"research": ["model", "look", "model"], "review": ["model"]}
    assert sorted(line.name for line in lines if line.parallel) == ["research", "review"]
    assert [line.depth for line in lines if line.kind == "model" and line.agent not in {"researcher", "reviewer"}] == [
        0,
        0,
    ]


def inside(lines: list[CallLine]) -> dict[str, list[str]]:
    """By the tool around them, the calls that ran in it."""
    names = {line.call: line.name for line in lines}
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.depth:
            found.setdefault(names[line.inside], []).append(line.kind if line.kind == "model" else line.name)
    return found
