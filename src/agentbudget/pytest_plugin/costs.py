"""What a test cost, as it travels from a worker to the process that sums up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What a baseline compares. Cost in nano-dollars."""

    cost: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TestCost:
    """What one test cost, all its attempts (reruns) together. Money in nano-dollars."""

    __test__ = False  # no test class, for all its name

    nodeid: str
    numbers: Numbers = Numbers()
    avoided: int = 0
    unpriced: int = 0
    """Model calls whose cost is missing."""
    refused: int = 0
    """Calls refused, or only let through because the test observes."""
    live: bool = False
    new: Numbers | None = None
    """What belongs into the baseline: the numbers of the last attempt, if it passed and ran a model."""

    def after(self, earlier: TestCost) -> TestCost:
        """This attempt together with those before it."""
        mine, theirs = asdict(self.numbers), asdict(earlier.numbers)
        return replace(
            self,
            numbers=Numbers(**{name: mine[name] + theirs[name] for name in mine}),
            avoided=self.avoided + earlier.avoided,
            unpriced=self.unpriced + earlier.unpriced,
            refused=self.refused + earlier.refused,
            live=self.live or earlier.live,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the channel between processes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> TestCost:
        """The value that `to_dict` wrote."""
        new = plain["new"]
        return cls(**{**plain, "numbers": Numbers(**plain["numbers"]), "new": Numbers(**new) if new else None})
