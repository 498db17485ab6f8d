"""Cost and bound as arithmetic, against an independent calculation in fractions."""

from datetime import UTC, datetime, time, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.domain.usage import Usage
from agentbudget.errors import UnpricedUsageError
from agentbudget.pricing.buckets import BUCKETS, INPUT_BUCKETS, OUTPUT_BUCKETS, PER_UNIT, Bucket, split
from agentbudget.pricing.rates import MIDNIGHT, CacheWrites, PriceTable, Quote, Rates, compile_rates


def rates(
    base: dict[Bucket, Fraction], *cliffs: tuple[int, dict[Bucket, Fraction]], model: str = "some-model"
) -> Rates:
    return compile_rates(quote((MIDNIGHT, PriceTable(base=base, cliffs=cliffs)), model=model))


def quote(*windows: tuple[time, PriceTable], model: str = "some-model") -> Quote:
    return Quote(source="test", version="1", provider="someone", model=model, tier="standard", windows=windows)


def full(**prices: str) -> dict[Bucket, Fraction]:
    """A price for every bucket: zero but for the ones given."""
    return {bucket: Fraction(prices.get(bucket, "0")) for bucket in BUCKETS}


@st.composite
def usages(draw: st.DrawFn, most: int = 400_000) -> Usage:
    """Any usage that a provider may report and `Usage` accepts."""
    total = draw(st.integers(0, most))
    read = draw(st.integers(0, total))
    written_5m = draw(st.integers(0, total - read))
    written_1h = draw(st.integers(0, total - read - written_5m))
    out = draw(st.integers(0, most))
    reasoning = draw(st.integers(0, out))
    return Usage(
        input_tokens=total,
        output_tokens=out,
        cache_read_tokens=read,
        cache_write_5m_tokens=written_5m,
        cache_write_1h_tokens=written_1h,
        reasoning_tokens=reasoning,
        input_audio_tokens=draw(st.integers(0, total)),
        output_audio_tokens=draw(st.integers(0, out - reasoning)),
        cache_audio_read_tokens=draw(st.integers(0, total)),
        input_image_tokens=draw(st.integers(0, total)),
        output_image_tokens=draw(st.integers(0, out)),
        web_searches=draw(st.integers(0, 50)),
    )


prices = st.fixed_dictionaries(
    {bucket: st.decimals(0, 200, places=5).map(Fraction) for bucket in BUCKETS},
)
tables = st.builds(
    lambda base, starts, tiers: PriceTable(base=base, cliffs=tuple(zip(sorted(starts), tiers, strict=False))),
    prices,
    st.sets(st.integers(1, 300_000), max_size=3),
    st.lists(prices, min_size=3, max_size=3),
)


def by_hand(table: PriceTable, usage: Usage) -> Fraction:
    """Nano-dollars, unrounded, from the definition of the buckets and not from `split`."""
    in_force = table.base
    for start, above in table.cliffs:
        if usage.input_tokens > start:
            in_force = above
    cached_audio = min(usage.cache_audio_read_tokens, usage.cache_read_tokens)
    uncached = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_5m_tokens - usage.cache_write_1h_tokens
    fresh_audio = max(0, min(usage.input_audio_tokens - cached_audio, uncached))
    fresh_image = min(usage.input_image_tokens, uncached - fresh_audio)
    spoken = usage.output_audio_tokens
    drawn = min(usage.output_image_tokens, usage.output_tokens - usage.reasoning_tokens - spoken)
    dollars = (
        (uncached - fresh_audio - fresh_image) * in_force["input"]
        + (usage.cache_read_tokens - cached_audio) * in_force["cache_read"]
        + cached_audio * in_force["cache_audio_read"]
        + usage.cache_write_5m_tokens * in_force["cache_write_5m"]
        + usage.cache_write_1h_tokens * in_force["cache_write_1h"]
        + fresh_audio * in_force["input_audio"]
        + fresh_image * in_force["input_image"]
        + (usage.output_tokens - usage.reasoning_tokens - spoken - drawn) * in_force["output"]
        + usage.reasoning_tokens * in_force["reasoning"]
        + spoken * in_force["output_audio"]
        + drawn * in_force["output_image"]
    ) / 1_000_000
    return (dollars + usage.web_searches * in_force["web_search"] + in_force["request"]) * 10**9


@given(usages())
def test_the_buckets_of_a_usage_are_disjoint_and_none_is_negative(usage: Usage) -> None:
    counts = split(usage)
    assert all(count >= 0 for count in counts.values())
    assert sum(counts[bucket] for bucket in INPUT_BUCKETS) == usage.input_tokens
    assert sum(counts[bucket] for bucket in OUTPUT_BUCKETS) == usage.output_tokens


@given(tables, usages())
def test_a_cost_is_the_exact_sum_rounded_once_half_to_even(table: PriceTable, usage: Usage) -> None:
    assert rates(dict(table.base), *table_cliffs(table)).cost(usage) == round(by_hand(table, usage))


@given(tables, usages())
def test_a_text_call_costs_the_same_on_the_short_way(table: PriceTable, usage: Usage) -> None:
    text = Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_5m_tokens=usage.cache_write_5m_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
    assert rates(dict(table.base), *table_cliffs(table)).cost(text) == round(by_hand(table, text))


@given(tables, usages(), st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 3))
def test_no_usage_within_the_counts_costs_more_than_its_upper_bound(
    table: PriceTable, usage: Usage, more_input: int, more_output: int, more_searches: int
) -> None:
    compiled = rates(dict(table.base), *table_cliffs(table))
    bound = compiled.upper_bound(
        input_tokens=usage.input_tokens + more_input,
        output_tokens=usage.output_tokens + more_output,
        web_searches=usage.web_searches + more_searches,
        audio=True,
    )
    assert compiled.cost(usage) <= bound


@given(tables, usages(), st.sampled_from(["none", "5m", "1h"]))
def test_the_bound_of_a_text_call_holds_for_the_cache_writes_it_was_told(
    table: PriceTable, usage: Usage, writes: CacheWrites
) -> None:
    text = Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_5m_tokens=0 if writes == "none" else usage.cache_write_5m_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens if writes == "1h" else 0,
        reasoning_tokens=usage.reasoning_tokens,
        input_image_tokens=usage.input_image_tokens,
    )
    compiled = rates(dict(table.base), *table_cliffs(table))
    bound = compiled.upper_bound(input_tokens=text.input_tokens, output_tokens=text.output_tokens, cache_writes=writes)
    assert compiled.cost(text) <= bound


@given(prices, usages(100_000), usages(100_000))
def test_the_cost_of_two_calls_is_the_cost_of_their_sum_but_for_rounding_and_the_fee(
    base: dict[Bucket, Fraction], one: Usage, other: Usage
) -> None:
    flat = {**dict.fromkeys(BUCKETS, base["input"]), "request": Fraction(0), "web_search": base["web_search"]}
    compiled = rates(flat)
    assert abs(compiled.cost(one) + compiled.cost(other) - compiled.cost(one + other)) <= 1


@given(prices, usages(), st.sampled_from(["output_tokens", "web_searches"]), st.integers(1, 1000))
def test_more_usage_never_costs_less(base: dict[Bucket, Fraction], usage: Usage, count: str, more: int) -> None:
    compiled = rates(base)
    counts = usage.to_dict()
    counts[count] = counts.get(count, 0) + more
    assert compiled.cost(Usage(**counts)) >= compiled.cost(usage)
    counts["input_tokens"] = counts.get("input_tokens", 0) + more
    assert compiled.cost(Usage(**counts)) >= compiled.cost(usage)


@pytest.mark.parametrize(("tokens", "nanos"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_half_a_nano_dollar_is_rounded_to_even(tokens: int, nanos: int) -> None:
    compiled = rates(full(input="0.0005"))
    assert compiled.cost(Usage(input_tokens=tokens)) == nanos
    assert compiled.upper_bound(input_tokens=tokens, output_tokens=0) == (tokens + 1) // 2


def test_a_call_above_the_cliff_pays_all_its_tokens_at_the_upper_prices() -> None:
    compiled = rates(full(input="1.25", output="10"), (200_000, full(input="2.5", output="15")))
    assert compiled.cost(Usage(input_tokens=200_000, output_tokens=10)) == 250_100_000
    assert compiled.cost(Usage(input_tokens=200_001, output_tokens=10)) == 500_002_500 + 150_000
    assert compiled.upper_bound(input_tokens=200_000, output_tokens=10) == 250_100_000
    assert compiled.upper_bound(input_tokens=200_001, output_tokens=10) == 500_002_500 + 150_000


def test_the_bound_is_the_dearest_tier_within_reach_even_where_long_calls_are_cheaper() -> None:
    compiled = rates(full(input="4"), (1_000, full(input="1")))
    assert compiled.upper_bound(input_tokens=1_001, output_tokens=0) == 4_004_000


def test_the_bound_is_tight_for_a_call_that_writes_no_cache() -> None:
    compiled = rates(full(input="3", cache_write_5m="3.75", cache_write_1h="6", output="15"))
    assert compiled.upper_bound(input_tokens=1_000, output_tokens=100) == 6_000_000 + 1_500_000
    assert compiled.upper_bound(input_tokens=1_000, output_tokens=100, cache_writes="5m") == 3_750_000 + 1_500_000
    assert compiled.upper_bound(input_tokens=1_000, output_tokens=100, cache_writes="none") == 3_000_000 + 1_500_000


def test_a_fee_per_request_is_paid_once_and_reserved() -> None:
    compiled = rates(full(input="1", request="0.014"))
    assert compiled.cost(Usage(input_tokens=10)) == 14_010_000
    assert compiled.upper_bound(input_tokens=10, output_tokens=0) == 14_010_000


@pytest.mark.parametrize(
    ("usage", "bucket"),
    [
        (Usage(output_tokens=1), "output"),
        (Usage(output_tokens=1, reasoning_tokens=1), "reasoning"),
        (Usage(input_tokens=1, cache_write_5m_tokens=1), "cache_write_5m"),
        (Usage(input_tokens=1, cache_write_1h_tokens=1), "cache_write_1h"),
        (Usage(input_tokens=1, input_audio_tokens=1), "input_audio"),
        (Usage(output_tokens=1, output_audio_tokens=1), "output_audio"),
        (Usage(output_tokens=1, output_image_tokens=1), "output_image"),
        (Usage(web_searches=1), "web_search"),
    ],
)
def test_usage_in_a_bucket_without_a_price_is_an_error_that_names_it(usage: Usage, bucket: str) -> None:
    bare = rates({"input": Fraction(1), "cache_read": Fraction(1), "request": Fraction(0)})
    with pytest.raises(UnpricedUsageError, match=rf"'some-model' has no price for '{bucket}'.*prices="):
        bare.cost(usage)
    assert bare.cost(Usage(input_tokens=7)) == 7_000


def test_a_bound_that_needs_a_price_which_is_missing_is_refused() -> None:
    bare = rates({"input": Fraction(1), "cache_read": Fraction(1), "request": Fraction(0)})
    assert bare.upper_bound(input_tokens=7, output_tokens=0) == 7_000
    with pytest.raises(UnpricedUsageError, match="'output'"):
        bare.upper_bound(input_tokens=7, output_tokens=1)
    with pytest.raises(UnpricedUsageError, match="'web_search'"):
        bare.upper_bound(input_tokens=7, output_tokens=0, web_searches=1)
    with pytest.raises(ValueError, match="not negative"):
        bare.upper_bound(input_tokens=-1, output_tokens=0)


def test_the_recorded_prices_alone_price_the_usage_again() -> None:
    compiled = rates(full(input="1.25", cache_read="0.3125", output="10"), (200_000, full(input="2.5", output="10")))
    recorded = compiled.ref.to_dict()
    assert recorded["source"] == "test"
    assert isinstance(recorded["prices"], dict)
    listed = recorded["prices"]
    assert listed["input"] == "1.25"
    assert listed["cache_read"] == "0.3125"
    assert listed["input>200000"] == "2.5"
    assert "output>200000" not in listed
    assert set(listed) - {name for name in listed if ">" in name} == set(BUCKETS)
    assert PER_UNIT == ("web_search", "request")


def test_a_price_that_depends_on_the_hour_is_the_dearest_of_the_day_until_the_moment_is_known() -> None:
    day = compile_rates(
        quote(
            (MIDNIGHT, PriceTable(base=full(input="1", output="9"))),
            (time(1), PriceTable(base=full(input="3", output="2"))),
            (time(4), PriceTable(base=full(input="1", output="9"))),
        )
    )
    call = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
    assert day.cost(call) == 12 * 10**9
    assert day.at(datetime(2026, 1, 1, 0, 59, 59, tzinfo=UTC)).cost(call) == 10 * 10**9
    assert day.at(datetime(2026, 1, 1, 1, 0, tzinfo=UTC)).cost(call) == 5 * 10**9
    assert day.at(datetime(2026, 1, 1, 4, 0)).cost(call) == 10 * 10**9  # noqa: DTZ001 - naive means UTC
    berlin = timezone(timedelta(hours=2))
    assert day.at(datetime(2026, 1, 1, 3, 30, tzinfo=berlin)).cost(call) == 5 * 10**9


def test_the_dearest_of_the_day_is_taken_in_each_long_context_tier() -> None:
    day = compile_rates(
        quote(
            (MIDNIGHT, PriceTable(base=full(input="1"), cliffs=((1_000, full(input="5")),))),
            (time(1), PriceTable(base=full(input="3"))),
        )
    )
    assert day.cost(Usage(input_tokens=1_000)) == 3_000_000
    assert day.cost(Usage(input_tokens=1_001)) == 5_005_000


def test_a_price_without_a_finite_decimal_form_is_never_recorded_as_another() -> None:
    with pytest.raises(ValueError, match="no finite decimal form"):
        rates({"input": Fraction(1, 3), "cache_read": Fraction(1), "request": Fraction(0)})


def test_a_price_that_does_not_depend_on_the_hour_is_one_object() -> None:
    compiled = rates(full(input="1"))
    assert compiled.at(datetime(2026, 1, 1, 12, tzinfo=UTC)) is compiled


def table_cliffs(table: PriceTable) -> list[tuple[int, dict[Bucket, Fraction]]]:
    return [(start, dict(above)) for start, above in table.cliffs]
