"""Unit prices of a bill against those that were recorded, meter by meter."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from agentbudget.finops.exports.lines import METERS, UNITS
from agentbudget.finops.exports.meters import REST, metered
from agentbudget.finops.history import History

CLOSE = Decimal("0.001")
"""Unit prices that differ by a smaller share are the same: bills round."""

_EXACT = {meter.lower(): bucket for bucket, meter in METERS.items()}
_PER_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongPrice:
    """A meter of which the bill has another unit price than the record. Dollars for a million tokens, or for one."""

    model: str
    meter: str
    recorded: Decimal
    billed: Decimal
    recorded_quantity: Decimal
    billed_quantity: Decimal
    source: str
    """Where the recorded price came from."""

    @property
    def effect(self) -> Decimal:
        """Dollars by which the record is too low (negative: too high) on the billed quantity, for the price alone."""
        per = 1 if self.meter in _SINGLE else _PER_MILLION
        return (self.billed - self.recorded) * self.billed_quantity / per

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON; money as decimal strings in dollars."""
        known = {name: getattr(self, name) for name in self.__slots__} | {"effect": self.effect}
        return {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in known.items()}


_SINGLE = {METERS[bucket] for bucket in UNITS}


def wrong_prices(history: History, where: str) -> tuple[list[WrongPrice], Decimal]:
    """Meters with another unit price, the dearest difference first; and the dollars billed on meters of other names.

    *where* is SQL over `calls`. Needs the tables `bill_dollars` and `names`. Billed is the mean of the stated unit
    prices, weighted by quantity; where none is stated, cost over quantity.
    """
    billed, unknown = _billed(history)
    if not billed:
        return [], unknown
    found = []
    for key, ours in _recorded(history, where).items():
        theirs = billed.get(key)
        if theirs is None or not ours["quantity"]:
            continue
        price = ours["list_cost"] / ours["quantity"]
        if abs(theirs["price"] - price) <= CLOSE * max(theirs["price"], price):
            continue
        scale = 1 if key[1] in UNITS else _PER_MILLION
        found.append(
            WrongPrice(
                model=key[0],
                meter=METERS[key[1]],
                recorded=price * scale,
                billed=theirs["price"] * scale,
                recorded_quantity=ours["quantity"],
                billed_quantity=theirs["quantity"],
                source=ours["source"],
            )
        )
    return sorted(found, key=lambda wrong: (-abs(wrong.effect), wrong.model, wrong.meter)), unknown


def _billed(history: History) -> tuple[dict[tuple[str, str], dict[str, Any]], Decimal]:
    """Quantity and mean price of one unit, by model and bucket."""
    rows = history.rows("""
        SELECT key, meter, sum(units) AS quantity, sum(dollars) AS cost,
               sum(price::DECIMAL(18, 9) * quantity::DECIMAL(20, 6)) AS priced,
               sum(units) FILTER (price IS NOT NULL) AS priced_quantity
        FROM (SELECT *, quantity::DECIMAL(26, 12) * size::DECIMAL(8, 0) AS units FROM bill_dollars)
        WHERE meter <> '' AND quantity > 0 GROUP BY ALL
    """)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    unknown = Decimal(0)
    for row in rows:
        bucket = bucket_of(row["meter"])
        if bucket is None or bucket == REST:
            unknown += Decimal(0) if bucket == REST else row["cost"]
            continue
        quantity = row["quantity"]
        stated = row["priced_quantity"]
        price = row["priced"] / stated if stated else row["cost"] / quantity
        before = found.get((row["key"], bucket), {"quantity": Decimal(0), "price": Decimal(0)})
        whole = before["quantity"] + quantity
        mean = (before["price"] * before["quantity"] + price * quantity) / whole
        found[row["key"], bucket] = {"quantity": whole, "price": mean}
    return found, unknown


def _recorded(history: History, where: str) -> dict[tuple[str, str], dict[str, Any]]:
    rows = history.rows(f"""
        SELECT key, bucket, sum(quantity)::DECIMAL(38, 0) AS quantity, sum(list_cost)::DECIMAL(38, 15) AS list_cost,
               any_value(coalesce(nullif(price, '')->>'source', '') || ' '
                         || coalesce(nullif(price, '')->>'version', '')) AS source
        FROM ({metered(history, where=where)}) AS lines
        JOIN names ON side = 'calls' AND names.provider = coalesce(lines.provider, '')
                      AND names.model = coalesce(nullif(lines.model, ''), lines.name)
        WHERE bucket <> '{REST}' GROUP BY ALL
    """)  # noqa: S608 - constants and a condition of our own
    return {(row["key"], row["bucket"]): row for row in rows}


def bucket_of(meter: str) -> str | None:
    """The bucket that *meter* names, in our words or a provider's; None where it is not clear."""
    text = meter.strip().lower()
    if text in _EXACT:
        return _EXACT[text]
    words = text.replace("_", " ").replace("-", " ")
    if any(word in words for word in ("audio", "image", "search", "batch", "video", "training")):
        return None
    cached = "cach" in words
    if cached and "write" in words:
        return "cache_write_1h" if "1h" in words or "1 hour" in words else "cache_write_5m"
    if cached:
        return "cache_read"
    if "output" in words or "completion" in words:
        return "output"
    return "input" if "input" in words or "prompt" in words else None
