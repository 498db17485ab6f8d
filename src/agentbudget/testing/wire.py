"""What the providers' endpoints say, whoever carries it: refusals, bodies, streams. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from agentbudget.testing import anthropic_wire, openai_wire
from agentbudget.testing.replies import Generation, Reply, Request
from agentbudget.testing.validity import anthropic_error, openai_error, responses_error

PATHS: Final = ("/chat/completions", "/responses", "/embeddings", "/messages")
"""The endpoints that are played, without `/v1`."""


def refusal_of(request: Request) -> str | None:
    """Why the real provider would refuse this request, or None."""
    if request.path not in PATHS:
        return f"the stand-in has no {request.path}; it has {', '.join(PATHS)}."
    if request.path == "/messages":
        return anthropic_error(request.messages) if request.output_cap else "max_tokens: Field required"
    if request.path == "/chat/completions":
        return openai_error(request.messages)
    return responses_error(request.messages) if request.path == "/responses" else None


def error_of(request: Request, reply: Reply) -> dict[str, Any]:
    """The body of a refusal, in the words of the endpoint."""
    if request.path == "/messages":
        return anthropic_wire.error_body(reply.status, reply.error)
    return openai_wire.error_body(reply.status, reply.error)


def body_of(generation: Generation) -> dict[str, Any]:
    """The answer, where no stream was asked for."""
    bodies = {
        "/chat/completions": openai_wire.chat_body,
        "/responses": openai_wire.responses_body,
        "/embeddings": openai_wire.embeddings_body,
        "/messages": anthropic_wire.message_body,
    }
    return bodies[generation.request.path](generation)


def events_of(generation: Generation) -> Iterator[str]:
    """The answer as a stream of server-sent events."""
    if generation.request.path == "/messages":
        yield from map(_named, anthropic_wire.message_events(generation))
    elif generation.request.path == "/responses":
        yield from map(_named, openai_wire.responses_events(generation))
    else:
        for chunk in openai_wire.chat_chunks(generation):
            yield f"data: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"


def _named(event: dict[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
