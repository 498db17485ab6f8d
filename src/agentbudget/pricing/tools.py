"""What a tool costs: nothing unless a price is declared; flat, per unit, or a function of arguments and result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from typing import Any

from agentbudget.domain.money import Money, nanos
from agentbudget.errors import ConfigurationError, PricingError
from agentbudget.pricing.decimals import decimal_of

ToolFunction = Callable[[Mapping[str, Any], Any], Money]
"""`function(args, result)` in dollars; called with `result=None` before the tool runs, for the most it can cost."""

_NANO = Decimal("1e-9")
_KEYS = ("per_unit", "unit", "max_units")
_FORMS = "'$0.01', {'per_unit': '$0.001', 'unit': 'pages'} or a function of (args, result)"
_MAX_UNITS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPrice:
    """The price of one tool. Made by `ToolPrice.of`; immutable.

    A per-unit price counts units in the result if it reports them under `unit` (key or attribute), else in the
    argument of that name, else takes `max_units` of them. The same number of units is never counted twice.
    """

    flat: int = 0
    """Nano-dollars a call."""
    per_unit: int = 0
    """Nano-dollars a unit."""
    unit: str = ""
    max_units: int = 1
    """Units assumed where neither result nor arguments tell."""
    function: ToolFunction | None = None

    @classmethod
    def of(cls, spec: object, *, where: str) -> ToolPrice:
        """Read a price as a user declares it; *where* names the place in errors.

        Raises:
            ConfigurationError: not one of the three forms.
        """
        if isinstance(spec, ToolPrice):
            return spec
        if isinstance(spec, Mapping):
            return _per_unit(spec, where)
        if callable(spec):
            return cls(function=_checked(spec, where))
        if isinstance(spec, str | int | float | Decimal):
            return cls(flat=nanos(spec, what=where))
        raise ConfigurationError(f"{where}={spec!r}: a tool's price is {_FORMS}.")

    def estimate(self, args: Mapping[str, Any]) -> int:
        """Nano-dollars the call can cost, before it runs; a function's answer is rounded up.

        Raises:
            PricingError: the declared function failed or returned no amount of money.
        """
        if self.function is not None:
            return _call(self.function, args, None, ROUND_CEILING)
        asked = _count(args, self.unit)
        return self.flat + self.per_unit * (self.max_units if asked is None else asked)

    def cost(self, args: Mapping[str, Any], result: Any) -> int:
        """Nano-dollars the call cost, after it ran; a function's answer is rounded half to even.

        Raises:
            PricingError: the declared function failed or returned no amount of money.
        """
        if self.function is not None:
            return _call(self.function, args, result, ROUND_HALF_EVEN)
        used = _count(result, self.unit)
        return self.estimate(args) if used is None else self.flat + self.per_unit * used

    def describe(self) -> str:
        """One line for traces and for the version of a price book."""
        if self.function is not None:
            name = getattr(self.function, "__qualname__", type(self.function).__qualname__)
            return f"function {getattr(self.function, '__module__', '')}.{name}"
        return f"flat={self.flat} per_unit={self.per_unit} unit={self.unit} max_units={self.max_units}"


_declared: dict[str, ToolPrice] = {}


def declare_tool_price(name: str, price: ToolPrice) -> None:
    """Give the tool *name* a price in this process; what stands behind a decorator. The last declaration holds."""
    _declared[name] = price


def declared_tool_price(name: str) -> ToolPrice | None:
    """The price given by `declare_tool_price`."""
    return _declared.get(name)


def _per_unit(spec: Mapping[object, object], where: str) -> ToolPrice:
    unknown = [key for key in spec if key not in _KEYS]
    unit, most = spec.get("unit"), spec.get("max_units", 1)
    if unknown or "per_unit" not in spec:
        raise ConfigurationError(f"{where}={spec!r}: a price per unit has the keys {', '.join(_KEYS)} and no other.")
    if not isinstance(unit, str) or not unit:
        raise ConfigurationError(f"{where}['unit'] is {unit!r}: name what is counted, as the tool names it.")
    if type(most) is not int or not 0 < most <= _MAX_UNITS:
        raise ConfigurationError(f"{where}['max_units'] is {most!r}: a whole number from 1 to {_MAX_UNITS}.")
    price = nanos(spec["per_unit"], what=f"{where}['per_unit']")  # type: ignore[arg-type]  # refuses what is not money
    return ToolPrice(per_unit=price, unit=unit, max_units=most)


def _checked(function: Callable[..., Any], where: str) -> ToolFunction:
    try:
        inspect.signature(function).bind({}, None)
    except TypeError:
        raise ConfigurationError(f"{where}: a tool's price function takes (args, result).") from None
    except ValueError:  # some callables written in C show no signature; the first call will tell
        return function
    return function


def _count(holder: Any, unit: str) -> int | None:
    """The number of units that *holder* reports, if it does."""
    if not unit:
        return None
    value = holder.get(unit) if isinstance(holder, Mapping) else getattr(holder, unit, None)
    return value if type(value) is int and 0 <= value <= _MAX_UNITS else None


def _call(function: ToolFunction, args: Mapping[str, Any], result: Any, rounding: str) -> int:
    name = getattr(function, "__qualname__", repr(function))
    try:
        amount = function(args, result)
    except Exception as error:
        raise PricingError(f"the price function {name} failed: {error!r}.") from error
    try:
        return nanos(decimal_of(amount).quantize(_NANO, rounding), what=name)
    except (ValueError, ArithmeticError) as error:
        raise PricingError(f"the price function {name} returned {amount!r}: {error}") from error
