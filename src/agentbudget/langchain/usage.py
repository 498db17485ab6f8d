"""LangChain's usage, however it is reported, as `Usage`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from agentbudget.domain.usage import Usage
from agentbudget.langchain.parts import text_size

_NOTHING: Mapping[str, Any] = {}
_TIER_KEYS = ("service_tier", "usage")
_STANDARD_TIERS = frozenset({"", "default", "standard", "auto"})


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What can be read off a result or an error."""

    usage: Usage | None = None
    problem: str = ""
    model: str = ""
    tier: str = ""
    cached: bool = False
    size: int = 0
    """UTF-8 bytes of the answer, tool calls included; only counted where usage is missing."""
    said: BaseMessage | str | None = None
    """The answer itself; the first one, where there are several."""
    unparsable: bool = False
    """Whether the model asked for tools only in a form that cannot be read."""


NO_ANSWER = Answer()


def read_result(response: LLMResult) -> Answer:
    """Read one attempt's result. Of several answers (`n`) the first carries the usage of all.

    Whatever an integration reports, the call is settled: what cannot be read is a problem, and its usage estimated.
    """
    said: BaseMessage | str | None = None
    try:
        if not response.generations or not response.generations[0]:
            return NO_ANSWER
        first = response.generations[0][0]
        if not isinstance(first, ChatGeneration):
            said = first.text
            return _read_text(said, response.llm_output or _NOTHING)
        said = first.message
        return _read(response, said)
    except Exception as error:  # noqa: BLE001 - as above
        return Answer(problem=f"what the model's integration reported cannot be read: {error!r}", said=said)


def _read(response: LLMResult, message: BaseMessage) -> Answer:
    output: Mapping[str, Any] = response.llm_output or _NOTHING
    meta: Mapping[str, Any] = message.response_metadata or _NOTHING
    model = meta.get("model_name") or meta.get("model") or output.get("model_name")
    if not isinstance(model, str):
        model = ""
    tier = "" if meta.keys().isdisjoint(_TIER_KEYS) else _tier(meta)
    raw: Any = None
    unparsable = False
    if isinstance(message, AIMessage):
        raw = message.usage_metadata
        unparsable = bool(message.invalid_tool_calls) and not message.tool_calls
    if raw is None:
        raw = _openai_counts(output.get("token_usage")) or _openai_counts(_body(meta).get("usage"))
    if raw is None:
        answers = (one.message for one in response.generations[0] if isinstance(one, ChatGeneration))
        return Answer(model=model, tier=tier, size=sum(map(_size, answers)), said=message, unparsable=unparsable)
    if response.llm_output is None and raw.get("total_cost") == 0:  # LangChain's mark of an answer from its cache
        usage, _ = to_usage(raw)
        size = _size(message)
        return Answer(usage, "", model, tier, cached=True, size=size, said=message, unparsable=unparsable)
    searches = _web_searches(message, meta) if "usage" in meta or isinstance(message.content, list) else 0
    usage, problem = to_usage(raw, web_searches=searches)
    size = _size(message) if usage is None else 0
    return Answer(usage, problem, model, tier, size=size, said=message, unparsable=unparsable)


MOST_TOKENS = 100_000_000
"""Of one call. The longest contexts take ten million; a provider's own tools read them several times."""


def to_usage(raw: Mapping[str, Any], *, web_searches: int = 0) -> tuple[Usage | None, str]:
    """LangChain's `usage_metadata` as `Usage`; where it cannot be right, None and why."""
    into: Mapping[str, Any] = raw.get("input_token_details") or _NOTHING
    out: Mapping[str, Any] = raw.get("output_token_details") or _NOTHING
    try:
        if max(raw["input_tokens"], raw["output_tokens"]) > MOST_TOKENS:
            return None, f"the provider reported a usage that cannot be right: more than {MOST_TOKENS:,} tokens."
        if not into and not out and not web_searches:
            return Usage(input_tokens=raw["input_tokens"], output_tokens=raw["output_tokens"]), ""
        short, long = _detail(into, "ephemeral_5m_input_tokens"), _detail(into, "ephemeral_1h_input_tokens")
        return Usage(
            input_tokens=raw["input_tokens"],
            output_tokens=raw["output_tokens"],
            cache_read_tokens=_detail(into, "cache_read"),
            # Beside the two lifetimes, `cache_creation` is 0 or, in older clients, their sum.
            cache_write_5m_tokens=max(_detail(into, "cache_creation") - long, short),
            cache_write_1h_tokens=long,
            reasoning_tokens=_detail(out, "reasoning"),
            input_audio_tokens=_detail(into, "audio"),
            output_audio_tokens=_detail(out, "audio"),
            input_image_tokens=_detail(into, "image"),
            output_image_tokens=_detail(out, "image"),
            web_searches=web_searches,
        ), ""
    except (KeyError, TypeError, ValueError) as error:
        return None, f"the provider reported a usage that cannot be right: {error}"


def _detail(details: Mapping[str, Any], name: str) -> int:
    """The count called *name*; OpenAI's client puts the service tier in front of it."""
    if not details:
        return 0
    return (details.get(name) or 0) + (details.get("priority_" + name) or 0) + (details.get("flex_" + name) or 0)


def _read_text(text: str, output: Mapping[str, Any]) -> Answer:
    """A text completion model: usage only in `llm_output`."""
    raw = _openai_counts(output.get("token_usage"))
    model = name if isinstance(name := output.get("model_name"), str) else ""
    if raw is None:
        return Answer(model=model, size=text_size(text), said=text)
    usage, problem = to_usage(raw)
    return Answer(usage, problem, model, said=text)


def _openai_counts(raw: object) -> dict[str, Any] | None:
    """OpenAI's own names, as errors and text models carry them."""
    if not isinstance(raw, Mapping):
        return None
    if "prompt_tokens" not in raw or "completion_tokens" not in raw:
        return None
    into, out = raw.get("prompt_tokens_details") or {}, raw.get("completion_tokens_details") or {}
    return {
        "input_tokens": raw["prompt_tokens"],
        "output_tokens": raw["completion_tokens"],
        "input_token_details": {"cache_read": into.get("cached_tokens") or 0, "audio": into.get("audio_tokens") or 0},
        "output_token_details": {
            "reasoning": out.get("reasoning_tokens") or 0,
            "audio": out.get("audio_tokens") or 0,
        },
    }


def _body(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    body = meta.get("body")
    return body if isinstance(body, Mapping) else {}


def _tier(meta: Mapping[str, Any]) -> str:
    tier = meta.get("service_tier")
    if tier is None and (usage := meta.get("usage")) is not None and isinstance(usage, Mapping):
        tier = usage.get("service_tier")
    return "" if not isinstance(tier, str) or tier in _STANDARD_TIERS else tier


def _web_searches(message: BaseMessage, meta: Mapping[str, Any]) -> int:
    usage = meta.get("usage")
    if usage is not None and isinstance(usage, Mapping) and isinstance(tools := usage.get("server_tool_use"), Mapping):
        return tools.get("web_search_requests") or 0
    if isinstance(message.content, list):
        return sum(isinstance(part, dict) and part.get("type") == "web_search_call" for part in message.content)
    return 0


def _size(message: BaseMessage) -> int:
    calls = getattr(message, "tool_calls", None) or ()
    return text_size(message.content) + sum(text_size(call["name"]) + text_size(str(call["args"])) for call in calls)
