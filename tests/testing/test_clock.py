"""The fake clock."""

from __future__ import annotations

import math
import threading

import pytest

from agentbudget.domain.clock import Clock
from agentbudget.testing import FakeClock


def test_time_passes_only_when_told() -> None:
    clock: Clock = FakeClock(now=1000)
    assert (clock.now(), clock.monotonic()) == (1000, 0)
    assert isinstance(clock, FakeClock)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (1002.5, 2.5)


def test_a_correction_of_the_wall_clock_is_no_passing_of_time() -> None:
    clock = FakeClock(now=1000)
    clock.set_now(10)
    assert (clock.now(), clock.monotonic()) == (10, 0)


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
def test_time_does_not_run_backwards(seconds: float) -> None:
    with pytest.raises(ValueError, match="time passes forwards"):
        FakeClock().advance(seconds)


def test_no_advance_is_lost_between_threads() -> None:
    clock = FakeClock()

    def advance() -> None:
        for _ in range(500):
            clock.advance(1)

    threads = [threading.Thread(target=advance) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.monotonic() == 4000
