"""A LiteLLM-format price list behind the default source."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from agentbudget.domain.usage import Usage
from agentbudget.errors import ConfigurationError, UnknownModelError, UnknownTierError, UnpricedUsageError
from agentbudget.pricing.book import PriceBook

DAY = date(2026, 11, 1)
LIST: dict[str, Any] = {
    "sample_spec": {"input_cost_per_token": "what it costs"},
    "gpt-5": {"litellm_provider": "openai", "input_cost_per_token": 99e-6, "output_cost_per_token": 99e-6},
    "gpt-next": {
        "litellm_provider": "openai",
        "input_cost_per_token": 1.25e-06,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "input_cost_per_token_flex": 6.25e-07,
        "input_cost_per_token_batches": None,
        "output_cost_per_token": 1e-05,
        "output_cost_per_token_flex": 5e-06,
        "cache_read_input_token_cost": 1.25e-07,
        "cache_creation_input_token_cost": 1.5e-06,
        "cache_creation_input_token_cost_above_1hr": 2.5e-06,
        "output_cost_per_reasoning_token": 2e-05,
        "search_context_cost_per_query": {"search_context_size_low": 0.01, "search_context_size_high": 0.05},
        "max_input_tokens": 400000,
        "mode": "chat",
    },
    "azure/gpt-next": {"litellm_provider": "azure", "input_cost_per_token": 9e-06, "output_cost_per_token": 9e-06},
    "fireworks_ai/some-llm": {"litellm_provider": "fireworks_ai", "input_cost_per_token": 1e-06},
    "vertex_ai/gem-x": {"litellm_provider": "vertex_ai-language-models", "input_cost_per_token": 3e-06},
    "marginal": {"litellm_provider": "openai", "input_cost_per_token": 1e-06, "tiered_pricing": [{"range": [0, 1]}]},
    "per-second": {"litellm_provider": "openai", "output_cost_per_second": 0.1},
}


@pytest.fixture
def book(tmp_path: Path) -> PriceBook:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(LIST))
    return PriceBook(litellm_json=path)


def test_the_list_is_asked_only_where_the_default_source_knows_nothing(book: PriceBook) -> None:
    assert book.rates("gpt-5", provider="openai", on=DAY).ref.source == "genai-prices"
    assert book.rates("gpt-next", provider="openai", on=DAY).ref.source == "litellm"


def test_every_price_of_the_list_is_read_exactly(book: PriceBook) -> None:
    listed = dict(book.rates("gpt-next", provider="openai", on=DAY).ref.prices)
    assert listed["input"] == "1.25"
    assert listed["input>200000"] == "2.5"
    assert listed["cache_read"] == "0.125"
    assert listed["cache_write_5m"] == "1.5"
    assert listed["cache_write_1h"] == "2.5"
    assert listed["reasoning"] == "20"
    assert listed["web_search"] == "0.05"
    assert "output>200000" not in listed


def test_a_tier_of_the_list_has_its_own_price_and_any_other_is_unknown(book: PriceBook) -> None:
    flex = dict(book.rates("gpt-next", provider="openai", tier="flex", on=DAY).ref.prices)
    assert (flex["input"], flex["output"], flex["cache_read"]) == ("0.625", "5", "0.125")
    with pytest.raises(UnknownTierError, match="'batch'"):
        book.rates("gpt-next", provider="openai", tier="batch", on=DAY)


@pytest.mark.parametrize(
    ("model", "provider", "matched"),
    [
        ("gpt-next", "azure", "azure/gpt-next"),
        ("azure/gpt-next", None, "azure/gpt-next"),
        ("some-llm", "fireworks", "fireworks_ai/some-llm"),
        ("gem-x", "google_vertexai", "vertex_ai/gem-x"),
    ],
)
def test_the_lists_own_provider_prefixes_are_understood(
    book: PriceBook, model: str, provider: str | None, matched: str
) -> None:
    assert book.rates(model, provider=provider, on=DAY).ref.model == matched


@pytest.mark.parametrize(
    ("model", "provider"),
    [("gpt-next", "anthropic"), ("gpt-next", "ollama"), ("marginal", "openai"), ("per-second", "openai")],
)
def test_another_providers_price_and_a_price_of_another_kind_are_no_price(
    book: PriceBook, model: str, provider: str
) -> None:
    with pytest.raises(UnknownModelError):
        book.rates(model, provider=provider, on=DAY)


def test_output_without_a_listed_price_is_unpriced(book: PriceBook) -> None:
    with pytest.raises(UnpricedUsageError, match="'output'"):
        book.rates("some-llm", provider="fireworks", on=DAY).cost(Usage(output_tokens=1))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "expected LiteLLM's format"),
        ('{"a": 1}', "expected LiteLLM's format"),
        ('{"a": {}}', "no model in it"),
        ('{"a": {"input_cost_per_token": -1}}', "not negative"),
        ('{"a": {"input_cost_per_token": NaN}}', "finite"),
        ('{"a": {"input_cost_per_token": true}}', "not bool"),
        ('{"a": {"input_cost_per_token": 1.5}}', "a dollar per token"),
        ('{"a": {"input_cost_per_token": "cheap"}}', "'a': 'input_cost_per_token' is 'cheap'"),
    ],
)
def test_a_file_that_is_no_such_list_is_refused_when_the_book_is_built(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        PriceBook(litellm_json=path)


def test_an_unreadable_list_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"litellm_json=.*cannot be read"):
        PriceBook(litellm_json=tmp_path)
