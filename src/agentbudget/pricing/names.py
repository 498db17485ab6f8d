"""Names as they really occur: which provider bills a call, and under which name its price is listed.

Nothing here guesses a price: it only says where to look, most specific place first. A name that no rule knows is
looked up nowhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_CANONICAL = {
    "anthropic": ("anthropic",),
    "aws": ("aws", "amazon_bedrock", "bedrock", "bedrock_converse", "anthropic_bedrock", "amazon"),
    "azure": ("azure", "azure_openai", "azure_ai", "azure_chat_openai"),
    "cerebras": ("cerebras",),
    "cohere": ("cohere",),
    "databricks": ("databricks",),
    "deepseek": ("deepseek",),
    "fireworks": ("fireworks", "fireworks_ai"),
    "github-copilot": ("github_copilot", "copilot"),
    "google": (
        *("google", "google_genai", "google_vertexai", "google_anthropic_vertex", "google_vertex", "google_gla"),
        *("gemini", "vertexai", "vertex_ai", "vertex"),
    ),
    "groq": ("groq",),
    "mistral": ("mistral", "mistralai", "mistral_ai"),
    "moonshotai": ("moonshotai", "moonshot"),
    "novita": ("novita",),
    "openai": ("openai", "openai_codex"),
    "openrouter": ("openrouter",),
    "perplexity": ("perplexity",),
    "together": ("together", "together_ai", "togetherai"),
    "x-ai": ("x_ai", "xai"),
    # No published price list belongs to these: the price is the user's to declare.
    "self-hosted": (
        *("ollama", "vllm", "llamacpp", "llama_cpp", "lmstudio", "lm_studio", "mlx", "huggingface", "hf"),
        *("huggingface_endpoint", "huggingface_pipeline", "nvidia", "xinference", "localai", "tgi"),
    ),
}
_PROVIDERS = {name: provider for provider, names in _CANONICAL.items() for name in names}

_HOSTS = {
    "api.anthropic.com": "anthropic",
    "openai.azure.com": "azure",
    "azure-api.net": "azure",
    "cognitiveservices.azure.com": "azure",
    "services.ai.azure.com": "azure",
    "api.cerebras.ai": "cerebras",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "cloud.databricks.com": "databricks",
    "azuredatabricks.net": "databricks",
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "api.githubcopilot.com": "github-copilot",
    "googleapis.com": "google",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.moonshot.ai": "moonshotai",
    "api.moonshot.cn": "moonshotai",
    "api.novita.ai": "novita",
    "api.openai.com": "openai",
    "openrouter.ai": "openrouter",
    "api.perplexity.ai": "perplexity",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.x.ai": "x-ai",
}

_PROXIES = {"litellm", "litellm_proxy", "openai_like", "custom_openai"}
"""Prefixes and hints that name a way to reach a provider, not a provider."""

_RESELLERS = {"fireworks", "groq", "novita", "openrouter", "together", "cerebras", "self-hosted"}
"""Their models carry a maker's prefix of their own (`meta-llama/...`), which is part of the name."""

_OPEN_WEIGHTS = ("mistralai/", "openai/gpt-oss", "google/gemma", "deepseek-ai/")
"""Repositories of open weights: anybody may host them, so the prefix names no biller."""

_CLOUDS = {"azure", "aws", "google", "databricks", "github-copilot"}
"""They sell other makers' models at their own prices, so a maker's prefix does not change who bills."""

_PASSED_THROUGH = {"anthropic", "google", "openai", "x-ai"}
"""Closed models, which OpenRouter sells at the maker's list price; an open model's price depends on the host."""

_FIRST_PARTY = (
    (
        "openai",
        re.compile(r"gpt-(?!oss)|o\d(-|$)|chatgpt-|ft:(gpt|davinci|babbage)-|text-embedding-(3|ada)|davinci-002"),
    ),
    ("anthropic", re.compile(r"claude-")),
    ("google", re.compile(r"gemini-")),
    ("x-ai", re.compile(r"grok-")),
    ("cohere", re.compile(r"command-")),
    ("mistral", re.compile(r"(mistral|ministral|magistral|codestral|devstral|pixtral)-[a-z0-9-]*latest$")),
    ("deepseek", re.compile(r"deepseek-(chat|reasoner)$")),
    ("perplexity", re.compile(r"sonar(-|$)")),
)
"""Names that only their maker uses, for a call without a usable provider hint."""

_BEDROCK = re.compile(
    r"arn:aws[a-z-]*:bedrock:"
    r"|((us|eu|apac|ap|jp|au|ca|sa|global|us-gov)\.)?"
    r"(ai21|amazon|anthropic|cohere|deepseek|meta|mistral|openai|qwen|stability|writer|twelvelabs)\.[a-z]"
)

_DATED = re.compile(r"[-@](20\d{2}-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01]))$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One place to look: a provider's canonical id (None: nobody known) and the model's name there, lower case."""

    provider: str | None
    model: str


def canonical_provider(name: str | None) -> str | None:
    """The canonical id of a provider as LangChain, LiteLLM or a user writes it; None if it is not known."""
    return _PROVIDERS.get(name.strip().lower().replace("-", "_")) if name else None


def provider_of_url(url: str | None) -> str | None:
    """The provider behind a base URL; None for a host that is not known, such as a proxy or a local server."""
    if not url:
        return None
    host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
    if host.startswith("bedrock") and host.endswith(".amazonaws.com"):
        return "aws"
    labels = host.split(".")
    return next((_HOSTS[tail] for i in range(len(labels)) if (tail := ".".join(labels[i:])) in _HOSTS), None)


def lookups(model: str, provider: str | None = None, base_url: str | None = None) -> tuple[Lookup, ...]:
    """Where the price of *model* may be listed, in the order to look. Never empty; the first is who most likely bills.

    *provider* is a hint such as LangChain's `ls_provider`. A base URL of a known host outweighs it (every
    OpenAI-compatible client says "openai"); behind an unknown host, a proxy or a stand-in, a name that only its maker
    uses is the maker's, and for any other the hint stands. A provider written before the name
    (`azure/gpt-4o`, `openai:gpt-5`) outweighs the hint of a client that reaches many.
    """
    name = model.strip().lower()
    known_host = provider_of_url(base_url)
    hint = known_host or canonical_provider(provider)
    prefix, rest = _split_prefix(name)
    if hint in _RESELLERS:
        return _reseller(hint, rest if prefix == hint else name)
    if prefix in _RESELLERS:
        return _reseller(prefix, rest)
    if prefix is not None:
        hint, name = (hint if hint in _CLOUDS else prefix), rest
    if _BEDROCK.match(name):
        return (Lookup(provider="aws", model=name),)
    if name.startswith(("models/", "publishers/")):
        hint, name = hint or "google", name.rsplit("models/", 1)[-1]
    if hint is None or (base_url and known_host is None and hint not in _CLOUDS):
        hint = _maker(name) or hint
    return (Lookup(provider=hint, model=name),)


def declared_under(model: str) -> Lookup:
    """The key of a price that a user declares for *model*: with a provider only if one is written before the name."""
    place = lookups(model)[0]
    return place if _split_prefix(model.strip().lower())[0] else Lookup(provider=None, model=place.model)


def undated(model: str) -> str:
    """*model* without the date of its snapshot: `gpt-4o-2024-08-06` is a `gpt-4o`."""
    return _DATED.sub("", model)


def _split_prefix(name: str) -> tuple[str | None, str]:
    """The provider written before *name*, if there is one, and the rest. Proxies' prefixes are dropped."""
    match = re.match(r"([a-z0-9_-]+)[/:](.+)", name)
    if match is None:
        return None, name
    prefix, rest = match[1], match[2]
    if prefix in _PROXIES:
        return _split_prefix(rest)
    if name.startswith(_OPEN_WEIGHTS):
        return None, name
    provider = canonical_provider(prefix)
    if provider == "aws":
        rest = rest.removeprefix("converse/").removeprefix("invoke/")
    return (None, name) if provider is None else (provider, rest)


def _reseller(provider: str | None, name: str) -> tuple[Lookup, ...]:
    first = Lookup(provider=provider, model=name)
    maker, rest = _split_prefix(name)
    if provider == "openrouter" and maker in _PASSED_THROUGH and ":" not in rest:
        return first, Lookup(provider=maker, model=rest)
    return (first,)


def _maker(name: str) -> str | None:
    return next((provider for provider, pattern in _FIRST_PARTY if pattern.match(name)), None)
