"""Money is `int` nano-dollars (1e-9 USD). This module is the only door in and out."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal

from agentbudget.errors import ConfigurationError

NANOS_PER_DOLLAR = 1_000_000_000
MAX_NANOS = 2**53 - 1
"""Largest amount of any limit: what every backend, Redis' Lua doubles included, holds exactly ($9,007,199)."""

_WHOLE = r"[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+(?:_[0-9]+)*"
"""A comma only parts thousands: `"0,50"` is fifty cents in many countries, and must not become fifty dollars."""
_AMOUNT = re.compile(rf"\s*(?:USD|(?:US)?\$)?\s*((?:{_WHOLE})(?:\.[0-9]+)?|\.[0-9]+)\s*(?:USD)?\s*", re.IGNORECASE)

_SHOWN_BY_4 = Decimal("0.0001")
_SHOWN_BY_6 = Decimal("0.000001")
_KINDS = "a dollar string such as '$0.50', a Decimal, an int or a float"

Money = str | Decimal | int | float
"""What a user may write for an amount of dollars."""


def nanos(amount: Money, *, what: str) -> int:
    """Nano-dollars of an *amount* of dollars.

    A float is read by its shortest decimal form, so `0.1` is exactly ten cents.

    Raises:
        ConfigurationError: not a finite, non-negative number of dollars, another currency, finer than
            a nano-dollar or above `MAX_NANOS`. *what* names the option in the message.
    """
    dollars = _decimal(amount, what)
    if not dollars.is_finite() or dollars < 0:
        raise ConfigurationError(f"{what}={amount!r}: money must be finite and not negative.")
    scaled = dollars * NANOS_PER_DOLLAR
    if scaled > MAX_NANOS:
        raise ConfigurationError(f"{what}={amount!r}: the largest amount is {format_dollars(MAX_NANOS)}.")
    if scaled != scaled.to_integral_value():
        raise ConfigurationError(f"{what}={amount!r}: finer than a nano-dollar ($0.000000001).")
    return int(scaled)


def dollars(amount_nanos: int) -> Decimal:
    """The exact dollars of *amount_nanos*."""
    return Decimal(amount_nanos).scaleb(-9)


def format_dollars(amount_nanos: int) -> str:
    """`$0.0123`: four decimals, more only where four would hide a non-zero amount."""
    value = dollars(amount_nanos)
    sign = "-" if value < 0 else ""
    value = abs(value)
    places = 4 if not value or value >= _SHOWN_BY_4 else 6 if value >= _SHOWN_BY_6 else 9
    text = f"{value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN):,f}"
    return f"{sign}${text.removesuffix('00') if places == 4 else text}"  # noqa: PLR2004 - cents where exact


def _decimal(amount: Money, what: str) -> Decimal:
    if isinstance(amount, bool):
        raise ConfigurationError(f"{what}={amount!r}: money is {_KINDS}, not a bool.")
    if isinstance(amount, str):
        match = _AMOUNT.fullmatch(amount)
        if match is None and "," in amount:
            raise ConfigurationError(f"{what}={amount!r}: write cents after a point, thousands as in '$1,000.50'.")
        if match is None:
            raise ConfigurationError(f"{what}={amount!r}: money is {_KINDS}; only US dollars are known.")
        return Decimal(match[1].replace(",", "").replace("_", ""))
    if isinstance(amount, float):
        return Decimal(repr(amount))
    if isinstance(amount, int | Decimal):
        return Decimal(amount)
    raise ConfigurationError(f"{what}={amount!r}: money is {_KINDS}, not {type(amount).__name__}.")
