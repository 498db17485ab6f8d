"""Options of `BudgetMiddleware` and `governed` are refused when they are given."""

from __future__ import annotations

from typing import Any

import pytest

import agentbudget as ab
from tests.langchain.actors import scripted


@pytest.mark.parametrize("routes", [["openai:gpt-5-nano"], "openai:gpt-5-nano", 3])
def test_routes_that_are_no_mapping_are_refused_with_an_example(routes: Any) -> None:
    for make in (
        lambda: ab.BudgetMiddleware(max_cost=1, model_for=routes),
        lambda: ab.governed(scripted(), model_for=routes),
    ):
        with pytest.raises(ab.ConfigurationError, match="model_for=.*a mapping of tag to model"):
            make()
