"""Prices in and out: exact fractions of a dollar, never a float."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from fractions import Fraction

TOKENS_PER_PRICE = 1_000_000
"""Prices are dollars per so many tokens."""

MAX_PRICE = 1_000_000
"""Dollars per million tokens above which a price is a mistake (a dollar per token)."""


_FINEST = -30
"""Power of ten of the smallest price that is taken for one."""


def price_of(amount: object, *, per: int = TOKENS_PER_PRICE) -> Fraction:
    """Exact dollars per million tokens of *amount* dollars for *per* tokens.

    *amount* is a decimal string (with or without `$`), int, Decimal or float; a float is read by its shortest decimal
    form, so `0.1` is exactly ten cents.

    Raises:
        ValueError: not a number, not finite, negative, absurdly fine or above `MAX_PRICE`.
    """
    number = decimal_of(amount)
    if not number.is_finite() or number < 0:
        raise ValueError("a price is finite and not negative")
    if number > MAX_PRICE * per // TOKENS_PER_PRICE:
        raise ValueError("a price above a dollar per token is a mistake")
    if number and number.adjusted() < _FINEST:
        raise ValueError(f"a price finer than 1e{_FINEST} dollars is a mistake")
    return Fraction(number) * TOKENS_PER_PRICE / per


def decimal_of(amount: object) -> Decimal:
    """*amount* as a Decimal, possibly not finite.

    Raises:
        ValueError: not a number.
    """
    if isinstance(amount, bool) or not isinstance(amount, str | int | float | Decimal):
        raise ValueError(f"expected a decimal string or a number, not {type(amount).__name__}")  # noqa: TRY004 - as promised
    if isinstance(amount, Decimal):
        return amount
    try:
        return Decimal(amount.strip().removeprefix("$")) if isinstance(amount, str) else Decimal(repr(amount))
    except InvalidOperation:
        raise ValueError("expected a decimal string such as '1.25'") from None


def decimal_string(price: Fraction) -> str:
    """*price* in decimals, exact and without an exponent: `1.25`.

    Raises:
        ValueError: *price* has no finite decimal form.
    """
    places = 0
    denominator = price.denominator
    for factor in (2, 5):
        power = 0
        while denominator % factor == 0:
            denominator //= factor
            power += 1
        places = max(places, power)
    if denominator != 1:
        raise ValueError(f"{price} has no finite decimal form.")
    digits = str(price.numerator * 10**places // price.denominator).rjust(places + 1, "0")
    return f"{digits[: len(digits) - places]}.{digits[len(digits) - places :]}" if places else digits
