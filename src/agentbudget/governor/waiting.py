"""Who waits for room: a fair queue of calls that would fit once calls in flight have settled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentbudget.domain.accounts import Account
    from agentbudget.governor.hold import Hold


class Waiter:
    """One call that waits. Compared by identity."""

    __slots__ = ("held", "short", "wake")

    def __init__(self, short: frozenset[Account], held: tuple[Hold, ...], wake: Callable[[], None]) -> None:
        self.short = short
        """Accounts that had no room for it."""
        self.held = held
        """Holds of the calls it runs within (a tool with a price): they cannot settle before it ends."""
        self.wake = wake


class Waiting:
    """The queue of one governor. First come, first served among those that wait for the same account.

    A call within a call that holds a reservation never queues behind others: they may wait for what it runs within.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.queue: list[Waiter] = []
        """Who waits, in order."""

    def __len__(self) -> int:
        return len(self.queue)

    def enter(self, waiter: Waiter) -> None:
        """Queue up, last."""
        with self._lock:
            self.queue.append(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Out of the queue, whatever the reason; those behind may be next now."""
        with self._lock:
            if waiter in self.queue:
                self.queue.remove(waiter)
        self.changed()

    def behind(self, accounts: Iterable[Account]) -> frozenset[Account]:
        """Those of *accounts* that somebody waits for."""
        if not self.queue:
            return frozenset()
        with self._lock:
            return frozenset().union(*(waiter.short for waiter in self.queue)).intersection(accounts)

    def is_next(self, waiter: Waiter) -> bool:
        """Whether nobody before *waiter* waits for the same account."""
        with self._lock:
            return waiter in self._heads()

    def blocked(self, held: tuple[Hold, ...]) -> frozenset[Hold]:
        """Holds that cannot settle before a call within *held* ends.

        Its own; and, as it is nested itself, those around every other nested call that waits: two such calls that
        waited for each other's surroundings would wait for ever.
        """
        if not held:
            return frozenset()
        with self._lock:
            return frozenset(held).union(*(waiter.held for waiter in self.queue))

    def changed(self) -> None:
        """A reservation was settled or given back: wake those who are next."""
        if not self.queue:
            return
        with self._lock:
            heads = self._heads()
        for waiter in heads:
            waiter.wake()

    def _heads(self) -> list[Waiter]:
        taken: set[Account] = set()
        heads = []
        for waiter in self.queue:
            if waiter.held or taken.isdisjoint(waiter.short):
                heads.append(waiter)
            taken |= waiter.short
        return heads
