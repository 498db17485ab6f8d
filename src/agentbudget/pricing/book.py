"""The price book: overrides in front of genai-prices in front of a LiteLLM-format file; immutable and versioned."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, cast

from agentbudget.errors import ConfigurationError, PricingError, UnknownModelError, UnknownTierError
from agentbudget.pricing.files import read_mapping
from agentbudget.pricing.litellm import LiteLLMPrices
from agentbudget.pricing.names import Lookup, canonical_provider, lookups
from agentbudget.pricing.overrides import Overrides
from agentbudget.pricing.rates import Quote, Rates, compile_rates
from agentbudget.pricing.sources import GenaiPrices, Source
from agentbudget.pricing.tiers import STANDARD, tier_of
from agentbudget.pricing.tools import ToolPrice, declared_tool_price

RULES_VERSION: Final = 1
"""Part of the book's version: raised when our own rules (names, stand-ins, tiers) change what a call costs."""

_TOOL = "tool:"
_DEAREST = "the dearest"
_MOST_CACHED = 4096
_Key = tuple[str, str | None, str | None, str | None, date]


class PriceBook:
    """What models and tools cost. Building it loads and checks everything; nothing is read afterwards.

    Args:
        overrides: Declared prices, in front of every list: a dict, or the path of a TOML, YAML or JSON file. Keys are
            model names (`"gpt-x"`, `"azure/gpt-4o"`) or tools (`"tool:web_search"`); the form is in `overrides.py`.
        litellm_json: Path of a price list in LiteLLM's format, asked where genai-prices knows no price.
        aliases: What a deployment or a nickname really is: `{"my-prod-gpt4o": "azure/gpt-4o"}`.

    Raises:
        ConfigurationError: a price, name, date or file that cannot mean anything: what, where and what to do.
    """

    version: str
    """The source's version and a hash over everything that can change a price, such as `genai-prices 0.2.3 (1f2e…)`."""

    def __init__(
        self,
        *,
        overrides: Mapping[str, object] | str | Path | None = None,
        litellm_json: str | Path | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        declared = _declared(overrides)
        models = {name: entry for name, entry in declared.items() if not str(name).startswith(_TOOL)}
        self._tools = {
            name.removeprefix(_TOOL): ToolPrice.of(price, where=f"prices[{name!r}]")
            for name, price in declared.items()
            if isinstance(name, str) and name.startswith(_TOOL)
        }
        self._overrides = Overrides(models, where="prices")
        self._aliases = _aliases(aliases or {})
        self._default = default = GenaiPrices()
        self._sources: list[Source] = [default]
        if litellm_json is not None:
            self._sources.append(LiteLLMPrices(litellm_json))
        self.version = f"{default.name} {default.version} ({self._digest()[:12]})"
        self._cache: dict[_Key, Rates | PricingError] = {}

    def rates(
        self,
        model: str,
        *,
        provider: str | None = None,
        base_url: str | None = None,
        tier: str | None = None,
        on: date,
    ) -> Rates:
        """The compiled prices of a call; a second question for the same model, tier and day is a dictionary look-up.

        *provider* is a hint such as LangChain's `ls_provider`; *tier* is what the response reports (None, "default",
        "standard" and "auto" are the standard one). For a date, prices that depend on the time of day are the dearest
        of that (UTC) day: ask so before a call. For a datetime they are those of that moment: ask so after it.

        Raises:
            UnknownModelError: no source knows the model. The message says how to price it.
            UnknownTierError: the model is known, but not in this service tier on this day.
        """
        found = self._cache.get((model, provider, base_url, tier, on))
        if type(found) is Rates:
            return found
        if type(on) is date:
            return self._rates(model, provider, base_url, tier, on)
        if not isinstance(on, datetime):
            raise TypeError(f"on={on!r}: the day of a price is a date or a datetime.")
        moment = on.astimezone(UTC) if on.tzinfo else on
        return self._rates(model, provider, base_url, tier, moment.date()).at(moment)

    def dearest(self, provider: str | None, *, on: date) -> Rates:
        """The rates of the dearest listed text model of *provider* (of all, where it is not known): a stand-in for a
        model without a price that can hardly charge too little. Dearest for as many output as input tokens.
        """
        key = (_DEAREST, canonical_provider(provider), None, None, on)
        found = self._cache.get(key)
        if not isinstance(found, Rates):
            quotes = (self._default.quote(place, tier=STANDARD, on=on) for place in self._default.places(key[1]))
            found = max((compile_rates(quote) for quote in quotes if quote is not None), key=_per_million)
            self._cache[key] = found
        return found

    def tool_price(self, name: str) -> ToolPrice | None:
        """The price of the tool *name*, from `prices={"tool:NAME": ...}` or else its decorator; None: it is free."""
        return self._tools.get(name) or declared_tool_price(name)

    def _rates(self, *key: *_Key) -> Rates:
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            try:
                found = compile_rates(self._quote(*key))
            except PricingError as error:
                found = error.with_traceback(None)
            self._cache[key] = found
        if isinstance(found, PricingError):
            raise type(found)(*found.args)
        return found

    def _quote(self, model: str, provider: str | None, base_url: str | None, tier: str | None, on: date) -> Quote:
        if not model or not model.strip():
            raise UnknownModelError(f"no model name was reported (provider {provider!r}), so the call has no price.")
        places = lookups(self._aliases.get(model.strip().lower(), model), provider, base_url)
        wanted = tier_of(tier)
        declared = self._overrides.find(places, on)
        if declared is not None and declared[1].tables:
            return declared[1].quote(declared[0], places[0].provider, wanted)
        quote = self._listed(model, places, wanted, on)
        return declared[1].reduce(quote) if declared is not None else quote

    def _listed(self, model: str, places: tuple[Lookup, ...], tier: str, on: date) -> Quote:
        untiered: UnknownTierError | None = None
        for place in places:
            for source in self._sources:
                try:
                    quote = source.quote(place, tier=tier, on=on)
                except UnknownTierError as error:
                    untiered = untiered or error
                    continue
                if quote is not None:
                    return quote
        if untiered is not None:
            raise UnknownTierError(
                f"{untiered} Declare its price: prices={{{model!r}: {{'input': ..., 'output': ..., "
                f"'tiers': {{{tier!r}: {{'input': ..., 'output': ...}}}}}}}}."
            )
        raise UnknownModelError(_how_to_price(model, places[0], on))

    def _digest(self) -> str:
        parts = [
            f"rules {RULES_VERSION}",
            *(f"{source.name} {source.version} {source.digest}" for source in self._sources),
            f"overrides {self._overrides.digest}",
            *(f"alias {name!r} {target!r}" for name, target in sorted(self._aliases.items())),
            *(f"tool {name!r} {price.describe()}" for name, price in sorted(self._tools.items())),
        ]
        return sha256("\n".join(parts).encode()).hexdigest()


def _declared(overrides: Mapping[str, object] | str | Path | None) -> Mapping[object, object]:
    if overrides is None:
        return {}
    if isinstance(overrides, str | Path):
        return read_mapping(overrides, what="prices")
    if not isinstance(overrides, Mapping):
        raise ConfigurationError(
            f"prices={overrides!r}: give a table {{'gpt-x': {{'input': '1.25', 'output': '10'}}}} or a file's path."
        )
    return cast("Mapping[object, object]", dict(overrides))


def _aliases(aliases: Mapping[str, object]) -> dict[str, str]:
    checked = {}
    for name, target in aliases.items():
        if not isinstance(target, str) or not target.strip() or not str(name).strip():
            raise ConfigurationError(f"aliases[{name!r}] is {target!r}: name the model, such as 'azure/gpt-4o'.")
        checked[str(name).strip().lower()] = target
    return checked


def _how_to_price(model: str, place: Lookup, on: date) -> str:
    where = f"of {place.provider!r} " if place.provider else ""
    return (
        f"no price is known for model {model!r} {where}on {on}. Declare one in dollars per million tokens, '0' if it "
        f"is free: prices={{{model!r}: {{'input': '1.25', 'output': '10'}}}}; or, if it is a deployment or another "
        f"name of a model with a published price, say which: aliases={{{model!r}: 'azure/gpt-4o'}}."
    )


def _per_million(rates: Rates) -> int:
    """Nano-dollars of a million tokens in and a million out; nothing for a model whose output has no price."""
    try:
        return rates.upper_bound(input_tokens=1_000_000, output_tokens=1_000_000, cache_writes="none")
    except PricingError:
        return 0
