"""The disjoint buckets in which usage is paid, and which bucket's price stands in where a source lists none."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Final, Literal

from agentbudget.domain.usage import Usage

Bucket = Literal[
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "input_audio",
    "cache_audio_read",
    "input_image",
    "output",
    "reasoning",
    "output_audio",
    "output_image",
    "web_search",
    "request",
]
"""`input` and `output` are what the finer buckets leave over; `request` is a fee that every call pays once."""

Prices = Mapping[Bucket, Fraction]
"""Dollars per million tokens; per single search and per single request for the buckets in `PER_UNIT`."""

INPUT_BUCKETS: Final[tuple[Bucket, ...]] = (
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "input_audio",
    "cache_audio_read",
    "input_image",
)
OUTPUT_BUCKETS: Final[tuple[Bucket, ...]] = ("output", "reasoning", "output_audio", "output_image")
PER_UNIT: Final[tuple[Bucket, ...]] = ("web_search", "request")
BUCKETS: Final[tuple[Bucket, ...]] = INPUT_BUCKETS + OUTPUT_BUCKETS + PER_UNIT

Fallbacks = tuple[tuple[Bucket, Bucket], ...]
"""Pairs (bucket, bucket whose price stands in), applied in order."""

LISTED: Final[Fallbacks] = (
    ("cache_read", "input"),
    ("reasoning", "output"),
    ("input_image", "input"),
    ("cache_audio_read", "input_audio"),
)
"""For published price lists: only where the stand-in is the vendors' rule (reasoning is output, image input is input)
or cannot undercharge (a cached token without a listed discount is a full one). Cache writes, audio, generated images
and web searches cost more than the bucket around them, so without a listed price they are unpriced, not cheap."""

DECLARED: Final[Fallbacks] = (
    *LISTED,
    ("cache_write_5m", "input"),
    ("cache_write_1h", "cache_write_5m"),
    ("input_audio", "input"),
    ("cache_audio_read", "input_audio"),
    ("output_audio", "output"),
    ("output_image", "output"),
)
"""For prices a user declares: a token without a finer declaration costs what the user said that tokens cost."""


def complete(prices: Prices, fallbacks: Fallbacks) -> dict[Bucket, Fraction]:
    """*prices* with each missing bucket filled from its stand-in, where there is one. A call pays no fee by default."""
    full: dict[Bucket, Fraction] = {"request": Fraction(0), **prices}
    for bucket, stand_in in fallbacks:
        if bucket not in full and stand_in in full:
            full[bucket] = full[stand_in]
    return full


def split(usage: Usage) -> dict[Bucket, int]:
    """The disjoint counts of *usage*, one per bucket, none negative.

    Input buckets add up to `input_tokens`, output buckets to `output_tokens`. A provider may report more audio or
    image tokens than there are uncached ones; the rest of them were cached, so the fresh ones are capped there.
    """
    cache_audio = min(usage.cache_audio_read_tokens, usage.cache_read_tokens)
    fresh = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_5m_tokens - usage.cache_write_1h_tokens
    audio = min(max(usage.input_audio_tokens - cache_audio, 0), fresh)
    image = min(usage.input_image_tokens, fresh - audio)
    written = usage.output_tokens - usage.reasoning_tokens - usage.output_audio_tokens
    drawn = min(usage.output_image_tokens, written)
    return {
        "input": fresh - audio - image,
        "cache_read": usage.cache_read_tokens - cache_audio,
        "cache_write_5m": usage.cache_write_5m_tokens,
        "cache_write_1h": usage.cache_write_1h_tokens,
        "input_audio": audio,
        "cache_audio_read": cache_audio,
        "input_image": image,
        "output": written - drawn,
        "reasoning": usage.reasoning_tokens,
        "output_audio": usage.output_audio_tokens,
        "output_image": drawn,
        "web_search": usage.web_searches,
        "request": 1,
    }
