"""Alerts on their way: in a thread of their own, tried again, bounded, and what failed is seen."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tenacity

from agentbudget.domain.alerts import Crossing
from agentbudget.finops.alarms.alert import Alert, of_crossing
from agentbudget.finops.alarms.sinks import DeliveryError, Sink

MOST_WAITING = 1_000
"""Alerts that may wait; the oldest is dropped for a newer one, and counted."""
ATTEMPTS = 6
"""Tries of one alert at one sink, over about a minute."""
_KEPT = 100


@dataclass(frozen=True, slots=True)
class Failure:
    """An alert that a sink did not take."""

    sink: str
    alert: Alert
    reason: str


def deliver(alert: Alert, sink: Sink, *, sleep: Callable[[float], None] = time.sleep) -> Failure | None:
    """Tell *sink*, again where that can help; the failure, if it stays one. Never raises."""
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=1, max=20),
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, DeliveryError) and error.again),
        sleep=sleep,
        reraise=True,
    )
    try:
        retrying(sink.send, alert)
    except Exception as error:  # noqa: BLE001 - a receiver must never break what it is told about
        logging.getLogger("agentbudget.alarms").error(  # noqa: TRY400 - a trace back says less than the reason
            "alert %s was not delivered: %s", alert.key, error
        )
        return Failure(sink.name, alert, str(error))
    return None


class Delivery:
    """Tells all sinks what `put` gives it, in order, without ever blocking the caller.

    The thread is started by the first alert. `failures` has the last ones that were not taken.
    """

    def __init__(self, sinks: Sequence[Sink], *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.sinks = tuple(sinks)
        self.failures: deque[Failure] = deque(maxlen=_KEPT)
        self.dropped = 0
        """Alerts that found the queue full."""
        self._waiting: queue.Queue[Alert] = queue.Queue(MOST_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._sleep = sleep

    def put(self, alert: Alert) -> None:
        """Queue *alert*. Never blocks, never raises."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="agentbudget-alerts", daemon=True)
                self._thread.start()
        while True:
            try:
                self._waiting.put_nowait(alert)
            except queue.Full:
                self._drop_oldest()
            else:
                return

    def crossed(self, crossing: Crossing) -> None:
        """Queue the alert of a threshold that a settlement reached: `Governor(on_threshold=delivery.crossed)`."""
        self.put(of_crossing(crossing))

    def drain(self, seconds: float) -> bool:
        """Wait until everything was told or given up, for at most *seconds*; whether it was."""
        until = time.monotonic() + seconds
        with self._waiting.all_tasks_done:
            while self._waiting.unfinished_tasks:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._waiting.all_tasks_done.wait(left)
        return True

    def _drop_oldest(self) -> None:
        try:
            self._waiting.get_nowait()
        except queue.Empty:
            return
        self.dropped += 1
        self._waiting.task_done()

    def _run(self) -> None:
        while True:
            alert = self._waiting.get()
            for sink in self.sinks:
                failure = deliver(alert, sink, sleep=self._sleep)
                if failure is not None:
                    self.failures.append(failure)
            self._waiting.task_done()
