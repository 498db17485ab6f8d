"""How much may be tried again: the retry budget that many tasks share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Never

from agentbudget.domain.accounts import Account, Meter
from agentbudget.domain.budget import Limit
from agentbudget.domain.options import refuse_unknown
from agentbudget.domain.windows import Window
from agentbudget.errors import ConfigurationError

_APART = ("retry_ratio", "calls")
"""Keeps what a ratio counts apart from other limits on the same meter, which may count other calls."""
_WHOLE = 10_000
_OPTIONS = ("max_ratio", "scope", "window", "minimum", "timezone", "where")


@dataclass(frozen=True, slots=True, init=False)
class RetryRatio:
    """At most so many retries for each call of one *scope* in one *window*, over all tasks that share the ledger.

    A provider that fails then costs a tenth more, say, and not three times as much. Give it to
    `Governor(limits=[...])`. Counted are attempts of model and tool calls: those beyond the first of an operation are
    retries, all others calls.

    Args:
        max_ratio: retries for each call, above 0 and up to 1: 0.1 allows one retry for ten calls.
        scope: as of a `Limit`.
        window: when counting restarts, as of a `Limit`.
        minimum: so many retries are allowed in each window however few calls there were.
        timezone: IANA name; the calendar of *window*.
        where: only tasks with all of these tags.

    Raises:
        TypeError: an unknown option. ConfigurationError: a value that cannot mean anything.
    """

    ratio: int
    """Retries for each 10,000 calls."""
    minimum: int
    limit: Limit
    """On retries; its amount is the minimum."""

    def __init__(
        self,
        max_ratio: float,
        *,
        scope: str | tuple[str, ...],
        window: Window | str = Window.HOUR,
        minimum: int = 20,
        timezone: str = "UTC",
        where: Mapping[str, str] | None = None,
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, _OPTIONS, where="RetryRatio")
        if isinstance(max_ratio, bool) or not isinstance(max_ratio, int | float) or not 0 < max_ratio <= 1:
            raise ConfigurationError(f"max_ratio={max_ratio!r}: retries for each call, above 0 and up to 1.")
        if isinstance(minimum, bool) or not isinstance(minimum, int) or minimum < 1:
            raise ConfigurationError(f"minimum={minimum!r}: a whole number of retries from 1.")
        put = object.__setattr__
        put(self, "ratio", round(max_ratio * _WHOLE))
        put(self, "minimum", minimum)
        put(self, "limit", Limit("retries", minimum, scope=scope, window=window, timezone=timezone, where=where))

    def accounts(self, names: Mapping[str, str], *, at: float) -> Mapping[Meter, Account]:
        """What it counts for a call with these scope *names* at *at*, by meter; empty where it does not apply."""
        of = self.limit.account(names, at=at)
        if of is None:
            return {}
        meters = (Meter.RETRIES, Meter.MODEL_CALLS, Meter.TOOL_CALLS)
        return {meter: replace(of, scope=(*of.scope, _APART), meter=meter) for meter in meters}

    def most(self, calls: int) -> int:
        """Retries allowed after so many *calls* that were no retries."""
        return max(self.minimum, calls * self.ratio // _WHOLE)

    def label(self, calls: int) -> str:
        """What it is called in a refusal."""
        share = f"{self.ratio / _WHOLE:.2%}".replace(".00%", "%")
        return f"the {'/'.join(self.limit.scope)} retry budget ({share} of {calls} calls, at least {self.minimum})"


def split(limits: object) -> tuple[tuple[Limit, ...], tuple[RetryRatio, ...]]:
    """The limits and the retry ratios among *limits*.

    Raises:
        ConfigurationError: something else is among them.
    """
    if not isinstance(limits, Iterable) or isinstance(limits, str):
        raise ConfigurationError(f"limits={limits!r}: a list of them, e.g. [Limit('cost', '$200', scope='team')].")
    given = tuple(limits)
    for limit in given:
        if not isinstance(limit, Limit | RetryRatio):
            raise ConfigurationError(
                f"limits: {limit!r} is not a Limit, e.g. Limit(meter='cost', amount='$200', scope='team')."
            )
    return (
        tuple(limit for limit in given if isinstance(limit, Limit)),
        tuple(limit for limit in given if isinstance(limit, RetryRatio)),
    )
