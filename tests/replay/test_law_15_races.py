"""Law 15 under threads: what the memory ledger decided and what the trace says have one order."""

from __future__ import annotations

from pathlib import Path

import pytest

import agentbudget as ab
from agentbudget.domain.usage import Usage
from agentbudget.governor.calls import Calls
from agentbudget.governor.hold import Hold
from agentbudget.governor.values import Call, Kind, Outcome, Result
from agentbudget.replay.whatif import replay
from agentbudget.testing.races import at_once, preempted
from agentbudget.trace.events import CallDenied, CallReserved, Event
from agentbudget.trace.reader import Trace

THREADS, TURNS, RESERVED, USED = 6, 5, 100, 40


@pytest.mark.race
@pytest.mark.parametrize("seed", range(8))
def test_threads_that_race_for_the_last_of_a_budget_are_recorded_in_the_order_in_which_it_was_decided(
    seed: int, tmp_path: Path
) -> None:
    path, seen = tmp_path / "trace.jsonl", list[Event]()
    governor = ab.Governor(trace=path, sinks=[seen.append], on_unpriced="allow")
    task = governor.open_task("race", ab.Budget(max_output_tokens=THREADS * RESERVED + seed * 5 * USED // 2))

    def work(thread: int) -> None:
        for turn in range(TURNS):
            call = Call(id=f"{thread}-{turn}", kind=Kind.MODEL, name="nobody-s-model", cap=RESERVED)
            answer = governor.admit((task,), call)
            if isinstance(answer, Hold):
                governor.settle(answer, Result(outcome=Outcome.OK, usage=Usage(output_tokens=USED)))

    with preempted(Calls(), seed=seed):
        at_once(THREADS, work)
    governor.close()
    recorded = [
        (event.call, isinstance(event, CallReserved)) for event in seen if isinstance(event, CallReserved | CallDenied)
    ]
    assert {ran for _, ran in recorded} == {True, False}, "the budget was not raced for"
    again = replay(Trace.load(path))
    assert [(verdict.call, verdict.admitted) for verdict in again.verdicts if verdict.call] == recorded
    assert again.label == "exact"
