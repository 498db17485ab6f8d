"""Prices of tools: flat, per unit, a function; everything else is refused."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from agentbudget.errors import ConfigurationError, PricingError
from agentbudget.pricing.book import PriceBook
from agentbudget.pricing.tools import ToolPrice, declare_tool_price, declared_tool_price


def price(spec: object) -> ToolPrice:
    return ToolPrice.of(spec, where="price")


def test_a_flat_price_is_paid_by_every_call() -> None:
    flat = price("$0.01")
    assert flat.estimate({}) == flat.cost({}, "anything") == 10_000_000
    assert price(0).cost({}, None) == 0
    assert price(flat) is flat


def test_units_are_counted_in_the_result_else_in_the_arguments_else_assumed() -> None:
    pages = price({"per_unit": "$0.001", "unit": "pages", "max_units": 20})
    assert pages.estimate({}) == 20_000_000
    assert pages.estimate({"pages": 3}) == 3_000_000
    assert pages.cost({"pages": 3}, {"pages": 2}) == 2_000_000
    assert pages.cost({"pages": 3}, SimpleNamespace(pages=0)) == 0
    assert pages.cost({"pages": 3}, "text") == 3_000_000
    assert pages.cost({}, None) == 20_000_000


@pytest.mark.parametrize("nonsense", [-1, True, "3", 10**10, 2.5])
def test_a_count_that_is_no_count_is_not_believed(nonsense: object) -> None:
    assert price({"per_unit": "$1", "unit": "n"}).cost({"n": nonsense}, {"n": nonsense}) == 10**9


def test_a_function_sees_arguments_and_result_and_is_asked_without_one_first() -> None:
    def by_size(args: Mapping[str, Any], result: Any) -> float:
        return 0.1 * 3 if result is None else 0.000_000_001_5 * len(args["query"])

    priced = price(by_size)
    assert priced.estimate({"query": "ab"}) == 300_000_001
    assert priced.cost({"query": "abc"}, "found") == 4


@pytest.mark.parametrize("answer", [-1, float("nan"), float("inf"), "cheap", None, True])
def test_a_function_that_returns_no_money_is_a_pricing_error(answer: Any) -> None:
    with pytest.raises(PricingError, match="returned"):
        price(lambda args, result: answer).cost({}, None)


def test_a_function_that_fails_is_a_pricing_error_with_its_cause() -> None:
    def broken(args: Mapping[str, Any], result: Any) -> str:
        raise KeyError("pages")

    with pytest.raises(PricingError, match="broken failed") as error:
        price(broken).estimate({})
    assert isinstance(error.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "spec",
    [
        None,
        ["$1"],
        "abc",
        -1,
        True,
        "1 EUR",
        {"per_unit": "$1"},
        {"unit": "pages"},
        {"per_unit": "$1", "unit": ""},
        {"per_unit": "$1", "unit": "pages", "most": 3},
        {"per_unit": "$1", "unit": "pages", "max_units": 0},
        {"per_unit": "$1", "unit": "pages", "max_units": True},
        {"per_unit": [], "unit": "pages"},
        lambda: 1,
    ],
)
def test_a_price_that_cannot_mean_anything_is_refused_where_it_is_declared(spec: object) -> None:
    with pytest.raises(ConfigurationError, match="price"):
        price(spec)


def test_a_book_knows_tools_by_their_prefix_and_by_their_decorator_second() -> None:
    declare_tool_price("declared_search", price("$2"))
    book = PriceBook(overrides={"tool:web_search": "$0.01"})
    other = PriceBook(overrides={"tool:declared_search": "$3"})
    assert (book.tool_price("web_search") or price(0)).flat == 10_000_000
    assert book.tool_price("declared_search") is declared_tool_price("declared_search")
    assert (other.tool_price("declared_search") or price(0)).flat == 3 * 10**9
    assert book.tool_price("read_file") is None
    with pytest.raises(ConfigurationError, match=r"prices\['tool:web_search'\]"):
        PriceBook(overrides={"tool:web_search": {"input": "1", "output": "2"}})


def test_a_price_describes_itself_for_versions_and_traces() -> None:
    assert price("$0.01").describe() == "flat=10000000 per_unit=0 unit= max_units=1"
    assert price(max).describe() == "function builtins.max"
    assert price(by_hand).describe() == f"function {__name__}.by_hand"


def by_hand(args: Mapping[str, Any], result: Any) -> str:
    return "$1"
