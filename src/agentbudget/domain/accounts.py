"""Accounts: one counter of the ledger for one (scope, meter, window)."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from agentbudget.domain.money import format_dollars
from agentbudget.errors import ConfigurationError

MAX_NAME_BYTES = 200
"""Longest name of a scope, in UTF-8 bytes."""


class Meter(StrEnum):
    """What is counted. Cost is in nano-dollars, time in seconds, everything else in units."""

    COST = "cost"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    TOTAL_TOKENS = "total_tokens"
    UNCACHED_TOKENS = "uncached_tokens"
    MODEL_CALLS = "model_calls"
    TOOL_CALLS = "tool_calls"
    RETRIES = "retries"
    SECONDS = "seconds"

    def show(self, amount: int) -> str:
        """*amount* in the unit of this meter, for people."""
        return format_dollars(amount) if self is Meter.COST else f"{amount:,}"


@dataclass(frozen=True, slots=True)
class Account:
    """One counter: for whom (*scope*), of what (*meter*), since when (*window*, empty: for ever).

    `scope` is one or more `(kind, name)` pairs; several pairs mean their conjunction, e.g. the calls of one tool
    within one task. `key` encodes all three; different accounts never share a key, whatever the names contain.

    Raises:
        ConfigurationError: a scope is empty, too long or contains control characters.
    """

    scope: tuple[tuple[str, str], ...]
    meter: Meter
    window: str = ""
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        window = quote(self.window, safe="") if self.window else ""
        object.__setattr__(self, "key", f"{_scope_key(self.scope)}|{self.meter._value_}|{window}")

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        scope = ", ".join(f"{kind} {name!r}" for kind, name in self.scope)
        return f"{self.meter.value} of {scope}" + (f" in {self.window}" if self.window else "")


class Posting(NamedTuple):
    """One line of a reservation: take *amount* of *account*, which holds at most *limit* (None: no limit).

    *limit* is what the caller declares; a limit set in the ledger by `set_limit` wins over it, and grants add to both.
    """

    account: Account
    amount: int
    limit: int | None = None


class Charge(NamedTuple):
    """One line of a settlement. Self-contained, so that a ledger which lost the reservation can still book it."""

    account: Account
    reserved: int
    actual: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The state of one account. Law: `settled + reserved + presumed <= limit + overrun + cut`."""

    limit: int | None
    settled: int = 0
    reserved: int = 0
    presumed: int = 0
    overrun: int = 0
    """Sum of actual minus what was held for it, where positive: spent past what was admitted. A settle whose
    reservation was lost or given back is an overrun in full."""
    cut: int = 0
    """How far the limit was lowered below what was already committed, by an explicit `set_limit`."""
    leased: int = field(default=0, compare=False)
    """How much of `available` this process holds in slices: others cannot have it. 0 where there are no slices."""

    @property
    def committed(self) -> int:
        """What counts against the limit: settled, reserved and presumed."""
        return self.settled + self.reserved + self.presumed

    @property
    def available(self) -> int | None:
        """What may still be reserved, never negative; None where there is no limit."""
        return None if self.limit is None else max(0, self.limit - self.committed)


@lru_cache(maxsize=1024)
def _scope_key(scope: tuple[tuple[str, str], ...]) -> str:
    """A task has several accounts with one scope, a shared limit the same scope at every call."""
    return "/".join([f"{_encoded(kind, 'scope')}:{_encoded(name, kind)}" for kind, name in scope])


def _encoded(name: str, what: str) -> str:
    """*name* without the characters that separate the parts of a key."""
    if type(name) is str and name.isalnum() and name.isascii() and len(name) <= MAX_NAME_BYTES:
        return name
    return quote(_checked(name, what), safe="")


def normal(name: str) -> str:
    """*name* in Unicode's normal form C: two ways to type "é" are one name."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def check_name(name: object, *, what: str) -> str:
    """*name*, in normal form C, if it can name a scope.

    Raises:
        ConfigurationError: not a string, empty, longer than `MAX_NAME_BYTES` or with control characters.
    """
    return _checked(normal(name) if isinstance(name, str) else name, what)


def _checked(name: object, what: str) -> str:
    if not isinstance(name, str) or not name:
        msg = f"{what}={name!r}: a name is a string that is not empty."
        raise ConfigurationError(msg)
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        msg = f"{what}={name[:40]!r}…: a name has at most {MAX_NAME_BYTES} bytes."
        raise ConfigurationError(msg)
    if not name.isprintable() and any(unicodedata.category(c) in {"Cc", "Cs", "Cf"} for c in name):
        msg = f"{what}={name!r}: a name has no control characters."
        raise ConfigurationError(msg)
    return name
