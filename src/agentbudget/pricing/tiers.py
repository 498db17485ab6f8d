"""Service tiers as responses name them. An unknown tier is passed on, never taken for the standard one."""

from __future__ import annotations

from collections.abc import Mapping

STANDARD = "standard"

_STANDARD = {"", "auto", "default", "on_demand", STANDARD}
_SYNONYMS = {"batches": "batch"}


def tier_of(name: str | None) -> str:
    """The tier in lower case; `standard` for None and for every word that vendors use for it."""
    tier = (name or "").strip().lower()
    return STANDARD if tier in _STANDARD else _SYNONYMS.get(tier, tier)


def context_of(tier: str) -> tuple[Mapping[str, str], ...]:
    """How genai-prices may say *tier*: batch is a way of processing, fast a tier or a speed, the rest are tiers."""
    if tier == "batch":
        return ({"processing": "batch"},)
    if tier == "fast":
        return {"service_tier": "fast"}, {"speed": "fast"}
    return ({"service_tier": tier},)
