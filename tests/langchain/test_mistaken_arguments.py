"""What is mistaken for an argument is refused before anything is paid, and never runs unguarded."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

import agentbudget as ab
from agentbudget.testing import ProviderServer, Reply
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import metered, openai, report_of, using

URL: Any = "sqlite:///spend.db"


@pytest.mark.parametrize("entry", [ab.BudgetCallback, ab.BudgetMiddleware, lambda **given: ab.task("t", **given)])
def test_a_governor_that_is_none_is_refused_at_construction(entry: Any) -> None:
    with pytest.raises(ab.ConfigurationError, match="governor='sqlite:///spend.db' is no Governor"):
        entry(max_cost=1, governor=URL)


@pytest.mark.parametrize("what", ["openai:gpt-5", str, None])
def test_guard_refuses_what_it_cannot_guard(what: Any) -> None:
    with pytest.raises(ab.ConfigurationError, match="^guard got"):
        ab.guard(what, max_cost="$1")


def test_guard_names_itself_when_a_budget_is_given_twice() -> None:
    with pytest.raises(TypeError, match="^guard got a budget and max_cost"):
        ab.guard(RunnableLambda(str), ab.Budget(max_cost=1), max_cost=1)


def test_the_class_in_place_of_a_handler_stops_the_call() -> None:
    given: Any = {"callbacks": [ab.BudgetCallback]}
    with ProviderServer() as server:
        with pytest.raises(TypeError):
            openai(server).invoke("hi", config=given)
        assert not server.requests


@pytest.mark.parametrize("tokens", [10**12, 10**9])
def test_an_absurd_usage_is_replaced_by_the_reservation_and_flagged(new_governor: NewGovernor, tokens: int) -> None:
    callback = metered(new_governor(), max_cost="$0.50")
    usage = {"prompt_tokens": tokens, "completion_tokens": 5, "total_tokens": tokens + 5}
    with ProviderServer([Reply(raw_usage=usage)]) as server:
        openai(server).invoke("hi", config=using(callback))
    report = report_of(callback)
    assert report.cost < 1
    assert [each["kind"] for each in report.discrepancies] == ["usage"]
