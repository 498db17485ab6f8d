"""How a stopped agent ends: pure helpers that build requests and messages. Every history they leave is valid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain.agents.middleware.types import ExtendedModelResponse, ModelRequest, ModelResponse
from langchain.agents.structured_output import AutoStrategy, ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, SystemMessage, ToolMessage
from langgraph.types import Command

from agentbudget.domain.accounts import Meter
from agentbudget.domain.verdict import StopReport

FINAL_NOTE: Final = (
    "The budget of this task is used up: this is the last answer. No tool can be called any more. Give the best "
    "answer that what is known so far allows, and say what could not be finished."
)
"""What a model is told when it is asked for its last answer."""
_CALL_BLOCKS = frozenset({"tool_use", "tool_call", "function_call", "input_json_delta"})


def last_request(request: ModelRequest[Any], note: str) -> ModelRequest[Any]:
    """*request* for the last answer: without tools, with *note* as the end of the system message.

    What structured output needs stays.
    """
    said = f"{request.system_prompt}\n\n{note}" if request.system_prompt else note
    if request.system_message is not None and not isinstance(request.system_message.content, str):
        content = [*request.system_message.content, {"type": "text", "text": note}]
        system = request.system_message.model_copy(update={"content": content})
    else:
        system = SystemMessage(said)
    return request.override(tools=[], tool_choice=None, system_message=system)


def answer_tools(response_format: Any) -> list[dict[str, Any]]:
    """What structured output adds to the tools of a request, at most; their text counts as input."""
    if response_format is None:
        return []
    if isinstance(response_format, ProviderStrategy | AutoStrategy):
        response_format = response_format.schema
    if not isinstance(response_format, ToolStrategy):
        response_format = ToolStrategy(response_format)
    return [
        {"name": spec.name, "description": spec.description, "input_schema": spec.json_schema}
        for spec in response_format.schema_specs
    ]


def without_calls(answer: ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any], stop: StopReport) -> Any:
    """*answer* without the tool calls that a model made although it had no tools; those already answered stay.

    Whatever kind of answer came is what goes back; an answer that consisted of calls alone says why there is none.
    """
    if isinstance(answer, AIMessage):
        return _stripped(answer, frozenset(), stop)
    if isinstance(answer, ExtendedModelResponse):
        return ExtendedModelResponse(without_calls(answer.model_response, stop), answer.command)
    done = frozenset(message.tool_call_id for message in answer.result if isinstance(message, ToolMessage))
    result = [_stripped(each, done, stop) if isinstance(each, AIMessage) else each for each in answer.result]
    return ModelResponse(result=result, structured_response=answer.structured_response)


def _stripped(message: AIMessage, answered: frozenset[str], stop: StopReport) -> AIMessage:
    calls = [call for call in message.tool_calls if call["id"] in answered]
    if len(calls) == len(message.tool_calls) and not message.invalid_tool_calls:
        return message
    content = message.content
    if isinstance(content, list):
        content = [part for part in content if not (isinstance(part, dict) and part.get("type") in _CALL_BLOCKS)]
    extra = {
        key: value for key, value in message.additional_kwargs.items() if key not in {"tool_calls", "function_call"}
    }
    return message.model_copy(
        update={
            "content": content if content or calls else said(stop),
            "tool_calls": calls,
            "invalid_tool_calls": [],
            "additional_kwargs": extra,
        }
    )


def ending(request: ModelRequest[Any], message: AIMessage) -> ExtendedModelResponse[Any] | ModelResponse[Any]:
    """The end of the agent with *message*; tool calls that nobody answered are answered first."""
    open_calls = unanswered(request.messages)
    response: ModelResponse[Any] = ModelResponse(result=[*open_calls, message])
    if request.response_format is None:
        return response
    # Without a structured answer the agent would go on asking for one.
    return ExtendedModelResponse(response, Command(update={"jump_to": "end"}))


def with_update(answer: Any, update: Mapping[str, Any]) -> Any:
    """*answer* of a model call that updates the state of the agent, too."""
    if isinstance(answer, ExtendedModelResponse):
        before = answer.command.update if answer.command is not None else None
        return ExtendedModelResponse(answer.model_response, Command(update={**(before or {}), **update}))
    response = ModelResponse(result=[answer]) if isinstance(answer, AIMessage) else answer
    return ExtendedModelResponse(response, Command(update=dict(update)))


def unanswered(messages: Sequence[AnyMessage | BaseMessage]) -> list[ToolMessage]:
    """An answer to each call of the last answer of the model that has none yet."""
    answered = set()
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        elif isinstance(message, AIMessage):
            return [
                ToolMessage("Not run: the task ended.", tool_call_id=call["id"], name=call["name"], status="error")
                for call in message.tool_calls
                if call["id"] is not None and call["id"] not in answered
            ]
        else:
            break
    return []


def said(stop: StopReport, more: str = "") -> str:
    """Why the agent ends, in plain words for whoever reads its answer."""
    if stop.limit_amount is None or not stop.meter:
        why = f"{stop.reason}."
    elif stop.meter == Meter.SECONDS:
        why = (
            f"the time of this task is over. {stop.limit} is {stop.limit_amount:,} s, and {stop.call} was not finished."
        )
    else:
        show, spent = Meter(stop.meter).show, "is spent" if stop.meter == Meter.COST else "used"
        kept = f", {show(stop.kept)} was kept for a last answer" if stop.kept else ""
        why = (
            f"the budget of this task is used up. {stop.limit} is {show(stop.limit_amount)}: "
            f"{show(stop.settled + stop.presumed)} {spent}{kept}, and {stop.call} was not started."
        )
    return f"I had to stop here: {why}{' ' + more if more else ''}"


def not_run(call: Any, stop: StopReport, *, over: bool, again: bool = False) -> ToolMessage:
    """The answer to a tool call that was refused; *over*: nothing more will be run at all; *again*: it may be later."""
    advice = "Answer with what is known." if over else "Do not call it again; go on without it."
    if again:
        advice = f"To have it run: {stop.remedy}."
    return ToolMessage(
        f"Not run: {stop.reason}. {advice}", tool_call_id=call["id"] or "", name=call["name"], status="error"
    )
