"""Names as they really occur, and who bills for them."""

import pytest

from agentbudget.pricing.names import Lookup, declared_under, lookups, provider_of_url, undated


@pytest.mark.parametrize(
    ("model", "provider", "base_url", "expected"),
    [
        ("gpt-4o", "openai", None, "openai gpt-4o"),
        ("GPT-4o ", "OpenAI", None, "openai gpt-4o"),
        ("openai/gpt-4o", None, None, "openai gpt-4o"),
        ("openai:gpt-4o", None, None, "openai gpt-4o"),
        ("litellm_proxy/azure/gpt-4o", "litellm", None, "azure gpt-4o"),
        ("gpt-4o", "azure", None, "azure gpt-4o"),
        ("openai/gpt-4o", "azure", None, "azure gpt-4o"),
        ("gpt-4o", "openai", "https://mine.openai.azure.com/", "azure gpt-4o"),
        ("claude-sonnet-4-5", "openai", "https://mine.services.ai.azure.com/anthropic", "azure claude-sonnet-4-5"),
        ("gpt-4o", "openai", "https://eu.api.openai.com/v1", "openai gpt-4o"),
        ("gpt-4o", "openai", "http://127.0.0.1:8080/v1", "openai gpt-4o"),
        ("claude-sonnet-4-5", "openai", "http://proxy.internal:4000", "anthropic claude-sonnet-4-5"),
        ("my-model", "openai", "http://proxy.internal:4000", "openai my-model"),
        ("claude-sonnet-4-5", "anthropic", None, "anthropic claude-sonnet-4-5"),
        ("anthropic/claude-sonnet-4-5", "openai", None, "anthropic claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "google_vertexai", None, "google claude-sonnet-4-5@20250929"),
        ("models/gemini-2.5-pro", "google_genai", None, "google gemini-2.5-pro"),
        ("gemini/gemini-2.5-pro", None, None, "google gemini-2.5-pro"),
        ("us.anthropic.claude-opus-4-5-20251101-v1:0", None, None, "aws us.anthropic.claude-opus-4-5-20251101-v1:0"),
        ("anthropic.claude-3-haiku-20240307-v1:0", "anthropic", None, "aws anthropic.claude-3-haiku-20240307-v1:0"),
        ("bedrock/converse/amazon.nova-pro-v1:0", None, None, "aws amazon.nova-pro-v1:0"),
        ("amazon.nova-pro-v1:0", "bedrock_converse", None, "aws amazon.nova-pro-v1:0"),
        ("my-profile", "amazon_bedrock", None, "aws my-profile"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", None, None, "openai ft:gpt-4o-mini-2024-07-18:org::id"),
        ("grok-4", "xai", None, "x-ai grok-4"),
        ("mistral-large-latest", "mistralai", None, "mistral mistral-large-latest"),
        ("meta-llama/Llama-3.3-70B", "together", None, "together meta-llama/llama-3.3-70b"),
        ("openai/gpt-oss-120b", "groq", None, "groq openai/gpt-oss-120b"),
        ("groq/llama-3.3-70b-versatile", None, None, "groq llama-3.3-70b-versatile"),
        ("accounts/fireworks/models/x", "fireworks", None, "fireworks accounts/fireworks/models/x"),
        ("deepseek-r1", "ollama", None, "self-hosted deepseek-r1"),
        ("gpt-4o", "ScriptedModel", None, "openai gpt-4o"),
        ("deepseek-ai/deepseek-r1", None, None, "None deepseek-ai/deepseek-r1"),
        ("openai/gpt-oss-20b", None, None, "None openai/gpt-oss-20b"),
        ("mistralai/Mistral-7B-Instruct", None, None, "None mistralai/mistral-7b-instruct"),
        ("gpt-oss-20b", None, None, "None gpt-oss-20b"),
        ("some-model", None, None, "None some-model"),
    ],
)
def test_a_name_is_looked_up_with_whoever_bills_for_it(
    model: str, provider: str | None, base_url: str | None, expected: str
) -> None:
    (place,) = lookups(model, provider, base_url)
    assert f"{place.provider} {place.model}" == expected


def test_a_closed_model_at_openrouter_may_cost_what_its_maker_lists_and_an_open_one_may_not() -> None:
    assert lookups("google/gemini-3-pro-preview", "openrouter") == (
        Lookup(provider="openrouter", model="google/gemini-3-pro-preview"),
        Lookup(provider="google", model="gemini-3-pro-preview"),
    )
    for open_model in ("qwen/qwen3-32b", "openai/gpt-oss-20b", "google/gemma-3-27b-it", "openai/gpt-4o:free"):
        assert lookups(open_model, "openai", "https://openrouter.ai/api/v1") == (
            Lookup(provider="openrouter", model=open_model),
        )


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("api.anthropic.com", "anthropic"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com", "aws"),
        ("https://us-central1-aiplatform.googleapis.com/v1", "google"),
        ("https://evil-api.openai.com.example.org/v1", None),
        ("http://localhost:8000", None),
        ("", None),
        (None, None),
    ],
)
def test_a_provider_is_known_by_its_host_and_by_nothing_that_looks_like_it(
    url: str | None, provider: str | None
) -> None:
    assert provider_of_url(url) == provider


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("gpt-4-1106-preview", "gpt-4-1106-preview"),
        ("gpt-4o-audio-preview", "gpt-4o-audio-preview"),
        ("model-20251399", "model-20251399"),
    ],
)
def test_only_the_date_of_a_snapshot_is_dropped(name: str, bare: str) -> None:
    assert undated(name) == bare


def test_a_declared_name_binds_a_provider_only_if_it_names_one() -> None:
    assert declared_under("gpt-4o") == Lookup(provider=None, model="gpt-4o")
    assert declared_under("azure/gpt-4o") == Lookup(provider="azure", model="gpt-4o")
    assert declared_under("ft:gpt-4o:org::id") == Lookup(provider=None, model="ft:gpt-4o:org::id")
