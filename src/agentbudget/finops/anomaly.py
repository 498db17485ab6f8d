"""What changed when spend changed: volume, tokens per call, price per token, and who is behind it. Pure.

The change of a product is split by the logarithmic mean (the additive log mean Divisia index, LMDI-I):

    cost = calls x tokens per call x price per token,  L = (cost' - cost) / ln(cost' / cost)
    volume = L ln(calls' / calls),  tokens = L ln(tokens per call' / …),  price = L ln(price per token' / …)

The three add up to the change of the cost. Charges of calls without tokens (priced tools, usage that never came) are a
fourth part, as they are. Another mix of models shows as another price per token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil, log
from typing import Any

from agentbudget.domain.money import dollars, format_dollars

DIMENSIONS = ("feature", "model", "user")
"""Whom a change is looked for at, where nothing else is said."""
MOST = 3
"""Contributors named of each dimension."""
SPIKE = 2.0
"""An hour is an anomaly from this factor over the most that an hour usually costs …"""
QUANTILE = 0.995
"""… which is this quantile of the hours before it."""
BASELINE_HOURS = (14 * 24, 28 * 24)
"""Hours of history that an hour is judged by: at least, and at most."""
NEW_NORMAL = 7 * 24
"""Hours in a row after which what was an anomaly is the new normal."""
_SMALL, _LARGE = 0.1, 10.0
"""Factors between these are told to two decimals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What some calls took. Calls and tokens may be parts of one: a baseline is scaled to the length of a period."""

    calls: float = 0
    """Calls with tokens."""
    tokens: float = 0
    """Their input and output."""
    cost: int = 0
    """Their nano-dollars."""
    other: int = 0
    """Nano-dollars of calls without tokens."""

    @property
    def total(self) -> int:
        """All nano-dollars."""
        return self.cost + self.other

    @property
    def tokens_each(self) -> float:
        """Tokens a call."""
        return self.tokens / self.calls if self.calls else 0.0

    @property
    def price(self) -> float:
        """Nano-dollars a token."""
        return self.cost / self.tokens if self.tokens else 0.0

    def __add__(self, more: Sums) -> Sums:
        return Sums(
            calls=self.calls + more.calls,
            tokens=self.tokens + more.tokens,
            cost=self.cost + more.cost,
            other=self.other + more.other,
        )

    def scaled(self, factor: float) -> Sums:
        """The same of *factor* times the time."""
        return Sums(
            calls=self.calls * factor,
            tokens=self.tokens * factor,
            cost=round(self.cost * factor),
            other=round(self.other * factor),
        )


Cut = Mapping[str, Mapping[str | None, Sums]]
"""The same calls by each of some dimensions; None: calls that have no value there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Parts of a change in nano-dollars; they add up to it exactly."""

    volume: int
    """More or fewer calls."""
    tokens: int
    """More or fewer tokens a call."""
    price: int
    """Another price of a token: another model, tier, share of cache reads, or a new price."""
    other: int
    """Charges of calls without tokens."""

    @property
    def total(self) -> int:
        """The change."""
        return self.volume + self.tokens + self.price + self.other


def decompose(before: Sums, now: Sums) -> Split:
    """The change from *before* to *now*, split. What did not exist before, or does no more, is all volume."""
    change, other = now.cost - before.cost, now.other - before.other
    if not before.calls or not now.calls:
        return Split(volume=change, tokens=0, price=0, other=other)
    if before.cost <= 0 or now.cost <= 0 or not before.tokens or not now.tokens:
        return Split(volume=0, tokens=0, price=change, other=other)
    weight = before.cost if before.cost == now.cost else change / log(now.cost / before.cost)
    volume = round(weight * log(now.calls / before.calls))
    tokens = round(weight * log((now.tokens / now.calls) / (before.tokens / before.calls)))
    return Split(volume=volume, tokens=tokens, price=change - volume - tokens, other=other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributor:
    """One value of a dimension and its part of a change. Nano-dollars."""

    dimension: str
    value: str | None
    """None: the calls that have none."""
    expected: int
    actual: int
    split: Split

    @property
    def impact(self) -> int:
        """Above what was expected."""
        return self.actual - self.expected

    @property
    def who(self) -> str:
        """`feature=triage`."""
        return f"{self.dimension}={self.value}" if self.value is not None else f"no {self.dimension}"

    def __str__(self) -> str:
        return f"{self.who} ({signed(self.impact)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What some time cost against what was expected of it."""

    start: datetime
    end: datetime
    before: Sums
    """Expected."""
    now: Sums
    """Actual."""
    contributors: tuple[Contributor, ...]
    """Who changed most, the largest first; within a dimension all values add up to the whole change."""
    planned: str = ""
    """Names of what was planned for that time; empty: nothing."""

    @property
    def impact(self) -> int:
        """Nano-dollars above what was expected; below it negative."""
        return self.now.total - self.before.total

    @property
    def share(self) -> float | None:
        """`impact` as a part of what was expected; None where nothing was."""
        return self.impact / self.before.total if self.before.total else None

    @property
    def split(self) -> Split:
        """What it is made of."""
        return decompose(self.before, self.now)

    @property
    def because(self) -> str:
        """Its parts in words, the largest first."""
        parts = [(amount, said) for amount, said in self._parts() if amount]
        parts.sort(key=lambda part: -abs(part[0]))
        return ", ".join(f"{said} ({signed(amount)})" for amount, said in parts) or "nothing changed"

    def _parts(self) -> Iterable[tuple[int, str]]:
        before, now, split = self.before, self.now, self.split
        yield split.volume, _factor(before.calls, now.calls, "calls")
        yield split.tokens, _factor(before.tokens_each, now.tokens_each, "tokens a call")
        yield split.price, _factor(before.price, now.price, "price of a token")
        yield split.other, "charges without tokens"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars."""
        return {
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "expected": _plain(self.before.total),
            "actual": _plain(self.now.total),
            "impact": _plain(self.impact),
            "impact_share": self.share,
            "split": {name: _plain(getattr(self.split, name)) for name in ("volume", "tokens", "price", "other")},
            "contributors": [
                {
                    "dimension": each.dimension,
                    "value": each.value,
                    "expected": _plain(each.expected),
                    "actual": _plain(each.actual),
                    "impact": _plain(each.impact),
                }
                for each in self.contributors
            ],
            "feedback": "planned_activity" if self.planned else None,
            "planned": self.planned,
        }

    def __str__(self) -> str:
        instead = f"{format_dollars(self.now.total)} instead of {format_dollars(self.before.total)}"
        share = f", {self.share:+.0%}" if self.share is not None else ""
        most = f"; most from {self.contributors[0]}" if self.contributors else ""
        planned = f"; planned: {self.planned}" if self.planned else ""
        return f"{instead} ({signed(self.impact)}{share}): {self.because}{most}{planned}"


def explain(before: Cut, now: Cut, *, start: datetime, end: datetime, planned: str = "") -> Change:
    """The change from *before* (expected, scaled to the same length) to *now*, with the top contributors."""
    whole = [sum(next(iter(cut.values()), {}).values(), start=Sums()) for cut in (before, now)]
    found = []
    for dimension in dict.fromkeys((*before, *now)):
        old, new = before.get(dimension, {}), now.get(dimension, {})
        values = [_contributor(dimension, value, old, new) for value in dict.fromkeys((*old, *new))]
        values.sort(key=lambda each: (-abs(each.impact), str(each.value)))
        found += [each for each in values[:MOST] if each.impact]
    found.sort(key=lambda each: -abs(each.impact))
    return Change(start=start, end=end, before=whole[0], now=whole[1], contributors=tuple(found), planned=planned)


def _contributor(
    dimension: str, value: str | None, before: Mapping[str | None, Sums], now: Mapping[str | None, Sums]
) -> Contributor:
    old, new = before.get(value, Sums()), now.get(value, Sums())
    return Contributor(
        dimension=dimension, value=value, expected=old.total, actual=new.total, split=decompose(old, new)
    )


def unusual(hours: Sequence[int], *, minimum: int) -> list[tuple[int, int]]:
    """Stretches of unusual spend in *hours* (nano-dollars an hour, oldest first), as first and last-but-one index.

    An hour is unusual from `SPIKE` times the `QUANTILE` of the hours before it, if it is *minimum* nano-dollars above
    it; unusual hours are no baseline for later ones until they last `NEW_NORMAL` hours. On series that are mostly
    zero it finds less: there the burn rates of `agentbudget watch` are the better alarm.
    """
    normal: list[int] = []
    found: list[tuple[int, int]] = []
    for hour, cost in enumerate(hours):
        most = _quantile(normal[-BASELINE_HOURS[1] :])
        if len(normal) < BASELINE_HOURS[0] or cost < SPIKE * most or cost - most < minimum or not cost:
            normal.append(cost)
        elif found and found[-1][1] == hour:
            found[-1] = (found[-1][0], hour + 1)
            if found[-1][1] - found[-1][0] >= NEW_NORMAL:
                normal = list(hours[found[-1][0] : hour + 1])
        else:
            found.append((hour, hour + 1))
    return found


def _quantile(values: Sequence[int]) -> int:
    return sorted(values)[ceil(QUANTILE * len(values)) - 1] if values else 0


def signed(nanos: int) -> str:
    """*nanos* with its sign: `+$1.20`, `-$0.30`."""
    return f"{'-' if nanos < 0 else '+'}{format_dollars(abs(nanos))}"


def _factor(before: float, now: float, what: str) -> str:
    if not before or not now:
        return f"{what} where there were none" if now else f"no {what} any more"
    factor = now / before
    return f"{what} x{factor:.2f}" if _SMALL < factor < _LARGE else f"{what} x{factor:.3g}"


def _plain(nanos: int) -> str:
    return f"{dollars(nanos):f}"
