"""A generation in the words of OpenAI's API: bodies and stream events. Pure."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from agentbudget.domain.usage import Usage
from agentbudget.testing.replies import Generation, ToolCall

CREATED = 1_767_225_600
_EMBEDDING = (0.5, -0.5, 0.5, -0.5)
_ERROR_TYPES = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def error_body(status: int, message: str) -> dict[str, Any]:
    """The body of a refusal."""
    kind, code = _ERROR_TYPES.get(status, ("server_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def chat_body(generation: Generation) -> dict[str, Any]:
    """The answer of `/chat/completions`."""
    message: dict[str, Any] = {"role": "assistant", "content": generation.text or None, "refusal": None}
    if generation.tool_calls:
        message["tool_calls"] = [_tool_call(call) for call in generation.tool_calls]
    choice = {"message": message, "logprobs": None, "finish_reason": _finish_reason(generation)}
    body = _envelope(generation, "chat.completion")
    body["choices"] = [{"index": index, **choice} for index in range(generation.choices)]
    usage = _reported(generation, _chat_usage(generation.usage))
    return body if usage is None else {**body, "usage": usage}


def chat_chunks(generation: Generation) -> Iterator[dict[str, Any]]:
    """The answer of `/chat/completions` as a stream; the usage chunk comes only when it was asked for."""
    options = generation.request.body.get("stream_options") or {}
    usage = _reported(generation, _chat_usage(generation.usage)) if options.get("include_usage") else None
    for delta, finish_reason in _deltas(generation):
        chunk = _envelope(generation, "chat.completion.chunk")
        chunk["choices"] = [
            {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            for index in range(generation.choices)
        ]
        yield chunk
    if usage is not None:
        yield {**_envelope(generation, "chat.completion.chunk"), "choices": [], "usage": usage}


def responses_body(generation: Generation) -> dict[str, Any]:
    """The answer of `/responses`."""
    number = generation.request.number
    output: list[dict[str, Any]] = []
    if generation.text:
        part = {"type": "output_text", "text": generation.text, "annotations": [], "logprobs": []}
        output.append(
            {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed", "content": [part]}
        )
    output.extend(
        {
            "type": "function_call",
            "id": f"fc_{number}_{index}",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.args_json,
            "status": "completed",
        }
        for index, call in enumerate(generation.tool_calls)
    )
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if generation.truncated else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if generation.truncated else None,
        "error": None,
        "instructions": None,
        "metadata": {},
        "model": generation.model,
        "output": output,
        "parallel_tool_calls": True,
        "service_tier": generation.reply.service_tier or "default",
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": _reported(generation, _responses_usage(generation.usage)),
    }


def responses_events(generation: Generation) -> Iterator[dict[str, Any]]:
    """The answer of `/responses` as a stream; the usage comes with its last event, unasked."""
    done = responses_body(generation)
    begun = {**done, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    for index, item in enumerate(done["output"]):
        empty = {**item, "status": "in_progress", **({"content": []} if "content" in item else {"arguments": ""})}
        place = {"output_index": index, "item_id": item["id"]}
        events.append({"type": "response.output_item.added", "output_index": index, "item": empty})
        if "content" in item:
            at = {**place, "content_index": 0}
            events.extend(
                {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}
                for piece in generation.pieces()
            )
            events.append({"type": "response.output_text.done", **at, "text": generation.text, "logprobs": []})
        else:
            events.append({"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    last = "response.incomplete" if generation.truncated else "response.completed"
    events.append({"type": last, "response": done})
    yield from ({**event, "sequence_number": number} for number, event in enumerate(events))


def embeddings_body(generation: Generation) -> dict[str, Any]:
    """The answer of `/embeddings`: the same short vector for every input."""
    body = generation.request.body
    vector: Sequence[float] | str = _EMBEDDING
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack(f"<{len(_EMBEDDING)}f", *_EMBEDDING)).decode()
    tokens = generation.usage.input_tokens
    return {
        "object": "list",
        "model": generation.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index in range(len(generation.request.inputs))
        ],
        "usage": _reported(generation, {"prompt_tokens": tokens, "total_tokens": tokens}),
    }


def _envelope(generation: Generation, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{generation.request.number}",
        "object": kind,
        "created": CREATED,
        "model": generation.model,
        "service_tier": generation.reply.service_tier or "default",
        "system_fingerprint": "fp_standin",
    }


def _deltas(generation: Generation) -> Iterator[tuple[dict[str, Any], str | None]]:
    yield {"role": "assistant", "content": ""}, None
    for piece in generation.pieces():
        yield {"content": piece}, None
    for index, call in enumerate(generation.tool_calls):
        yield {"tool_calls": [{"index": index, **_tool_call(call)}]}, None
    yield {}, _finish_reason(generation)


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.args_json}}


def _finish_reason(generation: Generation) -> str:
    natural = "length" if generation.truncated else "tool_calls" if generation.tool_calls else "stop"
    return generation.reply.finish_reason or natural


def _reported(generation: Generation, usage: dict[str, Any]) -> dict[str, Any] | None:
    if not generation.reply.report_usage:
        return None
    return usage if generation.reply.raw_usage is None else dict(generation.reply.raw_usage)


def _chat_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "audio_tokens": usage.input_audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _responses_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
