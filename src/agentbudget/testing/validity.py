"""Is a message history one that the provider would accept? Pure checks, for the stand-in server and for tests.

The wording of the errors follows the providers' own, so that code which reads them can be tested. Histories are lists
of LangChain messages or of the dictionaries that go over the wire; the two may be mixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

Message = BaseMessage | Mapping[str, Any]


def openai_error(messages: Sequence[Message]) -> str | None:
    """Why OpenAI would refuse this history, or None.

    Each `tool_calls` message must be followed directly by one tool message for each of its ids, in any order, and a
    tool message must answer such a message.
    """
    if not messages:
        return (
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
    pending: list[str] = []
    for message in [_openai(each) for each in messages]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in pending:
                return (
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'."
                )
            pending.remove(message["tool_call_id"])
            continue
        if pending:
            break
        pending = message["ids"]
    if pending:
        return (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(pending)}"
        )
    return None


def responses_error(items: Sequence[Mapping[str, Any]]) -> str | None:
    """Why OpenAI's Responses API would refuse these input items, or None: each function call needs its output."""
    called = [item["call_id"] for item in items if item.get("type") == "function_call"]
    answered = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    for call_id in called:
        if call_id not in answered:
            return f"No tool output found for function call {call_id}."
    for call_id in answered:
        if call_id not in called:
            return f"No tool call found for function call output with call_id {call_id}."
    return None


def anthropic_error(messages: Sequence[Message]) -> str | None:
    """Why Anthropic would refuse this history, or None.

    The first message is the user's; the message after one with `tool_use` blocks answers every one of them, and no
    other; ids of `tool_use` blocks are unique. System messages of LangChain are left out, as its client does;
    neighbours of one role are merged, as the API does.
    """
    turns = _turns(messages)
    if not turns:
        return "messages: at least one message is required"
    if turns[0][0] != "user":
        return 'messages: first message must use the "user" role'
    seen: set[str] = set()
    pending: list[str] = []
    for index, (_, blocks) in enumerate(turns):
        results = [block["tool_use_id"] for block in blocks if block.get("type") == "tool_result"]
        for result in results:
            if result not in pending:
                return (
                    f"messages.{index}.content: unexpected `tool_use_id` found in `tool_result` blocks: {result}. Each "
                    "`tool_result` block must have a corresponding `tool_use` block in the previous message."
                )
        if missing := [use for use in pending if use not in results]:
            return _unanswered(index - 1, missing)
        pending = [block["id"] for block in blocks if block.get("type") == "tool_use"]
        if len(set(pending)) < len(pending) or seen.intersection(pending):
            return f"messages.{index}.content: `tool_use` ids must be unique"
        seen.update(pending)
    return _unanswered(len(turns) - 1, pending) if pending else None


def assert_valid_history(messages: Sequence[Message]) -> None:
    """Fail unless both providers would accept *messages*.

    Raises:
        AssertionError: with the provider's own words.
    """
    for provider, error in (("OpenAI", openai_error(messages)), ("Anthropic", anthropic_error(messages))):
        if error is not None:
            msg = f"{provider} would refuse this history: {error}"
            raise AssertionError(msg)


def _unanswered(index: int, ids: Sequence[str]) -> str:
    return (
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(ids)}."
        " Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def _openai(message: Message) -> dict[str, Any]:
    """Role, id answered and ids asked, of either form."""
    if isinstance(message, BaseMessage):
        answered = message.tool_call_id if isinstance(message, ToolMessage) else None
        role = "tool" if isinstance(message, ToolMessage) else message.type
        return {"role": role, "tool_call_id": answered, "ids": [use["id"] for use in _uses(message)]}
    ids = [call["id"] for call in message.get("tool_calls") or ()]
    return {"role": message.get("role"), "tool_call_id": message.get("tool_call_id"), "ids": ids}


def _uses(message: BaseMessage) -> list[dict[str, Any]]:
    """The tool calls as `tool_use` blocks; malformed ones too, because the clients send them."""
    if not isinstance(message, AIMessage):
        return []
    return [{"type": "tool_use", "id": call["id"]} for call in [*message.tool_calls, *message.invalid_tool_calls]]


def _turns(messages: Sequence[Message]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """(role, blocks) with neighbours of one role merged."""
    turns: list[tuple[str, list[Mapping[str, Any]]]] = []
    for role, blocks in _anthropic(messages):
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, list(blocks)))
    return turns


def _anthropic(messages: Sequence[Message]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    for message in messages:
        if isinstance(message, ToolMessage):
            yield "user", [{"type": "tool_result", "tool_use_id": message.tool_call_id}]
        elif isinstance(message, BaseMessage):
            if message.type != "system":
                yield "assistant" if isinstance(message, AIMessage) else "user", list(_uses(message))
        else:
            content = message.get("content")
            blocks = [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []
            yield str(message.get("role")), blocks
