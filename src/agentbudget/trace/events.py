"""The events of a trace: one frozen struct per fact, tagged by `event`.

The schema is versioned by `SCHEMA`; new optional fields may be added within a version, nothing may be renamed or
change its meaning. Money is in nano-dollars, durations in seconds, `at` in seconds since 1970 UTC.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

SCHEMA = 1

Count = Annotated[int, msgspec.Meta(ge=0)]
Nanos = Annotated[int, msgspec.Meta(ge=0, description="Nano-dollars (1e-9 USD).")]


class Signed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Keyed hashes (base64) by which the loop rules tell whether a tool call and its result were seen before."""

    call: bytes
    """Of tool and arguments."""
    target: bytes
    """Of what the arguments name, such as a path or an id."""
    result: bytes
    """Of what came back, times and ids masked."""
    brief: bool = False
    """Whether the result may be a mere acknowledgement."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="event"):
    """What every event has: the time it happened."""

    at: float


class TraceOpened(Event, frozen=True, kw_only=True, omit_defaults=True, tag="trace_opened"):
    """First line of every file: who wrote it, under what."""

    schema: int
    version: str
    """Version of agentbudget."""
    prices: str = ""
    """Version of the price book."""
    key_id: str = ""
    """Names the key of the content hashes; hashes of different keys cannot be compared."""
    content: str = "hashes"
    """`hashes` or `full`."""
    mode: str = "enforce"
    ledger: str = ""


class TaskOpened(Event, frozen=True, kw_only=True, omit_defaults=True, tag="task_opened"):
    """A task begins; `parent` is the task it draws on."""

    task: str
    name: str = ""
    parent: str = ""
    thread: str = ""
    tags: dict[str, str] = {}
    budget: dict[str, Any] = {}
    """`Budget.to_dict()`."""
    limits: list[dict[str, Any]] = []
    """The governor's shared limits: meter, amount (nano-dollars for cost), scope, window, timezone, where."""
    scope: tuple[str, str] | None = None
    """Scope of the task's own accounts, where it is not `("task", task)`: tasks of one thread share theirs."""
    clock: float | None = None
    """Monotonic reading that `max_seconds` counts from."""


class TaskResumed(Event, frozen=True, kw_only=True, omit_defaults=True, tag="task_resumed"):
    """A later root run continues the task."""

    task: str
    budget: dict[str, Any] = {}
    """`Budget.to_dict()`, where a new one replaces the task's."""
    redeclared: bool = False
    """Whether `budget` replaces the task's even where it is empty."""
    lifted: bool = True
    """Whether an earlier stop was lifted."""
    clock: float | None = None
    """Monotonic reading that `max_seconds` counts from now, time spent closed left out."""


class CallReserved(Event, frozen=True, kw_only=True, omit_defaults=True, tag="call_reserved"):
    """An attempt was admitted: its estimate is held."""

    call: str
    """Id of the attempt (LangChain's run id)."""
    tasks: tuple[str, ...]
    """Tasks that pay for it, innermost first."""
    kind: str
    """`model` or `tool`."""
    name: str
    """Model or tool."""
    provider: str = ""
    tier: str = ""
    """Service tier asked for."""
    operation: str = ""
    """Id of the first attempt of the same operation; empty for a first attempt."""
    attempt: int = 1
    layer: str = ""
    """What retried it, as far as the host shows it."""
    parent: str = ""
    """Id of the run around it, as the host names it."""
    thrown: int = 0
    """Nano-dollars paid for the attempt before, whose answer the host threw away: a re-prompt of structured output."""
    within: str = ""
    """Id of the call around it: of the tool whose sub-agent makes it; empty outside any."""
    agent: str = ""
    node: str = ""
    step: int = 0
    estimate_input: int = 0
    """Upper bound of input tokens."""
    estimate_output: int = 0
    """Tokens reserved for output."""
    capped: bool = False
    """Whether the output estimate is a cap the user declared."""
    cost: Nanos = 0
    """Nano-dollars reserved."""
    web_searches: int = 0
    """Searches the estimate has room for."""
    cache_writes: str = "5m"
    """The dearest cache write the estimate has room for: `none`, `5m` or `1h`."""
    audio: bool = False
    """Whether the estimate has room for audio."""
    clock: float | None = None
    """Monotonic reading of the decision, where a task of the call has a deadline."""
    final: str = ""
    """Id of the stopped task whose one last answer this is."""
    kept: dict[str, dict[str, Any]] = {}
    """What the call had to leave for the last answers of its tasks: by task, by meter; `seconds` too."""
    lenient: tuple[str, ...] = ()
    """Ids of the tasks whose limits would only refuse this tool call, not end them: somebody around it lands."""
    messages: int = 0
    """Messages in the request."""
    size: int = 0
    """Bytes added to the request since its last reported usage."""
    request: str = ""
    """Keyed hash of what was asked: tool arguments, or the last message."""
    content: Any = None
    """The request itself, only with full content."""


class CallExtended(Event, frozen=True, kw_only=True, omit_defaults=True, tag="call_extended"):
    """A growing stream reserved more."""

    call: str
    tasks: tuple[str, ...]
    estimate_output: int
    """Output tokens reserved in total now."""
    cost: Nanos
    """Nano-dollars reserved in total now."""


class CallReleased(Event, frozen=True, kw_only=True, omit_defaults=True, tag="call_released"):
    """An admitted attempt never ran; its hold was given back."""

    call: str
    tasks: tuple[str, ...]


class CallSettled(Event, frozen=True, kw_only=True, omit_defaults=True, tag="call_settled"):
    """An attempt ended and was charged."""

    call: str
    tasks: tuple[str, ...]
    kind: str
    name: str
    outcome: str
    """`ok`, `error`, `refused` (never served: $0), `cancelled`, `timeout`, `abandoned` (stream closed early) or
    `cached` (answered by LangChain's cache: $0)."""
    cost: Nanos = 0
    usage: dict[str, Count] = {}
    """`Usage.to_dict()`."""
    source: str = "reported"
    """Where the usage comes from: `reported`, `estimated` (missing), `reserved` (nonsense or unknown: the
    reservation is charged), `none` (nothing to count)."""
    model: str = ""
    """Model the provider named, where it differs from the one asked for."""
    tier: str = ""
    price: dict[str, Any] | None = None
    """`PriceRef` the cost was computed with; None: unpriced or free tool."""
    priced: bool = True
    avoided: Nanos = 0
    """Nano-dollars a cache hit would have cost."""
    overrun: Nanos = 0
    """Nano-dollars above what was reserved."""
    seconds: float = 0.0
    retry: bool = False
    """Whether this was an attempt beyond the first of its operation."""
    wasted: bool = False
    """Whether the result was thrown away: the attempt failed."""
    late: bool = False
    """The task had closed already."""
    error: str = ""
    """Name of the exception class."""
    result: str = ""
    """Keyed hash of the result."""
    result_size: int = 0
    content: Any = None
    """The result itself, only with full content."""
    agent: str = ""
    node: str = ""
    lane: str = ""
    """The agent (graph run) that made it, as the loop rules tell agents apart."""
    signed: tuple[Signed, ...] = ()
    """What the loop rules saw of a tool call: one for all tasks of the call, or one for each; empty: they saw none."""
    unparsable: bool = False
    """Whether a model asked for tools only in a form that cannot be read."""


class CallDenied(Event, frozen=True, kw_only=True, omit_defaults=True, tag="call_denied"):
    """An attempt was refused before it ran. In observe mode it ran all the same (`enforced=False`)."""

    call: str
    tasks: tuple[str, ...]
    kind: str
    name: str
    stop: dict[str, Any]
    """`StopReport.to_dict()`."""
    cost: Nanos = 0
    """Nano-dollars it would have reserved."""
    estimate_input: int = 0
    estimate_output: int = 0
    enforced: bool = True
    attempt: int = 1
    clock: float | None = None
    """As in `CallReserved`; likewise `final` and `kept`."""
    final: str = ""
    kept: dict[str, dict[str, Any]] = {}
    within: str = ""
    """As in `CallReserved`."""
    agent: str = ""
    node: str = ""


class ActionTaken(Event, frozen=True, kw_only=True, omit_defaults=True, tag="action_taken"):
    """A verdict other than proceed was carried out: shrink, wait, downgrade, compact, nudge, finish, ask, end."""

    tasks: tuple[str, ...]
    action: str
    reason: str
    call: str = ""
    numbers: dict[str, Any] = {}


class Discrepancy(Event, frozen=True, kw_only=True, omit_defaults=True, tag="discrepancy"):
    """Something was seen that the meter did not see, or could not be right. Never silent."""

    tasks: tuple[str, ...]
    kind: str
    detail: str
    call: str = ""


class OutcomeRecorded(Event, frozen=True, kw_only=True, omit_defaults=True, tag="outcome_recorded"):
    """What the user says the task was worth."""

    task: str
    outcome: str
    ok: bool | None = None


class LimitRaised(Event, frozen=True, kw_only=True, omit_defaults=True, tag="limit_raised"):
    """A grant was added to a task's limit."""

    task: str
    meter: str
    amount: int
    grant: str
    approver: str = ""


class ThresholdReached(Event, frozen=True, kw_only=True, omit_defaults=True, tag="threshold_reached"):
    """The settlement of a call of these tasks reached a share of a shared limit: told once over all processes."""

    tasks: tuple[str, ...]
    call: str
    scope: tuple[tuple[str, str], ...]
    """Kind and name, one or more pairs."""
    meter: str
    window: str = ""
    threshold: Count
    """Basis points of `limit`: 8000 is 80 %."""
    limit: Count
    """The limit in force; nano-dollars for cost."""
    settled: Count
    """What was spent, this settlement included."""


class TaskClosed(Event, frozen=True, kw_only=True, omit_defaults=True, tag="task_closed"):
    """The task ended; `cost` repeats the sum of its settlements as a check. A `TaskResumed` opens it again."""

    task: str
    status: str
    """`completed`, `stopped`, `failed`, `cancelled`, `interrupted`."""
    cost: Nanos = 0
    """Nano-dollars of all settlements so far, those of tasks within it included."""
    seconds: float = 0.0
    """Seconds the task took so far, all its runs together, time spent paused left out."""


AnyEvent = (
    TraceOpened
    | TaskOpened
    | TaskResumed
    | CallReserved
    | CallExtended
    | CallReleased
    | CallSettled
    | CallDenied
    | ActionTaken
    | Discrepancy
    | OutcomeRecorded
    | LimitRaised
    | ThresholdReached
    | TaskClosed
)
