"""Prices compiled to exact integers: what a call cost, what it can cost at most, and the record of the prices used."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from fractions import Fraction
from math import lcm
from typing import Literal, get_args

from agentbudget.domain.money import NANOS_PER_DOLLAR
from agentbudget.domain.usage import MAX_TOKENS, Usage
from agentbudget.errors import UnpricedUsageError
from agentbudget.pricing.buckets import BUCKETS, INPUT_BUCKETS, OUTPUT_BUCKETS, PER_UNIT, Bucket, Prices, split
from agentbudget.pricing.decimals import decimal_string

MIDNIGHT = time(0, 0)

CacheWrites = Literal["none", "5m", "1h"]
"""The dearest cache write that a request can cause."""

_AUDIO: tuple[Bucket, ...] = ("input_audio", "cache_audio_read", "output_audio")
_NOT_WRITTEN: dict[CacheWrites, tuple[Bucket, ...]] = {
    "none": ("cache_write_5m", "cache_write_1h"),
    "5m": ("cache_write_1h",),
    "1h": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """Prices of one model at one moment.

    `cliffs` are (tokens, prices), ascending: a call with more than that many input tokens pays *all* its tokens at
    these prices (the vendors' rule for long context); a call with exactly that many does not.
    """

    base: Prices
    cliffs: tuple[tuple[int, Prices], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a source says of one model, service tier and day.

    `windows` are (UTC time of day, prices from then on), ascending from midnight; nearly always there is one.
    """

    source: str
    version: str
    provider: str
    model: str
    tier: str
    windows: tuple[tuple[time, PriceTable], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRef:
    """Which prices were used: enough to audit a settlement and to price the same usage again.

    `prices` are decimal dollars per million tokens (`web_search` and `request`: per one), stand-ins filled in; a
    bucket without a price is absent. `input>200000` is the price of `input` in a call of more than 200,000 input
    tokens.
    """

    source: str
    version: str
    provider: str
    model: str
    tier: str
    prices: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, str | dict[str, str]]:
        """The same as plain JSON values."""
        return {
            "source": self.source,
            "version": self.version,
            "provider": self.provider,
            "model": self.model,
            "tier": self.tier,
            "prices": dict(self.prices),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Compiled prices of one model, service tier and day. Made by `compile_rates`; immutable.

    Where the price depends on the time of day, a day's `Rates` holds the dearest price of the day in every bucket,
    which is what an estimate wants; `at` gives the price at one moment, which is what a settlement wants.
    """

    ref: PriceRef
    unit: int
    """Weights are nano-dollars times this, so that every one of them is an int."""
    starts: tuple[int, ...]
    """Input tokens above which the next of `weights` holds, ascending."""
    first_start: int
    weights: tuple[_Weights, ...]
    """By long-context tier."""
    ceilings: tuple[_Weights, ...]
    """The same, each the dearest of itself and the tiers below it."""
    by_time: tuple[tuple[time, Rates], ...] = ()
    reference: dict[str, str | dict[str, str]] = field(init=False, repr=False, compare=False)
    """`ref.to_dict()`, made once: every settlement writes it. Not to be changed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reference", self.ref.to_dict())

    def at(self, moment: datetime) -> Rates:
        """The prices at *moment* (naive means UTC); these same ones unless they depend on the time of day."""
        if not self.by_time:
            return self
        clock = (moment.astimezone(UTC) if moment.tzinfo else moment).time()
        return self.by_time[bisect_right(self.by_time, clock, key=_start) - 1][1]

    def cost(self, usage: Usage) -> int:
        """Nano-dollars of *usage*: exact, rounded once, half to even.

        Raises:
            UnpricedUsageError: *usage* has a count in a bucket for which there is no price.
        """
        tokens, unit = usage.input_tokens, self.unit
        tier = 0 if tokens <= self.first_start else bisect_left(self.starts, tokens)
        amount = self.weights[tier].amount(usage)
        if unit == 1:
            return amount
        whole, rest = divmod(amount, unit)
        doubled = rest + rest
        return whole + 1 if doubled > unit or (doubled == unit and whole & 1) else whole

    def upper_bound(
        self,
        *,
        input_tokens: int,
        output_tokens: int,
        web_searches: int = 0,
        cache_writes: CacheWrites = "1h",
        audio: bool = False,
    ) -> int:
        """Nano-dollars that no call within these counts can exceed, rounded up.

        Every input token is priced at the dearest input bucket and every output token at the dearest output bucket,
        in the dearest long-context tier that so many input tokens can reach. A caller who knows that the request
        writes no cache, or none for an hour, says so with *cache_writes*: an hour's write costs twice the input on
        Claude. Audio buckets count only with *audio*: they would triple the bound of a text call on Gemini.

        Raises:
            UnpricedUsageError: the model has no price for output, or for the searches.
            ValueError: a count is negative.
        """
        if input_tokens < 0 or output_tokens < 0 or web_searches < 0:
            msg = f"input {input_tokens}, output {output_tokens}, searches {web_searches}: counts are not negative."
            raise ValueError(msg)
        dearest = self.ceilings[0 if input_tokens <= self.first_start else bisect_left(self.starts, input_tokens)]
        per_input, per_output = dearest.bounds[cache_writes, audio]
        amount = input_tokens * per_input + output_tokens * per_output + dearest.request
        if output_tokens and not dearest.output_priced:
            dearest.demand("output")
        if web_searches:
            amount += web_searches * dearest.demand("web_search")
        unit = self.unit
        return amount if unit == 1 else -(-amount // unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weights:
    """One tier's integer weights. The named fields are the hot path's copy of `priced`."""

    model: str
    priced: Mapping[Bucket, int]
    bounds: Mapping[tuple[CacheWrites, bool], tuple[int, int]]
    output_priced: bool
    writes_priced: bool
    input: int
    output: int
    reasoning: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    request: int

    def amount(self, usage: Usage) -> int:
        """Weighted sum of *usage*. Text calls take the short way; the other one is its definition."""
        written_5m, written_1h = usage.cache_write_5m_tokens, usage.cache_write_1h_tokens
        if (
            usage.input_audio_tokens
            or usage.output_audio_tokens
            or usage.input_image_tokens
            or usage.output_image_tokens
            or usage.cache_audio_read_tokens
            or ((written_5m or written_1h) and not self.writes_priced)
            or (usage.output_tokens and not self.output_priced)
        ):
            return sum(self.demand(bucket) * count for bucket, count in split(usage).items() if count)
        total = usage.input_tokens * self.input + usage.output_tokens * self.output + self.request
        if read := usage.cache_read_tokens:
            total += read * (self.cache_read - self.input)
        if written_5m or written_1h:
            total += written_5m * (self.cache_write_5m - self.input) + written_1h * (self.cache_write_1h - self.input)
        if reasoning := usage.reasoning_tokens:
            total += reasoning * (self.reasoning - self.output)
        return total + usage.web_searches * self.demand("web_search") if usage.web_searches else total

    def demand(self, bucket: Bucket) -> int:
        """The weight of *bucket*, or an error that says how to price it."""
        weight = self.priced.get(bucket)
        if weight is None:
            msg = (
                f"model {self.model!r} has no price for {bucket!r}. Declare all its prices, this one among them: "
                f"prices={{{self.model!r}: {{'input': ..., 'output': ..., {bucket!r}: ...}}}}."
            )
            raise UnpricedUsageError(msg)
        return weight


def compile_rates(quote: Quote) -> Rates:
    """The rates of *quote*: dearest of the day, with the rates of each time of day behind them."""
    tables = [table for _, table in quote.windows]
    if len(tables) == 1:
        return _compile(quote, tables[0], ())
    by_time = tuple((start, _compile(quote, table, ())) for start, table in quote.windows)
    return _compile(quote, _dearest(tables), by_time)


def _compile(quote: Quote, table: PriceTable, by_time: tuple[tuple[time, Rates], ...]) -> Rates:
    tiers = [table.base, *(prices for _, prices in table.cliffs)]
    unit = lcm(*(_nanos(bucket, price).denominator for prices in tiers for bucket, price in prices.items()))
    starts = tuple(start for start, _ in table.cliffs)
    return Rates(
        ref=PriceRef(
            source=quote.source,
            version=quote.version,
            provider=quote.provider,
            model=quote.model,
            tier=quote.tier,
            prices=tuple(_listing(table)),
        ),
        unit=unit,
        starts=starts,
        first_start=starts[0] if starts else MAX_TOKENS,
        weights=tuple(_weigh(prices, unit, quote.model) for prices in tiers),
        ceilings=tuple(_weigh(_dearest_prices(tiers[: i + 1]), unit, quote.model) for i in range(len(tiers))),
        by_time=by_time,
    )


def _weigh(prices: Prices, unit: int, model: str) -> _Weights:
    priced = {bucket: int(_nanos(bucket, price) * unit) for bucket, price in prices.items()}
    return _Weights(
        model=model,
        priced=priced,
        bounds={
            (writes, audio): _bound(priced, writes, audio=audio)
            for writes in get_args(CacheWrites)
            for audio in (False, True)
        },
        output_priced="output" in priced,
        writes_priced="cache_write_5m" in priced and "cache_write_1h" in priced,
        input=priced["input"],
        output=priced.get("output", 0),
        reasoning=priced.get("reasoning", 0),
        cache_read=priced["cache_read"],
        cache_write_5m=priced.get("cache_write_5m", 0),
        cache_write_1h=priced.get("cache_write_1h", 0),
        request=priced["request"],
    )


def _bound(priced: Mapping[Bucket, int], writes: CacheWrites, *, audio: bool) -> tuple[int, int]:
    """Dearest weight of an input token and of an output token."""
    left_out = _NOT_WRITTEN[writes] if audio else _NOT_WRITTEN[writes] + _AUDIO
    return (
        max(priced[bucket] for bucket in INPUT_BUCKETS if bucket in priced and bucket not in left_out),
        max((priced[bucket] for bucket in OUTPUT_BUCKETS if bucket in priced and bucket not in left_out), default=0),
    )


def _dearest(tables: list[PriceTable]) -> PriceTable:
    starts = sorted({start for table in tables for start, _ in table.cliffs})
    return PriceTable(
        base=_dearest_prices([table.base for table in tables]),
        cliffs=tuple((start, _dearest_prices([_above(table, start) for table in tables])) for start in starts),
    )


def _dearest_prices(alternatives: list[Prices]) -> Prices:
    return {
        bucket: max(listed)
        for bucket in BUCKETS
        if (listed := [prices[bucket] for prices in alternatives if bucket in prices])
    }


def _above(table: PriceTable, start: int) -> Prices:
    """The prices of *table* for a call just above *start* input tokens."""
    return next((prices for cliff, prices in reversed(table.cliffs) if cliff <= start), table.base)


def _nanos(bucket: Bucket, price: Fraction) -> Fraction:
    return price * NANOS_PER_DOLLAR / (1 if bucket in PER_UNIT else 1_000_000)


def _listing(table: PriceTable) -> Iterator[tuple[str, str]]:
    for bucket in BUCKETS:
        if bucket in table.base:
            yield bucket, decimal_string(table.base[bucket])
    below = table.base
    for start, prices in table.cliffs:
        for bucket in BUCKETS:
            if bucket in prices and prices[bucket] != below.get(bucket):
                yield f"{bucket}>{start}", decimal_string(prices[bucket])
        below = prices


def _start(window: tuple[time, Rates]) -> time:
    return window[0]
