"""Who acts in the tests of identity: scripted models, a graph, an agent, and every way to run them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import Runnable
from langgraph.graph import END, START, MessagesState, StateGraph

import agentbudget as ab
from agentbudget.testing import ScriptedChatModel, scripted_reply

CALL = Decimal("0.00035")
"""What one call of a scripted model costs: 100 tokens in and 10 out, at gpt-4o's list price."""

HELLO: Any = {"messages": [("user", "hello")]}
"""Input of a graph or an agent."""

Step = Callable[[MessagesState], Any]


def scripted(*turns: Any, **options: Any) -> ScriptedChatModel:
    """A model that plays *turns*, the last one for ever; without turns it says "ok"."""
    return ScriptedChatModel(script=turns or (answer(),), repeat_last=True, max_tokens=20, **options)


def answer(text: str = "ok", calls: Sequence[tuple[str, dict[str, Any]]] = ()) -> AIMessage:
    """A turn of 100 tokens in and 10 out."""
    return scripted_reply(text, calls=calls, input_tokens=100, output_tokens=10)


def asking(tool: str, times: int, **arguments: Any) -> Callable[[list[BaseMessage]], AIMessage]:
    """A turn that calls *tool* until its answer came *times* times, and then answers."""

    def turn(messages: list[BaseMessage]) -> AIMessage:
        answered = sum(isinstance(message, ToolMessage) for message in messages)
        return answer("", [(tool, arguments)]) if answered < times else answer("done")

    return turn


def graph_of(**nodes: Any) -> Any:
    """A `StateGraph` of nodes one after the other, not yet compiled."""
    builder = StateGraph(MessagesState)
    before = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(before, name)
        before = name
    builder.add_edge(before, END)
    return builder


def tasks_of(governor: ab.Governor) -> list[int]:
    """Model calls of each closed task."""
    return [report.model_calls for report in governor.reports]


def repeatedly(act: Callable[[], object], times: int = 10) -> None:
    """Do *act* again and again; the first error ends it."""
    for _ in range(times):
        act()


def calling(model: Runnable[LanguageModelInput, AIMessage]) -> Step:
    """A node that calls *model* once."""

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    return node


def _stream(target: Any, given: Any, config: Any) -> None:
    for _ in target.stream(given, config):
        pass


def _astream(target: Any, given: Any, config: Any) -> None:
    async def consume() -> None:
        async for _ in target.astream(given, config):
            pass

    asyncio.run(consume())


def _astream_events(target: Any, given: Any, config: Any) -> None:
    async def consume() -> None:
        async for _ in target.astream_events(given, config, version="v2"):
            pass

    asyncio.run(consume())


ENTRIES: dict[str, Callable[[Any, Any, Any], object]] = {
    "invoke": lambda target, given, config: target.invoke(given, config),
    "ainvoke": lambda target, given, config: asyncio.run(target.ainvoke(given, config)),
    "stream": _stream,
    "astream": _astream,
    "batch": lambda target, given, config: target.batch([given], config),
    "abatch": lambda target, given, config: asyncio.run(target.abatch([given], config)),
    "astream_events": _astream_events,
}
"""Every public way to run a Runnable once."""
