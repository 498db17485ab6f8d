from __future__ import annotations

import csv
import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentbudget.domain.usage import Usage
from agentbudget.errors import ConfigurationError
from agentbudget.finops.exports.focus import FocusOptions, export_focus, focus_columns
from agentbudget.finops.exports.meters import BUCKETS, metered
from agentbudget.finops.history import History
from agentbudget.pricing.book import PriceBook
from agentbudget.pricing.buckets import split
from agentbudget.trace.events import CallSettled
from tests.finops.traces import DAY, PRICE, START, called, opened, write

OPTIONS = FocusOptions(account="org-acme", account_name="Acme")


def exported(history: History, file: Path, options: FocusOptions = OPTIONS) -> list[dict[str, Any]]:
    export_focus(history, file, options)
    found: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return found


counts = st.integers(0, 500_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    read, written, fresh = draw(counts), draw(counts), draw(counts)
    reasoning, text, audio_out = draw(counts), draw(counts), draw(counts)
    return Usage(
        input_tokens=read + written + fresh,
        cache_read_tokens=read,
        cache_write_5m_tokens=written,
        input_audio_tokens=draw(counts),
        cache_audio_read_tokens=draw(counts),
        input_image_tokens=draw(counts),
        output_tokens=reasoning + text + audio_out,
        reasoning_tokens=reasoning,
        output_audio_tokens=audio_out,
        output_image_tokens=draw(counts),
        web_searches=draw(st.integers(0, 9)),
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(usages=st.lists(usages(), min_size=1, max_size=8))
def test_a_call_is_split_into_the_buckets_it_was_priced_by(tmp_path: Path, usages: list[Usage]) -> None:
    events = list(opened("t"))
    for number, usage in enumerate(usages):
        events += called(f"c{number}", "t", usage=usage.to_dict())
    columns = ", ".join(f"({count})::BIGINT AS {bucket}" for bucket, count in BUCKETS.items())
    with History.open(write(tmp_path / "t.jsonl", events)) as history:
        rows = history.rows(f"SELECT {columns} FROM calls ORDER BY call")
    assert rows == [dict(split(usage)) for usage in usages]


MODELS = ["gpt-4o", "gpt-5-mini", "claude-sonnet-4-5", "gemini-2.5-pro"]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(st.sampled_from(MODELS), counts, counts, counts, st.integers(0, 3)), min_size=1, max_size=12
    ),
    level=st.sampled_from(["call", "hour", "day", "month"]),
)
def test_the_rows_add_up_to_what_was_recorded_to_the_nano_dollar_and_the_arithmetic_of_each_is_exact(
    tmp_path: Path, book: PriceBook, calls: list[tuple[str, int, int, int, int]], level: Any
) -> None:
    events, total = list(opened("t", feature="f", lang="de")), 0
    for number, (model, read, fresh, written, day) in enumerate(calls):
        usage = Usage(input_tokens=read + fresh, cache_read_tokens=read, output_tokens=written)
        rates = book.rates(model, on=date(2026, 11, 1))
        cost = rates.cost(usage)
        total += cost
        changes = {"usage": usage.to_dict(), "price": rates.ref.to_dict(), "name": model}
        events += called(f"c{number}", "t", at=START + day * DAY, cost=cost, **changes)
    with History.open(write(tmp_path / "t.jsonl", events)) as history:
        rows = exported(history, tmp_path / "out.parquet", FocusOptions(account="a", level=level))
    assert sum(row["BilledCost"] for row in rows) * 10**9 == total
    assert all(row["ListUnitPrice"] * row["PricingQuantity"] == row["ListCost"] for row in rows)
    assert all(json.loads(row["Tags"]) == {"feature": "f", "lang": "de"} for row in rows)
    if level == "call":
        by_call: dict[str, Decimal] = {}
        for row in rows:
            by_call[row["x_CallId"]] = by_call.get(row["x_CallId"], Decimal(0)) + row["BilledCost"]
        recorded = {event.call: Decimal(event.cost) / 10**9 for event in events if isinstance(event, CallSettled)}
        assert by_call == {call: cost for call, cost in recorded.items() if cost}


@pytest.fixture(scope="session")
def book() -> PriceBook:
    return PriceBook()


def test_the_worked_example_of_the_specification_is_reproduced(tmp_path: Path) -> None:
    usage = {"input_tokens": 9200, "cache_read_tokens": 8000, "output_tokens": 350}
    events = [*opened("t", team="support"), *called("c", "t", cost=16_500_000, usage=usage)]
    with History.open(write(tmp_path / "t.jsonl", events)) as history:
        rows = exported(history, tmp_path / "out.parquet")
    told = {row["SkuMeter"]: row for row in rows}
    assert {
        meter: (row["ConsumedQuantity"], row["PricingQuantity"], row["ListUnitPrice"], row["BilledCost"])
        for meter, row in told.items()
    } == {
        "Input Tokens": (1200, Decimal("0.0012"), Decimal("2.5"), Decimal("0.003")),
        "Cache Read Input Tokens": (8000, Decimal("0.008"), Decimal("1.25"), Decimal("0.01")),
        "Output Tokens": (350, Decimal("0.00035"), Decimal(10), Decimal("0.0035")),
    }
    row = told["Input Tokens"]
    assert (row["ConsumedUnit"], row["PricingUnit"], row["SubAccountId"]) == ("Tokens", "1000000 Tokens", "support")
    assert (row["SkuId"], row["ProviderName"]) == ("openai/gpt-4o/input", "openai")


def test_what_was_charged_without_metered_usage_is_a_row_of_its_own(tmp_path: Path) -> None:
    events = [*opened("t"), *called("c", "t", cost=40_000_000, usage={}, source="reserved")]
    events += called("d", "t", cost=5_000_000, usage={}, price=None, kind="tool", name="search")
    with History.open(write(tmp_path / "t.jsonl", events)) as history:
        rows = exported(history, tmp_path / "out.parquet")
    assert {(row["SkuMeter"], row["ConsumedUnit"], row["BilledCost"]) for row in rows} == {
        ("Charges without Metered Usage", "Requests", Decimal("0.04")),
        ("Charges without Metered Usage", "Requests", Decimal("0.005")),
    }


def test_prices_above_a_context_length_are_those_of_the_call(tmp_path: Path) -> None:
    price = {**PRICE, "prices": {"input": "1", "input>200000": "2", "output": "4"}}
    events = list(opened("t"))
    for call, tokens, cost in (("short", 200_000, 200_000_000), ("long", 200_001, 400_002_000)):
        events += called(call, "t", cost=cost, usage={"input_tokens": tokens}, price=price)
    with History.open(write(tmp_path / "t.jsonl", events)) as history:
        rows = history.rows(f"SELECT call, unit, billed FROM ({metered(history)}) ORDER BY call")
    assert rows == [
        {"call": "long", "unit": 2, "billed": 400_002_000},
        {"call": "short", "unit": 1, "billed": 200_000_000},
    ]


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@x", "\tx"])
def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path, text: str) -> None:
    events = [*opened("t", name=text, team=text), *called("c", "t", agent=text)]
    with History.open(write(tmp_path / "t.jsonl", events)) as history:
        export_focus(history, tmp_path / "out.csv", OPTIONS)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(row["x_Agent"] == row["x_Task"] == row["SubAccountName"] == "'" + text for row in rows)
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row.values())


def test_a_csv_has_times_in_utc_and_plain_decimals(tmp_path: Path) -> None:
    with History.open(write(tmp_path / "t.jsonl", [*opened("t"), *called("c", "t")])) as history:
        export_focus(history, tmp_path / "out.csv", OPTIONS)
    with (tmp_path / "out.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == ("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z")
    assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert Decimal(row["BilledCost"]) > 0
    assert "." in row["BilledCost"]
    assert "E" not in row["BilledCost"]
    assert row["ChargeClass"] == row["InvoiceId"] == ""


def test_versions_name_the_parties_as_they_should(tmp_path: Path) -> None:
    old, new = (set(focus_columns(FocusOptions(account="a", version=version))) for version in ("1.2", "1.4"))
    assert old - new == {"ProviderName", "PublisherName"}
    assert new - old == {"ServiceProviderName", "HostProviderName"}


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="account"):
        FocusOptions(account=" ")
    with pytest.raises(ConfigurationError, match="level='minute'"):
        FocusOptions(account="a", level="minute")  # type: ignore[arg-type]  # what a user may try
    with (
        History.open(write(tmp_path / "t.jsonl", [*opened("t"), *called("c", "t")])) as history,
        pytest.raises(ConfigurationError, match=r"\.csv or \.parquet"),
    ):
        export_focus(history, tmp_path / "out.xlsx", OPTIONS)


def test_events_survive_the_way_through_json() -> None:
    event = called("c", "t")[1]
    assert msgspec.json.decode(msgspec.json.encode(event))["call"] == "c"


def test_a_call_charged_below_list_price_is_a_discount_that_its_meters_share(tmp_path: Path) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 100}  # $0.0025 and $0.001 at list price
    with History.open(write(tmp_path / "t.jsonl", [*opened("t"), *called("c", "t", cost=1_750_001, usage=usage)])) as h:
        rows = exported(h, tmp_path / "out.parquet")
    assert sorted(row["BilledCost"] for row in rows) == [Decimal("0.0005"), Decimal("0.001250001")]
    assert sum(row["ListCost"] for row in rows) == Decimal("0.0035")
