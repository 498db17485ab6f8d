"""Limits of a governor: told apart, or refused with what to write."""

from __future__ import annotations

from typing import Any

import pytest

import agentbudget as ab

LIMIT = ab.Limit("cost", "$1", scope="team")


@pytest.mark.parametrize(
    "limits", [LIMIT, ab.RetryRatio(0.1, scope="model"), "cost", 5, {"cost": "$1"}, [LIMIT, "cost"]]
)
def test_limits_that_are_no_list_of_limits_are_refused_with_an_example(limits: Any) -> None:
    with pytest.raises(ab.ConfigurationError, match=r"limits.* e\.g\. \[?Limit\("):
        ab.Governor(limits=limits)
