"""What an error of a model call means for the bill."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from agentbudget.governor.values import Outcome

_NEVER_SENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError", "gaierror"})
_TIMEOUTS = frozenset({"TimeoutError", "APITimeoutError", "TimeoutException", "NodeTimeoutError"})
_TIMEOUT_STATUS = frozenset({408, 504})
_LEAST_ERROR_STATUS = 400


def outcome_of(error: BaseException) -> str:
    """How an attempt that raised *error* ended.

    Refused (never billed): the provider answered with an error status, or was never reached. A timeout, whoever saw
    it, may have been served. Everything else counts as served: the answer may be paid although nobody got it.
    """
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return Outcome.CANCELLED
    if isinstance(error, GeneratorExit) or type(error).__name__ == "BudgetExceeded":
        return Outcome.ABANDONED
    status = _status(error)
    if status is not None and status >= _LEAST_ERROR_STATUS:
        return outcome_of_status(status)
    return _unanswered(error)


def outcome_of_status(status: int) -> str:
    """How an attempt ended whose answer had this HTTP *status* and was of no use."""
    if status < _LEAST_ERROR_STATUS:
        return Outcome.ERROR
    return Outcome.TIMEOUT if status in _TIMEOUT_STATUS else Outcome.REFUSED


def bubbles_up(error: BaseException) -> bool:
    """Whether *error* is how LangGraph leaves a node for a person, another graph or a stop: no failure."""
    return any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__)


def _unanswered(error: BaseException) -> str:
    for cause in _causes(error):
        names = {kind.__name__ for kind in type(cause).__mro__}
        if names & _NEVER_SENT:
            return Outcome.REFUSED
        if names & _TIMEOUTS:
            return Outcome.TIMEOUT
    return Outcome.ERROR


def _status(error: BaseException) -> int | None:
    for source in (error, getattr(error, "response", None)):
        status = getattr(source, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error* and what caused it, the innermost first: a connect timeout is a refusal before it is a timeout."""
    chain: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and seen not in chain:
        chain.append(seen)
        seen = seen.__cause__ or seen.__context__
    return reversed(chain)
