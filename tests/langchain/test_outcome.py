"""What an error means for the bill: refused is free, everything else may have been served."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

import agentbudget as ab
from agentbudget.governor.values import Outcome
from agentbudget.langchain.outcome import outcome_of

http: Any = importlib.import_module("httpx2" if importlib.util.find_spec("httpx2") else "httpx")
"""The HTTP client that the SDKs are built on."""

REQUEST = http.Request("POST", "http://127.0.0.1/v1")


def answered(status: int) -> http.Response:
    return http.Response(status, request=REQUEST)


def caused_by(error: Exception, cause: Exception) -> Exception:
    """*error* as it looks when it was raised from *cause*."""
    try:
        raise error from cause
    except type(error) as raised:
        return raised


class WithStatus(Exception):  # noqa: N818 - named for what it has
    """An error of another client, which keeps the status on itself."""

    def __init__(self, status_code: object) -> None:
        super().__init__()
        self.status_code = status_code


CASES: dict[str, tuple[Callable[[], BaseException], str]] = {
    "cancelled": (asyncio.CancelledError, Outcome.CANCELLED),
    "interrupted from the keyboard": (KeyboardInterrupt, Outcome.CANCELLED),
    "stream closed": (GeneratorExit, Outcome.ABANDONED),
    "stopped by the budget": (lambda: ab.BudgetExceeded(ab.StopReport(limit="max_cost")), Outcome.ABANDONED),
    "OpenAI 400": (lambda: openai.BadRequestError("no", response=answered(400), body=None), Outcome.REFUSED),
    "OpenAI 429": (lambda: openai.RateLimitError("no", response=answered(429), body=None), Outcome.REFUSED),
    "OpenAI 500": (lambda: openai.InternalServerError("no", response=answered(500), body=None), Outcome.REFUSED),
    "Anthropic 529": (lambda: anthropic.InternalServerError("no", response=answered(529), body=None), Outcome.REFUSED),
    "Anthropic 401": (lambda: anthropic.AuthenticationError("no", response=answered(401), body=None), Outcome.REFUSED),
    "gateway timeout": (lambda: openai.APIStatusError("no", response=answered(504), body=None), Outcome.TIMEOUT),
    "request timeout": (lambda: openai.APIStatusError("no", response=answered(408), body=None), Outcome.TIMEOUT),
    "a status of another client": (lambda: WithStatus(403), Outcome.REFUSED),
    "a status that is none": (lambda: WithStatus("teapot"), Outcome.ERROR),
    "a status of success": (lambda: WithStatus(200), Outcome.ERROR),
    "OpenAI timeout": (lambda: openai.APITimeoutError(REQUEST), Outcome.TIMEOUT),
    "Anthropic timeout": (lambda: anthropic.APITimeoutError(REQUEST), Outcome.TIMEOUT),
    "read timeout": (
        lambda: caused_by(openai.APITimeoutError(REQUEST), http.ReadTimeout("slow")),
        Outcome.TIMEOUT,
    ),
    "connect timeout": (
        lambda: caused_by(openai.APITimeoutError(REQUEST), http.ConnectTimeout("nobody")),
        Outcome.REFUSED,
    ),
    "no free connection": (
        lambda: caused_by(openai.APITimeoutError(REQUEST), http.PoolTimeout("full")),
        Outcome.REFUSED,
    ),
    "connection refused": (
        lambda: caused_by(openai.APIConnectionError(request=REQUEST), http.ConnectError("refused")),
        Outcome.REFUSED,
    ),
    "refused by the socket": (lambda: caused_by(ValueError("x"), ConnectionRefusedError()), Outcome.REFUSED),
    "connection lost": (
        lambda: caused_by(openai.APIConnectionError(request=REQUEST), http.RemoteProtocolError("cut")),
        Outcome.ERROR,
    ),
    "asyncio's own timeout": (TimeoutError, Outcome.TIMEOUT),
    "an answer that does not parse": (lambda: ValueError("no JSON"), Outcome.ERROR),
}


@pytest.mark.parametrize("case", CASES)
def test_law_10_what_an_error_means_for_the_bill(case: str) -> None:
    make, expected = CASES[case]
    assert outcome_of(make()) is expected


def test_errors_that_cause_each_other_in_a_ring_come_to_an_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert outcome_of(first) is Outcome.ERROR
