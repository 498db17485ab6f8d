"""What a replay decided, and where it left the recording."""

from __future__ import annotations

from typing import Any, NamedTuple

from agentbudget.domain.verdict import StopReport


class Verdict(NamedTuple):
    """One decision of a replay about one recorded call, or about the growth of its stream."""

    call: str
    at: float
    """Seconds since 1970 UTC, as recorded."""
    kind: str
    name: str
    task: str
    """The innermost task that pays."""
    admitted: bool
    """Whether the call runs; in observe mode also where a limit would have refused it."""
    stop: StopReport | None
    """Why it was refused, or would have been."""
    recorded: bool
    """Whether it ran in the recording."""


_TOLD = {
    "refused": "is refused",
    "admitted": "is admitted",
    "model": "goes to another model",
    "shrunk": "is capped",
}


class Divergence(NamedTuple):
    """The first decision of a root task that is not the recorded one; everything after it is an estimate."""

    task: str
    """The root task."""
    call: str
    kind: str
    name: str
    at: float
    """Seconds since 1970 UTC, as recorded."""
    position: int
    """Decisions of the root task before this one."""
    why: str
    """`refused` (it ran), `admitted` (it was refused), `model` (it is another model's) or `shrunk` (its answer is
    capped)."""
    stop: StopReport | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**self._asdict(), "stop": self.stop.to_dict() if self.stop else None}

    def __str__(self) -> str:
        told = {
            "refused": "is refused",
            "admitted": "is admitted",
            "model": "goes to another model",
            "shrunk": "is capped",
        }[self.why]
        return f"call {self.position + 1} of task {self.task} ({self.kind} {self.name}) {told}"
