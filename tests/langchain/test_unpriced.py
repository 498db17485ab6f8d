"""Law 8: unpriced is not free."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

import agentbudget as ab
from agentbudget.domain.usage import Usage
from agentbudget.testing import ProviderServer, Reply, ScriptedChatModel, scripted_reply
from tests.langchain.support import (
    anthropic,
    assert_nothing_held,
    metered,
    nanos,
    report_of,
    search,
    using,
)


def unpriced(**options: Any) -> ScriptedChatModel:
    reply = scripted_reply("ok", input_tokens=100, output_tokens=10)
    return ScriptedChatModel(script=[reply], repeat_last=True, model_name="in-house-7b", provider="acme", **options)


def test_law_8_a_model_without_a_price_is_refused_under_a_cost_limit_with_the_way_to_price_it(
    governor: ab.Governor,
) -> None:
    model = unpriced()
    with pytest.raises(ab.BudgetExceeded) as stop:
        model.invoke("hi", config=using(metered(governor, max_cost="$0.50")))
    assert model.calls == ()
    assert "in-house-7b" in str(stop.value)
    assert "prices=" in str(stop.value)
    assert stop.value.stop.limit == "unpriced"


def test_law_8_a_price_of_ones_own_lets_the_model_go_on() -> None:
    priced = ab.Governor(prices={"in-house-7b": {"input": "1", "output": "2"}})
    callback = metered(priced, max_cost="$0.50")
    unpriced().invoke("hi", config=using(callback))
    assert nanos(report_of(callback).cost) == 100 * 1_000 + 10 * 2_000
    assert report_of(callback).coverage == 1
    assert_nothing_held(priced)


def test_law_8_without_a_cost_limit_a_model_without_a_price_runs_and_lowers_the_coverage(governor: ab.Governor) -> None:
    callback = metered(governor, max_model_calls=5)
    scripted = ScriptedChatModel(script=[scripted_reply("ok", input_tokens=100, output_tokens=10)], repeat_last=True)

    def both(_: object) -> None:
        unpriced().invoke("hi")
        scripted.invoke("hi")

    RunnableLambda(both).invoke("go", config=using(callback))
    report = report_of(callback)
    assert nanos(report.cost) == 100 * 2_500 + 10 * 10_000
    assert (report.unpriced_calls, report.coverage) == (1, 0.5)
    assert "only 1 of 2 model calls have a price" in str(report)


def test_law_8_allowed_by_choice_an_unpriced_model_costs_nothing_and_is_shown_as_uncovered() -> None:
    allowing = ab.Governor(on_unpriced="allow")
    callback = metered(allowing, max_cost="$0.50")
    unpriced().invoke("hi", config=using(callback))
    report = report_of(callback)
    assert (nanos(report.cost), report.coverage, report.usage.input_tokens) == (0, 0, 100)
    assert_nothing_held(allowing)


def test_law_8_estimated_by_choice_an_unpriced_model_costs_as_much_as_the_dearest_known_one() -> None:
    estimating = ab.Governor(on_unpriced="estimate")
    callback = metered(estimating, max_cost="$5")
    unpriced(max_tokens=50).invoke("hi", config=using(callback))
    report = report_of(callback)
    assert nanos(report.cost) >= 100 * 2_500 + 10 * 10_000
    assert report.coverage == 0
    model = unpriced(max_tokens=50)
    with pytest.raises(ab.BudgetExceeded):
        model.invoke("hi", config=using(metered(estimating, max_cost="$0.000001")))
    assert model.calls == ()
    assert_nothing_held(estimating)


def test_law_8_a_shared_cost_limit_refuses_unpriced_models_as_well() -> None:
    sharing = ab.Governor(limits=[ab.Limit(meter="cost", amount="$5", scope="team")])
    callback = metered(sharing, tags={"team": "cx"})
    with pytest.raises(ab.BudgetExceeded) as stop:
        unpriced().invoke("hi", config=using(callback))
    assert stop.value.stop.limit == "unpriced"
    unpriced().invoke("hi", config=using(metered(sharing, tags={"feature": "x"})))
    assert_nothing_held(sharing)


SEARCHING = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}


def test_law_8_web_searches_that_the_provider_bills_are_reserved_and_charged(governor: ab.Governor) -> None:
    used = Usage(input_tokens=100, output_tokens=10, web_searches=2)
    with ProviderServer([Reply(usage=used)]) as server:
        callback = metered(governor, max_cost="$0.50")
        anthropic(server).bind_tools([SEARCHING]).invoke("hi", config=using(callback))
        assert nanos(report_of(callback).cost) == 100 * 3_000 + 10 * 15_000 + 2 * 10_000_000
        with pytest.raises(ab.BudgetExceeded):  # three searches alone may take $0.03
            anthropic(server).bind_tools([SEARCHING]).invoke("hi", config=using(metered(governor, max_cost="$0.03")))
    assert len(server.requests) == 1


def test_law_8_a_web_search_of_the_provider_without_a_price_is_refused() -> None:
    priced = ab.Governor(prices={"claude-sonnet-4-6": {"input": "3", "output": "15"}})
    with ProviderServer() as server:
        with pytest.raises(ab.BudgetExceeded) as stop:
            anthropic(server).bind_tools([SEARCHING]).invoke("hi", config=using(metered(priced, max_cost="$0.50")))
        assert "web" in str(stop.value)
        assert server.requests == []
        anthropic(server).invoke("hi", config=using(metered(priced, max_cost="$0.50")))
        assert len(server.requests) == 1
    assert_nothing_held(priced)


def test_law_8_ordinary_tools_are_free(governor: ab.Governor) -> None:
    callback = metered(governor, max_cost="$0.50")
    search.invoke({"query": "a"}, config=using(callback))
    report = report_of(callback)
    assert (nanos(report.cost), report.tool_calls, report.coverage) == (0, 1, None)


def test_law_8_a_price_declared_on_the_tool_is_charged(governor: ab.Governor) -> None:
    @ab.price_tool("$0.01")
    @tool
    def look_up(name: str) -> str:
        """Look a name up."""
        return name

    callback = metered(governor, max_cost="$0.025")

    def thrice(_: object) -> None:
        for _ in range(3):
            look_up.invoke({"name": "a"})

    with pytest.raises(ab.BudgetExceeded):
        RunnableLambda(thrice).invoke(1, config=using(callback))
    assert report_of(callback).cost == Decimal("0.02")
    assert report_of(callback).by_tool["look_up"].calls == 2


def test_law_8_a_price_of_the_governor_wins_and_may_count_units_of_the_result() -> None:
    @tool
    def fetch(pages: int) -> dict[str, int]:
        """Fetch pages; may find fewer than asked for."""
        return {"pages": pages - 1}

    priced = ab.Governor(prices={"tool:fetch": {"per_unit": "$0.001", "unit": "pages", "max_units": 9}})
    callback = metered(priced, max_cost="$0.05")
    fetch.invoke({"pages": 4}, config=using(callback))
    assert report_of(callback).cost == Decimal("0.003")
    assert_nothing_held(priced)


@pytest.mark.parametrize("when", ["before", "after"])
def test_law_8_a_price_function_that_fails_never_makes_a_tool_free(when: str) -> None:
    """Before the tool runs it is refused as unpriced; after it the reservation is charged and the failure told."""

    def price(args: Any, result: Any) -> str:
        if (result is None) == (when == "before"):
            msg = "no tariff"
            raise ValueError(msg)
        return "$0.02"

    priced = ab.Governor(prices={"tool:search": price})
    callback = metered(priced, max_cost="$0.50")
    if when == "before":
        with pytest.raises(ab.BudgetExceeded) as stop:
            search.invoke({"query": "a"}, config=using(callback))
        assert stop.value.stop.limit == "unpriced"
        assert "no tariff" in str(stop.value)
        assert report_of(callback).tool_calls == 0
    else:
        assert search.invoke({"query": "a"}, config=using(callback)) == "found a"
        report = report_of(callback)
        assert report.cost == Decimal("0.02")
        assert "no tariff" in report.discrepancies[0]["detail"]
    assert_nothing_held(priced)
