"""Limits and budgets: what a user allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Never, TypeVar

from agentbudget.domain.accounts import Account, Meter, check_name, normal
from agentbudget.domain.alerts import thresholds_of
from agentbudget.domain.loops import Loops
from agentbudget.domain.money import MAX_NANOS, Money, format_dollars, nanos
from agentbudget.domain.options import refuse_unknown
from agentbudget.domain.windows import Window, zone
from agentbudget.errors import ConfigurationError

_Member = TypeVar("_Member", bound=StrEnum)

_METER_OF = {
    "max_cost": Meter.COST,
    "max_total_tokens": Meter.TOTAL_TOKENS,
    "max_input_tokens": Meter.INPUT_TOKENS,
    "max_output_tokens": Meter.OUTPUT_TOKENS,
    "max_uncached_tokens": Meter.UNCACHED_TOKENS,
    "max_model_calls": Meter.MODEL_CALLS,
    "max_tool_calls": Meter.TOOL_CALLS,
    "max_retries": Meter.RETRIES,
    "max_seconds": Meter.SECONDS,
}
_ZERO_OPTIONS = ("max_tool_calls", "max_retries", "max_retries_per_call", "max_depth")
"""Limits of which none at all makes sense; 0 of any other would refuse everything."""


@dataclass(frozen=True, slots=True, init=False)
class Budget:
    """A named set of limits for one task; a call must be admitted by all of them. Every limit is optional.

    Args:
        max_cost: dollars: `"$0.50"`, Decimal, int or float.
        max_total_tokens: input plus output tokens, cache reads included.
        max_input_tokens: input tokens, cache reads and writes included.
        max_output_tokens: output tokens, reasoning included.
        max_uncached_tokens: input plus output tokens without cache reads.
        max_model_calls: admitted attempts of model calls, not turns of a loop.
        max_tool_calls: admitted attempts of tool calls.
        max_retries: attempts beyond the first of the same operation, as far as the host shows them.
        max_retries_per_call: attempts beyond the first of any one operation.
        max_seconds: wall-clock seconds from the opening of the task.
        tools: most calls of single tools, by tool name; `"*"` is the limit of each tool not named.
        max_tools_per_turn: tool calls that one answer of a model may lead to; the rest of its batch is refused.
        max_depth: how deep agents may call agents: 0 allows no sub-agent, 1 none of a sub-agent's own.
        max_children: sub-agents at work at the same time, directly within the agent of the task.
        loops: `Loops()` lets the loop rules stop the task; None: loops are only reported.

    Raises:
        TypeError: an unknown option; the message suggests the nearest known one.
        ConfigurationError: a limit that cannot mean anything (negative, zero, NaN, not a number).
    """

    max_cost: int | None
    """Nano-dollars."""
    max_total_tokens: int | None
    max_input_tokens: int | None
    max_output_tokens: int | None
    max_uncached_tokens: int | None
    max_model_calls: int | None
    max_tool_calls: int | None
    max_retries: int | None
    max_retries_per_call: int | None
    max_seconds: float | None
    tools: Mapping[str, int] = field(hash=False)
    max_tools_per_turn: int | None
    max_depth: int | None
    max_children: int | None
    loops: Loops | None
    has_shape: bool = field(compare=False, repr=False)
    """Whether depth, children or turns are limited."""
    terms: dict[str, Any] = field(compare=False, repr=False)
    """What `to_dict` gives, made once: every task that opens writes it. Not to be changed."""
    _limits: tuple[tuple[Meter, int], ...] = field(compare=False, repr=False)

    def __init__(  # noqa: PLR0913 - one keyword per limit is the public face
        self,
        *,
        max_cost: Money | None = None,
        max_total_tokens: int | None = None,
        max_input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        max_uncached_tokens: int | None = None,
        max_model_calls: int | None = None,
        max_tool_calls: int | None = None,
        max_retries: int | None = None,
        max_retries_per_call: int | None = None,
        max_seconds: float | None = None,
        tools: Mapping[str, int] | None = None,
        max_tools_per_turn: int | None = None,
        max_depth: int | None = None,
        max_children: int | None = None,
        loops: Loops | None = None,
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, LIMIT_OPTIONS, where="Budget")
        put = object.__setattr__
        put(self, "max_cost", None if max_cost is None else _positive_money(max_cost))
        put(self, "max_total_tokens", _count("max_total_tokens", max_total_tokens))
        put(self, "max_input_tokens", _count("max_input_tokens", max_input_tokens))
        put(self, "max_output_tokens", _count("max_output_tokens", max_output_tokens))
        put(self, "max_uncached_tokens", _count("max_uncached_tokens", max_uncached_tokens))
        put(self, "max_model_calls", _count("max_model_calls", max_model_calls))
        put(self, "max_tool_calls", _count("max_tool_calls", max_tool_calls))
        put(self, "max_retries", _count("max_retries", max_retries))
        put(self, "max_retries_per_call", _count("max_retries_per_call", max_retries_per_call))
        put(self, "max_seconds", _seconds(max_seconds))
        put(self, "tools", _tools(tools))
        shape = {"max_tools_per_turn": max_tools_per_turn, "max_depth": max_depth, "max_children": max_children}
        for option, most in shape.items():
            put(self, option, _count(option, most))
        put(self, "has_shape", any(most is not None for most in shape.values()))
        put(self, "loops", _loops(loops))
        self._derive()

    def limits(self) -> tuple[tuple[Meter, int], ...]:
        """The limits the ledger keeps for the task itself: `(meter, amount)`; seconds and tools are apart."""
        return self._limits

    def _derive(self) -> None:
        limits = tuple(
            (meter, amount)
            for option, meter in _METER_OF.items()
            if meter is not Meter.SECONDS and (amount := getattr(self, option)) is not None
        )
        object.__setattr__(self, "_limits", limits)
        object.__setattr__(self, "terms", self._terms())

    def tool_limit(self, tool: str) -> int | None:
        """Most calls of *tool*, or None."""
        return self.tools.get(tool, self.tools.get("*"))

    def to_dict(self) -> dict[str, Any]:
        """The limits that are set; money in nano-dollars under `max_cost_nanos`."""
        return self._terms()

    def _terms(self) -> dict[str, Any]:
        known = {name: getattr(self, name) for name in LIMIT_OPTIONS if getattr(self, name)}
        known |= {name: 0 for name in _ZERO_OPTIONS if getattr(self, name) == 0}
        if "max_cost" in known:
            known["max_cost_nanos"] = known.pop("max_cost")
        if "tools" in known:
            known["tools"] = dict(known["tools"])
        if self.loops is not None:
            known["loops"] = self.loops.to_dict()
        return known

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Budget:
        """The budget that `to_dict` wrote."""
        options = dict(stored)
        cost = options.pop("max_cost_nanos", None)
        if isinstance(options.get("loops"), Mapping):
            options["loops"] = Loops.from_dict(options["loops"])
        budget = cls(**options)
        if cost is not None:
            object.__setattr__(budget, "max_cost", _count("max_cost_nanos", cost))
            budget._derive()
        return budget

    def __repr__(self) -> str:
        shown = []
        for name in LIMIT_OPTIONS:
            value = getattr(self, name)
            if value is not None and value != {}:
                shown.append(f"{name}={format_dollars(value)!r}" if name == "max_cost" else f"{name}={value!r}")
        return f"Budget({', '.join(shown)})"


LIMIT_OPTIONS = (
    *_METER_OF, "max_retries_per_call", "tools", "max_tools_per_turn", "max_depth", "max_children", "loops",
)  # fmt: skip
"""The names of all options of `Budget`."""


@dataclass(frozen=True, slots=True, init=False)
class Limit:
    """At most *amount* of one *meter* for one *scope* in one *window*: shared by every task with that scope.

    Args:
        meter: what is counted (`Meter` or its name).
        amount: dollars for cost, units otherwise.
        scope: `"user"`, `"team"`, `"feature"`, `"tenant"`, `"thread"`, `"model"`, `"tool"` or any tag; a tuple of
            them for each combination.
        window: `"never"`, `"minute"`, `"hour"`, `"day"`, `"week"`, `"month"`: when counting restarts.
        timezone: IANA name; the calendar of *window*.
        where: only tasks with all of these tags.
        alert_at: shares of the limit such as `("50%", "80%", "100%")`; the settlement that reaches one raises it,
            once over all processes that share the ledger (`Governor(on_threshold=...)`). All of them declare the same.

    Raises:
        TypeError: an unknown option. ConfigurationError: a value that cannot mean anything.
    """

    meter: Meter
    amount: int
    scope: tuple[str, ...]
    window: Window
    timezone: str
    where: Mapping[str, str] = field(hash=False)
    alert_at: tuple[int, ...]
    """Ascending basis points of the amount: 8000 is 80 %."""

    def __init__(
        self,
        meter: Meter | str,
        amount: Money,
        *,
        scope: str | tuple[str, ...],
        window: Window | str = Window.NEVER,
        timezone: str = "UTC",
        where: Mapping[str, str] | None = None,
        alert_at: str | Iterable[str] = (),
        **unknown: Never,
    ) -> None:
        known = ("meter", "amount", "scope", "window", "timezone", "where", "alert_at")
        refuse_unknown(unknown, known, where="Limit")
        put = object.__setattr__
        put(self, "meter", _member(Meter, meter, "meter"))
        if self.meter is Meter.SECONDS:
            msg = "meter='seconds': a shared limit cannot count time; use Budget(max_seconds=...)."
            raise ConfigurationError(msg)
        put(self, "amount", _amount(self.meter, amount))
        put(self, "scope", _kinds(scope))
        put(self, "window", _member(Window, window, "window"))
        put(self, "timezone", timezone)
        zone(timezone)
        put(self, "where", _where(where))
        put(self, "alert_at", thresholds_of(alert_at))

    def account(self, names: Mapping[str, str], *, at: float) -> Account | None:
        """The account this limit means for a call with these scope *names* at *at*; None where it does not apply."""
        if not all(is_named(names, tag, value) for tag, value in self.where.items()):
            return None
        if any(kind not in names for kind in self.scope):
            return None
        pairs = tuple([(kind, normal(names[kind])) for kind in self.scope])
        return Account(pairs, self.meter, self.window.key(at, self.timezone))


def is_named(names: Mapping[str, str], tag: str, value: str) -> bool:
    """Whether *names* say *value* for *tag*, however they spell it."""
    found = names.get(tag)
    return found == value or (found is not None and normal(found) == value)


def _amount(meter: Meter, amount: Money) -> int:
    if meter is Meter.COST:
        return _positive_money(amount, "amount")
    count = _count("amount", amount)
    if count is None:
        msg = "amount=None: leave the whole limit out for no limit."
        raise ConfigurationError(msg)
    return count


def _kinds(scope: object) -> tuple[str, ...]:
    given = (scope,) if isinstance(scope, str) else scope
    if not isinstance(given, Sequence) or not given:
        msg = f"scope={scope!r}: a limit needs a scope such as 'user', or several in a tuple."
        raise ConfigurationError(msg)
    kinds = tuple([check_name(kind, what="scope") for kind in given])
    if len(set(kinds)) < len(kinds):
        msg = f"scope={scope!r}: name each scope once."
        raise ConfigurationError(msg)
    return kinds


def _where(where: object) -> dict[str, str]:
    if where is None:
        return {}
    if not isinstance(where, Mapping):
        msg = f"where={where!r}: a mapping of tags, e.g. {{'plan': 'free'}}."
        raise ConfigurationError(msg)
    return {check_name(tag, what="where"): check_name(value, what=f"where[{tag!r}]") for tag, value in where.items()}


def _positive_money(amount: Money, option: str = "max_cost") -> int:
    value = nanos(amount, what=option)
    if value == 0:
        msg = f"{option}={amount!r}: a cost limit of 0 would refuse every call; leave it out for no limit."
        raise ConfigurationError(msg)
    return value


def _count(option: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{option}={value!r}: a limit is a whole number, not {type(value).__name__}."
        raise ConfigurationError(msg)
    least = 0 if option in _ZERO_OPTIONS or option.startswith("tools[") else 1
    if not least <= value <= MAX_NANOS:
        msg = f"{option}={value!r}: a limit is from {least} to {MAX_NANOS}; leave it out for no limit."
        raise ConfigurationError(msg)
    return value


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:  # noqa: PLR2004 - 30 years
        msg = f"max_seconds={value!r}: a deadline is a positive, finite number of seconds."
        raise ConfigurationError(msg)
    return float(value)


def _tools(tools: object) -> Mapping[str, int]:
    if tools is None:
        return {}
    if not isinstance(tools, Mapping):
        msg = f"tools={tools!r}: a mapping of tool name to most calls, e.g. {{'search': 5, '*': 40}}."
        raise ConfigurationError(msg)
    for name, most in tools.items():
        check_name(name, what="tools")
        if _count(f"tools[{name!r}]", most) is None:
            msg = f"tools[{name!r}]=None: leave the tool out for no limit."
            raise ConfigurationError(msg)
    return dict(tools)


def _loops(loops: object) -> Loops | None:
    if loops is None or isinstance(loops, Loops):
        return loops
    msg = f"loops={loops!r}: Loops() to stop loops, or None to report them."
    raise ConfigurationError(msg)


def _member(kind: type[_Member], value: str, what: str) -> _Member:
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(repr(member.value) for member in kind)
        msg = f"{what}={value!r}: one of {names}."
        raise ConfigurationError(msg) from None
