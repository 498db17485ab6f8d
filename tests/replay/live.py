"""Live runs for the tests of replay: a real governor driven by a generated script of tasks and overlapping calls."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from msgspec.structs import replace

import agentbudget as ab
from agentbudget.domain.money import dollars
from agentbudget.domain.verdict import StopReport
from agentbudget.estimating.sizes import RequestSize
from agentbudget.governor.governor import Governor
from agentbudget.governor.hold import Hold
from agentbudget.governor.task import Task
from agentbudget.governor.values import UNSAID, Call, Kind, Outcome, Result
from agentbudget.testing import FakeClock
from agentbudget.trace.events import ActionTaken, CallDenied, CallExtended, CallReserved, CallSettled, Event

MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5")
TOOLS = ("search", "book", "read")
PRICES = {"tool:book": "$0.01"}
_FAILED = (Outcome.ERROR, Outcome.TIMEOUT, Outcome.ABANDONED, Outcome.CANCELLED, Outcome.REFUSED)


@dataclass
class LiveRun:
    """One generated live run and what the governor did: the events it emitted and what it charged."""

    seed: int
    folder: Path
    mode: str = "enforce"
    single: bool = True
    clock: FakeClock = field(default_factory=FakeClock)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.path = self.folder / ("run.jsonl" if self.single else "traces")
        self.governor = Governor(
            trace=self.path,
            prices=PRICES,
            clock=self.clock,
            mode=self.mode,
            sinks=[self.events.append],
            limits=self._limits(),
        )
        self.tasks: list[Task] = []
        self.holds: list[Hold] = []
        self.number = 0

    def play(self, steps: int) -> LiveRun:
        """Open tasks, overlap calls, fail, stream, retry, resume, top up; then close everything."""
        moves = [self._open, self._begin, self._begin, self._begin, self._end, self._end, self._grow, self._other]
        self._open()
        for _ in range(steps):
            self.clock.advance(self.random.random() * 4)
            self.random.choice(moves)()
        while self.holds:
            self._end()
        for task in reversed(self.tasks):
            self.governor.close_task(task)
        self.governor.close()
        return self

    @property
    def cost(self) -> Decimal:
        """What was charged, in dollars."""
        return dollars(sum(event.cost for event in self.events if isinstance(event, CallSettled)))

    def verdicts(self) -> list[tuple[str, bool, str | None]]:
        """Every decision as it was recorded: call, whether it ran, and why not."""
        found: list[tuple[str, bool, str | None]] = []
        observed: set[str] = set()
        for event in self.events:
            if isinstance(event, CallDenied) and event.call:
                found.append((event.call, not event.enforced, str(event.stop)))
                observed.update([] if event.enforced else [event.call])
            elif isinstance(event, ActionTaken) and event.action == "refuse":
                found.append((event.call, False, event.reason))
            elif isinstance(event, CallReserved | CallExtended):
                if event.call not in observed:
                    found.append((event.call, True, None))
                observed.discard(event.call)
        return found

    def _limits(self) -> list[ab.Limit]:
        if self.random.random() < 0.5:
            return []
        amount = self.random.choice(["$0.05", "$0.5", "$5"])
        return [ab.Limit("cost", amount, scope="team", window="minute"), ab.Limit("model_calls", 8, scope="model")]

    def _open(self) -> None:
        if len(self.tasks) >= 5:
            return
        pick = self.random
        options: dict[str, Any] = {}
        if pick.random() < 0.7:
            options["max_cost"] = pick.choice(["$0.004", "$0.03", "$0.3"])
        for name, values in _OPTIONS.items():
            if pick.random() < (0.5 if name == "loops" else 0.15):
                options[name] = pick.choice(values)
        parent = pick.choice([None, *[task for task in self.tasks if task.is_open]])
        number = len(self.tasks)
        task = self.governor.open_task(
            f"kind-{number % 2}",
            ab.Budget(**options),
            task_id=f"t{number}",
            parent=parent,
            tags={"team": pick.choice(["cx", "eng"])},
            scope=pick.choice([None, None, ("thread", "th")]) if parent is None else None,
        )
        if pick.random() < 0.3:
            self.governor.keep_back(task)
        task.lenient = pick.random() < 0.3
        self.tasks.append(task)

    def _begin(self) -> None:
        task = self.random.choice(self.tasks)
        self.number += 1
        tool = self.random.random() < 0.4
        call = Call(
            id=f"c{self.number}",
            kind=Kind.TOOL if tool else Kind.MODEL,
            name=self.random.choice(TOOLS if tool else MODELS),
            size=None if tool else _size(self.random.randrange(50, 4000)),
            cap=self.random.choice([None, 100, 1000]),
            fingerprint=self.random.randrange(4),
            arguments={"q": self.random.randrange(2), "page": self.random.randrange(2)} if tool else {},
            caught=tuple(each.id for each in task.chain if self.random.random() < 0.7),
        )
        if not tool and task.stop is not None and self.governor.allow_last_answer(task):
            call = replace(call, final=task.id)
        answer = self.governor.admit(task.chain, call)
        if isinstance(answer, Hold):
            self.holds.append(answer)

    def _end(self) -> None:
        if not self.holds:
            return
        hold = self.holds.pop(self.random.randrange(len(self.holds)))
        if self.random.random() < 0.1:
            self.governor.release(hold)
            return
        outcome = Outcome.OK if self.random.random() < 0.7 else self.random.choice(_FAILED)
        usage = None
        if hold.call.kind == Kind.MODEL and outcome == Outcome.OK and self.random.random() < 0.9:
            into, out = self.random.randrange(1, 1500), self.random.randrange(0, 3000)
            usage = ab.Usage(input_tokens=into, output_tokens=out, cache_read_tokens=into // 2)
        said: Any = (
            self.random.choice(["nothing", "nothing", "found 7 of them", UNSAID])
            if hold.call.kind == Kind.TOOL
            else UNSAID
        )
        lane, unparsable = self.random.choice(["", "helper"]), self.random.random() < 0.3
        self.governor.settle(
            hold, Result(outcome=outcome, usage=usage, bytes=300, said=said, lane=lane, unparsable=unparsable)
        )

    def _grow(self) -> None:
        streams = [hold for hold in self.holds if hold.call.kind == Kind.MODEL]
        if streams:
            hold = self.random.choice(streams)
            stop = self.governor.extend(hold, hold.estimate.output_tokens + self.random.randrange(1, 3000))
            assert stop is None or isinstance(stop, StopReport)

    def _other(self) -> None:
        task = self.random.choice(self.tasks)
        what = self.random.randrange(5)
        if what == 0:
            self.governor.top_up(task, "$0.01")
        elif what == 1:
            held = {hold for other in self.tasks if task in other.chain for hold in other.holds.values()}
            self.holds = [hold for hold in self.holds if hold not in held]
            self.governor.close_task(task)
        elif what == 2:
            self.governor.resume(task, lift=self.random.random() < 0.5)
        elif what == 3:
            self.governor.resume(task, ab.Budget(max_model_calls=self.random.randrange(1, 30)))
        else:
            self.governor.stop_task(task, StopReport(limit="test", call="model gpt-4o", task_id=task.id))


_SOON = ab.Thresholds(in_a_row=2, in_window=3, cycles=2, nothing_new=3, same_error=2, unparsable=2)
_OPTIONS: dict[str, list[Any]] = {
    "max_model_calls": [1, 4, 12],
    "max_tool_calls": [0, 3],
    "max_retries": [0, 1],
    "max_seconds": [5, 40],
    "max_total_tokens": [3000, 20000],
    "max_uncached_tokens": [4000],
    "tools": [{"search": 2}, {"*": 3}],
    "loops": [
        ab.Loops(halt=_SOON, nudge=None),
        ab.Loops(halt=_SOON, nudge=ab.Thresholds(in_a_row=2), volatile={"search": ("page",)}),
        ab.Loops(halt=_SOON, polling={"book"}),
    ],
}


def _size(appended: int) -> RequestSize:
    return RequestSize(anchor_tokens=0, appended_bytes=appended, appended_messages=2)
