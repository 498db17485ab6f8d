"""What an error says about trying again: whether it can help, and how long to wait. Pure; knows no client by import."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from agentbudget.errors import AgentBudgetError

_PASSING_STATUS: Final = frozenset({408, 409, 425, 429})
_FUTILE_STATUS: Final = frozenset({501, 505, 511})
"""What a server will not do, however often it is asked."""
_LEAST_SERVER_ERROR: Final = 500
_LEAST_ERROR: Final = 400
_FUTILE_CODES: Final = frozenset({"insufficient_quota", "context_length_exceeded", "billing_hard_limit_reached"})
_FUTILE_NAMES: Final = frozenset({
    "GraphBubbleUp", "ContextOverflowError", "LengthFinishReasonError", "ContentFilterFinishReasonError",
})  # fmt: skip
"""LangGraph's way to leave a node (interrupts, stops), and requests that are too long or not let through."""
_PASSING_NAMES: Final = frozenset({"OutputParserException"})
"""A model may do better next time."""
_PROGRAMMING: Final = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, NotImplementedError,
    SyntaxError, TypeError, ValueError,
)  # fmt: skip
"""The same call fails in the same way."""


def can_succeed(error: BaseException) -> bool:
    """Whether the same call may succeed when it is made again.

    It may after a timeout, a lost connection, the statuses 408, 409, 425, 429 and those from 500 on, and after errors
    that say nothing of their cause. It cannot after other refusals (400, 401, 403, 404, 422 ...), a context that is too
    long, a used-up quota, a programming error, a refusal by a budget, an interrupt or a cancellation.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if not isinstance(error, Exception) or isinstance(error, AgentBudgetError) or names & _FUTILE_NAMES:
        return False
    if _code(error) in _FUTILE_CODES:
        return False
    status = _status(error)
    if status is not None and status >= _LEAST_ERROR:
        return status in _PASSING_STATUS or (status >= _LEAST_SERVER_ERROR and status not in _FUTILE_STATUS)
    return bool(names & _PASSING_NAMES) or not isinstance(error, _PROGRAMMING)


def retry_after(error: BaseException, *, now: float) -> float | None:
    """Seconds that the provider asks to wait before the next request; None where it asks for nothing.

    Reads `retry-after-ms`, then `retry-after` (RFC 9110, section 10.2.3: seconds or a date), from the response that
    *error* or one of its causes carries.

    Args:
        error: what a client raised.
        now: seconds since 1970 UTC.
    """
    for cause in _causes(error):
        headers = _headers(cause)
        if (millis := _number(headers.get("retry-after-ms"))) is not None:
            return millis / 1000
        if (asked := headers.get("retry-after")) is not None:
            seconds = _number(asked)
            return seconds if seconds is not None else _until(asked, now)
    return None


def _status(error: BaseException) -> int | None:
    for source in (error, getattr(error, "response", None)):
        status = getattr(source, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _code(error: BaseException) -> str:
    code = getattr(error, "code", None)
    return code if isinstance(code, str) else ""


def _headers(error: BaseException) -> dict[str, str]:
    headers = getattr(getattr(error, "response", None), "headers", None)
    return {str(name).lower(): str(value) for name, value in headers.items()} if isinstance(headers, Mapping) else {}


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _until(date: str, now: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        yield cause
        cause = cause.__cause__
