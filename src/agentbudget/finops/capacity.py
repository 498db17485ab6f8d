"""Capacity that is paid by the hour: who used it, what stood idle, and whether an API would be cheaper.

Formulas: charges + idle = bill (the OpenCost specification: workload cost + idle cost = asset cost); machines needed =
ceil(demand at the 95th percentile / (capacity of one x target utilisation)); break-even tokens = fixed cost of a month
/ (price of the API - marginal cost of a token); break-even duty = hour of one's own / hour of serverless.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Literal

from agentbudget.domain.money import dollars
from agentbudget.domain.usage import Usage
from agentbudget.errors import ConfigurationError
from agentbudget.finops.dimensions import expression, quoted
from agentbudget.finops.history import History
from agentbudget.pricing.book import PriceBook
from agentbudget.pricing.selfhosted import SelfHosted, Served

HOURS_A_MONTH = 730
IDLE = "(idle)"
"""Who pays for what nobody used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charges:
    """A bill by user. In exact dollars; the charges and `idle` add up to `bill` to the nano-dollar."""

    bill: Decimal
    charges: dict[str, Decimal]
    idle: Decimal

    @property
    def utilisation(self) -> float:
        """Share of the bill that was used, from 0 to 1."""
        return 1 - float(self.idle / self.bill) if self.bill else 0.0


def allocate(
    bill: int, used: Mapping[str, float], capacity: float, *, idle: Literal["apart", "shared"] = "apart"
) -> Charges:
    """Split *bill* (nano-dollars) by what each *used* of *capacity*: GPU-seconds, or tokens, in one unit.

    What nobody used is idle: a line of its own, or (`shared`) paid by the users in proportion. What nobody at all used
    stays idle either way.

    Raises:
        ConfigurationError: an amount that cannot be, or more used than there was: one of the two was not measured.
    """
    total = sum(used.values())
    if bill < 0 or capacity <= 0 or any(amount < 0 for amount in used.values()):
        msg = f"bill={bill}, capacity={capacity}: amounts are not negative, and there is some capacity."
        raise ConfigurationError(msg)
    if total > capacity * (1 + 1e-9):
        msg = f"{total:g} used of {capacity:g}: more than there was, so one of them was not measured in the same unit."
        raise ConfigurationError(msg)
    weights = {name: Fraction(amount) for name, amount in used.items()}
    if idle == "apart" or not total:
        weights[IDLE] = max(Fraction(0), Fraction(capacity) - sum(weights.values(), start=Fraction(0)))
    shares = _shares(bill, weights)
    unused = shares.pop(IDLE, 0)
    return Charges(
        bill=dollars(bill), charges={name: dollars(share) for name, share in shares.items()}, idle=dollars(unused)
    )


def _shares(amount: int, weights: Mapping[str, Fraction]) -> dict[str, int]:
    """*amount* in whole parts by weight: rounded down, what is left to the largest remainders."""
    total = sum(weights.values(), start=Fraction(0))
    exact = {name: amount * weight / total for name, weight in weights.items()}
    shares = {name: int(share) for name, share in exact.items()}
    left = amount - sum(shares.values())
    for name in sorted(exact, key=lambda name: (shares[name] - exact[name], name))[:left]:
        shares[name] += 1
    return shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one model was asked in a history."""

    model: str
    hours: float
    """From the first call to the last, at least one."""
    usage: Usage
    calls: int
    by: dict[str, int]
    """Tokens that were not cached, by the dimension asked for; without one: by tag `feature`."""


def measured_load(history: History, model: str, *, by: str = "feature") -> Load:
    """The tokens that calls of *model* took, in all and by dimension *by*.

    Raises:
        ConfigurationError: no call of that model is recorded.
    """
    found = history.rows(f"""
        SELECT coalesce({expression(by)}, '(untagged)') AS who, count(*) AS calls, min(ended) AS first,
               max(ended) AS last, sum(input_tokens)::BIGINT AS input_tokens,
               sum(cache_read_tokens)::BIGINT AS cache_read_tokens, sum(output_tokens)::BIGINT AS output_tokens
        FROM calls WHERE kind = 'model' AND outcome <> 'denied' AND {quoted(model)} IN (model, name) GROUP BY ALL
    """)  # noqa: S608 - the model is quoted
    if not found:
        msg = f"{history.path}: no call of model {model!r} is recorded."
        raise ConfigurationError(msg)
    span = max(row["last"] for row in found) - min(row["first"] for row in found)
    total = {name: sum(row[name] for row in found) for name in ("input_tokens", "cache_read_tokens", "output_tokens")}
    return Load(
        model=model,
        hours=max(1.0, span.total_seconds() / 3600),
        usage=Usage(**total),
        calls=sum(row["calls"] for row in found),
        by={row["who"]: row["input_tokens"] - row["cache_read_tokens"] + row["output_tokens"] for row in found},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """A model on one's own hardware against an API, on a measured load. Dollars a month of `HOURS_A_MONTH` hours."""

    own: Decimal
    """The hardware, whatever the load."""
    api: Decimal
    """The measured load, scaled to a month, at the API's prices."""
    tokens: int
    """Tokens of that load in a month."""
    even_tokens: int | None
    """Tokens a month, in the same mix, from which one's own is cheaper; None: the API charges nothing for them."""

    @property
    def cheaper(self) -> str:
        """`own` or `api`."""
        return "own" if self.own < self.api else "api"


def break_even(
    hosted: SelfHosted, load: Load, api_model: str, *, book: PriceBook, on: datetime | None = None
) -> BreakEven:
    """Whether *hosted* is cheaper than *api_model* for *load*, and from how many tokens a month it is.

    The API may count tokens differently for the same text; nothing is said about quality.
    """
    when = on or datetime.now(UTC)
    price = book.rates(api_model, on=when.date()).cost(load.usage)
    month = Fraction(HOURS_A_MONTH) / Fraction(str(load.hours))
    tokens = load.usage.total_tokens
    own, api = hosted.hour * HOURS_A_MONTH, round(price * month)
    return BreakEven(
        own=dollars(own),
        api=dollars(api),
        tokens=round(tokens * month),
        even_tokens=ceil(Fraction(own) * tokens / price) if price else None,
    )


def break_even_duty(dedicated_hour: int, serverless_hour: int) -> Fraction:
    """Busy share of an hour from which always-on hardware is cheaper than serverless; above 1 it never is.

    Cold starts count as busy time of the serverless side. Both in the same unit of money.
    """
    if dedicated_hour < 0 or serverless_hour <= 0:
        msg = f"dedicated_hour={dedicated_hour}, serverless_hour={serverless_hour}: prices of an hour, above 0."
        raise ConfigurationError(msg)
    return Fraction(dedicated_hour, serverless_hour)


def machines_needed(demand: float, *, capacity: float, target: float = 0.65) -> int:
    """Machines for *demand* (tokens a second at the 95th percentile) where one serves *capacity* at full load."""
    if demand < 0 or capacity <= 0 or not 0 < target <= 1:
        msg = f"demand={demand}, capacity={capacity}, target={target}: tokens a second, and a share up to 1."
        raise ConfigurationError(msg)
    return max(1, ceil(demand / (capacity * target)))


def served(load: Load) -> Served:
    """*load* as what a machine served, for `SelfHosted.prices`."""
    return Served(
        hours=load.hours,
        prompt_tokens=load.usage.input_tokens,
        cached_tokens=load.usage.cache_read_tokens,
        output_tokens=load.usage.output_tokens,
    )
