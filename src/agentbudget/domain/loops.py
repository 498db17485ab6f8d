"""What counts as a loop, and from when on: the thresholds of the loop rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Never

from agentbudget.domain.accounts import check_name
from agentbudget.domain.options import refuse_unknown
from agentbudget.errors import ConfigurationError

WINDOW = 20
"""Tool calls that the rule on repetition within a window looks back on."""
_REPEATS = ("run", "answer")
MOST_CYCLES = 5
"""Cycles of up to six calls, this many times, are what a detector remembers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """How often something must happen to count; None: never. All but `unparsable` count tool calls of one agent."""

    in_a_row: int | None = None
    """The same call with the same result, in a row."""
    in_window: int | None = None
    """The same call with the same result, within the last 20 calls."""
    cycles: int | None = None
    """A cycle of two to six different calls, with the same results each time round."""
    nothing_new: int | None = None
    """Calls in a row that returned nothing which had not been seen before."""
    same_error: int | None = None
    """The same error of the same tool, in a row, whatever the arguments."""
    unparsable: int | None = None
    """Replies of the model in a row whose tool calls could not be read."""

    def __post_init__(self) -> None:
        for each in fields(self):
            most = _MOST.get(each.name, 10_000)
            value = getattr(self, each.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= most:  # noqa: PLR2004 - once is no loop
                msg = f"{each.name}={value!r}: a threshold is a whole number from 2 to {most}, or None for never."
                raise ConfigurationError(msg)


_MOST = {"in_window": WINDOW, "cycles": MOST_CYCLES}

HALT = Thresholds(in_a_row=4, in_window=8, cycles=3, nothing_new=12, same_error=5, unparsable=10)
"""Halted none of 895 successful recorded runs of current agents; see docs/loops.md."""
NUDGE = Thresholds(in_a_row=3, in_window=5, cycles=2, nothing_new=8, same_error=3, unparsable=4)
"""Would have nudged 2.8 % of the successful runs of recorded coding and service agents."""


@dataclass(frozen=True, slots=True, init=False)
class Loops:
    """The loop rules of a budget: `Budget(loops=Loops())` lets them stop a task; without it they only report.

    Args:
        halt: from when on a loop ends the task; the limit is called `"loops"`.
        nudge: from when on the model is told that it repeats itself; None tells it nothing.
        polling: names of tools that may be asked the same again and again; no rule looks at them.
        volatile: arguments that do not tell one call from another, by tool name: `{"search": ("nonce",)}`. Fields
            named like a nonce, a timestamp or a request id are left out of every tool's anyway.
        repeats: of a call that was made with the same result as often in a row as nudges (`in_a_row`): `"run"` runs
            the tool again, `"answer"` gives its last result without running it (`BudgetMiddleware` only).

    Raises:
        TypeError: an unknown option. ConfigurationError: a value that cannot mean anything.
    """

    halt: Thresholds
    nudge: Thresholds | None
    polling: frozenset[str]
    volatile: Mapping[str, frozenset[str]] = field(hash=False)
    repeats: str = "run"

    def __init__(
        self,
        *,
        halt: Thresholds = HALT,
        nudge: Thresholds | None = NUDGE,
        polling: Iterable[str] = (),
        volatile: Mapping[str, Iterable[str]] | None = None,
        repeats: str = "run",
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, ("halt", "nudge", "polling", "volatile", "repeats"), where="Loops")
        if repeats not in _REPEATS:
            raise ConfigurationError(f"repeats={repeats!r}: one of {', '.join(map(repr, _REPEATS))}.")
        if not isinstance(halt, Thresholds) or not isinstance(nudge, Thresholds | None):
            msg = f"halt={halt!r}, nudge={nudge!r}: Thresholds(in_a_row=4, ...); nudge may be None."
            raise ConfigurationError(msg)
        put = object.__setattr__
        put(self, "halt", halt)
        put(self, "nudge", nudge)
        put(self, "polling", _names(polling, "polling"))
        put(self, "volatile", _volatile(volatile))
        put(self, "repeats", repeats)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "halt": _plain(self.halt),
            "nudge": None if self.nudge is None else _plain(self.nudge),
            "polling": sorted(self.polling),
            "volatile": {tool: sorted(names) for tool, names in self.volatile.items()},
            "repeats": self.repeats,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Loops:
        """The rules that `to_dict` wrote.

        Raises:
            TypeError, ConfigurationError: not what it wrote.
        """
        options = dict(stored)
        for name in ("halt", "nudge"):
            if isinstance(options.get(name), Mapping):
                options[name] = Thresholds(**options[name])
        return cls(**options)


def _plain(thresholds: Thresholds) -> dict[str, int | None]:
    return {each.name: getattr(thresholds, each.name) for each in fields(thresholds)}


def _names(given: object, what: str) -> frozenset[str]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        msg = f"{what}={given!r}: a set of names, e.g. {{'check_status'}}."
        raise ConfigurationError(msg)
    return frozenset(check_name(name, what=what) for name in given)


def _volatile(given: object) -> Mapping[str, frozenset[str]]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        msg = f"volatile={given!r}: names of arguments by tool, e.g. {{'search': ('nonce',)}}."
        raise ConfigurationError(msg)
    return {check_name(tool, what="volatile"): _names(names, f"volatile[{tool!r}]") for tool, names in given.items()}


OBSERVED = Loops()
"""What a budget without loop rules of its own is watched with."""
