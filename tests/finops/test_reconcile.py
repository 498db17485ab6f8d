"""A bill against the record: what matches to the nano-dollar, and what is said of everything that does not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbudget.errors import ConfigurationError
from agentbudget.finops.exports.focus import FocusOptions, Version, export_focus
from agentbudget.finops.exports.lines import Level
from agentbudget.finops.history import History
from agentbudget.finops.reconcile import Reconciliation, reconcile
from agentbudget.finops.reconcile_bill import BillOptions, rate
from agentbudget.finops.reconcile_prices import bucket_of
from agentbudget.trace.events import CallSettled, Event
from tests.finops.traces import DAY, PRICE, START, called, opened, write

TODAY = date(2026, 11, 22)
COST = 350_000
"""Nano-dollars of 100 input and 10 output tokens of gpt-4o, at list price."""
Reconciled = Callable[..., Reconciliation]


def recorded(tmp_path: Path, *calls: list[Event]) -> History:
    """A history of *calls*, of one task."""
    head = opened("t", feature="chat")
    return History.open(write(tmp_path / "traces" / "a.jsonl", [*head, *(e for events in calls for e in events)]))


def call(name: str, at: float = START + 3600, **changes: Any) -> list[Event]:
    return called(name, "t", at=at, cost=changes.pop("cost", COST), **changes)


@pytest.fixture
def against(tmp_path: Path) -> Reconciled:
    """Compares calls with the text of a bill."""

    def compare(bill: str, *calls: list[Event], **options: Any) -> Reconciliation:
        file = tmp_path / "bill.csv"
        file.write_text(bill, encoding="utf-8")
        with recorded(tmp_path, *calls) as history:
            return reconcile(history, file, BillOptions(**options), today=TODAY)

    return compare


# -- the round trip

MODELS = ("gpt-4o", "gpt-4o-2024-08-06", 'my, own "model"', "=model", "claude-sonnet-4-5")


@settings(deadline=None, max_examples=20)  # an engine is opened for each
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(MODELS),
            st.sampled_from(["openai", "", "azure"]),
            st.integers(0, 30 * 86_400),
            st.integers(1, 10**10),
            st.integers(0, 10**6),
            st.sampled_from(["model", "tool"]),
        ),
        min_size=1,
        max_size=8,
    ),
    level=st.sampled_from(["call", "hour", "day", "month"]),
    version=st.sampled_from(["1.2", "1.4"]),
    ending=st.sampled_from(["csv", "parquet"]),
)
def test_our_own_export_reconciles_to_nothing(
    tmp_path_factory: pytest.TempPathFactory, calls: list[Any], level: Level, version: Version, ending: str
) -> None:
    folder = tmp_path_factory.mktemp("round")
    made = []
    for number, (model, provider, at, cost, tokens, kind) in enumerate(calls):
        price = {**PRICE, "provider": provider, "model": model}
        events = call(f"c{number}", START + at, cost=cost, usage={"input_tokens": tokens}, price=price, model=model)
        made.append([_of_kind(event, kind, model) for event in events])
    with recorded(folder, *made) as history:
        export_focus(history, folder / f"focus.{ending}", FocusOptions(account="org", level=level, version=version))
        found = reconcile(history, folder / f"focus.{ending}", today=TODAY, tolerance=Decimal(0))
    assert found.differs == 0
    assert found.matches
    assert not found.prices
    assert found.recorded == found.billed == Decimal(sum(entry[3] for entry in calls)).scaleb(-9)
    assert found.outside == 0


def _of_kind(event: Event, kind: str, name: str) -> Event:
    import msgspec

    changed: Event = msgspec.structs.replace(event, kind=kind, name=name)
    return msgspec.structs.replace(changed, model="") if kind == "tool" and isinstance(event, CallSettled) else changed


# -- what differs


def test_variance_is_by_day_and_model_and_every_dollar_is_in_a_line(against: Reconciled) -> None:
    bill = "date,model,amount\n2026-11-01,gpt-4o,0.0004\n2026-11-02,gpt-4o,0.00035\n2026-11-02,gpt-5,0.01\n"
    found = against(bill, call("a"), call("b", START + DAY), call("c", START + DAY, model="o3-mini", price=None))
    assert {(line.period, line.model, line.status, line.variance) for line in found.lines} == {
        ("2026-11-01", "openai/gpt-4o", "both", Decimal("0.00005")),
        ("2026-11-02", "openai/gpt-4o", "both", Decimal(0)),
        ("2026-11-02", "openai/gpt-5", "unmetered", Decimal("0.01")),
        ("2026-11-02", "openai/o3-mini", "unbilled", Decimal("-0.00035")),
    }
    assert found.billed - found.recorded == sum(line.variance for line in found.lines)
    assert found.differs == Decimal("0.0104")
    assert found.share == found.differs / found.billed
    assert not found.matches
    text = str(found)
    assert "$0.01 (93.02%) billed, and no such call is recorded" in text
    assert "$0.0004 (33.33%) recorded, and not billed" in text


@pytest.mark.parametrize(("amount", "matches"), [("0.00035", True), ("0.0003517", True), ("0.0003518", False)])
def test_the_tolerance_is_a_share_of_the_money(against: Reconciled, amount: str, matches: bool) -> None:
    assert against(f"date,model,cost\n2026-11-01,gpt-4o,{amount}\n", call("a")).matches is matches


def test_a_call_recorded_without_a_price_is_not_called_unmetered(against: Reconciled) -> None:
    found = against("date,model,cost\n2026-11-01,gpt-4o,0.5\n", call("a", cost=0, priced=False, price=None))
    (line,) = found.lines
    assert line.status == "unpriced"
    assert "recorded without a price: declare it" in str(found)


@pytest.mark.parametrize(
    ("provider", "model"),
    [("OpenAI", "gpt-4o-2024-08-06"), ("", "GPT-4o"), ("openai", "openai/gpt-4o"), ("", "gpt-4o-2024-08-06")],
)
def test_models_are_matched_as_the_price_book_resolves_names(against: Reconciled, provider: str, model: str) -> None:
    found = against(f"date,provider,model,cost\n2026-11-01,{provider},{model},0.00035\n", call("a"))
    assert found.matches
    assert not found.differs


def test_a_bill_without_providers_means_the_recorded_one(against: Reconciled) -> None:
    price = {**PRICE, "provider": "azure"}
    assert against("date,model,cost\n2026-11-01,gpt-4o,0.00035\n", call("a", price=price)).matches


def test_microsoft_bills_what_azure_was_recorded_for(against: Reconciled) -> None:
    price = {**PRICE, "provider": "azure"}
    bill = "date,provider,model,cost\n2026-11-01,Microsoft,gpt-4o,0.00035\n"
    assert against(bill, call("a", price=price)).matches


# -- time


def test_days_are_those_of_the_bills_time_zone(against: Reconciled) -> None:
    late = call("a", START + 23.5 * 3600)  # half past midnight in Berlin
    assert against("date,model,cost\n2026-11-02,gpt-4o,0.00035\n", late, timezone="Europe/Berlin").matches
    found = against("date,model,cost\n2026-11-02,gpt-4o,0.00035\n", late)
    assert found.of("unmetered") == Decimal("0.00035")
    assert found.outside == Decimal("0.00035"), "recorded on a day that the bill does not cover"


def test_a_bill_whose_days_begin_elsewhere_is_told_with_its_money_and_the_hours(against: Reconciled) -> None:
    calls = [call(f"c{day}", START + day * DAY + 2 * 3600) for day in range(1, 6)]
    head = "ChargePeriodStart,ChargePeriodEnd,EffectiveCost,BillingCurrency,SkuId\n"
    rows = [
        f"2026-11-0{day + 1}T08:00:00Z,2026-11-0{day + 2}T08:00:00Z,{cost},USD,gpt-4o\n"
        for day, cost in enumerate(["0.00035"] * 5)
    ]
    calls[0] = call("c1", START + DAY + 2 * 3600, cost=COST)
    found = against(head + "".join(rows), *calls)
    assert found.bill.shifted == Decimal("0.00175")
    assert "days that begin at another hour than midnight" in str(found)
    assert against(head + "".join(rows), *calls, timezone="Etc/GMT+8").matches


def test_hours_that_would_explain_the_difference_are_named(against: Reconciled) -> None:
    calls = [call(f"c{day}", START + day * DAY + 3 * 3600, cost=COST * (day + 1)) for day in range(5)]
    rows = [f"2026-11-0{day},gpt-4o,{Decimal(COST * (day + 1)).scaleb(-9)}\n" for day in range(1, 5)]
    found = against("date,model,cost\n" + "".join(rows), *calls)
    assert found.shift is not None
    assert found.shift.hours == 4
    assert found.shift.differs == 0
    assert "days that begin 4 hours later would leave $0.00" in str(found)


def test_a_monthly_bill_is_compared_by_month_and_a_yearly_one_is_refused(against: Reconciled) -> None:
    head = "ChargePeriodStart,ChargePeriodEnd,EffectiveCost,BillingCurrency,SkuId\n"
    found = against(f"{head}2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,0.0007,USD,gpt-4o\n", call("a"), call("b"))
    assert [(line.period, line.variance) for line in found.lines] == [("2026-11", Decimal(0))]
    with pytest.raises(ConfigurationError, match="a row covers 365 days"):
        against(f"{head}2026-01-01T00:00:00Z,2027-01-01T00:00:00Z,1,USD,gpt-4o\n", call("a"))


# -- money


def test_another_currency_is_said_with_what_was_recorded_there_and_never_zero(against: Reconciled) -> None:
    bill = "date,model,cost,currency\n2026-11-01,gpt-4o,0.0003,EUR\n2026-11-02,gpt-4o,0.00035,USD\n"
    calls = (call("a"), call("b", START + DAY))
    found = against(bill, *calls)
    assert found.foreign == {"EUR": Decimal("0.0003")}
    assert found.share == Decimal("0.5")
    assert [(line.period, line.status) for line in found.lines] == [("2026-11-01", "foreign"), ("2026-11-02", "both")]
    assert [row.status for row in found.models()] == ["foreign", "both"]
    assert not any(row.variance for row in found.models())
    assert not found.matches
    assert "EUR 0.0003 is in another currency and compared with nothing: $0.0004 (50.00%) was recorded" in str(found)
    converted = against(bill, *calls, rates={"EUR": Decimal(7) / 6 // Decimal("0.000001") * Decimal("0.000001")})
    assert converted.matches
    assert list(converted.converted) == ["EUR"]


def test_currencies_of_small_value_are_converted_exactly(against: Reconciled) -> None:
    bill = "date,model,cost\n2026-11-01,gpt-4o,IDR 5600000\n"
    assert against(bill, call("a"), rates={"IDR": Decimal("0.000062351")}).billed == Decimal("349.1656")


@pytest.mark.parametrize(
    ("cell", "options", "dollars"),
    [
        ("$0.00035", {}, "0.00035"),
        ("3.5e-4", {}, "0.00035"),
        ('"$1,234.50"', {}, "1234.5"),
        ('"1.234,50"', {"decimal_comma": True}, "1234.5"),
        ("0.00035 USD", {}, "0.00035"),
    ],
)
def test_amounts_are_read_exactly(against: Reconciled, cell: str, options: dict[str, Any], dollars: str) -> None:
    assert against(f"date,model,cost\n2026-11-01,gpt-4o,{cell}\n", call("a"), **options).billed == Decimal(dollars)


def test_a_currency_sign_counts_as_one(against: Reconciled) -> None:
    assert against("date,model,cost\n2026-11-01,gpt-4o,€5\n", call("a")).foreign == {"EUR": Decimal(5)}


@pytest.mark.parametrize(
    "row", ["2026-11-01,gpt-4o,", "11/01/2026,gpt-4o,1", '2026-11-01,gpt-4o,"0,350"', "x,gpt-4o,1"]
)
def test_rows_that_cannot_be_read_are_shown_and_the_bill_does_not_match(against: Reconciled, row: str) -> None:
    found = against(f"date,model,cost\n2026-11-01,gpt-4o,0.00035\n{row}\n", call("a"))
    assert found.bill.unreadable == 1
    assert not found.matches
    assert "row 3:" in str(found)


def test_taxes_and_credits_are_no_usage_and_are_summed_apart(against: Reconciled) -> None:
    head = "ChargePeriodStart,ChargePeriodEnd,EffectiveCost,BillingCurrency,SkuId,ChargeCategory\n"
    day = "2026-11-01T00:00:00Z,2026-11-02T00:00:00Z"
    found = against(f"{head}{day},0.00035,USD,gpt-4o,Usage\n{day},0.1,USD,,Tax\n{day},-2,USD,,Credit\n", call("a"))
    assert found.matches
    assert found.other == {"Credit": Decimal(-2), "Tax": Decimal("0.1")}


def test_rows_of_others_are_left_out_and_their_money_is_said(against: Reconciled) -> None:
    bill = "date,model,cost,service\n2026-11-01,gpt-4o,0.00035,llm\n2026-11-01,m5.large,9,machines\n"
    found = against(bill, call("a"), only={"service": "llm"})
    assert found.matches
    assert found.bill.left_out == 9
    assert "9 is in rows that --only left out" in str(found)


# -- unit prices


def test_a_unit_price_that_was_recorded_otherwise_is_named_with_its_effect(against: Reconciled) -> None:
    columns = "date,model,cost,SkuMeter,PricingQuantity,PricingUnit,ContractedUnitPrice"
    bill = (
        f"{columns}\n2026-11-01,gpt-4o,0.0003,Input Tokens,0.0001,1000000 Tokens,3\n"
        "2026-11-01,gpt-4o,0.0001,output_tokens,10,Tokens,\n2026-11-01,gpt-4o,0.5,Mystery Units,5,Units,\n"
    )
    roles = {"meter": "SkuMeter", "quantity": "PricingQuantity", "unit": "PricingUnit", "price": "ContractedUnitPrice"}
    found = against(bill, call("a"), columns=roles)
    (wrong,) = found.prices
    assert (wrong.model, wrong.meter) == ("openai/gpt-4o", "Input Tokens")
    assert (wrong.recorded, wrong.billed) == (Decimal("2.5"), Decimal(3))
    assert wrong.effect == Decimal("0.00005")
    assert wrong.source == "genai-prices 0.2.3"
    assert found.unknown_meters == Decimal("0.5")
    assert "billed 3, recorded 2.5 (genai-prices 0.2.3)" in str(found)


@pytest.mark.parametrize(
    ("meter", "bucket"),
    [
        ("Cache Read Input Tokens", "cache_read"),
        ("cached_input", "cache_read"),
        ("Cache Write 1h Input Tokens", "cache_write_1h"),
        ("cache-write", "cache_write_5m"),
        ("Completion tokens", "output"),
        ("prompt", "input"),
        ("Batch input tokens", None),
        ("Provisioned units", None),
    ],
)
def test_meters_are_known_by_our_names_and_by_those_of_providers(meter: str, bucket: str | None) -> None:
    assert bucket_of(meter) == bucket


# -- mistakes


@pytest.mark.parametrize(
    ("bill", "options", "message"),
    [
        ("when,what,much\n1,2,3\n", {}, "which column is the day"),
        ("date,model,cost\n2026-11-01,m,1\n", {"columns": {"model": "x"}}, "model='x': no such column"),
        ("date,model,cost\n", {}, "no row with a time and an amount"),
        ("date,model,cost\nx,m,y\n", {}, "no row with a time and an amount"),
        ("date,model,cost\n2026-11-01,m,1\n", {"only": {"x": "y"}}, "no column 'x'"),
    ],
)
def test_a_bill_that_cannot_be_used_is_refused(
    against: Reconciled, bill: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        against(bill, call("a"), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"columns": {"dya": "x"}},
        {"timezone": "Mars/Base"},
        {"rates": {"EUR": Decimal(0)}},
        {"rates": {"EUR": Decimal("1.0000000001")}},
        {"rates": {"EUR": 1.08}},
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        BillOptions(**options)


def test_rates_are_written_with_a_currency() -> None:
    assert rate("eur=1.08") == ("EUR", Decimal("1.08"))
    with pytest.raises(ConfigurationError, match="CURRENCY=DOLLARS"):
        rate("1.08")


def test_a_missing_bill_is_refused(tmp_path: Path) -> None:
    with recorded(tmp_path, call("a")) as history, pytest.raises(ConfigurationError, match="not a readable bill"):
        reconcile(history, tmp_path / "none.csv")
