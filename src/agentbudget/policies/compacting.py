"""Whether a context is worth making smaller: what re-sending it would take, against what making it smaller takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from agentbudget.domain.usage import Usage
from agentbudget.policies.switching import MARGIN, Pattern, rest, steps_to_come


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A way to make a context smaller, in tokens of the model that reads it."""

    removed: int
    """What it takes out."""
    added: int = 0
    """What it puts in its place, e.g. a summary."""

    @property
    def smaller(self) -> int:
        """By how much the context shrinks."""
        return self.removed - self.added


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What the expected rest of a task takes of one limit, in its unit (nano-dollars or tokens)."""

    steps: int
    left: int
    """What the limit still has."""
    stay: int
    """With the context as it is."""
    compact: int
    """With the smaller one: what making it takes is included, and a first call that finds no prompt cache."""
    own: int
    """What making it takes."""

    @property
    def worthwhile(self) -> bool:
        """Going on like this is projected to break the limit, and a smaller context saves more than it takes, by a
        margin: a gain within the error of the projection is no reason to lose what was said."""
        return self.stay > self.left and self.compact * MARGIN <= self.stay * (MARGIN - 1)


def saving(takes: Callable[[Usage], int], pattern: Pattern, cut: Cut, *, own: int, done: int, left: int) -> Saving:
    """What *cut* saves over the calls to expect after *done* ones; *takes* says what a call takes of the limit.

    The prompt cache is taken to be lost from its beginning: an edit early in the context leaves little of it.
    """
    steps = steps_to_come(done)
    after = replace(pattern, prefix=max(0, pattern.prefix - cut.smaller))
    return Saving(
        steps=steps,
        left=left,
        stay=rest(takes, pattern, steps, warm=True),
        compact=own + rest(takes, after, steps, warm=False),
        own=own,
    )
