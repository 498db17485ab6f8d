"""What the host tells the governor: a call before it runs, its result after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from agentbudget.domain.usage import Usage
from agentbudget.estimating.sizes import RequestSize
from agentbudget.pricing.rates import CacheWrites, Rates


class Kind:
    """What is called. Plain strings: they are compared and written at every call, where an enum would cost."""

    MODEL: Final = "model"
    TOOL: Final = "tool"


class Outcome:
    """How an attempt ended; see `CallSettled.outcome`. Plain strings, as in `Kind`."""

    OK: Final = "ok"
    ERROR: Final = "error"
    REFUSED: Final = "refused"
    CANCELLED: Final = "cancelled"
    TIMEOUT: Final = "timeout"
    ABANDONED: Final = "abandoned"
    CACHED: Final = "cached"


class Called(Protocol):
    """What the rules need of a call: a live one, or one recorded in a trace."""

    @property
    def kind(self) -> str:
        """One of `Kind`."""

    @property
    def name(self) -> str:
        """Model or tool."""


class Again(NamedTuple):
    """What a call is another attempt of, where the request itself says so."""

    first: str
    """Id of the first attempt."""
    attempt: int
    thrown: Usage | None
    """What the attempt before took, whose answer was thrown away."""


FIRST: Final = Again("", 1, None)


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One attempt as the host is about to make it."""

    id: str
    kind: str
    """One of `Kind`."""
    name: str
    """Model or tool."""
    provider: str = ""
    base_url: str = ""
    tier: str = ""
    size: RequestSize | None = None
    texts: Callable[[], Iterable[str]] | None = None
    """Gives all text of the request, for an exact count where a vocabulary is at hand."""
    cap: int | None = None
    """Output cap in tokens that the user declared; None where there is only a vendor's default."""
    answers: int = 1
    """Answers asked for (`n`); each may use the whole cap."""
    web_searches: int = 0
    """Searches the provider may bill within this call."""
    cache_writes: CacheWrites = "5m"
    """The dearest cache write the request can cause."""
    audio: bool = False
    """Whether audio can go in or out."""
    arguments: Mapping[str, Any] = {}
    """Arguments of a tool."""
    fingerprint: object = None
    """Equal for attempts of the same operation; hashable, cheap, never stored in a trace."""
    layer: str = ""
    """What repeats the operation, where this is not its first attempt."""
    again: Again = FIRST
    parent: str = ""
    within: str = ""
    """Id of the call around it: of the tool whose sub-agent makes it."""
    place: str = ""
    """Where in the host it is made: equal for attempts of the same step of a graph."""
    agent: str = ""
    node: str = ""
    step: int = 0
    messages: int = 0
    final: str = ""
    """Id of the stopped task whose one last answer this is; see `Governor.allow_last_answer`."""
    caught: tuple[str, ...] = ()
    """Ids of the tasks whose stop somebody around the call lands: only for them is a last answer kept back."""
    hidden_retries: int = 0
    """How often the provider's client repeats the request by itself."""
    request: str = ""
    content: Any = None


UNSAID: Final = msgspec.UNSET
"""Of a tool that told the model nothing."""


class Result(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How an attempt ended, as far as the host knows."""

    outcome: str
    """One of `Outcome`."""
    usage: Usage | None = None
    problem: str = ""
    """Why the reported usage cannot be right; then the reservation is charged."""
    model: str = ""
    tier: str = ""
    error: str = ""
    attempts: int = 1
    """Requests that may have run behind this one attempt (hidden retries of an SDK after a timeout)."""
    chunks: int = 0
    bytes: int = 0
    """UTF-8 bytes of output seen; what a missing or partial usage is estimated from."""
    value: Any = None
    """What a tool returned, for prices that depend on it."""
    said: Any = UNSAID
    """What a tool told the model, or the error it raised, for the loop rules; unset where it told nothing."""
    lane: str = ""
    """The agent, as a graph run, that made the call; empty outside any graph."""
    unparsable: bool = False
    """Whether a model asked for tools only in a form that cannot be read."""
    result: str = ""
    size: int = 0
    content: Any = None


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """Upper bound of an attempt before it runs. `rates` is None for tools and unpriced models."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    rates: Rates | None = None
    priced: bool = True
    remedy: str = ""
    """What to do about a missing price, where a limit on cost may not go without; empty where nothing is to be done."""


FREE: Final = Estimate()
UNPRICED: Final = Estimate(priced=False)
