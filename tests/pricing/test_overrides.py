"""Declared prices: their forms, their dates, and every way to get them wrong."""

import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentbudget.domain.usage import Usage
from agentbudget.errors import ConfigurationError, UnknownTierError
from agentbudget.pricing.book import PriceBook

DAY = date(2026, 11, 1)


def listed(overrides: Any, model: str = "my-model", on: date = DAY, tier: str | None = None) -> dict[str, str]:
    return dict(PriceBook(overrides=overrides).rates(model, tier=tier, on=on).ref.prices)


@pytest.mark.parametrize("amount", ["1.25", "$1.25", Decimal("1.25"), 1.25])
def test_a_price_may_be_a_decimal_string_a_decimal_or_a_float(amount: object) -> None:
    assert listed({"my-model": {"input": amount, "output": 3}})["input"] == "1.25"


def test_a_float_is_read_by_its_shortest_form() -> None:
    assert listed({"my-model": {"input": 0.1, "output": 1e-7}})["input"] == "0.1"
    assert listed({"my-model": {"input": 0.1, "output": 1e-7}})["output"] == "0.0000001"


@pytest.mark.parametrize(("per", "price"), [(1, "0.00000125"), (1_000, "0.00125"), (1_000_000, "1.25")])
def test_prices_may_be_given_per_one_thousand_or_million_tokens(per: int, price: str) -> None:
    assert listed({"my-model": {"input": price, "output": 0, "per": per, "web_search": "0.01"}})["input"] == "1.25"
    assert listed({"my-model": {"input": price, "output": 0, "per": per, "web_search": "0.01"}})["web_search"] == "0.01"


def test_every_bucket_can_be_declared() -> None:
    declared = {"input": "1", "cache_read": "0.1", "cache_write_5m": "1.25", "cache_write_1h": "2", "output": "5"}
    declared |= {"reasoning": "6", "input_audio": "7", "cache_audio_read": "8", "input_image": "9"}
    declared |= {"output_audio": "11", "output_image": "12", "web_search": "0.01", "request": "0.005"}
    assert listed({"my-model": declared}) == declared


def test_a_dated_entry_holds_from_its_day_and_the_published_price_before() -> None:
    book = PriceBook(
        overrides={
            "gpt-5": [
                {"input": "3", "output": "3", "effective": date(2026, 6, 1)},
                {"input": "2", "output": "2", "effective": "2026-01-01"},
            ]
        }
    )

    def price(on: date) -> str:
        return dict(book.rates("gpt-5", provider="openai", on=on).ref.prices)["input"]

    assert price(date(2025, 12, 31)) == "1.25"
    assert price(date(2026, 1, 1)) == price(date(2026, 5, 31)) == "2"
    assert price(date(2026, 6, 1)) == "3"


def test_a_discount_comes_off_every_declared_price() -> None:
    assert listed({"my-model": {"input": "1", "output": "10", "request": "1", "discount": "0.2"}})["output"] == "8"
    assert listed({"my-model": {"input": "1", "output": "10", "request": "1", "discount": 0.2}})["request"] == "0.8"


def test_declared_tiers_start_from_the_standard_prices() -> None:
    declared = {
        "my-model": {
            "input": "2",
            "output": "10",
            "above": {200_000: {"input": "4"}},
            "tiers": {"batch": {"discount": "0.5"}, "priority": {"input": "6"}},
        }
    }
    assert listed(declared)["input>200000"] == "4"
    assert (listed(declared, tier="batch")["input"], listed(declared, tier="batch")["input>200000"]) == ("1", "2")
    assert (listed(declared, tier="priority")["input"], listed(declared, tier="priority")["output"]) == ("6", "10")
    with pytest.raises(UnknownTierError, match="declares no service tier 'flex'"):
        listed(declared, tier="flex")


def test_a_declared_cliff_holds_for_the_whole_call() -> None:
    book = PriceBook(overrides={"my-model": {"input": "2", "output": "10", "above": {"1000": {"input": "4"}}}})
    rates = book.rates("my-model", on=DAY)
    assert rates.cost(Usage(input_tokens=1_000)) == 2_000_000
    assert rates.cost(Usage(input_tokens=1_001)) == 4_004_000


PRICE: dict[Any, Any] = {"input": "1", "output": "2"}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({**PRICE, "input": -1}, r"prices\['m'\]\['input'\] is -1: a price is finite and not negative"),
        ({**PRICE, "input": "NaN"}, "finite"),
        ({**PRICE, "input": float("inf")}, "finite"),
        ({**PRICE, "input": True}, "not bool"),
        ({**PRICE, "input": None}, "not NoneType"),
        ({**PRICE, "input": "abc"}, "decimal string"),
        ({**PRICE, "input": "1000001"}, "a dollar per token"),
        ({**PRICE, "input": "1.01", "per": 1}, "a dollar per token"),
        ({**PRICE, "input": "1e999999999"}, "a dollar per token"),
        ({**PRICE, "input": "1e-99999"}, "finer"),
        ({**PRICE, "outptu": "1"}, "unknown key 'outptu'. Did you mean 'output'"),
        ({**PRICE, "zzzzzz": "1"}, "unknown key 'zzzzzz'. Known keys: input"),
        ({**PRICE, 3: "1"}, "unknown key 3"),
        ({"input": "1"}, "has no 'output'"),
        ({"output": "1"}, "has no 'input'"),
        ({}, "declares no price"),
        ([], "is empty"),
        ("1.25", "write a table"),
        ({**PRICE, "per": 7}, "per 1, 1000 or 1000000"),
        ({**PRICE, "per": True}, "per 1, 1000 or 1000000"),
        ({**PRICE, "effective": "2026-13-01"}, "a date is written like"),
        ({**PRICE, "effective": 20260101}, "a date is written like"),
        ({**PRICE, "discount": "1"}, "a share from 0 to below 1"),
        ({**PRICE, "discount": -0.1}, "a share from 0 to below 1"),
        ({**PRICE, "discount": "nan"}, "a share from 0 to below 1"),
        ({**PRICE, "discount": []}, "not list"),
        ({**PRICE, "above": {"many": {"input": 1}}}, "'many' is no number of input tokens"),
        ({**PRICE, "above": {0: {"input": 1}}}, "0 is no number of input tokens"),
        ({**PRICE, "above": [1]}, "write {200000"),
        ({**PRICE, "above": {5: {"inpt": 1}}}, "Did you mean 'input'"),
        ({**PRICE, "tiers": {"batch": {}}}, "declares nothing"),
        ({**PRICE, "tiers": {"batch": {"effective": "2026-01-01"}}}, "unknown key 'effective'"),
        ([PRICE, PRICE], "two entries without a date"),
        ([{**PRICE, "effective": "2026-01-01"}] * 2, "two entries effective 2026-01-01"),
        ([PRICE, {"input": "x", "output": 1}], r"prices\['m'\]\[1\]\['input'\] is 'x'"),
    ],
)
def test_a_declaration_that_cannot_mean_anything_is_refused_when_the_book_is_built(entry: object, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        PriceBook(overrides={"m": entry})


def test_two_spellings_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="a second time"):
        PriceBook(overrides={"openai/gpt-5": PRICE, "openai:GPT-5": PRICE})


TOML = """
[my-model]
input = 1.25
output = "10"
effective = 2026-01-01

["tool:web_search"]
per_unit = "$0.01"
unit = "queries"
"""
YAML = "my-model:\n  input: 1.25\n  output: '10'\n  effective: 2026-01-01\n"
JSON = '{"my-model": {"input": 1.25, "output": "10", "effective": "2026-01-01"}}'


@pytest.mark.parametrize(("name", "text"), [("p.toml", TOML), ("p.yaml", YAML), ("p.yml", YAML), ("p.json", JSON)])
def test_prices_may_come_from_a_file(tmp_path: Path, name: str, text: str) -> None:
    if not name.endswith(("toml", "json")):
        pytest.importorskip("yaml")
    path = tmp_path / name
    path.write_text(text)
    assert listed(path)["input"] == "1.25"
    assert listed(str(path))["output"] == "10"


def test_tools_in_a_file_are_tools(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(TOML)
    price = PriceBook(overrides=path).tool_price("web_search")
    assert price is not None
    assert price.cost({"queries": 3}, None) == 30_000_000


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.toml", "a = = b", "not valid TOML"),
        ("p.json", "{", "not valid JSON"),
        ("p.json", "[]", "expected a table"),
        ("p.txt", "", "ends in .toml"),
    ],
)
def test_a_file_that_is_no_price_file_is_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        PriceBook(overrides=path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.toml' cannot be read"):
        PriceBook(overrides=tmp_path / "absent.toml")


def test_yaml_without_pyyaml_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    path = tmp_path / "p.yaml"
    path.write_text(YAML)
    with pytest.raises(ConfigurationError, match="needs PyYAML"):
        PriceBook(overrides=path)


def test_broken_yaml_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    path = tmp_path / "p.yaml"
    path.write_text("a: [")
    with pytest.raises(ConfigurationError, match="not valid YAML"):
        PriceBook(overrides=path)
