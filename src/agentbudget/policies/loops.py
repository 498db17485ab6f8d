"""Loop rules: whether an agent repeats itself without getting anywhere. Pure, incremental, bounded in memory.

A call alone is no evidence: of the calls that successful recorded agents repeated, 73 % returned something new. Each
rule therefore looks at results too. Every agent within a task (a graph run) has a lane of its own, so that helpers that
work side by side on the same things are not taken for one agent going in circles.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import msgspec

from agentbudget.domain.loops import MOST_CYCLES, WINDOW, Loops, Thresholds
from agentbudget.domain.money import format_dollars
from agentbudget.policies.signatures import SIZE
from agentbudget.trace.events import Signed

PERIODS = range(2, 7)
"""Lengths of the cycles looked for."""
REMEMBERED_RESULTS = 512
"""Results, and targets, that a lane remembers at least half of."""
MOST_LANES = 32
"""Agents of one task that are watched at the same time; beyond, the one that was quiet longest is forgotten."""
_STEPS = PERIODS[-1] * MOST_CYCLES
_PAIR = 2 * SIZE


class Rule(StrEnum):
    """Which rule found the loop."""

    IN_A_ROW = "in_a_row"
    IN_WINDOW = "in_window"
    CYCLES = "cycles"
    NOTHING_NEW = "nothing_new"
    SAME_ERROR = "same_error"
    UNPARSABLE = "unparsable"


class Step(msgspec.Struct, frozen=True, gc=False):
    """One settled tool call of an agent, as far as the rules look at it."""

    tool: str
    signed: Signed
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A loop, the steps it was seen in and what it has cost so far."""

    rule: Rule
    halt: bool
    """Whether it is enough to end the task; otherwise to nudge."""
    tool: str
    times: int
    """How often it happened: calls, rounds of a cycle, errors or replies."""
    steps: tuple[str, ...]
    """Tools of the calls it was seen in, oldest first; at most the last 30."""
    last: int
    """Number of the last of them among the agent's tool calls, from 1."""
    cost: int
    """Nano-dollars the task has spent since the first of these calls returned: the price of repeating."""

    @property
    def sentence(self) -> str:
        """What was seen, with the money."""
        return f"{_SEEN[self.rule].format(self=self, period=self._period)}, at {format_dollars(self.cost)} so far"

    @property
    def advice(self) -> str:
        """A short message to the model: what it repeats, and to do something else."""
        return f"Note: {_SEEN[self.rule].format(self=self, period=self._period)}. {_ADVICE[self.rule]}"

    @property
    def _period(self) -> str:
        return " → ".join(self.steps[: len(self.steps) // self.times])


_SEEN = {
    Rule.IN_A_ROW: "{self.tool} was called {self.times} times in a row with the same arguments and the same result",
    Rule.IN_WINDOW: "{self.tool} was called {self.times} times within 20 calls with the same arguments and result",
    Rule.CYCLES: "the calls {period} were repeated {self.times} times with the same arguments and the same results",
    Rule.NOTHING_NEW: "the last {self.times} tool calls returned nothing that had not been seen before",
    Rule.SAME_ERROR: "{self.tool} failed {self.times} times in a row with the same error",
    Rule.UNPARSABLE: "{self.times} replies in a row asked for tools in a form that cannot be read",
}
_AGAIN = "Calling it again will not change that: use what is known, try another way, or answer."
_ADVICE = {
    Rule.IN_A_ROW: _AGAIN,
    Rule.IN_WINDOW: _AGAIN,
    Rule.CYCLES: "Going round again will not change that: use what is known, try another way, or answer.",
    Rule.NOTHING_NEW: "Use what is known, try something different in kind, or answer and say what is missing.",
    Rule.SAME_ERROR: "Change the arguments, use another tool, or answer and say what does not work.",
    Rule.UNPARSABLE: "Write the arguments of a tool as one JSON object that fits its schema.",
}


class _Hit(NamedTuple):
    """A rule that a lane broke."""

    rule: Rule
    times: int
    back: int
    """How many of the last steps it is about, the first one included."""


class _Lane:
    """What is remembered of one agent: at most 30 steps, and 512 results and targets."""

    __slots__ = (
        "breaks", "count", "decided", "decision", "error", "errors", "nudged", "pairs", "results", "row", "spent",
        "stale", "targets", "times", "tools", "unparsable", "unparsable_from", "wide",
    )  # fmt: skip

    def __init__(self) -> None:
        self.pairs = bytearray()
        """Signatures of call and result of the last steps, `_PAIR` bytes each."""
        self.spent = array("q")
        """Nano-dollars the task had spent after each of them."""
        self.tools: list[str] = []
        self.results = bytearray()
        self.targets = bytearray()
        self.count = self.row = self.stale = self.errors = self.unparsable = self.breaks = self.times = 0
        """Counts; `times` is how often the last step is among the last 20."""
        self.decision = self.decided = self.wide = 0
        """Replies of the model (0: none is known), the one that asked for the last step, the steps it asked for."""
        self.unparsable_from = 0
        self.error: tuple[str, bytes] | None = None
        self.nudged = False
        """Whether the model was nudged since the last progress."""

    def take(self, step: Step, spent: int) -> None:
        """Remember *step*, after which the task had spent *spent*."""
        signed, pairs, decision = step.signed, self.pairs, self.decision
        pair = signed.call + signed.result
        seen = pairs.count(pair)  # mostly never
        beside = decision == self.decided and decision > 0  # asked for by the same reply of the model
        if seen and beside and pairs.count(pair, -self.wide * _PAIR):
            return
        self.wide = self.wide + 1 if beside else 1
        self.decided = decision
        self.row = self.row + 1 if seen and self.row and pairs.endswith(pair) else 1
        if step.failed:
            self._fail((step.tool, signed.result), beside=beside)
        elif self.errors:
            self.errors, self.error = 0, None
        self.count += 1
        self.unparsable = 0
        self._push(pair, step.tool, spent)
        self.times = pairs.count(pair, -WINDOW * _PAIR) if seen else 1
        fresh, named = _first(self.results, signed.result), _first(self.targets, signed.target)
        if fresh or (named and signed.brief):  # "saved" is no news, but another file was saved
            self.stale, self.nudged = 0, False
        elif not beside:
            self.stale += 1

    def _fail(self, error: tuple[str, bytes], *, beside: bool) -> None:
        if error != self.error:
            self.errors, self.error = 1, error
        elif not beside:
            self.errors += 1

    def cut(self) -> None:
        """Something else came in between: what follows is no continuation of a row or a cycle."""
        if self.row:
            self.row = 0
            self.breaks += 1
            self._push(self.breaks.to_bytes(_PAIR, "big"), "", self.spent[-1])

    def _push(self, pair: bytes, tool: str, spent: int) -> None:
        if len(self.tools) >= _STEPS:
            del self.pairs[:_PAIR], self.spent[0], self.tools[0]
        self.pairs += pair
        self.spent.append(spent)
        self.tools.append(tool)

    def over(self, limits: Thresholds) -> _Hit | None:
        """The first rule by which the last step is a loop."""
        if _reached(self.row, limits.in_a_row):
            return _Hit(Rule.IN_A_ROW, self.row, self.row)
        if _reached(self.errors, limits.same_error):
            return _Hit(Rule.SAME_ERROR, self.errors, self.errors)
        times, rounds = self.times, limits.cycles
        if times > 1 and rounds is not None and (period := self.cycle(rounds)):
            return _Hit(Rule.CYCLES, rounds, period * rounds)
        if _reached(times, limits.in_window):
            return _Hit(Rule.IN_WINDOW, times, self.first_in_window())
        if _reached(self.stale, limits.nothing_new):
            return _Hit(Rule.NOTHING_NEW, self.stale, self.stale + 1)
        return None

    def unread(self, limits: Thresholds) -> _Hit | None:
        """The rule on replies whose tool calls cannot be read."""
        return _Hit(Rule.UNPARSABLE, self.unparsable, 0) if _reached(self.unparsable, limits.unparsable) else None

    def cycle(self, rounds: int) -> int:
        """The length of a cycle that the last steps went *rounds* times round; 0 if there is none."""
        pairs = self.pairs
        for period in PERIODS:
            size = period * _PAIR
            if len(pairs) < size * rounds:
                return 0
            block = pairs[-size:]
            if pairs.endswith(block * rounds) and block != block[:_PAIR] * period:
                return period
        return 0

    def first_in_window(self) -> int:
        """How many steps ago, itself included, the last step was first seen within the window."""
        recent = self.pairs[-WINDOW * _PAIR :]
        return (len(recent) - recent.find(recent[-_PAIR:])) // _PAIR


def _reached(times: int, limit: int | None) -> bool:
    return limit is not None and times >= limit


def _first(known: bytearray, signature: bytes) -> bool:
    """Whether *signature* is new; it is known from now on."""
    if known.find(signature) >= 0:
        return False
    if len(known) >= REMEMBERED_RESULTS * SIZE:
        del known[: len(known) // 2]
    known += signature
    return True


class LoopWatch:
    """The loop rules over one task. Not thread-safe: whoever settles calls one after the other feeds it."""

    __slots__ = ("_lanes", "loops")

    def __init__(self, loops: Loops) -> None:
        self.loops = loops
        self._lanes: dict[str, _Lane] = {}
        """The one that was quiet longest comes first."""

    def step(self, lane: str, step: Step, spent: int, *, decided: bool = False) -> Finding | None:
        """A tool call of the agent *lane* returned; what the rules say to it.

        Args:
            lane: names the agent within the task.
            spent: nano-dollars the task has spent by now.
            decided: whether a model asked for it. The calls between two replies of it are then one decision: what
                happens to several of them in the same way has happened once.
        """
        if step.tool in self.loops.polling:
            return None
        known = self._lane(lane)
        if decided and not known.decision:
            known.decision = 1
        known.take(step, spent)
        if known.times <= 1 and known.row <= 1 and known.stale <= 1 and known.errors <= 1:
            return None  # nothing has happened twice, and no threshold is below that
        return self._verdict(lane, step.tool, known.over, spent)

    def reply(self, lane: str, *, unparsable: bool, spent: int = 0) -> Finding | None:
        """The model of the agent *lane* replied; *unparsable* where it asked for tools in a form nobody can read: what
        the task has *spent* by then counts."""
        if not unparsable and lane not in self._lanes:
            return None
        known = self._lane(lane)
        known.decision += 1
        if not unparsable:
            known.unparsable = 0
            return None
        if not known.unparsable:
            known.unparsable_from = spent
        known.unparsable += 1
        known.cut()
        return self._verdict(lane, "", known.unread, spent)

    def _verdict(self, lane: str, tool: str, rule: Callable[[Thresholds], _Hit | None], spent: int) -> Finding | None:
        known, limits = self._lanes[lane], self.loops.halt
        halt = hit = rule(limits)
        if halt is not None:
            del self._lanes[lane]  # whoever lets it go on gives it a new chance
        elif self.loops.nudge is not None and not known.nudged:
            hit = rule(self.loops.nudge)
        if hit is None:
            return None
        known.nudged = True
        first = max(0, len(known.tools) - hit.back)
        return Finding(
            rule=hit.rule,
            halt=halt is not None,
            tool=tool,
            times=hit.times,
            steps=tuple([name for name in known.tools[first:] if name]),
            last=known.count,
            cost=spent - (known.unparsable_from if hit.rule is Rule.UNPARSABLE else known.spent[first]),
        )

    def _lane(self, lane: str) -> _Lane:
        lanes = self._lanes
        known = lanes.get(lane)
        if known is None:
            known = lanes[lane] = _Lane()
            if len(lanes) > MOST_LANES:
                del lanes[next(iter(lanes))]
        elif len(lanes) > 1:
            lanes[lane] = lanes.pop(lane)
        return known
