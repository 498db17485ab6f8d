"""The estimator: one for a governor, shared by all its threads and tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock

from agentbudget.estimating import outputs
from agentbudget.estimating.families import family_of
from agentbudget.estimating.inputs import InputModel
from agentbudget.estimating.outputs import OutputModel
from agentbudget.estimating.sizes import RequestSize
from agentbudget.estimating.vocabulary import Vocabulary

MAX_MODELS = 256
"""Models remembered; the one not heard of for longest is forgotten."""

MAX_COUNTED_BYTES = 65_536
"""First calls up to this size are tokenised where a vocabulary is at hand: some 15 ms at worst, 1 ms for 10 kB."""


class _Model:
    __slots__ = ("encoding", "heard", "input", "output")

    def __init__(self, name: str) -> None:
        family = family_of(name)
        self.encoding = family.encoding
        self.input = InputModel(family)
        self.output = OutputModel()
        self.heard = 0
        """When it was last heard of: a number that grows with every answer of any model."""


class Estimator:
    """Bounds a call's tokens before it runs and learns from what was reported. Thread-safe; memory is bounded.

    Args:
        vocabulary: token counts for first calls where a vocabulary lies on disk; without it, or while it loads, the
            bound comes from character classes.
    """

    def __init__(self, *, vocabulary: Vocabulary | None = None) -> None:
        self._vocabulary = vocabulary
        self._models: dict[str, _Model] = {}
        self._heard = 0
        self._lock = Lock()

    def input_bound(self, model: str, size: RequestSize, *, texts: Callable[[], Iterable[str]] | None = None) -> int:
        """Upper bound of the input tokens of a request of *size*; too low in at most 1 of 1,000 ordinary calls.

        *texts* gives the text that *size* measured; it is asked for only when a first call can be tokenised.
        """
        known = self._models.get(model) or self._add(model)
        if size.anchor_tokens is None and texts is not None and known.encoding and self._vocabulary is not None:
            encoder = self._vocabulary.available(known.encoding) if size.appended_bytes <= MAX_COUNTED_BYTES else None
            if encoder is not None:
                return known.input.counted(size, sum([encoder(text) for text in texts()]))
        return known.input.bound(size)

    def observe_input(self, model: str, size: RequestSize, actual_input_tokens: int) -> None:
        """Learn from the input tokens that were reported for the request of *size*.

        Raises:
            ValueError: the count is negative.
        """
        if type(actual_input_tokens) is not int or actual_input_tokens < 0:
            raise _negative("actual_input_tokens", actual_input_tokens)
        known = self._models.get(model) or self._add(model)
        with self._lock:
            known.input.observe(size, actual_input_tokens)

    def observe(self, model: str, size: RequestSize, input_tokens: int, output_tokens: int) -> None:
        """`observe_input` and `observe_output` in one: what was reported for an answer to the request of *size*.

        Raises:
            ValueError: a count is negative; then nothing is learned.
        """
        if type(input_tokens) is not int or input_tokens < 0:
            raise _negative("input_tokens", input_tokens)
        if type(output_tokens) is not int or output_tokens < 0:
            raise _negative("output_tokens", output_tokens)
        known = self._models.get(model) or self._add(model)
        with self._lock:
            known.input.observe(size, input_tokens)
            known.output.observe(output_tokens)
            known.heard = self._heard = self._heard + 1

    def output_bound(self, model: str, cap: int | None) -> int:
        """Output tokens to reserve: a *cap* that the user declared in full, else (`None`) what the model has taught.

        The learned bound is no guarantee: about 3 to 4 of 100 calls go above it, by an overrun that is recorded.

        Raises:
            ValueError: the cap is no int of at least 0.
        """
        if cap is not None:
            if type(cap) is not int or cap < 0:
                msg = f"cap={cap!r}: an output cap is an int of at least 0, or None where nobody set one."
                raise ValueError(msg)
            return cap
        known = self._models.get(model)
        return known.output.bound if known is not None else outputs.START

    def observe_output(self, model: str, output_tokens: int) -> None:
        """Learn from the output tokens that were reported; leave out cached answers and calls that were cut off.

        Raises:
            ValueError: the count is negative.
        """
        if type(output_tokens) is not int or output_tokens < 0:
            raise _negative("output_tokens", output_tokens)
        known = self._models.get(model) or self._add(model)
        with self._lock:
            known.output.observe(output_tokens)
            known.heard = self._heard = self._heard + 1

    def output_so_far(self, model: str, *, chunks: int, bytes: int) -> int:  # noqa: A002, ARG002 - the unit is the name
        """Tokens that a stream of *model* has produced by now, about, from its non-empty *chunks* and UTF-8 *bytes*."""
        return outputs.produced(chunks, bytes)

    def next_extension(self, model: str, reserved_tokens: int, produced: int) -> int:  # noqa: ARG002 - one rule for all
        """Output tokens to add to a stream's reservation of *reserved_tokens* now that *produced* came; 0: not yet."""
        return outputs.extension(reserved_tokens, produced)

    def _add(self, name: str) -> _Model:
        with self._lock:
            known = self._models.get(name)
            if known is None:
                if len(self._models) >= MAX_MODELS:
                    del self._models[min(self._models, key=lambda old: self._models[old].heard)]
                known = self._models[name] = _Model(name)
                known.heard = self._heard = self._heard + 1
            return known


def _negative(name: str, count: int) -> ValueError:
    return ValueError(f"{name}={count!r}: a count is an int of at least 0.")
