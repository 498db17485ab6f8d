"""What the tests of metering and stopping share: clients of the stand-in, an independent bill, a look for leaks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

import agentbudget as ab
from agentbudget.langchain.runs import RUNS
from agentbudget.testing import ProviderServer, ToolCall

GPT_4O = {"input_nanos": 2_500, "output_nanos": 10_000, "cache_read_nanos": 1_250}
"""gpt-4o's list price in nano-dollars per token ($2.50, $10 and $1.25 a million), apart from the price book."""

NANO = Decimal("1e-9")
SEARCH = ToolCall(name="search", args={"query": "a"})


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


def openai(server: ProviderServer, **options: Any) -> ChatOpenAI:
    """The real client; no hidden retries and a declared cap unless told."""
    settings: dict[str, Any] = {"model": "gpt-4o", "api_key": "sk-test", "max_retries": 0, "max_tokens": 500, **options}
    return ChatOpenAI(base_url=server.base_url, stream_usage=settings.pop("stream_usage", True), **settings)


def anthropic(server: ProviderServer, **options: Any) -> ChatAnthropic:
    """The real client; no hidden retries and a declared cap unless told."""
    settings = {"model": "claude-sonnet-4-6", "api_key": "sk-test", "max_retries": 0, "max_tokens": 500, **options}
    return ChatAnthropic(base_url=server.base_url, **settings)


def metered(governor: ab.Governor | None = None, **limits: Any) -> ab.BudgetCallback:
    """A callback with a governor of its own."""
    return ab.BudgetCallback(governor=governor or ab.Governor(), **limits)


def using(*handlers: Any) -> Any:
    """The config that adds *handlers*."""
    return {"callbacks": list(handlers)}


def in_chain(work: Callable[[Any], Any], *handlers: Any) -> Any:
    """Run *work* inside a chain, so that all it calls is one task."""
    chain: Runnable[Any, Any] = RunnableLambda(work)
    return chain.invoke(1, config=using(*handlers))


def report_of(callback: ab.BudgetCallback) -> ab.TaskReport:
    """The report of the last closed task."""
    assert callback.report is not None, "no task was closed"
    return callback.report


def nanos(amount: Decimal) -> int:
    """Dollars as nano-dollars, exactly."""
    whole = amount / NANO
    assert whole == int(whole)
    return int(whole)


def truth(server: ProviderServer) -> int:
    """What gpt-4o would have billed for everything the stand-in generated, in nano-dollars."""
    return server.cost_nanos(**GPT_4O)


def assert_nothing_held(*governors: ab.Governor) -> None:
    """No reservation is left, no run is remembered, and every balance equals its journal."""
    runs, in_flight = dict(RUNS._runs), dict(RUNS._in_flight)
    RUNS._runs.clear()  # one test's leak must not fail the next test
    RUNS._in_flight.clear()
    assert not runs, "runs are still registered"
    assert not in_flight, "attempts are still in flight"
    for governor in governors:
        for account in governor.ledger.accounts():
            assert governor.ledger.balance(account).reserved == 0, f"{account} still holds a reservation"
        assert governor.ledger.verify().ok


async def _invoke(app: Runnable[Any, Any], given: Any, config: Any) -> None:
    app.invoke(given, config)


async def _ainvoke(app: Runnable[Any, Any], given: Any, config: Any) -> None:
    await app.ainvoke(given, config)


async def _stream(app: Runnable[Any, Any], given: Any, config: Any) -> None:
    for _ in app.stream(given, config):
        pass


async def _astream(app: Runnable[Any, Any], given: Any, config: Any) -> None:
    async for _ in app.astream(given, config):
        pass


WAYS: dict[str, Callable[[Runnable[Any, Any], Any, Any], Coroutine[Any, Any, None]]] = {
    "invoke": _invoke,
    "ainvoke": _ainvoke,
    "stream": _stream,
    "astream": _astream,
}
"""Every way to run something once, awaited alike."""
