"""What can succeed when it is tried again, and how long the provider asks to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import openai
import pytest
from langchain_core.exceptions import ContextOverflowError, OutputParserException
from langchain_openai import ChatOpenAI
from langgraph.errors import GraphInterrupt

import agentbudget as ab
from agentbudget.domain.verdict import StopReport
from agentbudget.retries import can_succeed, retry_after
from agentbudget.testing import ProviderServer, Reply

NOW = 1_800_000_000.0


class Answered(Exception):  # noqa: N818 - an error as clients raise it
    """An error that carries a response, as those of the clients do."""

    def __init__(self, status: int = 429, headers: Mapping[str, str] | None = None, code: str | None = None) -> None:
        super().__init__(status)
        self.response = type("Response", (), {"status_code": status, "headers": headers or {}})()
        self.code = code


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 410, 413, 422, 501, 505])
def test_a_request_that_was_refused_for_what_it_is_cannot_succeed(status: int) -> None:
    assert not can_succeed(Answered(status))


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_a_request_that_came_at_a_bad_time_can_succeed(status: int) -> None:
    assert can_succeed(Answered(status))


FUTILE: list[BaseException] = [
    ContextOverflowError("too long"),
    Answered(429, code="insufficient_quota"),
    Answered(400, code="context_length_exceeded"),
    ab.BudgetExceeded(StopReport(limit="max_cost", call="model m")),
    ab.ConfigurationError("no"),
    GraphInterrupt(),
    asyncio.CancelledError(),
    KeyboardInterrupt(),
    GeneratorExit(),
    TypeError("no such argument"),
    ValueError("not a number"),
    KeyError("missing"),
    NotImplementedError("later"),
]


@pytest.mark.parametrize("error", FUTILE, ids=lambda error: type(error).__name__)
def test_what_fails_in_the_same_way_again_is_not_tried_again(error: BaseException) -> None:
    assert not can_succeed(error)


@pytest.mark.parametrize(
    "error",
    [TimeoutError(), ConnectionResetError(), OSError("lost"), RuntimeError("flaky"), OutputParserException("no JSON")],
    ids=lambda error: type(error).__name__,
)
def test_what_may_go_better_is_tried_again(error: BaseException) -> None:
    assert can_succeed(error)


@pytest.mark.parametrize(("status", "expected"), [(401, False), (404, False), (429, True), (503, True)])
def test_errors_of_the_real_client_are_understood(status: int, *, expected: bool) -> None:
    with ProviderServer([Reply(status=status, headers={"Retry-After": "7"})]) as server:
        model = ChatOpenAI(model="gpt-4o", api_key="sk-x", base_url=server.base_url, max_retries=0)  # type: ignore[arg-type]  # takes a str
        with pytest.raises(openai.APIStatusError) as raised:
            model.invoke("hi")
    assert can_succeed(raised.value) is expected
    assert retry_after(raised.value, now=NOW) == 7


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 15 Jan 2021 08:00:30 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_the_wait_the_provider_asks_for_is_read_in_each_of_its_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(Answered(429, headers), now=NOW) == seconds


def test_the_wait_is_found_on_what_caused_the_error() -> None:
    error = RuntimeError("wrapped")
    error.__cause__ = Answered(429, {"retry-after": "3"})
    assert retry_after(error, now=NOW) == 3


@pytest.mark.parametrize("make", [ValueError, lambda: Answered(429, {})])
def test_an_error_without_a_wish_asks_for_nothing(make: Callable[[], Any]) -> None:
    assert retry_after(make(), now=NOW) is None
