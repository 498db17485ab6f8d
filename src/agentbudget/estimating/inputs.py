"""The input bound of one model, and what it learns from each reported count."""

from __future__ import annotations

from collections import deque

from agentbudget.estimating.families import (
    AUDIO_TOKENS_PER_BYTE,
    DOCUMENT_TOKENS_PER_BYTE,
    REMOTE_FILE_TOKENS,
    VIDEO_TOKENS_PER_BYTE,
    Family,
)
from agentbudget.estimating.sizes import RequestSize

MARGIN = 1.03
"""On the whole sum: providers re-send reasoning and wrap messages, which a margin on the appended text misses."""

REQUEST_TOKENS, MESSAGE_TOKENS, TOOL_TOKENS = 56, 8, 16
"""What a provider adds to a request, to each message and to each tool schema at most."""

APPENDED_MARGIN = 2.0
"""On the learned rate of appended text. With 2.0, 0.1 of 1,000 recorded calls were too low; with 1.5, 0.7."""

START_RATE = 0.30
"""Tokens per byte of appended text before anything was seen, in the worst family measured."""

MIN_RATE = 0.15
"""The learned rate never falls below this, the lowest of any language measured."""

_START_BYTES = 2_000  # the weight of the start rate against what is seen
_FORGET_BYTES = 500_000  # counts are halved here, so that the rate follows the work

FIRST_MARGIN = 1.4
"""On the highest of the first calls seen whose text was of the same kind."""

_ENOUGH, _KEPT, _KINDS = 4, 16, 12.5  # first calls needed; kept for each kind; kinds per unit of density
_KEYS = 0.7  # denser text is no prose or code: nothing is learned downwards from it
_FLOOR = 0.3
_TEACHES_BYTES = 1_000  # below this, a first call's count is mostly wrapping
_RAISE, _MAX_SCALE = 1.15, 4.0


class InputModel:
    """Bounds and learns the input tokens of one model. Not locked: the `Estimator` serialises `observe`."""

    __slots__ = ("_bytes", "_family", "_first", "_most", "_rate", "_scale", "_tokens")

    def __init__(self, family: Family) -> None:
        self._family = family
        self._scale = family.scale
        self._most = 1.0  # tokens per byte: no byte-level tokenizer makes more tokens than bytes
        self._bytes = float(_START_BYTES)
        self._tokens = START_RATE * family.scale * _START_BYTES
        self._rate = self._tokens / self._bytes
        self._first: dict[int, deque[float]] = {}

    def bound(self, size: RequestSize) -> int:
        """Upper bound of the input tokens of a request of this *size*."""
        anchor = size.anchor_tokens
        rate = self._scale * size.density
        if rate > self._most:  # noqa: PLR1730 - asked before every call, where two names cost less than a function
            rate = self._most
        if anchor is None:
            if self._first:
                rate = min(rate, self._first_scale(size) * size.density)
            known = self._wrapping(size) if size.tools else REQUEST_TOKENS
        else:
            known = anchor + REQUEST_TOKENS
            if rate < APPENDED_MARGIN * self._rate:  # noqa: PLR1730 - as above
                rate = APPENDED_MARGIN * self._rate
        tokens = known + MESSAGE_TOKENS * size.appended_messages + rate * size.appended_bytes
        if size.has_media:
            tokens += self._media(size)
        return int(tokens * MARGIN) + 1

    def counted(self, size: RequestSize, text_tokens: int) -> int:
        """The bound where the text of a first call was tokenised: its exact count, and what wraps it."""
        tokens = text_tokens + self._wrapping(size) + MESSAGE_TOKENS * size.appended_messages
        return int((tokens + self._media(size)) * MARGIN) + 1

    def observe(self, size: RequestSize, actual: int) -> None:
        """Learn from the count that the provider reported for a request of this *size*."""
        appended, anchor = size.appended_bytes, size.anchor_tokens
        if not appended or size.has_media:
            return
        if anchor is None:
            if appended >= _TEACHES_BYTES and size.density:
                self._observe_first(size, actual)
            return
        seen = actual - anchor
        if seen > 0:
            self._tokens += min(seen, appended)
        self._bytes += appended
        if self._bytes > _FORGET_BYTES:
            self._bytes /= 2
            self._tokens /= 2
        self._rate = max(MIN_RATE, self._tokens / self._bytes)

    def _observe_first(self, size: RequestSize, actual: int) -> None:
        text = size.appended_bytes * size.density
        alone = (actual - self._wrapping(size)) / text
        if alone > self._scale:  # the bound was too low: never again for this model
            self._scale = min(_MAX_SCALE, _RAISE * alone)
            self._most = max(1.0, self._scale * size.density)  # ... but a provider may add to the prompt
        if size.plain and size.density < _KEYS:
            self._first.setdefault(int(size.density * _KINDS), deque(maxlen=_KEPT)).append(actual / text)

    def _first_scale(self, size: RequestSize) -> float:
        seen = self._first.get(int(size.density * _KINDS)) if size.plain and size.density < _KEYS else None
        if seen is None or len(seen) < _ENOUGH:
            return self._scale
        return min(self._scale, max(_FLOOR, FIRST_MARGIN * max(seen)))

    def _wrapping(self, size: RequestSize) -> int:
        """What a provider adds to a first call, but for its messages."""
        return REQUEST_TOKENS + TOOL_TOKENS * size.tools + (self._family.tool_preamble if size.tools else 0)

    def _media(self, size: RequestSize) -> float:
        return (
            self._family.image_tokens * size.images
            + AUDIO_TOKENS_PER_BYTE * size.audio_bytes
            + VIDEO_TOKENS_PER_BYTE * size.video_bytes
            + DOCUMENT_TOKENS_PER_BYTE * size.document_bytes
            + REMOTE_FILE_TOKENS * size.remote_files
        )
