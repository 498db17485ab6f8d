"""Work that is done once: claimed before it begins, its result kept, and given to whoever asks for the same again.

At most once, while the store survives. Whoever asks while it is being done waits for it; errors are never kept; work
that was begun by somebody who is gone is not begun again, unless it was said to bear it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from agentbudget.errors import AgentBudgetError, UnknownOutcomeError
from agentbudget.retries.owners import Owner, is_gone
from agentbudget.retries.results import ResultStore, Row, State

_T = TypeVar("_T")

LEASE_SECONDS: Final = 900.0
"""How long a claim counts whose owner cannot be looked at: one on another machine."""
_SHORTEST, _LONGEST = 0.02, 1.0
"""Seconds between two looks at a claim of another process."""
_DOING: ContextVar[tuple[str, ...]] = ContextVar("agentbudget_doing", default=())
"""Keys of the work this code is part of."""


class Codec(Protocol[_T]):
    """Results as bytes and back."""

    def encode(self, value: _T) -> bytes:
        """Any error says that *value* cannot be kept."""

    def decode(self, payload: bytes) -> _T:
        """What was encoded."""


class Done(NamedTuple, Generic[_T]):
    """What came of a call."""

    value: _T
    again: bool
    """Whether it is the result of an earlier one."""


class _Flight:
    """Work that somebody in this process does now."""

    __slots__ = ("landed", "task", "thread")

    def __init__(self) -> None:
        self.landed: Future[None] = Future()
        self.thread = threading.get_ident()
        self.task = _current_task()

    def is_mine(self) -> bool:
        """Whether the caller itself does it: waiting would be for ever."""
        return self.thread == threading.get_ident() and self.task is _current_task()


class Claim:
    """The right to do the work of *key*, and the duty to say how it ended: the first word counts."""

    __slots__ = ("_flight", "_once", "key")

    def __init__(self, once: Once, key: str, flight: _Flight) -> None:
        self._once, self.key, self._flight = once, key, flight

    def done(self, payload: bytes) -> None:
        """It returned; others get *payload*."""
        self._end(lambda row: None if row is None else replace(row, state=State.DONE, payload=payload))

    def failed(self) -> None:
        """It failed: whoever asks next tries again."""
        self._end(lambda _: None)

    def lost(self, note: str) -> None:
        """It was cut off, or its result cannot be kept: nobody may try again unasked."""
        self._end(lambda row: None if row is None else replace(row, state=State.UNKNOWN, note=note))

    def _end(self, change: Callable[[Row | None], Row | None]) -> None:
        if not self._flight.landed.done():
            self._once._end(self.key, self._flight, change)  # noqa: SLF001 - one thing in two classes


class Once:
    """Does work once for each key, over one store. Thread-safe.

    Args:
        store: where results are kept.
        lease_seconds: how long a claim counts whose owner cannot be looked at.
        now: seconds since 1970 UTC; for tests.
    """

    def __init__(
        self, store: ResultStore, *, lease_seconds: float = LEASE_SECONDS, now: Callable[[], float] = time.time
    ) -> None:
        self.store = store
        self._lease = lease_seconds
        self._now = now
        self._owner = Owner()
        self._flights: dict[str, _Flight] = {}
        self._pid = os.getpid()

    def run(self, key: str, work: Callable[[], _T], codec: Codec[_T], *, repeatable: bool = False) -> Done[_T]:
        """The result of *work*, or that of an earlier one for this *key*.

        Args:
            key: names the work; equal for whatever must not be done twice.
            work: does it; an error of it is raised, and kept by nobody.
            codec: turns results into bytes. One it cannot encode leaves an unknown outcome.
            repeatable: work of which nobody knows whether it took effect may be done again.

        Raises:
            UnknownOutcomeError: it was begun before, and may have taken effect.
        """
        found = self.claim(key, repeatable=repeatable)
        if isinstance(found, bytes):
            return Done(codec.decode(found), again=True)
        if found is None:
            return Done(work(), again=False)
        with _doing(found):
            value = work()
            _keep(found, value, codec)
        return Done(value, again=False)

    async def arun(
        self, key: str, work: Callable[[], Awaitable[_T]], codec: Codec[_T], *, repeatable: bool = False
    ) -> Done[_T]:
        """As `run`; waits without blocking."""
        found = await self.aclaim(key, repeatable=repeatable)
        if isinstance(found, bytes):
            return Done(codec.decode(found), again=True)
        if found is None:
            return Done(await work(), again=False)
        with _doing(found):
            value = await work()
            _keep(found, value, codec)
        return Done(value, again=False)

    def claim(self, key: str, *, repeatable: bool = False) -> Claim | bytes | None:
        """The right to do the work, or its kept result; None where the caller is in the middle of doing it.

        Raises:
            UnknownOutcomeError: it was begun before, and may have taken effect.
        """
        steps = self._claiming(key, repeatable)
        try:
            while True:
                wait = next(steps)
                if isinstance(wait, _Flight):
                    _wait(wait, key)
                else:
                    time.sleep(wait)
        except StopIteration as end:
            return _answer(end.value)

    async def aclaim(self, key: str, *, repeatable: bool = False) -> Claim | bytes | None:
        """As `claim`; waits without blocking."""
        steps = self._claiming(key, repeatable)
        try:
            while True:
                wait = next(steps)
                if isinstance(wait, _Flight):
                    await asyncio.shield(asyncio.wrap_future(wait.landed))
                else:
                    await asyncio.sleep(wait)
        except StopIteration as end:
            return _answer(end.value)

    def unknown(self) -> Mapping[str, Row]:
        """The calls of which nobody knows whether they took effect, by key."""
        return self.store.rows(State.UNKNOWN)

    def forget(self, key: str) -> None:
        """It did not take effect: it may be done again."""
        self.store.change(key, lambda row: row if row is not None and row.state is State.CLAIMED else None)

    def resolve(self, key: str, payload: bytes) -> None:
        """It took effect: *payload* is its result from now on."""
        self.store.change(key, lambda _: Row(state=State.DONE, at=self._now(), payload=payload))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _claiming(self, key: str, repeatable: bool) -> Generator[_Flight | float, None, Claim | bytes | None]:  # noqa: FBT001 - a plan's argument
        """The one plan behind `claim` and `aclaim`; it yields where they wait."""
        if key in _DOING.get():
            return None
        if self._pid != os.getpid():  # after a fork: what the parent does lands there, and is found in the store
            self._pid, self._flights = os.getpid(), {}
        pause = _SHORTEST
        while True:
            mine = _Flight()
            flight = self._flights.setdefault(key, mine)
            if flight is not mine:
                if flight.is_mine():
                    return None
                yield flight
                continue
            row = self._look(key, mine, repeatable)
            if row is None:
                return Claim(self, key, mine)
            self._land(key, mine)
            if row.state is State.DONE:
                return row.payload
            if row.state is State.UNKNOWN:
                raise UnknownOutcomeError(_said(key, row), key=key)
            yield pause
            pause = min(2 * pause, _LONGEST)

    def _look(self, key: str, mine: _Flight, repeatable: bool) -> Row | None:  # noqa: FBT001 - as above
        """Claim *key*; the row that is in the way."""
        found: list[Row] = []

        def change(row: Row | None) -> Row:
            now = self._now()
            if row is not None and row.state is State.CLAIMED and self._is_lost(row, now):
                row = replace(row, state=State.UNKNOWN, note="whoever began it is gone")
            if row is None or (repeatable and row.state is State.UNKNOWN):
                return Row(state=State.CLAIMED, at=now, owner=self._owner.id, until=now + self._lease)
            found.append(row)
            return row

        try:
            self.store.change(key, change)
        except BaseException:
            self._land(key, mine)
            raise
        return found[0] if found else None

    def _is_lost(self, row: Row, now: float) -> bool:
        if row.owner == self._owner.id:  # nobody here does it: its end could not be written
            return True
        gone = is_gone(row.owner)
        return now >= row.until if gone is None else gone

    def _end(self, key: str, flight: _Flight, change: Callable[[Row | None], Row | None]) -> None:
        def mine(row: Row | None) -> Row | None:
            if row is not None and row.owner != self._owner.id:  # somebody decided in the meantime
                return row
            changed = change(row)
            return None if changed is None else replace(changed, at=self._now())

        try:
            self.store.change(key, mine)
        finally:
            self._land(key, flight)

    def _land(self, key: str, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        flight.landed.set_result(None)


@contextmanager
def _doing(claim: Claim) -> Iterator[None]:
    token = _DOING.set((*_DOING.get(), claim.key))
    try:
        yield
    except Exception:
        claim.failed()
        raise
    except BaseException as error:
        claim.lost(f"it was cut off by {type(error).__name__}")
        raise
    finally:
        _DOING.reset(token)


def _keep(claim: Claim, value: _T, codec: Codec[_T]) -> None:
    try:
        payload = codec.encode(value)
    except Exception as error:  # noqa: BLE001 - any encoder may fail in any way; the work is done all the same
        claim.lost(f"it returned, and its result cannot be kept: {error}")
    else:
        claim.done(payload)


def _wait(flight: _Flight, key: str) -> None:
    if asyncio._get_running_loop() is not None and flight.thread == threading.get_ident():  # noqa: SLF001 - the cheap check
        raise AgentBudgetError(
            f"{key}: the same work is being done on this event loop, and waiting for it here would stop both: call it "
            "asynchronously (ainvoke)."
        )
    flight.landed.result()


def _current_task() -> object:
    return asyncio.current_task() if asyncio._get_running_loop() is not None else None  # noqa: SLF001 - the cheap check


def _answer(value: Claim | bytes | None) -> Claim | bytes | None:
    return value


def _said(key: str, row: Row) -> str:
    began = datetime.fromtimestamp(row.at, UTC).isoformat(timespec="seconds")
    return (
        f"{key}: it was begun by {began}, and whether it took effect is not known: {row.note}. It is not repeated "
        f"blindly. Look where it takes effect; then governor.results.forget({key!r}) to let it run again, or "
        f"governor.results.resolve({key!r}, payload) to go on with its result."
    )
