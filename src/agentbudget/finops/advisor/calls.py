"""Recorded model calls one by one, and what each would cost otherwise: by the code that prices live calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from fractions import Fraction
from typing import NamedTuple, cast

from agentbudget.domain.usage import Usage
from agentbudget.errors import PricingError
from agentbudget.finops.advisor.record import RAN, Record, is_day
from agentbudget.finops.schema import USAGE_COLUMNS
from agentbudget.pricing.book import PriceBook
from agentbudget.pricing.buckets import Bucket
from agentbudget.pricing.rates import MIDNIGHT, PriceTable, Quote, Rates, compile_rates
from agentbudget.pricing.tiers import STANDARD, tier_of

_BATCH = 10_000
_COLUMNS = "root, task, agent, name, model, provider, tier, price, cost, ended, seconds"


class ModelCall(NamedTuple):
    """A model call that was served. Money in nano-dollars."""

    kind: str
    """Name of its root task."""
    feature: str
    root: str
    task: str
    agent: str
    name: str
    model: str
    provider: str
    tier: str
    price: str
    cost: int
    ended: datetime
    seconds: float
    usage: Usage


def model_calls(record: Record, where: str = "true", *, in_order: bool = False) -> Iterator[ModelCall]:
    """Served model calls with token counts and a cost; *where* is SQL over `calls`.

    In no order, or each agent's calls of a task one after the other, as they ended.
    """
    if not record.cost:
        return
    found = record.history.con.cursor().execute(f"""
        SELECT coalesce(roots.name, '') AS kind, coalesce(calls.feature, '') AS feature,
               {", ".join(f"calls.{name}" for name in _COLUMNS.split(", "))},
               {", ".join(f"coalesce({name}, 0)" for name in USAGE_COLUMNS)}
        FROM (SELECT * FROM calls WHERE {RAN} AND cost > 0 AND input_tokens + output_tokens > 0 AND {where}) AS calls
        LEFT JOIN (SELECT task AS id, name FROM tasks) AS roots ON id = root
        {"ORDER BY calls.task, agent, ended, call" if in_order else ""}
    """)  # noqa: S608 - constants and conditions of our own
    width = len(ModelCall._fields) - 1
    while rows := found.fetchmany(_BATCH):
        for row in rows:
            try:
                usage = Usage(**dict(zip(USAGE_COLUMNS, row[width:], strict=True)))
            except ValueError:  # counts that contradict each other: nothing can be said of other prices
                continue
            yield ModelCall._make((*row[:width], usage))


class Rater:
    """Prices of recorded calls, and of the same tokens elsewhere."""

    def __init__(self, book: PriceBook, *, today: date) -> None:
        self.book = book
        self.today = today
        self._known: dict[Hashable, Rates | None] = {}

    def now(self, call: ModelCall) -> Rates | None:
        """The prices that *call* was charged with, where they are recorded, else of its day; None: unknown."""
        if call.price:
            return self._once(call.price, lambda: recorded_rates(call.price))
        day = self.day(call)
        key = (call.model, call.provider, call.tier, day)
        return self._once(key, lambda: self._rates(call.model, call.provider, call.tier, day))

    def elsewhere(self, call: ModelCall, provider: str, model: str) -> Rates | None:
        """The prices of another model on the day of *call*, in the standard tier."""
        day = self.day(call)
        return self._once((model, provider, "", day), lambda: self._rates(model, provider, "", day))

    def tier(self, call: ModelCall, tier: str) -> tuple[Rates, Rates] | None:
        """The prices of *call*'s model in the standard tier and in *tier*: of its day, else both of today."""
        days = (self.day(call), self.today)
        return next((pair for day in days if (pair := self._pair(call, tier, day)) is not None), None)

    def day(self, call: ModelCall) -> date:
        """The day whose prices hold for *call*."""
        day = call.ended.date()
        return day if is_day(day, self.today) else self.today

    def _pair(self, call: ModelCall, tier: str, day: date) -> tuple[Rates, Rates] | None:
        name, provider = call.model, call.provider
        plain = self._once((name, provider, "", day), lambda: self._rates(name, provider, "", day))
        other = self._once((name, provider, tier, day), lambda: self._rates(name, provider, tier, day))
        return None if plain is None or other is None else (plain, other)

    def _rates(self, model: str, provider: str, tier: str, on: date) -> Rates | None:
        try:
            return self.book.rates(model, provider=provider or None, tier=tier or None, on=on)
        except PricingError:
            return None

    def _once(self, key: Hashable, make: Callable[[], Rates | None]) -> Rates | None:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


@dataclass(slots=True)
class Swapped:
    """Calls as they were and as they would be. Nano-dollars."""

    calls: int = 0
    before: int = 0
    after: int = 0
    roots: set[str] = field(default_factory=set)

    def add(self, call: ModelCall, after: int) -> None:
        """One more call."""
        self.calls += 1
        self.before += call.cost
        self.after += after
        self.roots.add(call.root)


def cost_of(rates: Rates, usage: Usage) -> int | None:
    """Nano-dollars of *usage*; None where *rates* lacks a price for a part of it."""
    try:
        return rates.cost(usage)
    except PricingError:
        return None


def moved_cost(call: ModelCall, old: int, new: int) -> int:
    """What was charged for *call*, as list price *new* is to list price *old*.

    Where it was charged at list price that is *new*; a discount, or a bill that is not the list's, stays in proportion.
    """
    return new if call.cost == old or not old else round(Fraction(call.cost) * new / old)


def is_standard(tier: str) -> bool:
    """Whether a call ran in the tier that everybody gets."""
    return tier_of(tier) == STANDARD


def recorded_rates(text: str) -> Rates | None:
    """The prices of a recorded `PriceRef`; None where it is none."""
    ref = json.loads(text)
    steps: dict[int, dict[Bucket, Fraction]] = {0: {}}
    for name, price in ref.get("prices", {}).items():
        bucket, _, over = name.partition(">")
        steps.setdefault(int(over or 0), {})[cast("Bucket", bucket)] = Fraction(price)
    below = {"request": Fraction(0), **steps[0]}
    if "input" not in below:
        return None
    below.setdefault("cache_read", below["input"])
    base, cliffs = below, []
    for over in sorted(steps)[1:]:
        below = {**below, **steps[over]}
        cliffs.append((over, below))
    table = PriceTable(base=base, cliffs=tuple(cliffs))
    words = {name: str(ref.get(name, "")) for name in ("source", "version", "provider", "model", "tier")}
    return compile_rates(Quote(**words, windows=((MIDNIGHT, table),)))
