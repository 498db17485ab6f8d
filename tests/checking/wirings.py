"""Agents for the checks: parts that are right, and parts that are wrong in one way each."""

# ruff: noqa: BLE001 - catching everything is what is wrong with some of them

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict, cast

import openai
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_anthropic import ChatAnthropic
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import RetryPolicy, Send
from pydantic import BaseModel

import agentbudget as ab
from agentbudget.testing import ScriptedChatModel

RAN: list[str] = []
"""Tools that were run for real."""


@tool
def search(query: str) -> str:
    """Search."""
    RAN.append(query)
    return "found"


def chat(**options: Any) -> ChatOpenAI:
    """The real client, in order: a cap, no hidden retries."""
    return ChatOpenAI(**{"model": "gpt-4o", "api_key": "none", "max_tokens": 500, "max_retries": 0, **options})


def claude(**options: Any) -> ChatAnthropic:
    return ChatAnthropic(
        **{"model": "claude-sonnet-4-6", "api_key": "none", "max_tokens": 500, "max_retries": 0, **options}
    )


def graph_of(*nodes: Callable[..., Any], **options: Any) -> Any:
    """A compiled graph of *nodes* one after the other."""
    builder = StateGraph(MessagesState)
    before = START
    for node in nodes:
        builder.add_node(node.__name__, node, **options)
        builder.add_edge(before, node.__name__)
        before = node.__name__
    builder.add_edge(before, END)
    return builder.compile()


def answering(model: Any) -> Any:
    """A node that calls *model* as it should."""

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    return answer


def answering_again(model: Any) -> Any:
    """Another such node."""

    def again(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    return again


# -- wrong in one way each ---------------------------------------------------------------------------------------------


def swallowing() -> Any:
    model = chat()

    def answer(state: MessagesState) -> dict[str, Any]:
        try:
            return {"messages": [model.invoke(state["messages"])]}
        except Exception:
            return {"messages": [AIMessage("Sorry, try later.")]}

    return graph_of(answer)


def renaming() -> Any:
    model = chat()

    def answer(state: MessagesState) -> dict[str, Any]:
        try:
            return {"messages": [model.invoke(state["messages"])]}
        except Exception as error:
            msg = "the model failed"
            raise RuntimeError(msg) from error

    return graph_of(answer)


def trying_for_ever() -> Any:
    model = chat()

    def answer(state: MessagesState) -> dict[str, Any]:
        while True:
            try:
                return {"messages": [model.invoke(state["messages"])]}
            except Exception:
                continue

    return graph_of(answer)


class Quiet(BaseCallbackHandler):
    """A tracer of somebody's own."""


def replacing() -> Any:
    model = chat()

    def plan(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        mine: RunnableConfig = {**config, "callbacks": [Quiet()]}
        return {"messages": [model.invoke(state["messages"], mine)]}

    return graph_of(answering(chat()), plan)


def threading_away() -> Any:
    model = chat()

    def plan(state: MessagesState) -> dict[str, Any]:
        with ThreadPoolExecutor() as pool:
            return {"messages": [pool.submit(model.invoke, state["messages"]).result()]}

    return graph_of(plan)


def calling_after_all() -> Any:
    """The stop is caught, and a fallback is called where no callback hears of it."""
    model, spare = chat(), chat(model="gpt-4o-mini")

    def answer(state: MessagesState) -> dict[str, Any]:
        try:
            return {"messages": [model.invoke(state["messages"])]}
        except Exception:
            with ThreadPoolExecutor() as pool:
                return {"messages": [pool.submit(spare.invoke, state["messages"]).result()]}

    return graph_of(answer)


def going_around() -> Any:
    client = openai.OpenAI(api_key="none")

    def plan(state: MessagesState) -> dict[str, Any]:
        asked: Any = [{"role": "user", "content": "Plan."}]
        made = client.chat.completions.create(model="gpt-4o", messages=asked)
        return {"messages": [AIMessage(str(made.choices[0].message.content))]}

    return graph_of(answering(chat()), plan)


def behind_a_proxy() -> Any:
    return create_agent(chat(base_url="https://llm.example.com/v1"), [search])


def without_a_price() -> Any:
    return create_agent(chat(model="our-own-tune-7"), [search])


def with_a_fallback_without_a_price() -> Any:
    return chat().with_fallbacks([chat(model="our-own-tune-7")])


def with_a_billed_tool() -> Any:
    return chat().bind_tools([{"type": "code_interpreter", "container": {"type": "auto"}}])


def multiplying() -> Any:
    """3 by the client x 3 by the middleware x 3 by the node."""
    inner: Any = create_agent(
        chat(max_retries=2), [], middleware=[ModelRetryMiddleware(max_retries=2, on_failure="error")]
    )

    def answer(state: MessagesState) -> Any:
        return inner.invoke({"messages": state["messages"]})

    return graph_of(answer, retry_policy=RetryPolicy(max_attempts=3, retry_on=Exception))


def uncapped() -> Any:
    return ChatOpenAI(model="gpt-4o", api_key="none", max_retries=0)  # type: ignore[arg-type]  # pydantic takes it


def asking_without_a_checkpointer() -> Any:
    return create_agent(chat(), [search], middleware=[ab.BudgetMiddleware(max_cost="$1", on_limit="ask")])


class Deaf(BaseCallbackHandler):
    """A limit of somebody's own that LangChain only logs."""

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        if len(messages) > 100:
            msg = "over the limit"
            raise RuntimeError(msg)


def limited_in_vain() -> Any:
    return graph_of(answering(chat())).with_config(callbacks=[Deaf()])


def hiding_in_a_tool() -> Any:
    helper: Any = create_agent(chat(), [search])

    @tool
    def delegate(question: str) -> str:
        """Ask the helper."""
        try:
            return str(helper.invoke({"messages": [("user", question)]})["messages"][-1].content)
        except Exception:
            return "The helper is busy."

    return create_agent(chat(), [delegate])


def never_ending() -> Any:
    model = chat()
    builder = StateGraph(MessagesState)
    builder.add_node("answer", answering(model))
    builder.add_edge(START, "answer")
    builder.add_edge("answer", "answer")
    return builder.compile()


WRONG: dict[str, tuple[Callable[[], Any], str, str]] = {
    "except Exception around a call": (swallowing, "stop-swallowed", "error"),
    "another error raised in its place": (renaming, "stop-swallowed", "error"),
    "a loop that tries for ever": (trying_for_ever, "stop-swallowed", "error"),
    "callbacks replaced within a run": (replacing, "callbacks-replaced", "error"),
    "a plain thread": (threading_away, "plain-thread", "error"),
    "a call after the stop": (calling_after_all, "call-after-stop", "error"),
    "a provider's SDK beside LangChain": (going_around, "sdk-call", "error"),
    "a base URL that leaves out the usage": (behind_a_proxy, "usage-missing", "warning"),
    "a model without a price": (without_a_price, "unpriced-model", "error"),
    "a fallback without a price": (with_a_fallback_without_a_price, "unpriced-model", "error"),
    "a tool billed by the provider": (with_a_billed_tool, "unpriced-tool", "warning"),
    "retries that multiply": (multiplying, "retries-multiply", "warning"),
    "no output cap": (uncapped, "output-cap", "warning"),
    "ask without a checkpointer": (asking_without_a_checkpointer, "ask-without-checkpointer", "error"),
    "a handler that cannot stop": (limited_in_vain, "handler-cannot-stop", "error"),
    "a tool that catches everything": (hiding_in_a_tool, "broad-except", "warning"),
    "an agent that never ends": (never_ending, "never-ends", "warning"),
}
"""Name -> how to make it, the finding it must give, how bad."""


# -- right -------------------------------------------------------------------------------------------------------------


class Asked(TypedDict):
    question: str
    most: int
    answers: list[str]


class Verdict(BaseModel):
    """What was found out."""

    found: bool
    why: str


def async_only() -> Any:
    model = chat()

    async def answer(state: MessagesState) -> dict[str, Any]:
        first, _ = await asyncio.gather(model.ainvoke(state["messages"]), model.ainvoke(state["messages"]))
        return {"messages": [first]}

    return graph_of(answer)


def letting_it_pass() -> Any:
    """Catches every error but the stop."""
    model = chat()

    def answer(state: MessagesState) -> dict[str, Any]:
        try:
            return {"messages": [model.invoke(state["messages"])]}
        except ab.BudgetExceeded:
            raise
        except Exception:
            return {"messages": [AIMessage("Sorry, try later.")]}

    return graph_of(answer)


def telling_the_model_of_errors() -> Any:
    """A refused tool becomes a message; the next model call is refused, so the stop leaves all the same."""
    model = chat().bind_tools([search])

    def use(state: MessagesState) -> dict[str, Any]:
        (call,) = cast("AIMessage", state["messages"][-1]).tool_calls
        try:
            return {"messages": [search.invoke(call)]}
        except Exception as error:
            return {"messages": [ToolMessage(str(error), tool_call_id=call["id"])]}

    return graph_of(answering(model), use, answering_again(model))


def of_its_own_state() -> Any:
    model = chat()

    def answer(state: Asked) -> dict[str, Any]:
        return {"answers": [model.invoke(f"{state['question']} ({state['most'] + 1} words)").text]}

    builder = StateGraph(Asked)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    return builder.compile()


def in_branches() -> Any:
    """Twelve calls with the same messages at once are no retries."""
    model = chat()
    builder = StateGraph(MessagesState)
    builder.add_node("plan", lambda state: {})
    builder.add_node("branch", lambda state: {"messages": model.batch([state["messages"]] * 2)})
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", lambda state: [Send("branch", state)] * 6, ["branch"])
    return builder.compile()


def in_threads() -> Any:
    model = chat()

    def answer(state: MessagesState) -> dict[str, Any]:
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(contextvars.copy_context().run, model.invoke, state["messages"])
            return {"messages": [asked.result()]}

    return graph_of(answer)


def _prompted() -> Any:
    return ChatPromptTemplate.from_messages([("user", "A joke about {topic}.")]) | chat() | StrOutputParser()


def _kept() -> Any:
    middleware = ab.BudgetMiddleware(max_cost="$1", on_limit="ask")
    return create_agent(chat(), [search], middleware=[middleware], checkpointer=InMemorySaver())


RIGHT: dict[str, Callable[[], Any]] = {
    "an agent": lambda: create_agent(chat(), [search]),
    "an agent on Claude": lambda: create_agent(claude(), [search]),
    "an agent under a guard": lambda: ab.guard(create_agent(chat(), [search]), max_cost="$1"),
    "an agent that lands": lambda: create_agent(
        uncapped(), [search], middleware=[ab.BudgetMiddleware(max_cost="$1", downgrade=["openai:gpt-4o-mini"])]
    ),
    "an agent that asks": _kept,
    "an agent with a structured answer": lambda: create_agent(chat(), [search], response_format=Verdict),
    "an agent with an answer by tool": lambda: create_agent(chat(), [search], response_format=ToolStrategy(Verdict)),
    "an agent with one layer of retries": lambda: create_agent(
        chat(), [search], middleware=[ModelRetryMiddleware(max_retries=2)]
    ),
    "a deep agent": lambda: create_deep_agent(chat(), [search]),
    "a deep agent on the Responses API": lambda: create_deep_agent(chat(use_responses_api=True), [search]),
    "a graph": lambda: graph_of(answering(chat())),
    "a graph on a governed model": lambda: graph_of(answering(ab.governed(uncapped(), max_cost="$1"))),
    "a graph of async nodes": async_only,
    "a graph that lets the stop pass": letting_it_pass,
    "a graph of its own state": of_its_own_state,
    "a graph with parallel branches": in_branches,
    "a graph that tells the model of errors": telling_the_model_of_errors,
    "a graph with threads of the same context": in_threads,
    "a graph with a retry policy": lambda: graph_of(answering(chat()), retry_policy=RetryPolicy(max_attempts=3)),
    "a chain": _prompted,
    "a chain under a guard": lambda: ab.guard(_prompted(), max_cost="$1"),
    "a model": chat,
    "a model with a fallback": lambda: chat().with_fallbacks([claude()]),
    "a model that is retried": lambda: chat().with_retry(),
    "a model of another wire": lambda: ScriptedChatModel(script=[], max_tokens=20),
    "a function that makes an agent": lambda: lambda: create_agent(chat(), [search]),
}
"""Name -> how to make it; nothing worse than something to know is found in it."""
