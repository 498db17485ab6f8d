"""Settings of all tests: no property is timed; how long an example takes says more about the machine than the code."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _nobody_listens() -> Iterator[None]:
    """A middleware that waits for the garbage collector would have the meter hear the next test, too."""
    yield
    listening = sys.modules.get("agentbudget.langchain.listening")
    if listening is not None and len(listening.LISTENING._listeners):
        gc.collect()
