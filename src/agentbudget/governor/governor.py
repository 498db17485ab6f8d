"""The governor: the one place that decides, reserves, settles and emits."""

from __future__ import annotations

import math
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import date
from os import PathLike
from pathlib import Path
from typing import Any, Never

from agentbudget.domain.alerts import Crossing
from agentbudget.domain.budget import Limit
from agentbudget.domain.clock import Clock
from agentbudget.domain.failure import FailOpen, failure_mode
from agentbudget.domain.ledger import Ledger
from agentbudget.domain.options import refuse_unknown
from agentbudget.domain.retries import RetryRatio, split
from agentbudget.errors import BudgetWarning, ConfigurationError
from agentbudget.governor import explanation, plan
from agentbudget.governor.alarms import Alarms
from agentbudget.governor.appraisal import Appraiser
from agentbudget.governor.explanation import Explanation
from agentbudget.governor.looping import Looping
from agentbudget.governor.record import Recorder
from agentbudget.governor.reports import Reports
from agentbudget.governor.task import Task
from agentbudget.governor.tasks import Tasks
from agentbudget.governor.waiting import Waiting
from agentbudget.ledgers import open_ledger
from agentbudget.ledgers.failover import guarded
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.retries.once import Once
from agentbudget.retries.results import ResultStore, open_results
from agentbudget.trace import events
from agentbudget.trace.redaction import Hasher
from agentbudget.version import VERSION

_OPTIONS = (
    "ledger",
    "trace",
    "prices",
    "price_file",
    "aliases",
    "limits",
    "on_unpriced",
    "fail",
    "outbox",
    "mode",
    "trace_content",
    "sinks",
    "on_threshold",
    "clock",
    "lease_seconds",
    "results",
)
GOVERNORS: weakref.WeakSet[Governor] = weakref.WeakSet()
"""Every governor of this process that is in use."""


class Governor(Tasks):
    """Where money is kept and what is shared. Thread-safe; one per process is the usual number.

    Args:
        ledger: URL of a ledger or a `Ledger`; `memory:` lives and dies with the process.
        trace: a `.jsonl` file or a folder (one file a task); None writes none.
        prices: overrides in front of the price data: a mapping, or a TOML or YAML file.
        price_file: a LiteLLM-format JSON file behind the price data.
        aliases: names as your deployment calls them to names the price data knows.
        limits: shared limits (`Limit`, `RetryRatio`), which every task with their scope must pass.
        on_unpriced: a model without a price under a cost limit is `"refuse"`d, `"estimate"`d at the dearest known
            price, or `"allow"`ed and counted as unpriced.
        fail: with the ledger out of reach, `"closed"` refuses every call; `"slice"` goes on from what was leased
            before; `"open"` goes on for up to $5 and 300 s, a `FailOpen` for as much as it says.
        outbox: folder for settlements that the ledger could not take yet; by default beside a SQLite file.
        mode: `"enforce"`, or `"observe"`: nothing is stopped, everything that would have been is recorded.
        trace_content: `"hashes"` (default: lengths, keyed hashes and names) or `"full"`.
        sinks: called with every event; an error in one is reported once and never reaches the agent.
        on_threshold: called with a `Crossing` when a settlement of this governor reaches a share of a limit
            (`Limit(alert_at=...)`), in a thread of its own; an error in it never reaches the agent.
        clock: for tests.
        lease_seconds: how long a call may be in flight before its reservation is presumed spent.
        results: where results are kept of tools and models that must not be asked the same twice (`idempotent`,
            `governed(model, dedupe=True)`): `"memory:"`, `"sqlite:///results.db"`, or a `ResultStore`.

    Raises:
        TypeError: an unknown option. ConfigurationError: a value that cannot mean anything, a path that cannot be
            written, a price that cannot be read: before anything is paid.
    """

    def __init__(  # noqa: PLR0913 - one keyword per choice is the public face
        self,
        *,
        ledger: str | Ledger = "memory:",
        trace: str | PathLike[str] | None = None,
        prices: Mapping[str, Any] | str | Path | None = None,
        price_file: str | Path | None = None,
        aliases: Mapping[str, str] | None = None,
        limits: Iterable[Limit | RetryRatio] = (),
        on_unpriced: str = "refuse",
        fail: str | FailOpen = "closed",
        outbox: str | Path | None = None,
        mode: str = "enforce",
        trace_content: str = "hashes",
        sinks: Sequence[Callable[[events.Event], None]] = (),
        on_threshold: Callable[[Crossing], None] | None = None,
        clock: Clock | None = None,
        lease_seconds: float = 900,
        results: str | ResultStore = "memory:",
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, _OPTIONS, where="Governor")
        _one_of("mode", mode, ("enforce", "observe"))
        fail_open = failure_mode(fail)
        self.clock: Clock = clock or SystemClock()
        self.mode = mode
        self.limits, self.ratios = split(limits)
        self.alarms = Alarms(on_threshold)
        self._watches = any(limit.alert_at for limit in self.limits)
        primary = open_ledger(ledger, clock=self.clock) if isinstance(ledger, str) else ledger
        self.ledger: Ledger = guarded(
            primary,
            fail_open=fail_open,
            outbox=outbox,
            tell=self._ledger_trouble,
            alarm=self.alarms.tell,
            clock=self.clock,
        )
        self.appraiser = Appraiser.build(prices=prices, price_file=price_file, aliases=aliases, on_unpriced=on_unpriced)
        hasher = Hasher()
        self.recorder = Recorder(
            trace,
            content=trace_content,
            sinks=sinks,
            hasher=hasher,
            header=events.TraceOpened(
                at=self.clock.now(),
                schema=events.SCHEMA,
                version=VERSION,
                prices=self.appraiser.book.version,
                key_id=hasher.key_id,
                content=trace_content,
                mode=mode,
                ledger=type(primary).__name__,
            ),
        )
        self.lease_seconds = _positive("lease_seconds", lease_seconds)
        self.reports = Reports()
        """Reports of the last closed tasks, oldest first."""
        self.lock = threading.RLock()
        self._in_order = self.lock if isinstance(self.ledger, MemoryLedger) else nullcontext()
        GOVERNORS.add(self)
        self.looping = Looping()
        self.results = Once(open_results(results), now=self.clock.now)
        """Results that are kept, and the calls of which nobody knows whether they took effect."""
        self.waiting = Waiting()
        """Calls that wait for others to settle."""
        self._day = (0, date(1970, 1, 1))
        self._open: dict[str, Task] = {}
        self._recent: OrderedDict[str, Task] = OrderedDict()
        self._by_thread: OrderedDict[str, Task] = OrderedDict()

    def explain(self, task_id: str = "", *, model: str = "", tool: str = "", **scopes: str) -> Explanation:
        """Which limits a call with these scopes has to pass, and which is the tightest; print it to read it.

        *scopes* are what a task is given (`user="u42"`, `team="cx"`) and its tags (`plan="free"`). With a *task_id*,
        the limits and scopes of that task count too.

        Raises:
            ConfigurationError: no such task, a scope that no ledger could keep. LedgerUnavailableError: no answer.
        """
        called = {kind: name for kind, name in (("model", model), ("tool", tool)) if name}
        task = self.find_task(task_id)
        if task_id and task is None:
            msg = f"task {task_id!r} is not known here: it was closed long ago or belongs to another process."
            raise ConfigurationError(msg)
        names = {**(plan.names_of(task.chain) if task else {}), **scopes, **called}
        own = [line for one in (task.chain if task else ()) for line in one.lines]
        return explanation.explain(self.ledger, self.limits, names, own=own, at=self.clock.now())

    def close(self) -> None:
        """Close every open task, the trace and the ledger. Idempotent."""
        for task in list(self._open.values()):
            self.close_task(task, "cancelled")
        self.recorder.close()
        self.results.store.close()
        self.ledger.close()
        self.alarms.drain()  # slices that are settled now may reach a threshold, too
        GOVERNORS.discard(self)

    def _ledger_trouble(self, detail: str) -> None:
        """The ledger went out of reach or came back: warn, and tell it in every open task."""
        with self.lock:
            for task in list(self._open.values()):
                self.discrepancy((task,), "ledger", detail)
        warnings.warn(detail, BudgetWarning, stacklevel=2)


class SystemClock:
    """The clocks of this machine."""

    now = staticmethod(time.time)
    """Seconds since 1970 UTC."""

    monotonic = staticmethod(time.monotonic)
    """Seconds that never run backwards."""


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        msg = f"{option}={value!r}: one of {', '.join(map(repr, known))}."
        raise ConfigurationError(msg)
    return value


def _positive(option: str, seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        msg = f"{option}={seconds!r}: a positive, finite number of seconds."
        raise ConfigurationError(msg)
    return float(seconds)
