"""Calls split into what they are paid by: one row for each meter of a call, whose costs add up to the call's cost.

The buckets are those of `agentbudget.pricing.buckets.split`, said again in SQL because a million calls are split here;
a test holds the two equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from agentbudget.finops.history import History
from agentbudget.pricing.buckets import PER_UNIT

_FRESH = "input_tokens - cache_read_tokens - cache_write_5m_tokens - cache_write_1h_tokens"
_CACHED_AUDIO = "least(cache_audio_read_tokens, cache_read_tokens)"
_AUDIO = f"least(greatest(input_audio_tokens - {_CACHED_AUDIO}, 0), {_FRESH})"
_IMAGE = f"least(input_image_tokens, {_FRESH} - {_AUDIO})"
_WRITTEN = "output_tokens - reasoning_tokens - output_audio_tokens"
_DRAWN = f"least(output_image_tokens, {_WRITTEN})"

BUCKETS = {
    "input": f"{_FRESH} - {_AUDIO} - {_IMAGE}",
    "cache_read": f"cache_read_tokens - {_CACHED_AUDIO}",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "input_audio": _AUDIO,
    "cache_audio_read": _CACHED_AUDIO,
    "input_image": _IMAGE,
    "output": f"{_WRITTEN} - {_DRAWN}",
    "reasoning": "reasoning_tokens",
    "output_audio": "output_audio_tokens",
    "output_image": _DRAWN,
    "web_search": "web_searches",
    "request": "1",
}
"""Bucket → its count, as SQL over `calls`."""

REST = "rest"
"""The meter of what a call was charged beyond its priced usage: a tool's price, a reservation that was charged."""

SMALL = 1_000
"""Nano-dollars that rounding may leave between a call's cost and its buckets; more is a row of its own."""


class _Price(NamedTuple):
    """Price of a bucket in calls of more than `over` and up to `until` input tokens."""

    price: str
    bucket: str
    over: int
    until: int
    unit: Decimal


def metered(history: History, *, where: str = "true") -> str:
    """Make the temporary table `prices` and return SQL with one row for each meter of a call.

    A call that was charged less than its usage at list price got a discount: its meters share it. One that was charged
    more has a row for the rest. Columns are those of `calls`, and `bucket`, `quantity` (tokens, searches or requests),
    `unit` (dollars per million tokens, or per one), `list_cost` (dollars, `unit x quantity`, exact) and `billed`
    (nano-dollars; over the meters of a call they add up to its `cost`).
    """
    _list_prices(history)
    counts = ", ".join(f"{{'bucket': '{bucket}', 'quantity': {count}}}" for bucket, count in BUCKETS.items())
    return f"""
        WITH wanted AS (
            SELECT * FROM calls WHERE cost > 0 AND {where}
        ), spread AS (
            SELECT call AS of_call, ended AS at_time, input_tokens AS total, price AS text,
                   unnest([{counts}], recursive := true)
            FROM wanted WHERE price <> ''
        ), priced AS (
            SELECT of_call, at_time, spread.bucket, quantity, unit,
                   (quantity::DECIMAL(13, 0) * unit * per)::DECIMAL(38, 15) AS list_cost
            FROM spread JOIN prices
              ON prices.price = text AND prices.bucket = spread.bucket AND total > "over" AND total <= "until"
            WHERE quantity > 0 AND unit > 0
        ), sums AS (
            SELECT of_call, at_time, sum(round(list_cost * 1000000000))::BIGINT AS nanos,
                   arg_max(bucket, list_cost) AS dearest
            FROM priced GROUP BY ALL
        ), charged AS (
            SELECT wanted.*, dearest, nanos, cost - coalesce(nanos, 0) AS gap
            FROM wanted LEFT JOIN sums ON of_call = call AND at_time = ended
        )
        SELECT * EXCLUDE (dearest, nanos, gap, of_call, at_time, part, share),
               share + CASE WHEN bucket = dearest THEN part - sum(share) OVER (PARTITION BY call, ended) ELSE 0 END
                   AS billed
        FROM (
            SELECT *, CASE WHEN gap > {SMALL} THEN nanos ELSE cost END AS part,
                   CASE WHEN gap < -{SMALL} THEN (list_cost * 1000000000 / nanos * cost)::BIGINT
                        ELSE round(list_cost * 1000000000)::BIGINT END AS share
            FROM charged JOIN priced ON of_call = call AND at_time = ended
        )
        UNION ALL BY NAME
        SELECT * EXCLUDE (dearest, nanos, gap), '{REST}' AS bucket, 1 AS quantity,
               (gap * 0.000000001::DECIMAL(10, 9))::DECIMAL(18, 9) AS unit,
               (gap * 0.000000001::DECIMAL(10, 9))::DECIMAL(38, 15) AS list_cost, gap AS billed
        FROM charged WHERE dearest IS NULL OR gap > {SMALL}
    """  # noqa: S608 - made of constants and a condition of our own


def _list_prices(history: History) -> None:
    """Make the table of the prices that calls were charged at."""
    history.con.execute("""
        CREATE OR REPLACE TEMP TABLE prices (
            price VARCHAR, bucket VARCHAR, "over" BIGINT, "until" BIGINT, unit DECIMAL(18, 9), per DECIMAL(7, 6)
        )
    """)
    texts = [row["price"] for row in history.rows("SELECT DISTINCT price FROM calls WHERE price <> ''")]
    rows = [(*price, Decimal(1) if price.bucket in PER_UNIT else Decimal("0.000001")) for price in _prices(texts)]
    if rows:
        history.con.executemany("INSERT INTO prices VALUES (?, ?, ?, ?, ?, ?)", rows)


def _prices(texts: list[str]) -> Iterator[_Price]:
    """The prices of each `PriceRef`, a row for each bucket and range of input tokens."""
    for text in texts:
        steps: dict[str, dict[int, Decimal]] = {}
        for name, amount in _listed(text).items():
            bucket, _, over = name.partition(">")
            steps.setdefault(bucket, {})[int(over or -1)] = Decimal(amount)
        for bucket, prices in steps.items():
            starts = sorted(prices)
            for start, until in zip(starts, [*starts[1:], 10**15], strict=True):
                yield _Price(text, bucket, start, until, prices[start])


def _listed(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text).get("prices", {})
    return found
