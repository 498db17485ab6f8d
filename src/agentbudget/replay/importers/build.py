"""Events for calls that others recorded. An importer knows no estimate, so a call reserves what it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import Any

import msgspec

from agentbudget.domain.usage import Usage
from agentbudget.errors import PricingError
from agentbudget.policies.signatures import SIZE
from agentbudget.pricing.book import PriceBook
from agentbudget.trace.events import (
    CallReserved,
    CallSettled,
    Event,
    OutcomeRecorded,
    Signed,
    TaskClosed,
    TaskOpened,
)

NANOS = Decimal(10) ** 9
_MOST = Decimal(2**53 - 1)


class Attempt(msgspec.Struct, kw_only=True):
    """One foreign call. `cost` in nano-dollars, None where it has no price; times in seconds since 1970 UTC."""

    id: str
    task: str
    kind: str
    name: str
    at: float
    seconds: float = 0.0
    provider: str = ""
    usage: Usage = Usage()
    cost: int | None = None
    price: dict[str, Any] | None = None
    source: str = "reported"
    error: str = ""
    request: str = ""
    result: str = ""
    result_size: int = 0
    agent: str = ""
    node: str = ""
    step: int = 0
    parent: str = ""
    unparsable: bool = False
    """Whether it stands for a reply of a model that asked for tools in a form that cannot be read."""

    def events(self) -> Iterator[Event]:
        """Its admission and its end."""
        cost = self.cost or 0
        yield CallReserved(
            at=self.at,
            call=self.id,
            tasks=(self.task,),
            kind=self.kind,
            name=self.name,
            provider=self.provider,
            parent=self.parent,
            agent=self.agent,
            node=self.node,
            step=self.step,
            estimate_input=self.usage.input_tokens,
            estimate_output=self.usage.output_tokens,
            cost=cost,
            request=self.request,
        )
        yield CallSettled(
            at=self.at + self.seconds,
            call=self.id,
            tasks=(self.task,),
            kind=self.kind,
            name=self.name,
            outcome="error" if self.error else "ok",
            cost=cost,
            usage=self.usage.to_dict(),
            source=self.source if self.kind == "model" else "none",
            price=self.price,
            priced=self.cost is not None or self.kind == "tool",
            seconds=self.seconds,
            wasted=bool(self.error) and self.kind == "model",
            error=self.error,
            result=self.result,
            result_size=self.result_size,
            agent=self.agent,
            node=self.node,
            signed=self._signed(),
            unparsable=self.unparsable,
        )

    def _signed(self) -> tuple[Signed, ...]:
        """What the loop rules compare: the hashes that were recorded, which know no acknowledgement from an answer."""
        if self.kind != "tool" or self.unparsable or not (self.request and self.result):
            return ()
        call = _signature(f"{self.name} {self.request}")
        return (Signed(call, call, _signature(self.result)),)


def _signature(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=SIZE).digest()


def opened(task: str, name: str, at: float, tags: Mapping[str, str] | None = None) -> TaskOpened:
    """The beginning of a foreign run."""
    return TaskOpened(at=at, task=task, name=name, tags=dict(tags or {}))


def closed(
    task: str,
    at: float,
    *,
    cost: int,
    seconds: float = 0.0,
    ok: bool | None = None,
    outcome: str = "",
    failed: bool = False,
) -> Iterator[Event]:
    """Its outcome, where one is known, and its end. *cost* in nano-dollars."""
    if ok is not None or outcome:
        yield OutcomeRecorded(at=at, task=task, outcome=outcome or ("resolved" if ok else "failed"), ok=ok)
    yield TaskClosed(at=at, task=task, status="failed" if failed else "completed", cost=cost, seconds=seconds)


class Prices:
    """Prices for foreign calls of which only the usage was recorded. The price data is loaded on first use."""

    def __init__(self) -> None:
        self._book: PriceBook | None = None

    def cost(self, model: str, provider: str, usage: Usage, at: float) -> tuple[int | None, dict[str, Any] | None]:
        """Nano-dollars of *usage* on the day of *at*, and the prices used; None where there is no price."""
        if self._book is None:
            self._book = PriceBook()
        try:
            rates = self._book.rates(model, provider=provider or None, on=day_of(at))
            return rates.cost(usage), rates.reference
        except PricingError:
            return None, None


def day_of(at: float) -> date:
    """The UTC day of *at*."""
    return datetime.fromtimestamp(at, UTC).date()


def nanos_of(amount: object) -> int | None:
    """Nano-dollars of a recorded number of dollars, rounded; None where it is not one."""
    if amount is None or isinstance(amount, bool) or not isinstance(amount, int | float | str | Decimal):
        return None
    try:
        scaled = Decimal(str(amount)) * NANOS
    except InvalidOperation:
        return None
    return int(scaled.to_integral_value()) if scaled.is_finite() and 0 <= scaled <= _MOST else None


def count(value: object) -> int:
    """A recorded count, which may be a decimal string; 0 where there is none.

    Raises:
        ValueError: not a count.
    """
    if value is None:
        return 0
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | str)
        or int(value) < 0
        or int(value) != float(value)
    ):
        raise ValueError(f"{value!r} is no count")
    return int(value)


def seconds_of(stamp: object) -> float | None:
    """Seconds since 1970 of an ISO 8601 string (naive means UTC); None where it is not one."""
    if not isinstance(stamp, str):
        return None
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
