"""Prompt caching: what tasks would cost if each call read from the cache what the call before it sent."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from agentbudget.domain.usage import Usage
from agentbudget.finops.advisor.asked import Asked, named
from agentbudget.finops.advisor.calls import ModelCall, Swapped, cost_of, model_calls, moved_cost
from agentbudget.finops.advisor.values import Lever, Saving
from agentbudget.pricing.rates import Rates

LIVES = timedelta(minutes=5)
"""How long a prefix stays cached without being read: the shortest that providers promise."""


class _Totals(Swapped):
    """Calls of one kind of task and model."""

    read = 0
    """Tokens that would be read from the cache and were not."""
    written = 0
    """Tokens that would be written into it, where writing costs extra."""
    charges = False


def prompt_caching(asked: Asked) -> None:
    """The recorded calls with a stable prefix: what was sent before is read, what is new is written."""
    found: dict[tuple[str, str], _Totals] = {}
    unpriced, before = 0, None
    for call in model_calls(asked.record, in_order=True):
        rates = asked.rater.now(call)
        old = cost_of(rates, call.usage) if rates is not None else None
        if rates is None or old is None:
            unpriced += call.cost
        else:
            usage, charges = _with_cache(call, before, rates, asked.options.least_prefix)
            new = cost_of(rates, usage)
            totals = found.setdefault((call.kind, call.model), _Totals())
            totals.add(call, call.cost if new is None else moved_cost(call, old, new))
            totals.read += max(0, usage.cache_read_tokens - call.usage.cache_read_tokens)
            totals.written += usage.cache_write_5m_tokens
            totals.charges = totals.charges or charges
        before = call
    if unpriced:
        asked.note(f"prompt caching: {asked.record.part(unpriced)} is with models whose cache prices are not known")
    for (kind, model), totals in found.items():
        if totals.read and totals.after < totals.before:
            asked.levers.append(_lever(asked, kind, model, totals))


def _with_cache(call: ModelCall, before: ModelCall | None, rates: Rates, least: int) -> tuple[Usage, bool]:
    """The usage of *call* where its prefix is cached, and whether writing it is paid for."""
    usage = call.usage
    charges = any(name == "cache_write_5m" for name, _ in rates.ref.prices)
    if usage.input_audio_tokens or usage.input_image_tokens:
        return usage, charges
    prefix = _prefix(call, before, least)
    if prefix <= usage.cache_read_tokens and (usage.cache_read_tokens or usage.cache_write_5m_tokens):
        return usage, charges
    read = max(prefix, usage.cache_read_tokens)
    written = usage.input_tokens - read if charges and usage.input_tokens >= least else 0
    return replace(usage, cache_read_tokens=read, cache_write_5m_tokens=written, cache_write_1h_tokens=0), charges


def _prefix(call: ModelCall, before: ModelCall | None, least: int) -> int:
    """Tokens that *call* sends again: what the call before it sent, where its context only grew since."""
    if before is None or (before.task, before.agent, before.model) != (call.task, call.agent, call.model):
        return 0
    sent = before.usage.input_tokens
    began = call.ended - timedelta(seconds=max(0.0, call.seconds))
    grew = sent <= call.usage.input_tokens
    return sent if grew and sent >= least and began - before.ended <= LIVES else 0


def _lever(asked: Asked, kind: str, model: str, totals: _Totals) -> Lever:
    saving = Saving.up_to(totals.before - totals.after)
    least = f"{asked.options.least_prefix:,}"
    writes = f", and {totals.written:,} written at the dearer price of writes" if totals.charges else ""
    marked = (
        "mark the prefix: AnthropicPromptCachingMiddleware() of langchain-anthropic, or cache_control on the system "
        "prompt and the last message"
        if totals.charges
        else "the provider caches by itself: begin each request with the same text (system prompt, tools, history), "
        "put times and ids behind it, and let nothing before the last message change"
    )
    return Lever(
        kind="caching",
        title=f"{named(kind)}: prompt caching on {model}",
        saving=saving,
        month=asked.record.month(saving),
        confidence="upper bound",
        reason="a trace does not show whether the beginning of each request stays the same; this takes it that it can",
        computed=f"{totals.calls:,} calls: {totals.read:,} input tokens, sent by the call before within 5 minutes and "
        f"paid anew, at the price of cache reads{writes}. Prefixes from {least} tokens on count; providers differ in "
        "the least they cache, and price data does not know it (--least-prefix). No cache is shared between tasks here",
        change=marked,
        verify="agentbudget report TRACES --by model,name on new traces: cached input grows, cost falls; "
        "agentbudget diff OLD NEW",
        risk="a prefix that changes pays for writes and reads nothing; storage fees, where a provider has them, are "
        "not in it",
    )
