"""The book as a whole: precedence, tiers, dates, aliases, versions, and the default source."""

import json
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from agentbudget.domain.usage import Usage
from agentbudget.errors import ConfigurationError, UnknownModelError, UnknownTierError, UnpricedUsageError
from agentbudget.pricing.book import PriceBook
from agentbudget.pricing.names import Lookup
from agentbudget.pricing.rates import compile_rates

DAY = date(2026, 11, 1)


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook()


def prices(book: PriceBook, model: str, on: date = DAY, **hints: Any) -> dict[str, Decimal]:
    return {bucket: Decimal(price) for bucket, price in book.rates(model, on=on, **hints).ref.prices}


@pytest.mark.parametrize(
    ("model", "hints", "matched", "input_price", "output_price"),
    [
        ("gpt-4o-2024-08-06", {"provider": "openai"}, "openai/gpt-4o", "2.5", "10"),
        ("gpt-4o", {"provider": "azure"}, "azure/gpt-4o", "2.5", "10"),
        ("claude-sonnet-4-5-20250929", {"provider": "anthropic"}, "anthropic/claude-sonnet-4-5", "3", "15"),
        (
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            {"provider": "bedrock_converse"},
            "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "3.3",
            "16.5",
        ),
        (
            "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
            {},
            "aws/global.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "3",
            "15",
        ),
        ("ft:gpt-4o-mini-2024-07-18:org::id", {"provider": "openai"}, "openai/ft:gpt-4o-mini", "0.3", "1.2"),
        ("ft:gpt-4o-mini:org::id", {"provider": "openai"}, "openai/ft:gpt-4o-mini", "0.3", "1.2"),
        ("models/gemini-2.5-pro", {"provider": "google_genai"}, "google/gemini-2.5-pro", "1.25", "10"),
        ("google/gemini-3-pro-preview", {"provider": "openrouter"}, "google/gemini-3-pro-preview", "2", "12"),
    ],
)
def test_a_model_is_priced_under_the_name_it_goes_by(
    book: PriceBook, model: str, hints: dict[str, str], matched: str, input_price: str, output_price: str
) -> None:
    ref = book.rates(model, on=DAY, **hints).ref
    assert f"{ref.provider}/{ref.model}" == matched
    assert dict(ref.prices)["input"] == input_price
    assert dict(ref.prices)["output"] == output_price


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o-weird", "openai"),
        ("ft:gpt-4.1-mini-2025-04-14:org::id", "openai"),
        ("my-prod-gpt4o", "azure"),
        ("llama3", "ollama"),
        ("deepseek-r1", "ollama"),
        ("whisper-large-v3", "groq"),
        ("openai/gpt-4o:free", "openrouter"),
        ("", "openai"),
    ],
)
def test_an_unknown_model_is_an_error_that_says_how_to_price_it(book: PriceBook, model: str, provider: str) -> None:
    for _ in range(2):
        with pytest.raises(UnknownModelError) as error:
            book.rates(model, provider=provider, on=DAY)
        assert not model or f"prices={{{model!r}: {{'input':" in str(error.value)
        assert not model or f"aliases={{{model!r}:" in str(error.value)


@pytest.mark.parametrize("model", ["gpt-5-nano-audio-preview", "gemini-2.5-pro-preview-tts-x"])
def test_a_product_of_its_own_is_not_priced_as_the_model_whose_name_it_starts_with(book: PriceBook, model: str) -> None:
    """The source matches these by prefix; sound is ten times the price of text."""
    with pytest.raises(UnknownModelError):
        book.rates(model, provider="google" if model.startswith("gemini") else "openai", on=DAY)


def test_audio_without_a_listed_price_is_unpriced_and_not_text(book: PriceBook) -> None:
    rates = book.rates("gpt-4o-audio-preview", provider="openai", on=DAY)
    with pytest.raises(UnpricedUsageError, match="output_audio"):
        rates.cost(Usage(output_tokens=10, output_audio_tokens=10))


def test_google_lists_an_audio_price_only_where_it_differs(book: PriceBook) -> None:
    heard = Usage(input_tokens=1_000_000, input_audio_tokens=1_000_000)
    assert book.rates("gemini-2.5-flash", provider="google", on=DAY).cost(heard) == 1_000_000_000
    assert dict(book.rates("gemini-2.5-pro", provider="google", on=DAY).ref.prices)["input_audio"] == "1.25"


def test_gemini_pays_the_long_context_price_from_the_first_token_above_200000(book: PriceBook) -> None:
    rates = book.rates("gemini-2.5-pro", provider="google_genai", on=DAY)
    assert rates.cost(Usage(input_tokens=200_000)) == 250_000_000
    assert rates.cost(Usage(input_tokens=200_001)) == 500_002_500
    assert rates.upper_bound(input_tokens=200_000, output_tokens=0) == 250_000_000
    assert rates.upper_bound(input_tokens=200_001, output_tokens=0) == 500_002_500


@pytest.mark.parametrize("tier", [None, "", "default", "standard", "auto", "on_demand", "Default"])
def test_the_standard_tier_goes_by_many_names(book: PriceBook, tier: str | None) -> None:
    assert book.rates("gpt-5", provider="openai", tier=tier, on=DAY).ref.tier == "standard"


@pytest.mark.parametrize(
    ("model", "provider", "tier", "price"),
    [
        ("gpt-5", "openai", "flex", "0.625"),
        ("gpt-5", "openai", "PRIORITY", "2.5"),
        ("gpt-5", "openai", "batch", "0.625"),
        ("gpt-5", "openai", "fast", "2.5"),
        ("claude-opus-4-8", "anthropic", "fast", "10"),
        ("claude-sonnet-4-5", "anthropic", "batch", "1.5"),
    ],
)
def test_a_tier_has_its_own_price(book: PriceBook, model: str, provider: str, tier: str, price: str) -> None:
    assert prices(book, model, provider=provider, tier=tier)["input"] == Decimal(price)


@pytest.mark.parametrize(
    ("model", "provider", "tier", "on"),
    [
        ("gpt-5", "openai", "scale", DAY),
        ("gpt-5", "openai", "made-up", DAY),
        ("gpt-4o-mini-tts", "openai", "flex", DAY),
        ("claude-sonnet-4-5", "anthropic", "priority", DAY),
        ("claude-sonnet-4-5", "azure", "batch", DAY),
        ("gpt-5", "openai", "flex", date(2026, 6, 1)),
    ],
)
def test_a_tier_without_a_price_on_that_day_is_never_the_standard_one(
    book: PriceBook, model: str, provider: str, tier: str, on: date
) -> None:
    with pytest.raises(UnknownTierError, match=rf"'{tier}'.*prices="):
        book.rates(model, provider=provider, tier=tier, on=on)


def test_deepseek_costs_the_dearest_hour_before_a_call_and_its_own_hour_after_it(book: PriceBook) -> None:
    assert prices(book, "deepseek-chat", provider="deepseek")["input"] == Decimal("0.27")
    night = datetime(2026, 11, 1, 20, tzinfo=UTC)
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert prices(book, "deepseek-chat", provider="deepseek", on=night)["input"] == Decimal("0.135")
    assert prices(book, "deepseek-chat", provider="deepseek", on=noon)["input"] == Decimal("0.27")


def test_a_published_price_change_holds_from_its_day(book: PriceBook) -> None:
    assert prices(book, "o3", provider="openai", on=date(2025, 6, 9))["output"] == 40
    assert prices(book, "o3", provider="openai", on=date(2025, 6, 10))["output"] == 8


def test_a_fee_per_request_is_part_of_the_cost(book: PriceBook) -> None:
    rates = book.rates("sonar-pro", provider="perplexity", on=DAY)
    assert rates.cost(Usage()) == 14_000_000


def test_the_same_question_is_answered_with_the_same_object(book: PriceBook) -> None:
    first = book.rates("gpt-5", provider="openai", on=DAY)
    assert book.rates("gpt-5", provider="openai", on=DAY) is first
    assert book.rates("gpt-5", provider="openai", on=datetime(2026, 11, 1, 23, tzinfo=UTC)) is first


def test_a_day_that_is_no_date_is_refused(book: PriceBook) -> None:
    with pytest.raises(TypeError, match="a date or a datetime"):
        book.rates("gpt-5", on="2026-11-01")  # type: ignore[arg-type]  # what a user may try


def test_names_that_the_world_makes_up_do_not_fill_the_memory(book: PriceBook) -> None:
    for number in range(5_000):
        with pytest.raises(UnknownModelError):
            book.rates(f"made-up-{number}", on=DAY)
    assert len(book._cache) <= 4096


def test_every_published_model_costs_what_its_own_source_calculates(book: PriceBook) -> None:
    """Standard tier at one moment, three shapes of text call, one of them in long context."""
    from genai_prices import Usage as TheirUsage
    from genai_prices.data_snapshot import get_snapshot

    moment = datetime(2026, 11, 1, 12, tzinfo=UTC)
    source = book._sources[0]
    differing = []
    compared = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            quote = source.quote(Lookup(provider=provider.id, model=model.id.lower()), tier="standard", on=DAY)
            if quote is None or provider.find_model(model.id, all_providers=None) is not model:
                continue
            rates = compile_rates(quote).at(moment)
            priced_output = "output" in dict(rates.ref.prices)
            for tokens, read, written in ((1_234, 1_000, 567), (250_001, 7, 10), (300_000, 0, 0)):
                counts = {"input_tokens": tokens, "cache_read_tokens": read, "output_tokens": written * priced_output}
                theirs = model.calc_price(TheirUsage(**counts), provider, genai_request_timestamp=moment).total_price
                compared += 1
                if rates.cost(Usage(**counts)) != round(Fraction(theirs).limit_denominator(10**15) * 10**9):
                    differing.append((provider.id, model.id, counts))
    assert differing == []
    assert compared > 5_000


def test_an_override_stands_in_front_of_the_published_price_and_replaces_it_whole() -> None:
    book = PriceBook(overrides={"gpt-5": {"input": "1", "output": "2"}})
    declared = prices(book, "gpt-5-2025-08-07", provider="openai")
    assert declared["input"] == declared["cache_read"] == declared["input_audio"] == 1
    assert declared["output"] == declared["reasoning"] == 2
    assert book.rates("gpt-5", provider="openai", on=DAY).ref.source == "override"
    with pytest.raises(UnpricedUsageError, match="web_search"):
        book.rates("gpt-5", on=DAY).cost(Usage(web_searches=1))


def test_an_override_does_not_reach_models_whose_names_only_start_the_same() -> None:
    book = PriceBook(overrides={"gpt-5": {"input": "1", "output": "2"}})
    assert prices(book, "gpt-5-mini", provider="openai")["input"] != 1


def test_an_override_with_a_provider_beats_one_without() -> None:
    book = PriceBook(overrides={"gpt-5": {"input": "1", "output": "2"}, "azure/gpt-5": {"input": "3", "output": "4"}})
    assert prices(book, "gpt-5", provider="azure")["input"] == 3
    assert prices(book, "gpt-5", provider="openai")["input"] == 1


def test_a_discount_alone_comes_off_the_published_price_in_every_tier() -> None:
    book = PriceBook(overrides={"gpt-5": {"discount": "0.2"}})
    assert prices(book, "gpt-5", provider="openai")["input"] == Decimal("1.00")
    assert prices(book, "gpt-5", provider="openai", tier="flex")["input"] == Decimal("0.5")
    assert book.rates("gpt-5", provider="openai", on=DAY).ref.source == "genai-prices, discounted"


def test_an_alias_says_what_a_deployment_really_is() -> None:
    book = PriceBook(aliases={"My-Prod-GPT4o": "azure/gpt-4o"})
    ref = book.rates("my-prod-gpt4o", provider="openai", on=DAY).ref
    assert (ref.provider, ref.model) == ("azure", "gpt-4o")


def test_a_declared_price_of_zero_is_a_price() -> None:
    book = PriceBook(overrides={"llama3": {"input": 0, "output": "0"}})
    rates = book.rates("llama3", provider="ollama", on=DAY)
    assert rates.cost(Usage(input_tokens=10**6, output_tokens=10**6, cache_write_1h_tokens=10)) == 0
    assert rates.upper_bound(input_tokens=10**6, output_tokens=10**6) == 0


def test_the_version_changes_with_everything_that_can_change_a_price(book: PriceBook, tmp_path: Path) -> None:
    listing = tmp_path / "list.json"
    listing.write_text('{"x": {"litellm_provider": "openai", "input_cost_per_token": 1e-6}}')
    versions = {
        book.version,
        PriceBook(overrides={"m": {"input": "1", "output": "2"}}).version,
        PriceBook(overrides={"m": {"input": "1", "output": "3"}}).version,
        PriceBook(overrides={"m": {"input": "1", "output": "3", "effective": "2026-01-01"}}).version,
        PriceBook(overrides={"m": {"discount": "0.1"}}).version,
        PriceBook(overrides={"tool:m": "$1"}).version,
        PriceBook(aliases={"m": "gpt-5"}).version,
        PriceBook(litellm_json=listing).version,
    }
    assert len(versions) == 8
    assert all(version.startswith("genai-prices ") for version in versions)
    assert PriceBook().version == book.version
    one = PriceBook(overrides={"m": {"input": "1.0", "output": 2}, "n": {"input": 1, "output": 1}})
    same = PriceBook(overrides={"n": {"output": "1", "input": "1"}, "m": {"output": "2", "input": 1.0}})
    assert one.version == same.version


@pytest.mark.parametrize("aliases", [{"a": ""}, {"a": 3}, {"": "gpt-5"}])
def test_an_alias_that_names_nothing_is_refused(aliases: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="aliases"):
        PriceBook(aliases=aliases)


@pytest.mark.parametrize("overrides", [["gpt-5"], 3, {3: {"input": 1}}])
def test_prices_of_another_kind_are_refused(overrides: Any) -> None:
    with pytest.raises(ConfigurationError, match="prices"):
        PriceBook(overrides=overrides)


def test_price_data_is_not_loaded_before_a_book_is_built() -> None:
    probe = (
        "import sys, agentbudget.pricing.book; print(sorted(m for m in sys.modules if m.startswith('genai_prices')))"
    )
    assert json.loads(run([sys.executable, "-c", probe], capture_output=True, check=True).stdout) == []
