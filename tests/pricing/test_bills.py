"""The book against bills that vendors, resellers and tools wrote: exact, or listed here with the reason."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from agentbudget.domain.usage import Usage
from agentbudget.errors import UnknownModelError
from agentbudget.pricing.book import PriceBook

Row = Mapping[str, Any]

DATA = Path(os.environ.get("AGENTBUDGET_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
BILLS = DATA / "bills.jsonl"
UNDATED = date(2026, 8, 15)
"""The day of the dated bill for the same model; the 19 rows without a date come from the same recording."""

pytestmark = pytest.mark.skipif(not BILLS.exists(), reason="the recorded bills are not beside this checkout")


def rows(granularity: str) -> list[Row]:
    lines = BILLS.read_text(encoding="utf-8").splitlines() if BILLS.exists() else []
    bills: list[Row] = [json.loads(line, parse_float=Decimal) for line in lines]
    return [row for row in bills if str(row["granularity"]).startswith(granularity)]


@cache
def published() -> PriceBook:
    return PriceBook()


def usage_of(row: Row, *, searches: bool = False) -> Usage:
    cached = {
        "cache_read_tokens": row["cache_read"] or 0,
        "cache_write_5m_tokens": row["cache_write_5m"] or 0,
        "cache_write_1h_tokens": row["cache_write_1h"] or 0,
    }
    reasoning = row["reasoning_tokens"] or 0
    output = row["output_tokens"] + (0 if row["output_includes_reasoning"] else reasoning)
    return Usage(
        input_tokens=row["input_tokens"] + (0 if row["input_includes_cached"] else sum(cached.values())),
        output_tokens=output,
        reasoning_tokens=min(reasoning, output),  # one bill reports 11 reasoning tokens among 10
        web_searches=row["web_search_requests"] if searches else 0,
        **cached,
    )


def ours(row: Row, book: PriceBook | None = None, *, model: str | None = None, provider: str | None = None) -> int:
    rates = (book or published()).rates(
        model or row["model"],
        provider=provider or row["provider_hint"].split("/")[0],
        tier=row["service_tier"],
        on=date.fromisoformat(row["date"]) if row["date"] else UNDATED,
    )
    return rates.cost(usage_of(row))


def billed(row: Row, key: str = "cost_usd") -> int:
    """Nano-dollars; the recordings hold binary floats of sums, so the 17th digit of a dollar amount is noise."""
    return nearest(row[key])


def nearest(amount: Decimal) -> int:
    return int((Decimal(amount) * 10**9).quantize(Decimal("1e-3")).quantize(Decimal(1), ROUND_HALF_EVEN))


def declared(model: str, **prices: str) -> PriceBook:
    return PriceBook(overrides={model: prices})


# Every single-call bill that the book does not reproduce, and a check that its reason is the whole reason.


def fee_beside_exact_tokens(row: Row) -> bool:
    """A plugin or server tool was billed on top; the bill's own token part is reproduced."""
    return ours(row) == nearest(row["cost_prompt"] + row["cost_completion"]) < billed(row)


def server_tool(fee: int) -> Callable[[Row], bool]:
    """A server-side tool that has no public price in the book, billed once."""
    return lambda row: billed(row) - ours(row) == fee and bool(row["server_tools"])


def makers_price(provider: str) -> Callable[[Row], bool]:
    """The reseller's list holds only today's price; on that day it billed what the maker lists."""
    return lambda row: ours(row, model=row["model"].split("/")[1], provider=provider) == billed(row)


def before_introductory_price(row: Row) -> bool:
    """Billed before an introductory price that the lists give no start for; they list the full price after its end."""
    rates = published().rates("gemini-3.6-flash", provider="google", on=date(2027, 1, 1))
    return rates.cost(usage_of(row)) == billed(row)


def hosts_price(fee: str = "0", **prices: str) -> Callable[[Row], bool]:
    """An open model: the reseller's price depends on the host it picked. Declared, the host's price is exact."""

    def check(row: Row) -> bool:
        return ours(row, declared(f"openrouter/{row['model']}", **prices)) + nearest(Decimal(fee)) == billed(row)

    return check


def free_variant(row: Row) -> bool:
    """No list has the free variant: unpriced until it is declared to cost nothing."""
    with pytest.raises(UnknownModelError):
        ours(row)
    return ours(row, declared(f"openrouter/{row['model']}", input="0", output="0")) == billed(row) == 0


def rerouted(row: Row) -> bool:
    """A retired alias: the vendor billed its successor, and one web search at $0.005."""
    return ours(row, model="grok-4.3") + 5_000_000 == billed(row)


def impossible_usage(row: Row) -> bool:
    """The bill reports the same tokens as read from and written to the cache, more of them than there was input."""
    with pytest.raises(ValueError, match=r"cached tokens \(4322\) exceed input_tokens \(2168\)"):
        usage_of(row)
    return True


EXPLAINED: dict[tuple[str, str], Callable[[Row], bool]] = {
    ("qwen/qwen3-30b-a3b-instruct-2507", "0.00004"): hosts_price(input="0.1", output="0.3"),
    ("openai/gpt-oss-20b", "0.0000113"): hosts_price(input="0.05", output="0.2"),
    ("deepseek/deepseek-chat", "0.0076509169000000005"): hosts_price(fee="0.007", input="0.2574", output="1.0287"),
    ("openai/gpt-5.6-sol", "0.002196"): makers_price("openai"),
    ("google/gemini-3.6-flash", "0.00024"): before_introductory_price,
    ("google/gemini-2.5-flash", "0.00031413"): makers_price("google"),
    ("google/gemini-2.5-flash", "0.0004970133333333333"): impossible_usage,
    ("openai/gpt-4o-mini", "0.0160614"): fee_beside_exact_tokens,
    ("openai/gpt-5.1-codex-mini", "0.00216775"): fee_beside_exact_tokens,
    ("openai/gpt-4.1-mini", "0.0133176"): fee_beside_exact_tokens,
    ("minimax/minimax-m2:free", "0"): free_variant,
    ("grok-4-fast-reasoning", "0.00773975"): rerouted,
    ("grok-4.6", "0.011954"): server_tool(5_000_000),
    ("grok-4.6", "0.012218"): server_tool(5_000_000),
    ("grok-4.3", "0.00461165"): server_tool(2_500_000),
}


def key_of(row: Row) -> tuple[str, str]:
    return row["model"], f"{Decimal(row['cost_usd']):f}"


def test_every_bill_of_a_single_call_is_reproduced_or_explained(record_property: Callable[[str, object], None]) -> None:
    counts: Counter[str] = Counter()
    unexplained = []
    for row in rows("call"):
        check = EXPLAINED.get(key_of(row))
        if check is not None:
            counts["explained"] += 1
            good = check(row)
        else:
            counts["reproduced"] += 1
            good = ours(row) == billed(row)
        if not good:
            unexplained.append(key_of(row))
    for name, count in counts.items():
        record_property(name, count)
    assert unexplained == []
    assert counts == {"reproduced": 76, "explained": 15}


def test_no_explanation_outlives_its_bill() -> None:
    assert set(EXPLAINED) <= {key_of(row) for row in rows("call")}


def at_base_prices(row: Row) -> int:
    """The row priced from the prices that its settlement would record, long-context tiers left out.

    A session's sum of tokens says nothing about any single call's context, and the tiers hold per call.
    """
    rates = published().rates(row["model"], provider="anthropic", on=date.fromisoformat(row["date"]))
    prices = {bucket: Decimal(price) for bucket, price in rates.ref.prices}
    usage = usage_of(row)
    fresh = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_5m_tokens - usage.cache_write_1h_tokens
    millionths = (
        fresh * prices["input"]
        + usage.cache_read_tokens * prices["cache_read"]
        + usage.cache_write_5m_tokens * prices["cache_write_5m"]
        + usage.cache_write_1h_tokens * prices["cache_write_1h"]
        + usage.output_tokens * prices["output"]
    )
    searches = usage_of(row, searches=True).web_searches * prices.get("web_search", Decimal(0))
    return nearest(millionths / 1_000_000 + searches)


def test_every_session_on_anthropic_is_reproduced_at_the_prices_of_short_calls() -> None:
    sessions = [row for row in rows("session x model") if row["provider_hint"] == "anthropic"]
    assert len(sessions) == 95
    assert [key_of(row) for row in sessions if at_base_prices(row) != billed(row)] == []


def test_every_session_on_bedrock_costs_the_regional_premium_that_the_tool_forgot() -> None:
    sessions = [row for row in rows("session x model") if row["provider_hint"] == "bedrock"]
    assert len(sessions) == 8
    for row in sessions:
        assert ours(row) * 10 == billed(row) * 11
        name = re.sub(r"^us\.anthropic\.|-v1:0$", "", row["model"])
        assert ours(row, model=name, provider="anthropic") == billed(row)


def test_trajectories_understated_by_their_tool_are_reproduced_with_the_price_it_used() -> None:
    """Their tool's table listed the cache read at $0.125; the invoices for the same model say $0.20."""
    book = declared("gemini-3-pro-preview", input="2", cache_read="0.125", output="12")
    rates = book.rates("gemini-3-pro-preview", provider="google", on=date(2025, 11, 18))
    trajectories = rows("trajectory (sum of calls)")
    assert len(trajectories) == 11
    for row in trajectories:
        calls = [
            Usage(input_tokens=count, cache_read_tokens=read, output_tokens=out)
            for count, read, out, *_ in row["calls"]
        ]
        assert sum(rates.cost(call) for call in calls) == billed(row)


def test_the_remaining_bills_are_totals_without_a_cache_split() -> None:
    """SWE-agent's and aider's totals record no cached tokens and nicknames for models: nothing exact can be said."""
    rest = [*rows("trajectory"), *rows("benchmark")]
    rest = [row for row in rest if not row["granularity"].startswith("trajectory (sum")]
    assert len(rest) == 18
    assert all(row["cache_read"] is None for row in rest)
