"""Law 13: loop rules look at results, keep little, and tell a loop from work that looks like one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from typing import Any

import pytest

import agentbudget as ab
from agentbudget.domain.loops import HALT, NUDGE, Loops, Thresholds
from agentbudget.policies.loops import MOST_LANES, REMEMBERED_RESULTS, Finding, LoopWatch, Rule, Step
from agentbudget.policies.signatures import Signer
from agentbudget.trace.events import Signed

SIGNER = Signer(b"k" * 16)
Asked = tuple[str, dict[str, Any], str]
"""Tool, arguments, what it returned."""


def step(tool: str, arguments: dict[str, Any], said: str, *, failed: bool = False) -> Step:
    asked, answered = SIGNER.call(tool, arguments), SIGNER.result(said, failed=failed)
    return Step(tool, Signed(asked.call, asked.target, answered.result, answered.brief), failed)


def findings(steps: Iterable[Step], loops: Loops | None = None, spend: int = 10) -> Iterator[tuple[int, Finding]]:
    """What the rules say, with the number of the call; each call costs *spend* nano-dollars."""
    watch = LoopWatch(loops or Loops())
    for number, each in enumerate(steps, 1):
        finding = watch.step("", each, number * spend)
        if finding is not None:
            yield number, finding


def first(steps: Iterable[Step], *, halt: bool, loops: Loops | None = None) -> tuple[int, Finding] | None:
    return next((found for found in findings(steps, loops) if found[1].halt is halt), None)


def search(query: str, said: str = "the one page there is about it, and nothing beyond that page, as ever") -> Step:
    return step("search", {"query": query}, said)


A, B, C = search("a", "A" * 80), search("b", "B" * 80), search("c", "C" * 80)
LOOPS = {
    "exact repeat": ([A] * 9, Rule.IN_A_ROW, 3, 4),
    "A-B-A-B": (list(islice(cycle([A, B]), 12)), Rule.CYCLES, 4, 6),
    "period 3": (list(islice(cycle([A, B, C]), 15)), Rule.CYCLES, 6, 9),
    "nonce argument": ([step("find", {"q": "x", "nonce": n}, "same " * 20) for n in range(9)], Rule.IN_A_ROW, 3, 4),
    "paraphrased searches": ([search(f"{n} ways to put the question") for n in range(20)], Rule.NOTHING_NEW, 9, 13),
    "searches that find nothing": (
        [search(f"name{n}", "No results found.") for n in range(20)],
        Rule.NOTHING_NEW,
        9,
        13,
    ),
    "error loop": (
        [step("run", {"n": n}, "ConnectionError: no route", failed=True) for n in range(9)],
        Rule.SAME_ERROR,
        3,
        5,
    ),
    "thoughts without progress": (
        [step("think", {"thought": "hmm, once " + "more " * n}, "noted") for n in range(20)],
        Rule.NOTHING_NEW,
        9,
        13,
    ),
}


@pytest.mark.parametrize(("steps", "rule", "nudged", "halted"), LOOPS.values(), ids=LOOPS)
def test_a_loop_is_nudged_and_then_halted(steps: list[Step], rule: Rule, nudged: int, halted: int) -> None:
    nudge, halt = first(steps, halt=False), first(steps, halt=True)
    assert nudge is not None
    assert halt is not None
    assert (nudge[0], nudge[1].rule) == (nudged, rule)
    assert (halt[0], halt[1].rule) == (halted, rule)


WORK = {
    "polling whose result changes": [step("status", {"job": 7}, f"running, {n} % done") for n in range(30)],
    "pagination": [step("list", {"page": n}, f"page {n} of 30: items {10 * n} to {10 * n + 9}") for n in range(30)],
    "map with a result each": [step("read", {"path": f"f{n}.txt"}, f"contents of file {n}") for n in range(40)],
    "map with the same result": [step("write", {"path": f"f{n}.txt", "text": "a b"}, "ok") for n in range(40)],
    "transient error, then success": [
        *[step("fetch", {"url": "u"}, "TimeoutError: timed out", failed=True)] * 2,
        step("fetch", {"url": "u"}, "the page"),
        *[search(f"q{n}", f"answer {n}") for n in range(10)],
    ],
    "test after each edit": [
        each
        for n in range(17)
        for each in (step("edit", {"line": n}, ""), step("run", {"cmd": "pytest"}, f"{17 - n} failed"))
    ],
    "long varied run": [search(f"question {n}", f"answer {n} " * 9) for n in range(200)],
}


@pytest.mark.parametrize("steps", WORK.values(), ids=WORK)
def test_work_that_looks_like_a_loop_is_left_alone(steps: list[Step]) -> None:
    assert list(findings(steps)) == []


def test_a_finding_tells_what_was_repeated_and_what_it_has_cost() -> None:
    found = first([B, A, A, A, A], halt=True)
    assert found is not None
    finding = found[1]
    assert (finding.times, finding.steps, finding.last) == (4, ("search",) * 4, 5)
    assert finding.cost == 30, "the first call returned when 20 were spent; now it is 50"
    assert finding.sentence == (
        "search was called 4 times in a row with the same arguments and the same result, at $0.000000030 so far"
    )
    assert "$" not in finding.advice
    assert "search" in finding.advice


def test_a_cycle_is_told_by_its_calls() -> None:
    one, two = step("read", {"p": 1}, "x" * 80), step("edit", {"p": 1}, "y" * 80)
    found = first([one, two] * 3, halt=True)
    assert found is not None
    assert found[1].steps == ("read", "edit") * 3
    assert "read → edit were repeated 3 times" in found[1].sentence


def test_one_nudge_is_enough_until_something_new_comes() -> None:
    loops = Loops(halt=Thresholds())
    assert [number for number, _ in findings([A] * 6 + [B] + [A] * 6, loops)] == [3, 8]


def test_unparsable_replies_are_counted_in_a_row() -> None:
    watch = LoopWatch(Loops())
    said = [watch.reply("", unparsable=True, spent=n) for n in range(10)]
    assert [(finding.halt, finding.times) for finding in said if finding] == [(False, 4), (True, 10)]
    for _ in range(8):
        watch.reply("", unparsable=True, spent=0)
    watch.reply("", unparsable=False, spent=0)
    assert not any(found.halt for n in range(9) if (found := watch.reply("", unparsable=True, spent=n)))


def test_an_unparsable_reply_breaks_a_row() -> None:
    watch = LoopWatch(Loops(nudge=None))
    for _ in range(3):
        assert watch.step("", A, 0) is None
    watch.reply("", unparsable=True, spent=0)
    assert watch.step("", A, 0) is None


def test_after_a_halt_the_agent_gets_a_fresh_start() -> None:
    halts = [number for number, finding in findings([A] * 9) if finding.halt]
    assert halts == [4, 8]


def rounds(*rounds: Iterable[Step]) -> list[Finding]:
    """What the rules say to calls that replies of a model asked for together."""
    watch, found = LoopWatch(Loops()), []
    for together in rounds:
        found += [watch.step("", each, 0, decided=True) for each in together]
        watch.reply("", unparsable=False, spent=0)
    return [finding for finding in found if finding is not None]


def test_calls_that_a_model_asked_for_together_are_one_decision() -> None:
    same = [step("get", {"q": "x"}, "same " * 20)] * 12
    failing = [step("get", {"q": n}, "down", failed=True) for n in range(12)]
    barren = [step("get", {"q": f"a {n}"}, "same " * 20) for n in range(40)]
    for together in (same, failing, barren):
        assert rounds(together) == []


def test_rounds_of_calls_asked_for_together_are_counted_as_rounds() -> None:
    assert [(each.rule, each.halt) for each in rounds(*[[A, A, A]] * 4)] == [
        (Rule.IN_A_ROW, False),
        (Rule.IN_A_ROW, True),
    ]
    assert [(each.rule, each.halt) for each in rounds(*[[A, B]] * 3)] == [(Rule.CYCLES, False), (Rule.CYCLES, True)]


def test_agents_of_one_task_are_watched_apart() -> None:
    watch = LoopWatch(Loops())
    assert not any(watch.step(f"helper {n % 20}", A, 0) for n in range(40))


def test_a_polling_tool_may_be_asked_the_same_for_ever() -> None:
    assert list(findings([A] * 50, Loops(polling={"search"}))) == []


def test_a_rule_set_to_none_is_off() -> None:
    assert list(findings([A] * 50, Loops(halt=Thresholds(), nudge=None))) == []


def test_memory_is_bounded() -> None:
    watch = LoopWatch(Loops())
    for n in range(3 * REMEMBERED_RESULTS):
        watch.step("", search(f"q{n}", f"answer {n}"), n)
    lane = watch._lanes[""]
    kept = sum(sys.getsizeof(part) for part in (lane.pairs, lane.spent, lane.tools, lane.results, lane.targets))
    assert kept < 12_000
    for n in range(1_000):
        watch.step(f"helper {n}", A, n)
    assert len(watch._lanes) == MOST_LANES


@pytest.mark.parametrize("value", [1, 0, -1, True, 2.5, "4"])
def test_a_threshold_that_cannot_mean_anything_is_refused(value: Any) -> None:
    with pytest.raises(ab.ConfigurationError, match="in_a_row"):
        Thresholds(in_a_row=value)


def test_rules_that_cannot_be_kept_are_refused() -> None:
    for wrong in ({"in_window": 21}, {"cycles": 6}):
        with pytest.raises(ab.ConfigurationError):
            Thresholds(**wrong)
    with pytest.raises(TypeError, match="Did you mean 'polling'"):
        Loops(poling={"x"})  # type: ignore[arg-type]  # what a user may try
    for options in ({"polling": "status"}, {"volatile": ["nonce"]}, {"volatile": {"t": "nonce"}}, {"halt": None}):
        with pytest.raises(ab.ConfigurationError):
            Loops(**options)
    with pytest.raises(ab.ConfigurationError, match=r"loops=True"):
        ab.Budget(loops=True)  # type: ignore[arg-type]  # what a user may try


def test_a_budget_with_loop_rules_is_written_and_read() -> None:
    loops = Loops(halt=Thresholds(in_a_row=6), nudge=None, polling={"status"}, volatile={"search": ("seed",)})
    budget = ab.Budget(max_cost="$1", loops=loops)
    assert ab.Budget.from_dict(budget.to_dict()) == budget
    assert ab.Budget.from_dict(ab.Budget(loops=Loops()).to_dict()).loops == Loops(halt=HALT, nudge=NUDGE)
    assert ab.Budget.from_dict(ab.Budget().to_dict()).loops is None
