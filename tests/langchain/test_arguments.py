"""What makes two calls of an idempotent tool the same: all that is asked, for whom, and by which tool."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime
from langgraph.types import Command
from pydantic import BaseModel, Field

import agentbudget as ab
from agentbudget.testing import ProviderServer, assert_valid_history
from tests.langchain.actors import HELLO, answer, scripted
from tests.langchain.support import openai


class Address(BaseModel):
    city: str


class Letter(BaseModel):
    to: Address
    secret: int = Field(default=0, exclude=True)


class Abroad(Address):
    country: str


@dataclass
class Who:
    user: str
    connection: object


class Mail(MessagesState):
    user: str


def asked(*tools: Any, calls: list[dict[str, Any]], governor: ab.Governor, **state: Any) -> list[Any]:
    """The last message after each of these tool calls, all in one task."""
    graph = StateGraph(Mail).add_node("tools", ToolNode(list(tools))).add_edge(START, "tools").compile()
    found = []
    with ab.task("t", governor=governor):
        for place, call in enumerate(calls):
            message = AIMessage("", tool_calls=[{"name": tools[0].name, "args": call, "id": f"c{place}"}])
            found.append(graph.invoke({"messages": [*HELLO["messages"], message], **state})["messages"])  # type: ignore[call-overload]  # a plain dict
    return found


@pytest.mark.parametrize("name", ["state", "store", "config", "runtime"])
def test_an_argument_of_the_call_counts_whatever_its_name(name: str, governor: ab.Governor) -> None:
    def look(**given: str) -> str:
        return str(given)

    scope = {"look": look}
    exec(f"def weather({name}: str) -> str:\n    return look({name}={name})\n", scope)
    weather = ab.idempotent(scope["weather"])
    with ab.task("t", governor=governor):
        assert [weather(**{name: each}) for each in ("IL", "MO")] == [str({name: each}) for each in ("IL", "MO")]


def test_values_that_differ_in_what_a_dump_leaves_out_are_different(governor: ab.Governor) -> None:
    ran: list[Letter] = []

    @ab.idempotent
    def send(letter: Letter) -> int:
        ran.append(letter)
        return len(ran)

    sent = [
        Letter(to=Address(city="Bonn")),
        Letter(to=Address(city="Bonn"), secret=1),
        Letter(to=Abroad(city="Bonn", country="a")),
        Letter(to=Abroad(city="Bonn", country="b")),
    ]
    with ab.task("t", governor=governor):
        assert [send(each) for each in (*sent, *sent)] == [1, 2, 3, 4, 1, 2, 3, 4]


def test_tools_of_one_name_in_two_places_are_two(governor: ab.Governor) -> None:
    def docs() -> Any:
        @ab.idempotent
        @tool
        def search(query: str) -> str:
            """Search."""
            return "docs"

        return search

    def web() -> Any:
        @ab.idempotent
        @tool
        def search(query: str) -> str:
            """Search."""
            return "web"

        return search

    with ab.task("t", governor=governor):
        assert [each.invoke({"query": "a"}) for each in (docs(), web(), docs())] == ["docs", "web", "docs"]


def test_a_result_for_one_user_is_never_given_to_another(governor: ab.Governor) -> None:
    ran: list[str] = []

    @ab.idempotent
    @tool
    def mails(runtime: ToolRuntime[Who, Any]) -> str:
        """The mails of whoever asks."""
        ran.append(runtime.context.user)
        return f"for {runtime.context.user}"

    @ab.idempotent
    @tool
    def files(config: RunnableConfig) -> str:
        """The files of whoever asks."""
        ran.append(config["configurable"]["user"])
        return f"of {ran[-1]}"

    with ab.task("everyone", governor=governor):
        for user in ("ann", "bob", "ann"):
            model = scripted(answer("", [("mails", {}), ("files", {})]), answer("done"))
            agent = create_agent(model, [mails, files], context_schema=Who)
            state = agent.invoke(
                HELLO,
                {"configurable": {"user": user}},
                context=Who(user=user, connection=object()),
            )
            told = [each.content for each in state["messages"] if isinstance(each, ToolMessage)]
            assert told == [f"for {user}", f"of {user}"]
    assert sorted(ran) == ["ann", "ann", "bob", "bob"]


def test_one_field_of_the_state_is_asked_for_and_the_whole_of_it_is_not(governor: ab.Governor) -> None:
    ran: list[str] = []

    @ab.idempotent
    @tool
    def whole(at: str, now: Annotated[dict[str, Any], InjectedState]) -> str:
        """Look."""
        ran.append(now["user"])
        return ran[-1]

    @ab.idempotent
    @tool
    def one(at: str, user: Annotated[str, InjectedState("user")]) -> str:
        """Look."""
        ran.append(user)
        return user

    for function, expected in ((whole, ["ann"]), (one, ["ann", "bob"])):
        ran.clear()
        with ab.task("t", governor=governor):
            graph = StateGraph(Mail).add_node("tools", ToolNode([function])).add_edge(START, "tools").compile()
            for place, user in enumerate(("ann", "bob", "ann")):
                call = {"name": function.name, "args": {"at": "a"}, "id": str(place)}
                graph.invoke({"messages": [AIMessage("", tool_calls=[call])], "user": user})
        assert ran == expected


@pytest.mark.parametrize("told", ["id", "runtime"])
@pytest.mark.parametrize("kind", ["message", "command"])
def test_a_kept_message_answers_the_call_it_is_given_to(kind: str, told: str, governor: ab.Governor) -> None:
    ran: list[str] = []

    def reply(call_id: str | None) -> Any:
        ran.append("run")
        message = ToolMessage("found", tool_call_id=call_id or "")
        return message if kind == "message" else Command(update={"messages": [message], "user": "ann"})

    @tool
    def by_id(tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
        """Look."""
        return reply(tool_call_id)

    @tool
    def by_runtime(runtime: ToolRuntime) -> Any:
        """Look."""
        return reply(runtime.tool_call_id)

    look = ab.idempotent(by_id if told == "id" else by_runtime)
    for messages in asked(look, calls=[{}, {}, {}], governor=governor):
        assert_valid_history(messages)
    assert ran == ["run"]


def test_the_same_request_to_another_server_is_asked(governor: ab.Governor) -> None:
    with ProviderServer() as one, ProviderServer() as other, ab.task("t", governor=governor):
        for server in (one, other, one):
            ab.governed(openai(server), dedupe=True).invoke("q")
        assert (len(one.requests), len(other.requests)) == (1, 1)
