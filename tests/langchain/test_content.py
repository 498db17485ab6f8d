"""What of a call's content enters a trace: hashes by default, everything on request, nothing where nobody listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, messages_from_dict
from langchain_core.tools import tool

import agentbudget as ab
from agentbudget.langchain.content import message_content
from agentbudget.testing import ScriptedChatModel, scripted_reply
from agentbudget.trace.events import CallReserved, CallSettled, Event

SECRET = "the launch code is x4711y"


@tool
def look(query: str) -> str:
    """Look."""
    if query == "fail":
        raise ValueError(SECRET)
    return f"{SECRET}: {query}"


def listening(**options: Any) -> tuple[ab.Governor, list[Event]]:
    events: list[Event] = []
    return ab.Governor(sinks=[events.append], **options), events


def of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def chat(*replies: Any) -> ScriptedChatModel:
    return ScriptedChatModel(script=replies or [scripted_reply(SECRET, calls=[("look", {"query": SECRET})])])


def test_equal_questions_and_answers_have_equal_hashes_and_others_do_not() -> None:
    governor, events = listening()
    with ab.task("t", governor=governor):
        for query in ("a", "a", "b"):
            look.invoke({"query": query})
            look.invoke({"type": "tool_call", "name": "look", "args": {"query": query}, "id": f"id-{query}"})
    asked = [event.request for event in of(CallReserved, events)]
    answered = [event.result for event in of(CallSettled, events)]
    assert asked[:4] == [asked[0]] * 4
    assert asked[4:] == [asked[4]] * 2
    assert asked[0] != asked[4]
    assert answered[0] == answered[2]
    assert answered[1] == answered[3], "the id of a tool call is no part of its result"
    assert len({answered[0], answered[1], answered[4], answered[5]}) == 4
    assert all(len(hashed) == 16 for hashed in asked + answered)


def test_a_model_is_hashed_by_its_last_message_and_its_answer() -> None:
    governor, events = listening()
    reply = scripted_reply("fine", calls=[("look", {"query": "x"})])
    with ab.task("t", governor=governor):
        model = chat(reply, reply, scripted_reply("fine"))
        for question in ("a", "a", "b"):
            model.invoke([HumanMessage("first"), HumanMessage(question)])
    asked = [event.request for event in of(CallReserved, events)]
    answered = [event.result for event in of(CallSettled, events)]
    assert asked[0] == asked[1] != asked[2]
    assert answered[0] == answered[1] != answered[2], "tool calls are part of an answer, their ids are not"


def test_errors_are_hashed_by_class_and_text() -> None:
    governor, events = listening()
    with ab.task("t", governor=governor):
        for _ in range(2):
            with pytest.raises(ValueError, match="launch"):
                look.invoke({"query": "fail"})
        with pytest.raises(ConnectionError):
            chat(ConnectionError("down")).invoke("x")
    hashes = [event.result for event in of(CallSettled, events)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert all(hashes)


def test_by_default_a_trace_holds_no_word_of_the_content(tmp_path: Path) -> None:
    governor = ab.Governor(trace=tmp_path)
    with ab.task("t", governor=governor):
        chat().invoke([HumanMessage(SECRET)])
        look.invoke({"query": SECRET})
        with pytest.raises(ValueError, match="launch"):
            look.invoke({"query": "fail"})
    governor.close()
    (path,) = tmp_path.iterdir()
    assert "x4711y" not in path.read_text(encoding="utf-8")


def test_full_content_is_langchains_own_form_of_messages() -> None:
    governor, events = listening(trace_content="full")
    messages = [HumanMessage("go", id="h1"), ToolMessage("seen", tool_call_id="c1", name="look")]
    with ab.task("t", governor=governor):
        answer = chat().bind_tools([look]).invoke(messages)
        look.invoke({"query": "x"})
        with pytest.raises(ValueError, match="launch"):
            look.invoke({"query": "fail"})
        FakeListLLM(responses=["plain"]).invoke("text")
    asked = [event.content for event in of(CallReserved, events)]
    told = [event.content for event in of(CallSettled, events)]
    assert messages_from_dict(asked[0]["messages"]) == messages
    assert asked[0]["tools"][0]["function"]["name"] == "look"
    (read,) = messages_from_dict([told[0]])
    assert isinstance(read, AIMessage)
    assert (read.content, read.tool_calls) == (answer.content, answer.tool_calls)
    assert asked[1:3] == [{"query": "x"}, {"query": "fail"}]
    assert told[1:3] == [f"{SECRET}: x", {"error": SECRET}]
    assert asked[3]["messages"] == [{"type": "human", "data": {"content": "text", "type": "human"}}]
    assert told[3] == "plain"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_content_goes_only_to_the_governor_that_asked_for_it(order: tuple[int, int]) -> None:
    pair = [listening(trace_content="full"), listening()]
    handlers = [ab.BudgetCallback(governor=pair[index][0], per="callback") for index in order]
    chat().invoke("go", config={"callbacks": list(handlers)})
    look.invoke({"query": "x"}, config={"callbacks": list(handlers)})
    full, hashed = pair[0][1], pair[1][1]
    assert all(event.content is not None for event in full if isinstance(event, CallReserved | CallSettled))
    assert all(event.content is None for event in hashed if isinstance(event, CallReserved | CallSettled))
    assert all(event.request for event in of(CallReserved, full) + of(CallReserved, hashed))
    assert all(event.result for event in of(CallSettled, full) + of(CallSettled, hashed))


def test_nothing_is_hashed_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentbudget.trace.redaction.Hasher.hash", lambda self, value: pytest.fail("hashed"))
    with ab.task("t", governor=ab.Governor()) as task:
        chat().invoke("go")
        look.invoke({"query": "x"})
    assert task.report.attempts == 2


def test_a_message_keeps_its_content_even_where_it_is_empty() -> None:
    assert message_content(AIMessage("")) == {"type": "ai", "data": {"content": "", "type": "ai"}}
