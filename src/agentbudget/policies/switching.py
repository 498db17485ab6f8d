"""Whether a task should change to a cheaper model: projected overrun, against the price of a lost prompt cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agentbudget.domain.usage import Usage
from agentbudget.pricing.rates import Rates

LEAST_STEPS = 3
MOST_STEPS = 20
MARGIN = 10
"""A switch must save at least one part in this many of what staying costs: a gain within the error of the projection
is no reason to lose quality."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """How the next calls of a task are expected to look, in tokens."""

    prefix: int
    """What the last call read and wrote: re-sent by the next one."""
    fresh: int
    """What each call adds to it."""
    output: int
    """What each call writes."""
    cached: bool
    """Whether the provider served the last prefix from its cache, or wrote it there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """What the expected rest of a task costs, in nano-dollars."""

    steps: int
    left: int
    """What the tightest cost limit still has."""
    stay: int
    switch: int
    """With the other model; its first call reads the prefix at full price."""

    @property
    def worthwhile(self) -> bool:
        """Staying is projected to break the limit, and the other model really is cheaper, its cold cache included."""
        return self.stay > self.left and self.switch * MARGIN <= self.stay * (MARGIN - 1)


def steps_to_come(done: int) -> int:
    """Calls to expect after *done* calls: as many again, from 3 to 20.

    For a process whose length is unknown (a power-law tail), the expected rest grows with what was done so far.
    """
    return min(MOST_STEPS, max(LEAST_STEPS, done))


def project(stay: Rates, switch: Rates, pattern: Pattern, *, done: int, left: int) -> Projection:
    """The cost of the rest of a task with the model in use and with another one."""
    steps = steps_to_come(done)
    return Projection(
        steps=steps,
        left=left,
        stay=rest_cost(stay, pattern, steps, warm=True),
        switch=rest_cost(switch, pattern, steps, warm=False),
    )


def rest_cost(rates: Rates, pattern: Pattern, steps: int, *, warm: bool) -> int:
    """Nano-dollars of *steps* calls of *pattern*; see `rest`."""
    return rest(rates.cost, pattern, steps, warm=warm)


def rest(takes: Callable[[Usage], int], pattern: Pattern, steps: int, *, warm: bool) -> int:
    """What *steps* calls of *pattern* take in all: each re-sends what all before it read and wrote.

    *takes* says what one call takes, e.g. `rates.cost`. With a cache the re-sent part is a cache read, on the first
    call only if the cache is *warm*.
    """
    total, prefix = 0, pattern.prefix
    for step in range(steps):
        read = prefix if pattern.cached and (warm or step) else 0
        usage = Usage(input_tokens=prefix + pattern.fresh, output_tokens=pattern.output, cache_read_tokens=read)
        total += takes(usage)
        prefix += pattern.fresh + pattern.output
    return total
