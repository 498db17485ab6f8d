"""Alert thresholds: shares of a limit at which the settlement that reaches them says so, once.

A threshold is an int in basis points (hundredths of a percent) of the limit in force: 8000 is 80 %. Only what was
really spent (settled) counts, so that what is merely reserved never alarms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from agentbudget.domain.accounts import Account
from agentbudget.domain.money import MAX_NANOS
from agentbudget.errors import ConfigurationError

WHOLE = 10_000
"""The limit itself, in basis points."""
MAX_THRESHOLD = 10 * WHOLE
MAX_THRESHOLDS = 16
"""Most thresholds of one account."""

AlertAt: TypeAlias = Mapping[Account, Sequence[int]]
"""The thresholds to watch, by account: ascending basis points."""

_PERCENT = re.compile(r"(\d{1,4})(?:\.(\d{1,2}))?\s*%")


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """One threshold that one settlement reached. Amounts are in the unit of the account's meter."""

    account: Account
    threshold: int
    """Basis points of `limit`."""
    limit: int
    """The limit in force then, top-ups included."""
    settled: int
    """What was spent then, the settlement that reached it included."""
    at: float = field(default=0.0, compare=False)
    """Seconds since 1970 UTC by the ledger's clock."""

    @property
    def percent(self) -> str:
        """`"80%"`."""
        return percent(self.threshold)

    @property
    def key(self) -> str:
        """Names this alarm: equal wherever the same threshold of the same limit is told again."""
        return f"{self.account.key}@{self.threshold}/{self.limit}"

    def __str__(self) -> str:
        show = self.account.meter.show
        return f"{self.account} reached {self.percent} of {show(self.limit)}: {show(self.settled)} spent"


def thresholds_of(alert_at: str | Iterable[str]) -> tuple[int, ...]:
    """The basis points of percentages such as `("50%", "80%", "100%")`, ascending, each once.

    Raises:
        ConfigurationError: not a percentage above 0 and at most 1000 %, or more than `MAX_THRESHOLDS`.
    """
    given = tuple(alert_at) if isinstance(alert_at, Iterable) and not isinstance(alert_at, str) else (alert_at,)
    found = {_basis_points(text) for text in given}
    if len(found) > MAX_THRESHOLDS:
        raise ConfigurationError(f"alert_at: at most {MAX_THRESHOLDS} thresholds, not {len(found)}.")
    return tuple(sorted(found))


def percent(threshold: int) -> str:
    """*threshold* for people: `"80%"`, `"99.5%"`."""
    whole, rest = divmod(threshold, 100)
    return f"{whole}.{rest:02}".rstrip("0").rstrip(".") + "%"


def check_alert_at(alert_at: AlertAt) -> None:
    """Refuse thresholds that no ledger could keep.

    Raises:
        ValueError: not ascending ints from 1 to `MAX_THRESHOLD`, or more than `MAX_THRESHOLDS` of an account.
    """
    for account, thresholds in alert_at.items():
        known = [one for one in thresholds if type(one) is int and 0 < one <= MAX_THRESHOLD]
        if [*thresholds] != sorted({*known}) or len(known) > MAX_THRESHOLDS:
            raise ValueError(
                f"alert_at of {account}: {list(thresholds)!r} are not at most {MAX_THRESHOLDS} ascending basis points "
                f"from 1 to {MAX_THRESHOLD}."
            )


def amount_at(threshold: int, limit: int) -> int:
    """What must be spent to reach *threshold* of *limit*, rounded up; never more than any limit can be."""
    return min(-(-threshold * limit // WHOLE), MAX_NANOS)


def reached(
    thresholds: Sequence[int], *, limit: int | None, before: int, after: int, raised: int
) -> tuple[tuple[int, ...], int]:
    """Which of *thresholds* a settlement from *before* to *after* raises, and the highest that counts as raised then.

    *raised* is what the account's last settlement with thresholds left behind. A threshold is raised by the first
    settlement that finds it reached and not yet raised, and not again until the limit was raised above it: then it is
    armed anew. Without a limit, or with one of 0, there is nothing to take a share of.
    """
    if not limit:
        return (), raised
    kept = raised
    if amount_at(raised, limit) > before:
        kept = max((one for one in thresholds if amount_at(one, limit) <= before), default=0)
    due = tuple([one for one in thresholds if one > kept and amount_at(one, limit) <= after])
    return due, due[-1] if due else kept


def _basis_points(text: object) -> int:
    match = _PERCENT.fullmatch(text.strip()) if isinstance(text, str) else None
    value = int(match[1]) * 100 + int((match[2] or "").ljust(2, "0")) if match else 0
    if not 0 < value <= MAX_THRESHOLD:
        raise ConfigurationError(
            f"alert_at={text!r}: a threshold is a percentage of the limit above 0% and at most 1000%, e.g. '80%'."
        )
    return value
