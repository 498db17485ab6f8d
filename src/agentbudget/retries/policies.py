"""The three policies: when to stop, how long to wait, what to retry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from tenacity import RetryCallState, retry_if_exception, wait_exponential_jitter, wait_random
from tenacity.retry import retry_base
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from agentbudget.errors import ConfigurationError
from agentbudget.retries.failures import can_succeed, retry_after


class Payer(Protocol):
    """A task, as far as these policies know it."""

    def next_attempt(self, wait_seconds: float = 0.0) -> object | None:
        """Why one more attempt of what failed last would be refused in *wait_seconds*; None: it has room."""


def retry_if_can_succeed() -> retry_base:
    """Retry only what can succeed; see `can_succeed`."""
    return retry_if_exception(can_succeed)


class stop_when_unaffordable(stop_base):  # noqa: N801 - named as tenacity names its policies
    """Stop when a budget has no room for one more attempt, or its deadline would pass while waiting for it.

    The attempt judged is that of the last metered call that failed in the task, at its worst case. Nothing is reserved
    or recorded, and the task is not stopped: it goes on with the error of the last attempt. Another call may take the
    room while the policy waits; then the next attempt is refused with `BudgetExceeded`.

    Args:
        tasks: gives the tasks that pay at the moment: `agentbudget.langchain.acting.current_tasks`.
    """

    def __init__(self, tasks: Callable[[], Iterable[Payer]]) -> None:
        if not callable(tasks):
            msg = (
                f"stop_when_unaffordable({tasks!r}): give a function, e.g. agentbudget.langchain.acting.current_tasks."
            )
            raise ConfigurationError(msg)
        self._tasks = tasks

    def __call__(self, retry_state: RetryCallState) -> bool:
        """Whether to give up."""
        wait = retry_state.upcoming_sleep
        return any(task.next_attempt(wait) is not None for task in self._tasks())


class wait_retry_after(wait_base):  # noqa: N801 - see above
    """Wait as long as the provider asks, and a random while longer, so that callers do not return all at once.

    What it asks is never cut short: an attempt before its time is refused, and counted. `stop_when_unaffordable` and
    `stop_before_delay` are told of the wait and may stop instead.

    Args:
        fallback: how long to wait where the provider asks for nothing; by default 1, 2, 4 ... up to 60 seconds and up
            to one more.
        jitter: at most so many seconds more than the provider asks.
        now: seconds since 1970 UTC; for tests.
    """

    def __init__(
        self, fallback: wait_base | None = None, *, jitter: float = 1.0, now: Callable[[], float] = time.time
    ) -> None:
        if not jitter >= 0:
            msg = f"jitter={jitter!r}: seconds, 0 or more."
            raise ConfigurationError(msg)
        self._fallback = fallback if fallback is not None else wait_exponential_jitter(max=60, jitter=1)
        self._jitter = wait_random(0, jitter)
        self._now = now

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds until the next attempt."""
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        asked = retry_after(error, now=self._now()) if error is not None else None
        return self._fallback(retry_state) if asked is None else asked + self._jitter(retry_state)
