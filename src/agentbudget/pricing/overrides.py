"""Prices a user declares, in front of every published list: negotiated, dated, discounted, or of a model of their own.

`prices={"gpt-x": {"input": "1.25", "output": "10"}}`, a list of such entries with `effective` dates, or a TOML, YAML
or JSON file of the same shape. A declaration replaces the published prices of the model as a whole; one with nothing
but a `discount` takes it off whatever the sources behind say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from difflib import get_close_matches
from fractions import Fraction
from hashlib import sha256
from itertools import pairwise
from typing import NamedTuple, cast

from agentbudget.errors import ConfigurationError, UnknownTierError
from agentbudget.pricing.buckets import BUCKETS, DECLARED, PER_UNIT, Bucket
from agentbudget.pricing.decimals import decimal_of, price_of
from agentbudget.pricing.names import Lookup, declared_under, undated
from agentbudget.pricing.rates import MIDNIGHT, PriceTable, Quote
from agentbudget.pricing.selfhosted import SelfHosted
from agentbudget.pricing.sources import table_of
from agentbudget.pricing.tiers import STANDARD, tier_of

_PER = (1, 1_000, 1_000_000)
_ENTRY_KEYS = (*BUCKETS, "per", "effective", "discount", "tiers", "above")
_TIER_KEYS = (*BUCKETS, "discount", "above")
_ALWAYS = date.min


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One dated declaration: tables by service tier, or (`tables` empty) a discount on the published prices."""

    effective: date
    tables: Mapping[str, PriceTable]
    discount: Fraction

    def quote(self, model: str, provider: str | None, tier: str) -> Quote:
        """The declared prices.

        Raises:
            UnknownTierError: nothing is declared for *tier*.
        """
        table = self.tables.get(tier)
        if table is None:
            raise UnknownTierError(
                f"prices[{model!r}] declares no service tier {tier!r}; it has {', '.join(sorted(self.tables))}. "
                f"Declare it: 'tiers': {{{tier!r}: {{'input': ..., 'output': ...}}}}."
            )
        version = "undated" if self.effective == _ALWAYS else self.effective.isoformat()
        return Quote(
            source="override",
            version=version,
            provider=provider or "declared",
            model=model,
            tier=tier,
            windows=((MIDNIGHT, table),),
        )

    def reduce(self, quote: Quote) -> Quote:
        """*quote* less the discount."""
        windows = tuple((start, _discounted(table, self.discount)) for start, table in quote.windows)
        return replace(quote, source=f"{quote.source}, discounted", windows=windows)


class Overrides:
    """All declared model prices, by the names they were declared under.

    Raises:
        ConfigurationError: an entry that cannot mean anything; the message says where and what to write instead.
    """

    def __init__(self, declared: Mapping[object, object], *, where: str) -> None:
        self._entries: dict[Lookup, tuple[str, tuple[Override, ...]]] = {}
        for model, entry in declared.items():
            if not isinstance(model, str) or not model.strip():
                raise ConfigurationError(f"{where}: {model!r} is no model name; write a string.")
            key = declared_under(model)
            if key in self._entries:
                raise ConfigurationError(f"{where}[{model!r}] declares {self._entries[key][0]!r} a second time.")
            self._entries[key] = (model, tuple(_dated(entry, f"{where}[{model!r}]")))
        listing = sorted(repr((key, entries)) for key, (_, entries) in self._entries.items())
        self.digest = sha256("\n".join(listing).encode()).hexdigest()

    def find(self, places: tuple[Lookup, ...], on: date) -> tuple[str, Override] | None:
        """The declaration in force on day *on* and the name it was made under.

        The exact name comes before the name without its date, a name with a provider before one without. A name
        without a provider holds for whoever bills, but not for what a reseller passes through.
        """
        dateless = tuple(replace(place, model=undated(place.model)) for place in places)
        keys = [
            key for group in (places, dateless) for key in (*group[:1], replace(group[0], provider=None), *group[1:])
        ]
        return next((found for key in keys if (found := self._in_force(key, on))), None)

    def _in_force(self, key: Lookup, on: date) -> tuple[str, Override] | None:
        model, entries = self._entries.get(key, ("", ()))
        return next(((model, entry) for entry in reversed(entries) if entry.effective <= on), None)


def _dated(entry: object, where: str) -> list[Override]:
    """The entries of one model in order of their dates."""
    raw = entry if isinstance(entry, list | tuple) else [entry.entry() if isinstance(entry, SelfHosted) else entry]
    if not raw:
        raise ConfigurationError(f"{where} is empty; declare {{'input': ..., 'output': ...}}.")
    places = [where] if raw is not entry else [f"{where}[{i}]" for i in range(len(raw))]
    entries = sorted(
        (_override(item, place) for item, place in zip(raw, places, strict=True)), key=lambda o: o.effective
    )
    for earlier, later in pairwise(entries):
        if earlier.effective == later.effective:
            day = "without a date" if later.effective == _ALWAYS else f"effective {later.effective}"
            raise ConfigurationError(f"{where}: two entries {day}; give each its own 'effective' date.")
    return entries


def _override(entry: object, where: str) -> Override:
    fields = _mapping(entry, where, _ENTRY_KEYS)
    effective = _date(fields["effective"], where) if "effective" in fields else _ALWAYS
    discount = _discount(fields, where)
    if not any(key in fields for key in (*BUCKETS, "per", "above", "tiers")):
        if not discount:
            raise ConfigurationError(f"{where} declares no price; write {{'input': '1.25', 'output': '10'}}.")
        return Override(effective=effective, tables={}, discount=discount)
    per = _per(fields, where)
    base = _prices(fields, where, per)
    for needed in ("input", "output"):
        if needed not in base:
            raise ConfigurationError(f"{where} has no {needed!r}; declare it, '0' where it is free.")
    above = _above_of(fields, where, per)
    tables = {STANDARD: _discounted(_layered(base, above), discount)}
    standard = _Standard(per, base, above, discount)
    for name, raw in _mapping(fields.get("tiers", {}), f"{where}['tiers']").items():
        tables[tier_of(name)] = _tier(raw, f"{where}['tiers'][{name!r}]", standard)
    return Override(effective=effective, tables=tables, discount=discount)


_Above = Mapping[int, Mapping[Bucket, Fraction]]


class _Standard(NamedTuple):
    """What an entry declares for the standard tier, which its other tiers start from."""

    per: int
    base: Mapping[Bucket, Fraction]
    above: _Above
    discount: Fraction


def _tier(raw: object, where: str, standard: _Standard) -> PriceTable:
    """A tier's own prices over the standard ones, less its own discount and the entry's."""
    per, base, above, discount = standard
    fields = _mapping(raw, where, _TIER_KEYS)
    if not fields:
        raise ConfigurationError(f"{where} declares nothing; give prices or a 'discount'.")
    own = _prices(fields, where, per)
    own_above = _above_of(fields, where, per)
    merged = {start: {**above.get(start, {}), **own, **own_above.get(start, {})} for start in {*above, *own_above}}
    table = _layered({**base, **own}, merged)
    return _discounted(_discounted(table, _discount(fields, where)), discount)


def _layered(base: Mapping[Bucket, Fraction], above: _Above) -> PriceTable:
    cliffs = []
    prices = dict(base)
    for start in sorted(above):
        prices = {**prices, **above[start]}
        cliffs.append((start, prices))
    return cast("PriceTable", table_of(base, cliffs, DECLARED))


def _discounted(table: PriceTable, discount: Fraction) -> PriceTable:
    if not discount:
        return table
    keep = 1 - discount
    return PriceTable(
        base={bucket: price * keep for bucket, price in table.base.items()},
        cliffs=tuple(
            (start, {bucket: price * keep for bucket, price in prices.items()}) for start, prices in table.cliffs
        ),
    )


def _prices(fields: Mapping[str, object], where: str, per: int) -> dict[Bucket, Fraction]:
    prices: dict[Bucket, Fraction] = {}
    for bucket in BUCKETS:
        if bucket in fields:
            try:
                prices[bucket] = price_of(fields[bucket], per=1_000_000 if bucket in PER_UNIT else per)
            except ValueError as error:
                raise ConfigurationError(f"{where}[{bucket!r}] is {fields[bucket]!r}: {error}.") from None
    return prices


def _above_of(fields: Mapping[str, object], where: str, per: int) -> _Above:
    """The long-context prices: `"above": {200_000: {"input": ...}}`."""
    place = f"{where}['above']"
    raw = fields.get("above", {})
    if not isinstance(raw, Mapping):
        raise ConfigurationError(f"{place} is {raw!r}; write {{200000: {{'input': ..., 'output': ...}}}}.")
    above: dict[int, Mapping[Bucket, Fraction]] = {}
    for start, prices in raw.items():
        if isinstance(start, bool) or not str(start).isascii() or not str(start).isdigit() or not int(start):
            raise ConfigurationError(f"{place}: {start!r} is no number of input tokens.")
        inner = f"{place}[{start!r}]"
        above[int(start)] = _prices(_mapping(prices, inner, BUCKETS), inner, per)
    return above


def _per(fields: Mapping[str, object], where: str) -> int:
    per = fields.get("per", 1_000_000)
    if isinstance(per, bool) or per not in _PER:
        raise ConfigurationError(f"{where}['per'] is {per!r}: prices are per 1, 1000 or 1000000 tokens.")
    return per


def _discount(fields: Mapping[str, object], where: str) -> Fraction:
    try:
        number = decimal_of(fields.get("discount", 0))
    except ValueError as error:
        raise ConfigurationError(f"{where}['discount'] is {fields['discount']!r}: {error}.") from None
    if not number.is_finite() or not 0 <= number < 1:
        raise ConfigurationError(
            f"{where}['discount'] is {fields['discount']!r}: a discount is a share from 0 to below 1, '0.2' for 20 %."
        )
    return Fraction(number)


def _date(value: object, where: str) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise ConfigurationError(f"{where}['effective'] is {value!r}: a date is written like '2026-01-31'.") from None


def _mapping(value: object, where: str, known: tuple[str, ...] | None = None) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where} is {value!r}; write a table such as {{'input': '1.25', 'output': '10'}}.")
    for key in _unknown(value, known):
        near = get_close_matches(str(key), known or (), n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known or ())}."
        raise ConfigurationError(f"{where} has an unknown key {key!r}. {hint}")
    return value


def _unknown(value: Mapping[object, object], known: tuple[str, ...] | None) -> Iterator[object]:
    return (key for key in value if not isinstance(key, str) or (known is not None and key not in known))
