"""The thread that looks after slices: it refills them before they are used up and gives back what nobody uses."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from agentbudget.domain.accounts import Posting
from agentbudget.domain.ledger import Refused
from agentbudget.errors import LedgerUnavailableError
from agentbudget.ledgers.slices.leasing import Leasing

TICK_SECONDS = 0.1
"""How often slices are looked after while there are any."""
Refill = Callable[[Sequence[Posting]], "Refused | None"]


class Keeper:
    """One daemon thread, started when it is first needed. It ends with the ledger that it works for."""

    def __init__(self, leasing: Leasing) -> None:
        self._leasing = weakref.ref(leasing)
        self._wanted: deque[tuple[Sequence[Posting], Future[Refused | None]]] = deque()
        self._wake = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._reporting = False

    def report(self) -> None:
        """Tell what was spent, soon: somebody waits for an alarm."""
        self._reporting = True
        self.start()
        self._wake.set()

    def ask(self, postings: Sequence[Posting]) -> Future[Refused | None]:
        """Lease what *postings* lack; `Refused` where there is no room."""
        done: Future[Refused | None] = Future()
        self._wanted.append((postings, done))
        self.start()
        self._wake.set()
        return done

    def start(self) -> None:
        """Start the thread where it does not run."""
        if self._thread is not None:
            return
        with self._starting:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="agentbudget-slices", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it. Idempotent."""
        self._stopped = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(TICK_SECONDS)
            self._wake.clear()
            leasing = self._leasing()
            if leasing is None:
                return
            while self._wanted:
                self._refill(leasing, *self._wanted.popleft())
            reporting, self._reporting = self._reporting, False
            look_after(leasing, at_once=reporting)
            del leasing

    def _refill(self, leasing: Leasing, postings: Sequence[Posting], done: Future[Refused | None]) -> None:
        try:
            done.set_result(leasing.lease(postings, patient=False))
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            done.set_exception(error)


def look_after(leasing: Leasing, *, at_once: bool = False) -> None:
    """What is due: give back what is idle (or *at_once* all that is unused) or recalled, renew, settle. One out of
    reach is asked again later."""
    if leasing.out_of_reach is not None and leasing.monotonic() < leasing.again:
        return
    try:
        if leasing.out_of_reach is not None:
            leasing.reach()  # before anything is given back: while nobody answers it is all there is
        leasing.keep(idle=None if at_once else leasing.book.options.idle_seconds)
        leasing.heed_recall()
        leasing.settle_owed()
    except LedgerUnavailableError:
        return


def on_event_loop() -> bool:
    """Whether an event loop runs on this thread: it must not wait then."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
