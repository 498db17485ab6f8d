"""The default price source: the snapshot that ships with `genai-prices`, behind our own rules for names and tiers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from fractions import Fraction
from hashlib import sha256
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Protocol

from agentbudget.errors import UnknownTierError
from agentbudget.pricing.buckets import LISTED, Bucket, Fallbacks, complete
from agentbudget.pricing.names import Lookup
from agentbudget.pricing.rates import MIDNIGHT, PriceTable, Quote
from agentbudget.pricing.tiers import STANDARD, context_of

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

_UNITS: dict[str, tuple[Bucket, int]] = {
    "input_mtok": ("input", 1),
    "cache_read_mtok": ("cache_read", 1),
    "cache_write_mtok": ("cache_write_5m", 1),
    "cache_write_5m_mtok": ("cache_write_5m", 1),
    "cache_write_1h_mtok": ("cache_write_1h", 1),
    "input_audio_mtok": ("input_audio", 1),
    "cache_audio_read_mtok": ("cache_audio_read", 1),
    "input_image_mtok": ("input_image", 1),
    "output_mtok": ("output", 1),
    "output_reasoning_mtok": ("reasoning", 1),
    "output_audio_mtok": ("output_audio", 1),
    "output_image_mtok": ("output_image", 1),
    "web_searches_kcount": ("web_search", 1_000),
    "requests_kcount": ("request", 1_000),
}
"""The source's price keys: our bucket, and how many of it the price is for (token prices stay per million)."""

_KINDS = frozenset(
    {"audio", "embedding", "image", "live", "native", "realtime", "search", "transcribe", "tts", "vision"}
)
"""Words that make a model a product of its own: `gpt-4o-audio-preview` is no gpt-4o."""

_AUDIO_AS_TEXT = {"google"}
"""Google lists an audio price only where it differs from the text price."""


class Source(Protocol):
    """A table of prices behind the overrides."""

    name: str
    version: str
    digest: str
    """Hash of everything in the source that can change a price."""

    def quote(self, lookup: Lookup, *, tier: str, on: date) -> Quote | None:
        """The prices, or None if the source does not know the model.

        Raises:
            UnknownTierError: it knows the model, but not this tier on this day.
        """


_DIGESTED: list[tuple[object, str]] = []
"""The snapshot that was digested last and its digest: to write all of it out takes 16 ms, for each governor."""


class GenaiPrices:
    """The `genai-prices` snapshot that is current when this is built: the bundled one, or one that the program set.

    The snapshot is held, so that a later update of it elsewhere in the process changes no price of this source.
    """

    name = "genai-prices"

    def __init__(self) -> None:
        from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - price data loads with the book

        providers = get_snapshot().providers
        self.version = version_of("genai-prices")
        self.digest = _digest(providers)
        self._providers: dict[str, Provider] = {provider.id: provider for provider in providers}

    def quote(self, lookup: Lookup, *, tier: str, on: date) -> Quote | None:
        """See `Source.quote`."""
        provider = self._providers.get(lookup.provider or "")
        model = self._find(provider, lookup.model) if provider else None
        if provider is None or model is None:
            return None
        own = any(model is candidate for candidate in provider.models)
        context = _context(model if own else None, provider, model, tier, on)
        fallbacks = (*LISTED, ("input_audio", "input")) if provider.id in _AUDIO_AS_TEXT else LISTED
        windows = tuple(
            (start, table)
            for start in _changes(model)
            if (table := _table(model.get_prices(datetime.combine(on, start, UTC), context), fallbacks))
        )
        if not windows or windows[0][0] != MIDNIGHT:
            return None
        return Quote(
            source=self.name, version=self.version, provider=provider.id, model=model.id, tier=tier, windows=windows
        )

    def places(self, provider: str | None) -> list[Lookup]:
        """Every model of *provider*; of all providers where it is not known."""
        known = [self._providers[provider]] if provider in self._providers else list(self._providers.values())
        return [Lookup(provider=one.id, model=model.id) for one in known for model in one.models]

    def _find(self, provider: Provider, name: str) -> ModelInfo | None:
        model = provider.find_model(name, all_providers=list(self._providers.values()))
        if model is None and name.startswith("ft:"):
            tuned = ":".join(name.split(":")[:2])
            model = next((candidate for candidate in provider.models if candidate.id == tuned), None)
        if model is None or not _same_kind(name, model):
            return None
        return model


def _same_kind(name: str, model: ModelInfo) -> bool:
    """False where the source matched only a prefix, and the rest of *name* says that it is another product."""
    asked = _KINDS.intersection(re.findall(r"[a-z]+", name))
    return not asked or asked <= set(re.findall(r"[a-z]+", f"{model.id} {model.match!r}".lower()))


def _context(
    own: ModelInfo | None, provider: Provider, model: ModelInfo, tier: str, on: date
) -> Mapping[str, str] | None:
    """The source's context for *tier*; None for the standard one. A model lent by another provider has no tiers."""
    if tier == STANDARD:
        return None
    noon = datetime.combine(on, time(12), UTC)
    known = [
        variant.when
        for variant in (own.price_variants or () if own else ())
        if variant.constraint is None or variant.constraint.active(noon)
    ]
    for context in context_of(tier):
        if context in known:
            return context
    raise UnknownTierError(
        f"genai-prices knows {model.id!r} of {provider.id!r}, but not in the service tier {tier!r} on {on}."
    )


def _changes(model: ModelInfo) -> list[time]:
    """The UTC times of day at which the price of *model* may change, midnight first."""
    from genai_prices.types import TimeOfDateConstraint  # noqa: PLC0415 - as above

    conditional = model.prices if isinstance(model.prices, list) else []
    moments = {MIDNIGHT}
    for item in (*conditional, *(model.price_variants or ())):
        if isinstance(item.constraint, TimeOfDateConstraint):
            moments.update(_utc(moment) for moment in (item.constraint.start_time, item.constraint.end_time))
    return sorted(moments)


def _utc(moment: time) -> time:
    """*moment* in UTC; a naive one is in UTC already."""
    return datetime.combine(date(2000, 1, 1), moment, moment.tzinfo or UTC).astimezone(UTC).time()


def _table(prices: ModelPrice, fallbacks: Fallbacks) -> PriceTable | None:
    """The token prices of *prices*; None for a model that is not paid by the token."""
    from genai_prices.types import TieredPrices  # noqa: PLC0415 - as above

    listed = [(*_UNITS[key], price) for key, price in vars(prices).items() if key in _UNITS and price is not None]
    starts = sorted({tier.start for _, _, price in listed if isinstance(price, TieredPrices) for tier in price.tiers})

    def above(start: int) -> Iterator[tuple[Bucket, Fraction]]:
        for bucket, per, price in listed:
            if isinstance(price, TieredPrices):
                reached = [tier.price for tier in price.tiers if tier.start <= start]
                yield bucket, Fraction(reached[-1] if reached else price.base) / per
            else:
                yield bucket, Fraction(price) / per

    return table_of(dict(above(-1)), [(start, dict(above(start))) for start in starts], fallbacks)


def table_of(
    base: Mapping[Bucket, Fraction],
    cliffs: Iterable[tuple[int, Mapping[Bucket, Fraction]]],
    fallbacks: Fallbacks,
) -> PriceTable | None:
    """A completed table; None without a price for input, that is for a model that is not paid by the token."""
    if "input" not in base:
        return None
    return PriceTable(
        base=complete(base, fallbacks), cliffs=tuple((start, complete(prices, fallbacks)) for start, prices in cliffs)
    )


def _digest(providers: object) -> str:
    for known, digest in _DIGESTED:
        if known is providers:
            return digest
    digest = sha256(repr(providers).encode()).hexdigest()
    _DIGESTED[:] = [(providers, digest)]
    return digest
