"""A price list in LiteLLM's JSON format (`model_prices_and_context_window.json`), behind the default source."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

from agentbudget.errors import ConfigurationError, UnknownTierError
from agentbudget.pricing.buckets import LISTED, Bucket
from agentbudget.pricing.decimals import price_of
from agentbudget.pricing.files import read_text
from agentbudget.pricing.names import Lookup, canonical_provider
from agentbudget.pricing.rates import MIDNIGHT, PriceTable, Quote
from agentbudget.pricing.sources import table_of
from agentbudget.pricing.tiers import STANDARD, tier_of

_STEMS: dict[str, Bucket] = {
    "input_cost_per_token": "input",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write_5m",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "input_audio",
    "cache_read_input_audio_token_cost": "cache_audio_read",
    "input_cost_per_image_token": "input_image",
    "output_cost_per_token": "output",
    "output_cost_per_reasoning_token": "reasoning",
    "output_cost_per_audio_token": "output_audio",
    "output_cost_per_image_token": "output_image",
}
_KEY = re.compile(rf"({'|'.join(sorted(_STEMS, key=len, reverse=True))})(?:_above_(\d+)k_tokens)?(?:_([a-z]+))?")
_SEARCHES = "search_context_cost_per_query"
_UNSUPPORTED = ("tiered_pricing", "off_peak_pricing")
"""Marginal tiers and times of day in forms of their own: such a model counts as unknown rather than half priced."""

_EXAMPLE = "sample_spec"

_PREFIXES: dict[str, tuple[str, ...]] = {
    "aws": ("bedrock/", "bedrock/converse/"),
    "fireworks": ("fireworks_ai/",),
    "github-copilot": ("github_copilot/",),
    "google": ("gemini/", "vertex_ai/"),
    "moonshotai": ("moonshot/",),
    "together": ("together_ai/",),
    "x-ai": ("xai/",),
}


@dataclass(slots=True)
class _Entry:
    provider: str | None
    tiers: dict[str, dict[int, dict[Bucket, Fraction]]] = field(default_factory=dict)
    """Tier to input tokens (0: from the first on) to prices."""


class LiteLLMPrices:
    """The prices of a LiteLLM-format JSON file, all of it read and checked at construction.

    Raises:
        ConfigurationError: unreadable, not such a file, or a price in it that is no price.
    """

    name = "litellm"

    def __init__(self, path: str | Path) -> None:
        text = read_text(path, what="litellm_json")
        self.digest = sha256(text.encode()).hexdigest()
        self.version = self.digest[:12]
        self._entries = {model.lower(): entry for model, entry in _parse(text, path).items()}

    def quote(self, lookup: Lookup, *, tier: str, on: date) -> Quote | None:
        """See `Source.quote`. LiteLLM's file has no dates: *on* decides nothing."""
        found = self._find(lookup)
        if found is None:
            return None
        model, entry = found
        table = _table(entry, tier)
        if table is None:
            if tier != STANDARD and _table(entry, STANDARD):
                msg = f"the LiteLLM price list knows {model!r}, but not in the service tier {tier!r} (asked for {on})."
                raise UnknownTierError(msg)
            return None
        provider = entry.provider or lookup.provider or "unknown"
        return Quote(
            source=self.name,
            version=self.version,
            provider=provider,
            model=model,
            tier=tier,
            windows=((MIDNIGHT, table),),
        )

    def _find(self, lookup: Lookup) -> tuple[str, _Entry] | None:
        provider = lookup.provider
        if provider is None or provider == "self-hosted":
            return None
        for prefix in (*_PREFIXES.get(provider, (f"{provider}/",)), ""):
            entry = self._entries.get(prefix + lookup.model)
            if entry and (prefix or entry.provider == provider):
                return prefix + lookup.model, entry
        return None


def _parse(text: str, path: str | Path) -> dict[str, _Entry]:
    try:
        document = json.loads(text, parse_float=str)
    except ValueError as error:
        raise ConfigurationError(f"litellm_json={str(path)!r} is not JSON: {error}.") from error
    if not isinstance(document, dict) or not all(isinstance(entry, dict) for entry in document.values()):
        raise ConfigurationError(
            f"litellm_json={str(path)!r}: expected LiteLLM's format, an object of models whose values are objects "
            "with keys such as 'input_cost_per_token'."
        )
    entries = {}
    for model, raw in document.items():
        if model != _EXAMPLE and not any(key in raw for key in _UNSUPPORTED):
            entries[model] = _entry(raw, where=f"litellm_json={str(path)!r}: {model!r}")
    if not any(entry.tiers for entry in entries.values()):
        raise ConfigurationError(f"litellm_json={str(path)!r}: no model in it has an 'input_cost_per_token'.")
    return entries


def _entry(raw: Mapping[str, object], where: str) -> _Entry:
    entry = _Entry(provider=_provider(raw.get("litellm_provider")))
    for key, value in raw.items():
        match = _KEY.fullmatch(key)
        if match is None or value is None:
            continue
        start = int(match[2] or 0) * 1_000
        prices = entry.tiers.setdefault(tier_of(match[3]), {}).setdefault(start, {})
        prices[_STEMS[match[1]]] = _price(value, f"{where}: {key!r}", per=1)
    searches = raw.get(_SEARCHES)
    if isinstance(searches, Mapping) and searches and STANDARD in entry.tiers:
        dearest = max(_price(value, f"{where}: {_SEARCHES!r}") for value in searches.values())
        entry.tiers[STANDARD].setdefault(0, {})["web_search"] = dearest
    return entry


def _price(value: object, where: str, *, per: int = 1_000_000) -> Fraction:
    try:
        return price_of(value, per=per)
    except ValueError as error:
        raise ConfigurationError(f"{where} is {value!r}: {error}.") from None


def _provider(name: object) -> str | None:
    """`vertex_ai-language-models` is Vertex, `bedrock_converse` Bedrock; a provider of no name we know is None."""
    if not isinstance(name, str):
        return None
    return canonical_provider(name) or canonical_provider(name.split("-", 1)[0])


def _table(entry: _Entry, tier: str) -> PriceTable | None:
    """The table of *tier*: its own prices over the standard ones, but only if it has a price for input of its own."""
    if "input" not in entry.tiers.get(tier, {}).get(0, {}):
        return None
    standard, own = entry.tiers.get(STANDARD, {}), entry.tiers[tier]
    base = {**standard.get(0, {}), **own[0]}
    starts = sorted(start for start in {*standard, *own} if start)
    cliffs = []
    for start in starts:
        reached = [s for s in starts if s <= start]
        layers = [source[s] for source in (standard, own) for s in (0, *reached) if s in source]
        cliffs.append((start, {bucket: price for layer in layers for bucket, price in layer.items()}))
    return table_of(base, cliffs, LISTED)
