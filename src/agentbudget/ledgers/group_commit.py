"""Group commit: of many threads that wait to write, one writes for all of them in one transaction.

There is no writer thread. Whoever comes to an idle writer leads: it writes for itself at once, so a single caller pays
for no thread switch. Whoever comes while another leads waits; when the leader has committed, the first of those who
wait leads next, with everything that has been waiting by then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from agentbudget.errors import LedgerUnavailableError

Work = TypeVar("Work")


class Request(Generic[Work]):
    """One piece of *work* and what became of it. *vital*: it must not fail for want of disk space."""

    __slots__ = ("_answer", "_error", "_gate", "done", "thread", "vital", "work")

    def __init__(self, work: Work, *, vital: bool = False) -> None:
        self.work = work
        self.vital = vital
        self.done = False
        self.thread = threading.get_ident()
        self._answer: Any = None
        self._error: BaseException | None = None
        self._gate: threading.Lock | None = None

    def answer(self, answer: Any) -> None:
        """The work was done."""
        self._answer, self._error, self.done = answer, None, True

    def fail(self, error: BaseException) -> None:
        """The work was not done."""
        self._error, self.done = error, True

    def result(self) -> Any:
        """What the work answered, or the error it ended with."""
        if self._error is not None:
            raise self._error
        return self._answer

    def close_gate(self) -> None:
        """Let `wait` wait."""
        self._gate = threading.Lock()
        self._gate.acquire()

    def wait(self, seconds: float) -> bool:
        """Wait until the gate is opened; whether it was in time."""
        return self._gate is None or self._gate.acquire(timeout=seconds)

    def open_gate(self) -> None:
        """Let the thread that waits go on."""
        if self._gate is not None:
            self._gate.release()


class GroupCommit(Generic[Work]):
    """Hands batches of requests to *commit*, one batch at a time.

    *commit* answers or fails each request of its batch; what it leaves open, because it was interrupted, is done by
    the next leader. Work may therefore be done twice: it is idempotent. Work that a finaliser or a signal handler
    brings while its own thread leads is given to *nested* at once, since that thread cannot wait for itself.

    Args:
        commit: writes a batch.
        nested: writes one request in the middle of the batch that this thread is writing.
        patience: seconds after which a thread that waits gives up with `LedgerUnavailableError`. Its work may still be
            done.
    """

    def __init__(
        self,
        commit: Callable[[list[Request[Work]]], None],
        nested: Callable[[Request[Work]], None],
        *,
        patience: float,
    ) -> None:
        self._commit = commit
        self._nested = nested
        self._patience = patience
        self._mutex = threading.RLock()
        self._leader = 0
        """The thread that writes; 0 while nobody does, and then nobody waits."""
        self._waiting: list[Request[Work]] = []

    def run(self, work: Work, *, vital: bool = False) -> Any:
        """Do *work*, together with that of other threads; its answer or its error."""
        request = Request(work, vital=vital)
        if self._leader == request.thread:
            self._nested(request)
            return request.result()
        with self._mutex:
            leads = self._leader == 0
            if leads:
                self._leader = request.thread
            else:
                request.close_gate()
                self._waiting.append(request)
        if leads or self._wait(request):
            self._lead(request)
        return request.result()

    def _wait(self, request: Request[Work]) -> bool:
        """Wait to be answered or to lead; whether to lead."""
        try:
            told = request.wait(self._patience)
        except BaseException:
            self._leave(request)
            raise
        if not told:
            self._leave(request)
            raise LedgerUnavailableError(
                f"ledger: no answer from this process's writer within {self._patience:g} s. The write may have been "
                "made; it is safe to try it again with the same id."
            )
        return not request.done

    def _leave(self, request: Request[Work]) -> None:
        with self._mutex:
            waits = request in self._waiting
            if waits:
                self._waiting.remove(request)
            leads = not waits and not request.done and self._leader == request.thread
        if leads:
            self._hand_over([])

    def _lead(self, own: Request[Work]) -> None:
        batch = [own]
        try:
            if self._waiting:
                with self._mutex:
                    batch += self._waiting
                    self._waiting = []
            self._commit(batch)
        finally:
            self._hand_over(batch[1:])

    def _hand_over(self, batch: list[Request[Work]]) -> None:
        """Answer the requests of *batch*, and make the first that is left the leader."""
        if not batch and not self._waiting:
            with self._mutex:
                if not self._waiting:
                    self._leader = 0
                    return
        answered = [request for request in batch if request.done]
        undone = [request for request in batch if not request.done]
        with self._mutex:
            self._waiting = undone + self._waiting
            successor = self._waiting.pop(0) if self._waiting else None
            self._leader = successor.thread if successor else 0
        for request in answered:
            request.open_gate()
        if successor is not None:
            successor.open_gate()
