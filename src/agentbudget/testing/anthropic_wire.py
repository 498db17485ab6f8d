"""A generation in the words of Anthropic's Messages API: bodies and stream events. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from agentbudget.domain.usage import Usage
from agentbudget.testing.replies import Generation, ToolCall

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error_body(status: int, message: str) -> dict[str, Any]:
    """The body of a refusal."""
    return {"type": "error", "error": {"type": _ERROR_TYPES.get(status, "api_error"), "message": message}}


def message_body(generation: Generation) -> dict[str, Any]:
    """The answer of `/messages`."""
    text = [{"type": "text", "text": generation.text}] if generation.text else []
    body = {
        **_envelope(generation),
        "content": [*text, *(_tool_use(call) for call in generation.tool_calls)],
        "stop_reason": _stop_reason(generation),
    }
    if generation.reply.report_usage:
        body["usage"] = _full_usage(generation)
    return body


def message_events(generation: Generation) -> Iterator[dict[str, Any]]:
    """The answer of `/messages` as a stream. As in life, the final counts come in `message_delta`, in fewer words."""
    reported = generation.reply.report_usage
    start = {**_full_usage(generation), "output_tokens": 1} if reported else {"input_tokens": 0, "output_tokens": 0}
    yield {"type": "message_start", "message": {**_envelope(generation), "usage": start}}
    yield from _block_events(generation)
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": _stop_reason(generation), "stop_sequence": None},
        "usage": _delta_usage(generation) if reported else {"output_tokens": 0},
    }
    yield {"type": "message_stop"}


def _block_events(generation: Generation) -> Iterator[dict[str, Any]]:
    index = 0
    if generation.text:
        yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
        for piece in generation.pieces():
            yield {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": piece}}
        yield {"type": "content_block_stop", "index": index}
        index += 1
    for call in generation.tool_calls:
        block: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        yield {"type": "content_block_start", "index": index, "content_block": block}
        delta = {"type": "input_json_delta", "partial_json": call.args_json}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
        index += 1


def _envelope(generation: Generation) -> dict[str, Any]:
    return {
        "id": f"msg_{generation.request.number}",
        "type": "message",
        "role": "assistant",
        "model": generation.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.args_json)}


def _stop_reason(generation: Generation) -> str:
    natural = "max_tokens" if generation.truncated else "tool_use" if generation.tool_calls else "end_turn"
    return generation.reply.finish_reason or natural


def _delta_usage(generation: Generation) -> dict[str, Any]:
    """The counts of `message_delta`: cumulative, without the split of cache writes by lifetime."""
    if generation.reply.raw_usage is not None:
        return dict(generation.reply.raw_usage)
    usage = generation.usage
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    return {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
        **_searches(usage),
    }


def _full_usage(generation: Generation) -> dict[str, Any]:
    if generation.reply.raw_usage is not None:
        return dict(generation.reply.raw_usage)
    usage = generation.usage
    return {
        **_delta_usage(generation),
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "service_tier": generation.reply.service_tier or "standard",
    }


def _searches(usage: Usage) -> dict[str, Any]:
    return {"server_tool_use": {"web_search_requests": usage.web_searches}} if usage.web_searches else {}
