"""How much output to reserve for one model when nobody capped it, and how a stream's reservation grows."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

START = 2_048
"""Tokens reserved before the model was seen. Twice that, at $120 a million, would refuse the first call in $0.50."""

LEAST = 256
"""The bound never falls below this: a short answer may be followed by a tool call with a file in it."""

MARGIN = 1.5
"""On the model's own high percentile."""

PERCENTILE = 95
KEPT = 64
"""Recent outputs a model is judged by."""

_FADE = 4  # outputs until the start value counts for nothing
_GROW, _SHRINK, _MOST = 1.5, 0.8, 2.0

TOKENS_PER_BYTE = 0.25
"""Of text that a stream has sent: English and code give 0.20 to 0.25, JSON 0.36."""

_STEP = 128


class OutputModel:
    """The learned output bound of one model: a margin over the 95th percentile of its last 64 outputs.

    After an output above the bound the bound grows by half, at most to twice; each output below it shrinks that
    again. Not locked: the `Estimator` serialises `observe`.
    """

    __slots__ = ("_boost", "_ordered", "_recent", "bound")

    def __init__(self) -> None:
        self._recent: deque[int] = deque()
        self._ordered: list[int] = []
        self._boost = 1.0
        self.bound = START

    def observe(self, tokens: int) -> None:
        """Learn from *tokens* that the provider reported."""
        if tokens > self.bound:
            self._boost = min(_MOST, self._boost * _GROW)
        elif self._boost > 1.0:
            self._boost = max(1.0, self._boost * _SHRINK)
        ordered, recent = self._ordered, self._recent
        recent.append(tokens)
        insort(ordered, tokens)
        if len(ordered) > KEPT:
            del ordered[bisect_left(ordered, recent.popleft())]
        seen = len(ordered)
        base = max(LEAST, MARGIN * ordered[PERCENTILE * seen // 100])
        if seen < _FADE:
            base = max(base, START * (_FADE - seen) / _FADE)
        self.bound = int(base * self._boost)


def produced(chunks: int, size: int) -> int:
    """Tokens that a stream of *chunks* non-empty chunks and *size* bytes has produced, about: providers send one token
    a chunk, or dozens."""
    return max(chunks, int(TOKENS_PER_BYTE * size + 0.999))


def extension(reserved: int, done: int) -> int:
    """Tokens to add to a reservation of *reserved* output tokens after *done* of them were produced; 0 for not yet.

    It asks when less than an eighth is left and adds a quarter, so a stream that grows tenfold asks about ten times.
    """
    if done < reserved - max(reserved // 8, 16):
        return 0
    return max(_STEP, max(reserved, done) // 4) + max(0, done - reserved)
