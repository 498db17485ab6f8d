"""What a call may cost and what it did cost: prices and estimates brought together. No effects but learning."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from agentbudget.domain.usage import Usage
from agentbudget.errors import ConfigurationError, PricingError, UnknownTierError
from agentbudget.estimating.estimator import Estimator
from agentbudget.estimating.families import may_hide_output
from agentbudget.estimating.vocabulary import Vocabulary
from agentbudget.governor.values import FREE, Call, Estimate, Kind, Outcome, Result
from agentbudget.pricing.book import PriceBook
from agentbudget.pricing.rates import Rates
from agentbudget.pricing.tools import ToolPrice

_NO_USAGE = Usage()
_TOOL = Kind.TOOL
_UNPAID = frozenset({Outcome.REFUSED, Outcome.CACHED})
_SEEN = frozenset({Outcome.OK, Outcome.ABANDONED})


class Unpriced(StrEnum):
    """What happens to a model without a price while a cost limit is set."""

    REFUSE = "refuse"
    ESTIMATE = "estimate"
    ALLOW = "allow"

    @classmethod
    def of(cls, value: str) -> Unpriced:
        """The policy called *value*."""
        try:
            return cls(value)
        except ValueError:
            msg = f"on_unpriced={value!r}: one of {', '.join(repr(policy.value) for policy in cls)}."
            raise ConfigurationError(msg) from None


class Bill(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an attempt took. Costs in nano-dollars."""

    cost: int = 0
    usage: Usage = _NO_USAGE
    source: str = "none"
    rates: Rates | None = None
    priced: bool = True
    avoided: int = 0
    discrepancies: tuple[tuple[str, str], ...] = ()


_NO_BILL = Bill()


class Appraiser:
    """Prices estimates before and usage after a call, and lets the estimator learn from the difference."""

    def __init__(self, book: PriceBook, estimator: Estimator, on_unpriced: Unpriced) -> None:
        self.book = book
        self.estimator = estimator
        self._on_unpriced = on_unpriced

    @classmethod
    def build(
        cls,
        *,
        prices: Mapping[str, Any] | str | Path | None,
        price_file: str | Path | None,
        aliases: Mapping[str, str] | None,
        on_unpriced: str,
    ) -> Appraiser:
        """Load the price data; every error in it is raised here."""
        book = PriceBook(overrides=prices, litellm_json=price_file, aliases=aliases)
        return cls(book, Estimator(vocabulary=Vocabulary()), Unpriced.of(on_unpriced))

    def estimate(self, call: Call, *, on: date) -> Estimate:
        """Upper bound of *call*; where it has no price and should have one, with what to do about it."""
        if call.kind is _TOOL:
            return self._tool_estimate(call)
        size, estimator, provider = call.size, self.estimator, call.provider
        tokens = estimator.input_bound(call.name, size, texts=call.texts) if size is not None else 0
        output = estimator.output_bound(call.name, call.cap) * call.answers
        try:
            rates = self.book.rates(
                call.name, provider=provider or None, base_url=call.base_url or None, tier=call.tier or None, on=on
            )
            return Estimate(tokens, output, _bound(call, rates, tokens, output), rates)
        except PricingError as error:
            if self._on_unpriced is Unpriced.ESTIMATE:
                rates = self.book.dearest(provider, on=on)
                return Estimate(tokens, output, _bound(call, rates, tokens, output), rates, priced=False)
            remedy = str(error) if self._on_unpriced is Unpriced.REFUSE else ""
            return Estimate(tokens, output, 0, None, priced=False, remedy=remedy)

    def _tool_estimate(self, call: Call) -> Estimate:
        price = self.book.tool_price(call.name)
        if price is None:
            return FREE
        try:
            return Estimate(cost=price.estimate(call.arguments))
        except PricingError as error:
            return Estimate(priced=False, remedy=str(error) if self._on_unpriced is not Unpriced.ALLOW else "")

    def with_output(self, call: Call, before: Estimate, output_tokens: int) -> Estimate:
        """*before* with room for *output_tokens* in total."""
        cost = before.cost
        if before.rates is not None:
            cost = _bound(call, before.rates, before.input_tokens, output_tokens)
        return Estimate(before.input_tokens, output_tokens, cost, before.rates, priced=before.priced)

    def answer_cost(self, call: Call, estimate: Estimate, output_tokens: int) -> int:
        """Most that a later call costs which reads all that *call* reads and writes, and writes *output_tokens*."""
        if estimate.rates is None:
            return 0
        return _bound(call, estimate.rates, estimate.input_tokens + estimate.output_tokens, output_tokens)

    def bill(self, call: Call, estimate: Estimate, result: Result, *, at: float, on: date) -> Bill:
        """What *result* says was taken *at* a moment of the day *on*; learns from it where it was reported."""
        if call.kind is _TOOL:
            return self._tool_bill(call, estimate, result)
        if result.outcome in _UNPAID:
            if result.outcome == Outcome.REFUSED:
                return Bill(priced=estimate.priced)
            avoided = self._cost(estimate.rates, result.usage or self._seen(call, estimate, result))
            return Bill(avoided=avoided or 0, rates=estimate.rates, priced=estimate.priced)
        if result.usage is None:
            return self._unreported(call, estimate, result)
        output = result.usage.output_tokens // call.answers
        if call.size is not None:
            self.estimator.observe(call.name, call.size, result.usage.input_tokens, output)
        else:
            self.estimator.observe_output(call.name, output)
        return self._reported(call, estimate, result, result.usage, at, on)

    def _tool_bill(self, call: Call, estimate: Estimate, result: Result) -> Bill:
        price = self.book.tool_price(call.name)
        if price is None or result.outcome == Outcome.REFUSED:
            return _NO_BILL
        if result.outcome == Outcome.CACHED:
            return Bill(avoided=self._avoided(price, call, estimate, result))
        if result.outcome is not Outcome.OK:
            return Bill(cost=estimate.cost, source="estimated")
        try:
            return Bill(cost=price.cost(call.arguments, result.value), source="reported")
        except PricingError as error:
            return Bill(cost=estimate.cost, source="reserved", discrepancies=(("unpriced", str(error)),))

    @staticmethod
    def _avoided(price: ToolPrice, call: Call, estimate: Estimate, result: Result) -> int:
        try:
            return price.cost(call.arguments, result.value)
        except PricingError:
            return estimate.cost

    def _unreported(self, call: Call, estimate: Estimate, result: Result) -> Bill:
        """No usage: charge what was seen, or the whole reservation where nothing of the answer was."""
        seen = result.outcome in _SEEN or result.bytes or result.chunks
        if seen and not result.problem:
            usage = self._seen(call, estimate, result)
            cost = self._cost(estimate.rates, usage) or 0
            return Bill(cost=cost, usage=usage, source="estimated", rates=estimate.rates, priced=estimate.priced)
        usage = Usage(
            input_tokens=estimate.input_tokens * result.attempts, output_tokens=estimate.output_tokens * result.attempts
        )
        return Bill(
            cost=estimate.cost * result.attempts,
            usage=usage,
            source="reserved" if result.problem else "estimated",
            rates=estimate.rates,
            priced=estimate.priced,
            discrepancies=(("usage", result.problem),) if result.problem else (),
        )

    def _seen(self, call: Call, estimate: Estimate, result: Result) -> Usage:
        """The usage of the whole request and of as much of the answer as was seen."""
        output = self.estimator.output_so_far(call.name, chunks=result.chunks, bytes=result.bytes)
        broke = result.outcome in {Outcome.ERROR, Outcome.TIMEOUT}  # the provider may have gone on, for nobody
        if broke or may_hide_output(call.name):
            output = max(output, estimate.output_tokens)
        return Usage(input_tokens=estimate.input_tokens, output_tokens=output)

    def _reported(self, call: Call, estimate: Estimate, result: Result, usage: Usage, at: float, on: date) -> Bill:
        rates = estimate.rates
        found: tuple[tuple[str, str], ...] = ()
        if rates is not None and rates.ref.source != "override" and (result.model or result.tier):
            rates, found = self._rates_of_answer(call, rates, result, on)
        if rates is not None and rates.by_time:
            rates = rates.at(datetime.fromtimestamp(at, UTC))
        cost: int | None = 0
        if rates is not None:
            cost = self._cost(rates, usage)
        elif estimate.rates is not None:
            cost = None
        if cost is None:
            problem = f"{call.name}: {usage.to_dict()} or a part of it has no price; the reservation was charged"
            return Bill(
                cost=estimate.cost,
                usage=usage,
                source="reserved",
                rates=rates,
                priced=False,
                discrepancies=(*found, ("unpriced", problem)),
            )
        priced = estimate.priced and not found
        return Bill(cost=cost, usage=usage, source="reported", rates=rates, priced=priced, discrepancies=found)

    def _rates_of_answer(
        self, call: Call, asked: Rates, result: Result, on: date
    ) -> tuple[Rates | None, tuple[tuple[str, str], ...]]:
        """The rates of the model and tier that answered: they are what is billed."""
        tier, rates = result.tier or call.tier, self.book.rates
        provider, base_url = call.provider or None, call.base_url or None
        try:
            return rates(result.model or call.name, provider=provider, base_url=base_url, tier=tier or None, on=on), ()
        except UnknownTierError as error:
            return None, (("unpriced", str(error)),)
        except PricingError:
            pass  # a name only the answer uses: the model that was asked for is what the user knows the price of
        try:
            return rates(call.name, provider=provider, base_url=base_url, tier=tier or None, on=on), ()
        except PricingError as error:
            return asked if tier == call.tier else None, (("unpriced", str(error)),)

    @staticmethod
    def _cost(rates: Rates | None, usage: Usage) -> int | None:
        """Nano-dollars of *usage*: 0 without rates, None where a part of it has no price."""
        if rates is None:
            return 0
        try:
            return rates.cost(usage)
        except PricingError:
            return None


def _bound(call: Call, rates: Rates, input_tokens: int, output_tokens: int) -> int:
    return rates.upper_bound(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        web_searches=call.web_searches,
        cache_writes=call.cache_writes,
        audio=call.audio,
    )
