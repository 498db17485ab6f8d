"""Models on machines of one's own: what a token costs where hours are paid, from what was measured to be served.

The price of a token on a machine that is paid by the hour is the bill of a window over the tokens that were served in
it. Utilisation is in those tokens; it is never a guess, because it is the term that decides (one machine gave $0.21 and
$15.25 for a million tokens under different loads).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Literal

from agentbudget.domain.money import Money, format_dollars, nanos
from agentbudget.errors import ConfigurationError
from agentbudget.pricing.decimals import decimal_string

Split = Literal["time", "ratio", "blended"]

MILLION = 1_000_000
DEFAULT_RATIO = Fraction(5, 2)
"""Price of an output token over that of an input token, where no times were measured (OpenCost's default)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a machine was measured to serve in a window of *hours*. Tokens and seconds.

    `prompt_tokens` includes `cached_tokens` (found in the key-value cache: they take no prefill).
    """

    hours: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("hours", "prompt_tokens", "output_tokens", "cached_tokens", "prefill_seconds", "decode_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not 0 <= value < float("inf"):
                msg = f"Served({name}={value!r}): a measured amount is finite and not negative."
                raise ConfigurationError(msg)
        if not self.hours or not self.prompt_tokens + self.output_tokens:
            msg = "Served: a window without hours or without tokens says nothing about the price of one."
            raise ConfigurationError(msg)
        if self.cached_tokens > self.prompt_tokens:
            msg = f"Served: cached_tokens={self.cached_tokens} exceed prompt_tokens={self.prompt_tokens}."
            raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPrices:
    """Exact dollars per million tokens of a window, and how the bill was split between input and output."""

    blended: Fraction
    """Over all tokens."""
    input: Fraction
    """Over prompt tokens that were not cached."""
    output: Fraction
    split: Split

    def entry(self) -> dict[str, str]:
        """As a declaration for `Governor(prices={model: ...})`; rounded up to a billionth of a dollar a million."""
        return {"input": _text(self.input), "cache_read": "0", "output": _text(self.output)}


class SelfHosted:
    """A model on hardware that is paid by the hour: GPUs of one's own, rented ones, or provisioned throughput.

    Args:
        model: the name that calls have.
        gpu_hour: dollars for one GPU (or one unit of provisioned throughput) an hour.
        gpus: how many.
        overhead_hour: dollars an hour beside them: hosts, storage, people.
        served: what was measured; makes it a price for `Governor(prices={model: SelfHosted(...)})`.
        split: how the bill is split between input and output: `time` (by measured prefill and decode seconds),
            `ratio` (an output token costs `ratio` input tokens) or `blended` (all tokens cost the same). Default:
            `time` where seconds were measured, else `ratio`.
        ratio: price of an output token over that of an input token, for `split="ratio"`.

    Raises:
        ConfigurationError: an amount that cannot be, or a split that was not measured.
    """

    __slots__ = ("gpu_hour", "gpus", "model", "overhead_hour", "ratio", "served", "split")

    def __init__(
        self,
        model: str,
        *,
        gpu_hour: Money,
        gpus: int = 1,
        overhead_hour: Money = 0,
        served: Served | None = None,
        split: Split | None = None,
        ratio: float | Fraction = DEFAULT_RATIO,
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            msg = f"SelfHosted({model!r}): name the model as calls name it."
            raise ConfigurationError(msg)
        if isinstance(gpus, bool) or not isinstance(gpus, int) or gpus < 1:
            msg = f"SelfHosted({model!r}, gpus={gpus!r}): a whole number from 1."
            raise ConfigurationError(msg)
        if split not in {None, "time", "ratio", "blended"}:
            msg = f"SelfHosted({model!r}, split={split!r}): 'time', 'ratio' or 'blended'."
            raise ConfigurationError(msg)
        if not 0 < ratio < MILLION:
            msg = f"SelfHosted({model!r}, ratio={ratio!r}): above 0; 2.5 where output tokens take 2.5 times as long."
            raise ConfigurationError(msg)
        self.model = model
        self.gpus = gpus
        self.gpu_hour = nanos(gpu_hour, what="gpu_hour")
        """Nano-dollars."""
        self.overhead_hour = nanos(overhead_hour, what="overhead_hour")
        """Nano-dollars."""
        self.served = served
        self.ratio = Fraction(str(ratio)) if isinstance(ratio, float) else Fraction(ratio)
        self.split: Split | None = split
        if served is not None:
            self.prices()

    @property
    def hour(self) -> int:
        """Nano-dollars an hour, all together."""
        return self.gpu_hour * self.gpus + self.overhead_hour

    def prices(self, served: Served | None = None) -> TokenPrices:
        """Prices of tokens in the window of *served*, else in the one that was declared.

        `time`: bill x prefill / (prefill + decode) over the prompt tokens that were not cached, the rest over the
        output. `ratio`: an output token counts as `ratio` input tokens. All of a window with only one kind of token
        falls on that kind.

        Raises:
            ConfigurationError: nothing was measured, or not what the split needs.
        """
        window = served or self.served
        if window is None:
            msg = f"SelfHosted({self.model!r}) has no measured load; give served=Served(hours=..., prompt_tokens=...)."
            raise ConfigurationError(msg)
        bill = Fraction(self.hour, 10**9) * Fraction(str(window.hours)) * MILLION
        fresh, out = window.prompt_tokens - window.cached_tokens, window.output_tokens
        every = window.prompt_tokens + out
        blended = bill / every
        prefill, decode = Fraction(str(window.prefill_seconds)), Fraction(str(window.decode_seconds))
        timed = prefill + decode > 0
        if self.split == "time" and not timed:
            msg = f"SelfHosted({self.model!r}, split='time'): measure prefill_seconds and decode_seconds."
            raise ConfigurationError(msg)
        if self.split == "blended" or not fresh or not out:
            flat = bill / (fresh + out or every)
            return TokenPrices(blended=blended, input=flat, output=flat, split="blended")
        if self.split == "time" or (self.split is None and timed):
            share = prefill / (prefill + decode)
            first, last = bill * share / fresh, bill * (1 - share) / out
            return TokenPrices(blended=blended, input=first, output=last, split="time")
        unit = bill / (fresh + out * self.ratio)
        return TokenPrices(blended=blended, input=unit, output=unit * self.ratio, split="ratio")

    def entry(self) -> dict[str, str]:
        """The declaration that `Governor(prices=...)` takes."""
        return self.prices().entry()

    def __repr__(self) -> str:
        return f"SelfHosted({self.model!r}, {format_dollars(self.hour)} an hour)"


def _text(price: Fraction) -> str:
    return decimal_string(Fraction(ceil(price * 10**9), 10**9))
