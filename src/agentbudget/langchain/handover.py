"""How a reservation made before a call reaches the handler that meters it: by contextvar, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agentbudget.governor.hold import Hold
from agentbudget.governor.values import Call, Kind
from agentbudget.langchain import content

if TYPE_CHECKING:
    from agentbudget.governor.task import Task
    from agentbudget.langchain.runs import Attempt

Announce = Callable[[Hold, str], None]
"""Records what was done for the call of a hold, once the call has an id."""


class Offered:
    """Reservations for one model call that has not begun. Taken at most once.

    Within it, as a context manager, the handler adopts them when the call begins; see `acting.hand_over`.
    """

    __slots__ = ("_announce", "_holds", "_token", "attempt", "end")

    def __init__(self, holds: Sequence[Hold], announce: Announce) -> None:
        self._holds = [tuple(holds)] if holds else []
        self._announce = announce
        self.attempt: Attempt | None = None
        """The attempt that adopted them."""
        self.end: Callable[[str], None] | None = None
        """Ends that attempt as cancelled, where the host tells no end of it; the argument says why."""

    def take(self) -> tuple[Hold, ...]:
        """The holds; empty where they were taken before."""
        try:
            return self._holds.pop()
        except IndexError:
            return ()

    @property
    def planned(self) -> Call | None:
        """The call they were made for; None once they were taken."""
        return self._holds[0][0].call if self._holds else None

    def awaits(self, call: Call) -> bool:
        """Whether the reservations are for a call of this model, and still to be had."""
        return bool(self._holds) and call.kind is Kind.MODEL and self._holds[0][0].call.name == call.name

    def adopt(self, attempt: Attempt, tasks: Sequence[Task]) -> None:
        """Make the reservations those of *attempt*, if it is exactly the call they were made for.

        Another request to the same model (messages were edited on the way) needs a reservation of its own: these are
        given back, so that nothing is reserved twice.
        """
        holds = self.take()
        same = all(
            hold.call.fingerprint == attempt.call.fingerprint and all(task in tasks for task in hold.tasks)
            for hold in holds
        )
        for hold in holds:
            governor = hold.tasks[0].governor
            if same:
                governor.begin(hold, content.for_recorder(_begun(hold.call, attempt), governor.recorder))
                attempt.holds = (*attempt.holds, hold)
            else:
                governor.release(hold)
            self._announce(hold, attempt.call.id)
        self.attempt = attempt if same else None

    def release(self) -> None:
        """Give back what nobody took."""
        for hold in self.take():
            hold.tasks[0].governor.release(hold)

    def __enter__(self) -> None:
        self._token = OFFERED.set(self)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            if kind is not None and self.end is not None:
                self.end(kind.__name__)
        finally:
            OFFERED.reset(self._token)
            self.release()


def _begun(planned: Call, attempt: Attempt) -> Call:
    """The call as the handler knows it, with the sizes it was planned and reserved with."""
    number = f":{len(attempt.holds) + 1}" if attempt.holds else ""
    told = attempt.call
    return replace(told, id=told.id + number, cap=planned.cap, size=planned.size, answers=planned.answers)


OFFERED: ContextVar[Offered | None] = ContextVar("agentbudget_offered", default=None)
"""The reservations that wait for a call in this context."""
