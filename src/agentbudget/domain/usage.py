"""What a provider counted for one attempt."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

MAX_TOKENS = 10**12
"""A count above this is nonsense, not usage."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Counts of one attempt, in tokens unless the name says otherwise.

    `input_tokens` includes cache reads, cache writes and input audio and images; `output_tokens` includes
    reasoning and output audio (LangChain's and OpenTelemetry's convention). Pricing splits them into disjoint buckets.

    Raises:
        TypeError: there is no such count.
        ValueError: a count is not an int, is negative or above `MAX_TOKENS`, or the parts exceed their whole.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    cache_audio_read_tokens: int = 0
    input_image_tokens: int = 0
    output_image_tokens: int = 0
    web_searches: int = 0

    if not TYPE_CHECKING:

        def __init__(self, **counts: int) -> None:
            # The generated one would set every field by itself, which for a frozen class takes three times as long.
            for name, count in counts.items():
                if type(count) is not int or not 0 <= count <= MAX_TOKENS:
                    msg = f"{name}={count!r}: a count is an int from 0 to {MAX_TOKENS}."
                    raise ValueError(msg)
            known = self.__dict__
            known.update(_ZEROS)
            known.update(counts)
            if len(known) > len(_ZEROS):
                msg = f"Usage has no {sorted(counts.keys() - _ZEROS.keys())}: its counts are {list(_ZEROS)}."
                raise TypeError(msg)
            cached = self.cache_read_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens
            if cached > self.input_tokens:
                msg = f"cached tokens ({cached}) exceed input_tokens ({self.input_tokens}), which must include them."
                raise ValueError(msg)
            if self.reasoning_tokens + self.output_audio_tokens > self.output_tokens:
                msg = (
                    f"reasoning ({self.reasoning_tokens}) and audio ({self.output_audio_tokens}) tokens exceed "
                    f"output_tokens ({self.output_tokens}), which must include them."
                )
                raise ValueError(msg)

    @property
    def total_tokens(self) -> int:
        """Input plus output."""
        return self.input_tokens + self.output_tokens

    @property
    def uncached_tokens(self) -> int:
        """Total without cache reads: what a token cap that does not punish re-sent context counts."""
        return self.input_tokens + self.output_tokens - self.cache_read_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in _ZEROS})

    def to_dict(self) -> dict[str, int]:
        """The counts that are not zero, by name."""
        return {name: count for name, count in self.__dict__.items() if count}


_ZEROS = {field.name: 0 for field in fields(Usage)}
