"""What every test of this folder is followed by: a look for runs and reservations that nobody ended."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import agentbudget as ab
from agentbudget.testing import FakeClock
from tests.langchain.support import assert_nothing_held

NewGovernor = Callable[..., ab.Governor]


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    gc.disable()  # so that what a test drops, and what Python says of it, is found at the end of the same test
    yield
    try:
        assert_nothing_held(ab.default_governor())
    finally:
        gc.enable()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def new_governor(clock: FakeClock) -> Iterator[NewGovernor]:
    """Makes governors that must hold nothing in the end."""
    made: list[ab.Governor] = []

    def new(**options: Any) -> ab.Governor:
        made.append(ab.Governor(**{"clock": clock, **options}))
        return made[-1]

    yield new
    assert_nothing_held(*made)


@pytest.fixture
def governor(new_governor: NewGovernor) -> ab.Governor:
    return new_governor()
