"""A LangChain request, before it runs, as a `Call`: sizes instead of tokens, never the whole context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import msgspec
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from msgspec.structs import replace
from pydantic import SecretStr

from agentbudget.governor.values import Call, Kind
from agentbudget.langchain.content import NOTHING, Told
from agentbudget.langchain.layers import is_retried
from agentbudget.langchain.parts import request_size, texts_of
from agentbudget.langchain.reprompts import LAYER, asked_again
from agentbudget.pricing.rates import CacheWrites

# In the order in which they win: OpenAI's client has `max_tokens` of one call replace the model's own cap.
_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "num_predict")
_SETTING = ("service_tier", "n", "modalities", "max_retries", *_CAPS)
"""What of the announced parameters belongs to a model's set-up."""
_WRITE_ON_DEMAND = frozenset({"anthropic", "amazon_bedrock", "bedrock_converse", "google_anthropic_vertex"})
_WRITTEN = ("cache_creation", "ephemeral_5m_input_tokens", "cache_read")
_EDGE = 64
"""Characters at either end of a text that stand for it in a fingerprint."""
_SDK_RETRIES = 2
"""Default `max_retries` of the OpenAI and Anthropic clients."""
_REPEATING = frozenset({"openai", "azure", "anthropic"})
_NO_META: Mapping[str, Any] = {}


def model_call(  # noqa: PLR0913 - one keyword for each thing the host says
    call_id: str,
    messages: Sequence[BaseMessage],
    *,
    serialized: Mapping[str, Any] | None,
    parent: str,
    tags: Sequence[str] | None,
    metadata: Mapping[str, Any] | None,
    params: Mapping[str, Any] | None,
    within: str = "",
    told: Told = NOTHING,
    planned: Call | None = None,
) -> Call:
    """The call that `on_chat_model_start` announces, or `on_llm_start` with its prompt as one message.

    Where it is what was *planned* right before, its size is not measured again.
    """
    meta, params = metadata or _NO_META, params or _NO_META
    name = meta.get("ls_model_name") or params.get("model") or params.get("model_name") or _class_name(serialized)
    provider, cap = meta.get("ls_provider") or "", meta.get("ls_max_tokens")
    said = (provider, cap, *map(params.get, _SETTING))
    setup = _SETUPS.get(name)
    if setup is None or setup.said != said or (setup.serialized is not serialized and setup.serialized != serialized):
        setup = _SETUPS[name] = Setup(said, serialized, _as_set_up(name, provider, cap, serialized, params))
        if len(_SETUPS) > _SETUPS_MOST:
            del _SETUPS[next(iter(_SETUPS))]
    last = messages[-1] if messages else None
    content = last.content if last is not None else ""
    text = content if isinstance(content, str) else str(content[-1:])
    # Equal for the same request, cheap for any: the number of messages and the edges of the last one.
    fingerprint = (len(messages), type(last).__name__, len(text), text[:_EDGE], text[-_EDGE:])
    size = planned.size if planned is not None and (planned.name, planned.fingerprint) == (name, fingerprint) else None
    if size is None:
        size = request_size(messages, params, model=name)
    call = replace(
        setup.call,
        id=call_id,
        size=size,
        texts=partial(texts_of, messages, params) if size.anchor_tokens is None else None,
        fingerprint=fingerprint,
        parent=parent,
        within=within,
        messages=len(messages),
        request=told.hashed,
        content=told.content,
    )
    if "langgraph_node" in meta or "lc_agent_name" in meta:
        call = replace(call, **_where(meta))
    if isinstance(last, ToolMessage) and (again := asked_again(messages)).attempt > 1:
        return replace(call, again=again, layer=LAYER)
    if tags and is_retried(tags):
        call = replace(call, layer="with_retry")
    if params.get("tools") or call.provider in _WRITE_ON_DEMAND:
        writes = cache_writes(messages, params) if call.provider in _WRITE_ON_DEMAND else "5m"
        call = replace(call, web_searches=_provider_searches(params), cache_writes=writes)
    return call


class Setup(msgspec.Struct, frozen=True):
    """How a model is set up, as far as the host says: what stays the same from call to call is read once."""

    said: tuple[Any, ...]
    serialized: Mapping[str, Any] | None
    call: Call
    """What every call of it is."""


_SETUPS: dict[str, Setup] = {}
"""The latest of each model, by its name."""
_SETUPS_MOST = 64


def _as_set_up(
    name: str, provider: str, cap: object, serialized: Mapping[str, Any] | None, params: Mapping[str, Any]
) -> Call:
    """What every call is of the model *name*, as the host announces it."""
    built = serialized.get("kwargs") if serialized else None
    if not isinstance(built, dict):
        built = _NO_META
    url = built.get("openai_api_base") or built.get("base_url")
    return Call(
        id="",
        kind=Kind.MODEL,
        name=name,
        provider=provider,
        base_url=url if isinstance(url, str) else "",
        tier=_tier(params),
        cap=declared_cap(name, provider, cap, params),
        answers=answers if isinstance(answers := params.get("n"), int) and answers > 1 else 1,
        audio="modalities" in params and "audio" in params["modalities"],
        hidden_retries=_hidden_retries(provider, built, params),
    )


def _where(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Where in a graph a call is made."""
    return {
        "place": meta.get("langgraph_checkpoint_ns") or "",
        "agent": meta.get("lc_agent_name") or "",
        "node": meta.get("langgraph_node") or "",
        "step": meta.get("langgraph_step") or 0,
    }


def tool_call(  # noqa: PLR0913 - as above
    call_id: str,
    name: str,
    arguments: Mapping[str, Any],
    *,
    parent: str,
    tags: Sequence[str] | None,
    metadata: Mapping[str, Any] | None,
    tool_call_id: str | None,
    within: str = "",
    told: Told = NOTHING,
) -> Call:
    """The call that `on_tool_start` announces."""
    meta = metadata or _NO_META
    return Call(
        id=call_id,
        kind=Kind.TOOL,
        name=name,
        arguments=arguments,
        fingerprint=(name, tool_call_id) if tool_call_id else (name, str(arguments)[:1000]),
        layer="with_retry" if tags and is_retried(tags) else "",
        parent=parent,
        within=within,
        place=meta.get("langgraph_checkpoint_ns") or "",
        agent=meta.get("lc_agent_name") or "",
        node=meta.get("langgraph_node") or "",
        step=meta.get("langgraph_step") or 0,
        request=told.hashed,
        content=told.content,
    )


def declared_cap(name: str, provider: str, cap: object, params: Mapping[str, Any]) -> int | None:
    """The output cap the user set (*cap*, as LangChain standardises it, or as the vendor calls it in *params*); None
    where there is none or only the vendor's own maximum."""
    if not params.keys().isdisjoint(_CAPS):
        cap = next((asked for key in _CAPS if (asked := params.get(key)) is not None), cap)
    if cap is None or isinstance(cap, bool) or not isinstance(cap, int) or cap <= 0:
        return None
    return None if cap == vendor_default(name, provider) else cap


def cache_writes(messages: Sequence[BaseMessage], params: Mapping[str, Any]) -> CacheWrites:
    """The dearest cache write that a request can cause, to a provider that writes only on demand.

    Anthropic writes only where a request says so, for five minutes or an hour; what the last answer wrote is written
    again, and a first call is searched whole. Other providers write unasked, at the short price.
    """
    asked = [params[key] for key in ("cache_control", "system", "tools") if params.get(key)]
    for message in reversed(messages):
        used = message.usage_metadata if isinstance(message, AIMessage) else None
        if used is not None:
            details = used.get("input_token_details") or {}
            if details.get("ephemeral_1h_input_tokens"):
                return "1h"
            asked += ["cache_control"] * any(details.get(key) for key in _WRITTEN)
            break
        if isinstance(message.content, list):
            asked.append(message.content)
        asked += [extra for extra in (message.additional_kwargs,) if "cache_control" in extra]
    text = str(asked) if asked else ""
    if "cache_control" not in text and not params.get("cache_control"):
        return "none"
    return "1h" if "'1h'" in text else "5m"


@lru_cache(maxsize=256)
def vendor_default(name: str, provider: str) -> int | None:
    """The cap that the vendor's LangChain client fills in by itself: the model's own maximum.

    Only `ChatAnthropic` does: Anthropic's API wants a cap, and the client takes it from the model's profile.
    """
    if provider != "anthropic":
        return None
    try:
        from langchain_anthropic import ChatAnthropic  # noqa: PLC0415 - present whenever such a call is made

        model = ChatAnthropic(model_name=name, api_key=SecretStr("never sent"), timeout=None, stop=None)
        return int(model.max_tokens or 0)
    except Exception:  # noqa: BLE001 - no client, no default of its own
        return None


def _tier(params: Mapping[str, Any]) -> str:
    tier = params.get("service_tier")
    return tier if isinstance(tier, str) and tier not in {"auto", "default", "standard"} else ""


def _provider_searches(params: Mapping[str, Any]) -> int:
    """Web searches the provider may run by itself within one call; one where it has no stated maximum."""
    billed = [
        t
        for t in params.get("tools") or ()
        if isinstance(t, Mapping) and str(t.get("type", "")).startswith("web_search")
    ]
    return sum(most if isinstance(most := tool.get("max_uses"), int) else 1 for tool in billed)


def _hidden_retries(provider: str, built: Mapping[str, Any], params: Mapping[str, Any]) -> int:
    """How often the provider's SDK repeats a request by itself, unseen by callbacks."""
    retries = params.get("max_retries")
    if retries is None:
        retries = built.get("max_retries")
    if isinstance(retries, int) and retries >= 0:
        return retries
    return _SDK_RETRIES if provider in _REPEATING else 0


def _class_name(serialized: Mapping[str, Any] | None) -> str:
    return str((serialized or {}).get("name") or "unknown")
