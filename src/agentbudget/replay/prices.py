"""Recorded calls at other prices, by the code that prices live calls."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import NamedTuple, cast, get_args

from msgspec.structs import replace

from agentbudget.domain.usage import Usage
from agentbudget.errors import PricingError
from agentbudget.estimating.families import family_of
from agentbudget.governor.appraisal import Appraiser
from agentbudget.governor.values import Call, Estimate, Result
from agentbudget.pricing.names import undated
from agentbudget.pricing.rates import CacheWrites, Rates
from agentbudget.replay.policy import Policy
from agentbudget.replay.subjects import KINDS
from agentbudget.trace.events import CallDenied, CallReserved, CallSettled

TOKENIZER_MARGIN = 0.1
"""How far two tokenizers may differ on one text beyond what is known of their families."""

_WRITES = frozenset(get_args(CacheWrites))
_EXACT = (1.0, 1.0)
_WRITTEN = frozenset({"output_tokens", "reasoning_tokens", "output_audio_tokens"})


class Priced(NamedTuple):
    """What a recorded call costs in the replay. Nano-dollars."""

    cost: int
    low: int
    high: int


class Moved(NamedTuple):
    """A call that a ladder put elsewhere."""

    model: tuple[str, str] | None
    """Provider and name; None: the recorded model."""
    cap: int | None
    """Most output tokens; None: as recorded."""


class Repricer:
    """Prices recorded calls anew: all of them, or only those whose model is exchanged.

    `unpriced` collects the names for which the new prices know nothing; those calls keep their recorded cost.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._appraiser = Appraiser.build(prices=policy.prices, price_file=None, aliases=None, on_unpriced="allow")
        self._models = {name: _provider_and_model(other) for name, other in policy.model.items()}
        self._days: dict[int, date] = {}
        self._ranges: dict[tuple[str, str], tuple[float, float]] = {}
        self._moved: dict[str, Moved] = {}
        self.unpriced: set[str] = set()
        self.version = self._appraiser.book.version

    @staticmethod
    def named(name: str) -> tuple[str, str]:
        """Provider (or empty) and name of `"openai:gpt-5-mini"`."""
        return _provider_and_model(name)

    def move(self, call: str, model: tuple[str, str] | None, cap: int | None) -> None:
        """From now on *call* goes to *model*, and writes at most *cap* tokens."""
        self._moved[call] = Moved(model, cap)

    def moved(self, event: CallReserved | CallDenied) -> bool:
        """Whether a ladder put the call elsewhere."""
        return event.call in self._moved

    def forget(self, call: str) -> int | None:
        """*call* has ended; its cap."""
        moved = self._moved.pop(call, None)
        return None if moved is None else moved.cap

    def rates_of(self, event: CallReserved, model: tuple[str, str] | None) -> Rates | None:
        """The prices of *event* at *model* (None: the recorded one); None where there are none."""
        if model is None:
            return self._find(self._call(event), event.at)
        return self._rates(Call(id=event.call, kind=KINDS["model"], name=model[1], provider=model[0]), event.at)

    def bound(self, event: CallReserved, model: tuple[str, str] | None, output_tokens: int) -> Estimate | None:
        """What *event* would reserve at *model* for *output_tokens*; None where that is not known.

        At the recorded model what was recorded holds, and only the difference in output is priced.
        """
        rates = self.rates_of(event, model)
        bare = Estimate(event.estimate_input, 0, 0, rates)
        if model is not None:
            if rates is None:
                return None
            call = Call(id=event.call, kind=KINDS["model"], name=model[1], provider=model[0])
            return self._appraiser.with_output(call, bare, output_tokens)
        if rates is None:
            known = output_tokens <= event.estimate_output
            return Estimate(event.estimate_input, output_tokens, event.cost) if known else None
        call = self._call(event)
        full = self._appraiser.with_output(call, bare, event.estimate_output)
        asked = self._appraiser.with_output(call, bare, output_tokens)
        return Estimate(event.estimate_input, output_tokens, max(0, event.cost + asked.cost - full.cost), rates)

    def name(self, event: CallReserved | CallDenied | CallSettled) -> str:
        """The model that takes the call, or the tool."""
        other = self._other(event)
        return event.name if other is None else other[1]

    def touches(self, event: CallReserved | CallDenied | CallSettled) -> bool:
        """Whether the call is priced anew."""
        return self._policy.reprices or self._other(event) is not None or event.call in self._moved

    def held(self, event: CallReserved | CallDenied) -> Estimate:
        """What *event* would reserve, from the recorded token bounds."""
        recorded = Estimate(event.estimate_input, event.estimate_output, event.cost)
        if event.kind == "tool":
            return self._tool_held(event, recorded)
        moved = self._moved.get(event.call)
        if moved is not None and isinstance(event, CallReserved):
            output = event.estimate_output if moved.cap is None else min(moved.cap, event.estimate_output)
            return self.bound(event, moved.model, output) or recorded
        call = self._call(event)
        rates = self._rates(call, event.at)
        if rates is None:
            return recorded
        bare = Estimate(event.estimate_input, 0, 0, rates)
        try:
            return self._appraiser.with_output(call, bare, event.estimate_output)
        except PricingError:
            self.unpriced.add(call.name)
            return recorded

    def grown(self, event: CallReserved | CallDenied, before: Estimate, output_tokens: int, recorded: int) -> Estimate:
        """*before* with room for *output_tokens*; *recorded* nano-dollars where it has no price."""
        if before.rates is None:
            return Estimate(before.input_tokens, output_tokens, recorded)
        return self._appraiser.with_output(self._call(event), before, output_tokens)

    def settled(self, event: CallSettled, held: Estimate | None, recorded_hold: int) -> Priced:
        """What *event* costs; *recorded_hold* is what the recording held for it."""
        same = Priced(event.cost, event.cost, event.cost)
        if event.kind == "tool":
            return self._tool_settled(event)
        if event.outcome in {"refused", "cached"}:
            return same
        call = self._call(event)
        rates = held.rates if held is not None and held.rates is not None else self._rates(call, event.at)
        if rates is None:
            return same
        if event.source != "reported" and recorded_hold and held is not None and event.cost % recorded_hold == 0:
            cost = held.cost * (event.cost // recorded_hold)
        else:
            found = self._billed(event, call, rates)
            if found is None:
                return same
            cost = found
        moved = self._moved.get(event.call)
        if moved is not None and moved.model is None and not self._policy.reprices:
            cost = self._shortened(event, call, rates, cost)
        low, high = self._range(event)
        return Priced(cost, int(cost * low), int(cost * high))

    def _shortened(self, event: CallSettled, call: Call, rates: Rates, cost: int) -> int:
        """The recorded cost, less what the answer beyond its cap cost of it."""
        cap = self._moved[event.call].cap
        if cap is None or event.usage.get("output_tokens", 0) <= cap:
            return event.cost
        full = self._billed(replace(event, call=""), call, rates)
        return event.cost * cost // full if full else event.cost

    def _billed(self, event: CallSettled, call: Call, rates: Rates) -> int | None:
        try:
            usage = Usage(**_capped(event.usage, self._moved.get(event.call)))
        except (TypeError, ValueError):
            return None
        own = self._other(event) is None
        result = Result(outcome="ok", usage=usage, model=event.model if own else "", tier=event.tier if own else "")
        bill = self._appraiser.bill(call, Estimate(rates=rates), result, at=event.at, on=self._day(event.at))
        if bill.source != "reported":
            self.unpriced.add(call.name)
            return None
        return bill.cost

    def _tool_held(self, event: CallReserved | CallDenied, recorded: Estimate) -> Estimate:
        price = self._appraiser.book.tool_price(event.name)
        if price is None or price.function is not None or price.per_unit:
            return recorded
        return Estimate(cost=price.flat)

    def _tool_settled(self, event: CallSettled) -> Priced:
        """A flat price is known; arguments and results, on which others depend, are not recorded."""
        price = self._appraiser.book.tool_price(event.name)
        cost = event.cost
        if price is not None and price.function is None and not price.per_unit:
            cost = price.flat
        elif price is not None:
            self.unpriced.add(event.name)
        return Priced(cost, cost, cost)

    def _call(self, event: CallReserved | CallDenied | CallSettled) -> Call:
        other = self._other(event)
        if other is not None:
            return Call(id=event.call, kind=KINDS["model"], name=other[1], provider=other[0])
        provider, tier = "", ""
        writes, searches, audio = "5m", 0, False
        if isinstance(event, CallSettled):
            provider = str((event.price or {}).get("provider", ""))
        elif isinstance(event, CallReserved):
            provider, tier, writes = event.provider, event.tier, event.cache_writes
            searches, audio = event.web_searches, event.audio
        return Call(
            id=event.call,
            kind=KINDS["model"],
            name=event.name,
            provider=provider,
            tier=tier,
            cache_writes=cast("CacheWrites", writes if writes in _WRITES else "1h"),
            web_searches=searches,
            audio=audio,
        )

    def _rates(self, call: Call, at: float) -> Rates | None:
        rates = self._find(call, at)
        if rates is None:
            self.unpriced.add(call.name)
        return rates

    def _find(self, call: Call, at: float) -> Rates | None:
        try:
            return self._appraiser.book.rates(
                call.name, provider=call.provider or None, tier=call.tier or None, on=self._day(at)
            )
        except PricingError:
            return None

    def _day(self, at: float) -> date:
        if self._policy.on is not None:
            return self._policy.on
        number = int(at // 86_400)
        day = self._days.get(number)
        if day is None:
            day = self._days[number] = datetime.fromtimestamp(at, UTC).date()
        return day

    def _other(self, event: CallReserved | CallDenied | CallSettled) -> tuple[str, str] | None:
        if event.kind != "model":
            return None
        if self._moved and (moved := self._moved.get(event.call)) is not None and moved.model is not None:
            return moved.model
        return self._models.get(event.name) or self._models.get(undated(event.name))

    def _range(self, event: CallSettled) -> tuple[float, float]:
        other = self._other(event)
        if other is None:
            return _EXACT
        pair = (event.name, other[1])
        found = self._ranges.get(pair)
        if found is None:
            found = self._ranges[pair] = tokenizer_range(*pair)
        return found


def tokenizer_range(model: str, other: str) -> tuple[float, float]:
    """How many tokens of *other* one token of *model* may be, at least and at most.

    One vocabulary: exactly one. Else the ratio of what is known of the two families, or one, whichever is wider, and
    `TOKENIZER_MARGIN` on both sides.
    """
    before, after = family_of(model), family_of(other)
    if before.encoding is not None and before.encoding == after.encoding:
        return _EXACT
    ratio = after.scale / before.scale
    return min(1.0, ratio) * (1 - TOKENIZER_MARGIN), max(1.0, ratio) * (1 + TOKENIZER_MARGIN)


def _capped(usage: dict[str, int], moved: Moved | None) -> dict[str, int]:
    """*usage* with its output, and the reasoning in it, cut at the cap."""
    if moved is None or moved.cap is None:
        return usage
    cap = moved.cap
    return {name: min(count, cap) if name in _WRITTEN else count for name, count in usage.items()}


def _provider_and_model(name: str) -> tuple[str, str]:
    """`"openai:gpt-5-mini"` as (provider, model); without a provider the first is empty."""
    provider, colon, model = name.partition(":")
    return (provider, model) if colon and provider.replace("_", "").replace("-", "").isalpha() else ("", name)
