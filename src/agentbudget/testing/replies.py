"""What a test tells the stand-in provider to answer, and what the stand-in then really generated."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agentbudget.domain.usage import Usage

CHARS_PER_TOKEN = 4
"""The stand-in's whole tokenizer: a token is four characters, the last one may be shorter."""


def count_tokens(text: str) -> int:
    """Tokens of *text* by the stand-in's tokenizer. Empty text has none."""
    return -(-len(text) // CHARS_PER_TOKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One tool call of a reply. `args` as text is sent as it is (to play broken JSON); no `id` means a fresh one."""

    name: str
    args: Mapping[str, Any] | str = field(default_factory=dict)
    id: str | None = None

    @property
    def args_json(self) -> str:
        """The arguments as they go over the wire."""
        return self.args if isinstance(self.args, str) else json.dumps(dict(self.args))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One scripted answer.

    Attributes:
        text: what the model says; cut at the request's output cap, with the finish reason that goes with it.
        tool_calls: what it asks for.
        usage: true usage. None: counted from the request and the answer (see `count_tokens`).
        report_usage: False leaves the usage out of the answer; the truth in `ProviderServer.served` stays.
        raw_usage: reported word for word instead of the true usage (negative counts, wrong types ...).
        finish_reason: sent word for word; None: what follows from the answer.
        model: the name the answer carries; None: the requested one.
        service_tier: the tier the answer carries (OpenAI) or its usage carries (Anthropic).
        status: an HTTP status from 400 on refuses the request; nothing is generated then.
        error: the message of a refusal.
        headers: added to the response, e.g. `{"retry-after": "2"}`.
        hold: the answer waits until this event is set. The generation counts as served at once: a provider
            goes on generating for a client that gave up.
        hold_after_chunks: of a streamed answer, how many chunks are sent before the wait.
        cut_after_chunks: the connection is dropped after so many chunks; a plain answer is not sent at all.

    Raises:
        TypeError: a tool call of another class, such as LangChain's.
        ValueError: a status that is neither 200 nor an error, or a negative number of chunks.
    """

    text: str = "ok"
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    report_usage: bool = True
    raw_usage: Mapping[str, Any] | None = None
    finish_reason: str | None = None
    model: str | None = None
    service_tier: str | None = None
    status: int = 200
    error: str = "scripted refusal"
    headers: Mapping[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None
    hold_after_chunks: int = 0
    cut_after_chunks: int | None = None

    def __post_init__(self) -> None:
        if self.status != 200 and not 400 <= self.status < 600:
            msg = f"status={self.status!r}: a reply is 200 or an error from 400 to 599."
            raise ValueError(msg)
        for call in self.tool_calls:
            if not isinstance(call, ToolCall):
                msg = f"tool_calls: {call!r} is no agentbudget.testing.ToolCall(name=..., args={{...}})."
                raise TypeError(msg)
        if self.hold_after_chunks < 0 or (self.cut_after_chunks or 0) < 0:
            msg = "a stream cannot be held or cut after a negative number of chunks."
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it arrived. `number` counts from 0 in the order of arrival; header names are lower case."""

    number: int
    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The message history sent (`input` of the Responses API when it is a list)."""
        messages = self.body.get("messages", self.body.get("input"))
        return list(messages) if isinstance(messages, list) else []

    @property
    def inputs(self) -> list[Any]:
        """The texts or token lists of an embedding request; a single one comes without its list."""
        given = self.body.get("input", "")
        return given if isinstance(given, list) and not (given and isinstance(given[0], int)) else [given]

    @property
    def sdk_retry(self) -> int:
        """0 for the first try, then what the SDK's hidden retries count up."""
        return int(self.headers.get("x-stainless-retry-count", "0"))

    @property
    def output_cap(self) -> int | None:
        """The declared cap on output tokens, whatever the API calls it."""
        for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
            if isinstance(cap := self.body.get(name), int):
                return cap
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What was really generated for a request, and is therefore paid for. `usage` is the truth, not the report."""

    request: Request
    reply: Reply
    model: str
    text: str
    tool_calls: tuple[ToolCall, ...]
    truncated: bool
    choices: int
    usage: Usage

    def pieces(self, size: int = 16) -> list[str]:
        """The text in chunks of *size* characters, as a stream sends it."""
        return [self.text[start : start + size] for start in range(0, len(self.text), size)]


def generate(request: Request, reply: Reply) -> Generation:
    """Play *reply* to *request*: cut it at the output cap, name its tool calls, count it."""
    cap = request.output_cap
    truncated = cap is not None and count_tokens(reply.text) > cap and reply.usage is None
    text = reply.text[: cap * CHARS_PER_TOKEN] if truncated and cap is not None else reply.text
    calls = tuple(
        call if call.id else replace(call, id=f"call_{request.number}_{index}")
        for index, call in enumerate(() if truncated else reply.tool_calls)
    )
    choices = request.body.get("n") or 1
    return Generation(
        request=request,
        reply=reply,
        model=reply.model or str(request.body.get("model", "")),
        text=text,
        tool_calls=calls,
        truncated=truncated,
        choices=choices,
        usage=reply.usage or _counted(request, text, calls, choices),
    )


def _counted(request: Request, text: str, calls: tuple[ToolCall, ...], choices: int) -> Usage:
    if request.path == "/embeddings":
        sizes = (count_tokens(each) if isinstance(each, str) else len(each) for each in request.inputs)
        return Usage(input_tokens=sum(sizes))
    prompt = {name: request.body[name] for name in ("system", "messages", "input", "tools") if name in request.body}
    output = count_tokens(text) + sum(count_tokens(call.name + call.args_json) for call in calls)
    return Usage(input_tokens=count_tokens(json.dumps(prompt)), output_tokens=output * choices)
