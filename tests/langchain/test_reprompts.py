"""Re-prompts of structured output are attempts of their own layer, and what they throw away is wasted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from pydantic import BaseModel

import agentbudget as ab
from agentbudget.testing import ScriptedChatModel
from tests.langchain.actors import CALL, HELLO, answer, scripted
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import metered, report_of, search, using


class Bridges(BaseModel):
    count: int


WRONG, RIGHT = [("Bridges", {"count": "many"})], [("Bridges", {"count": 960})]
MODES = pytest.mark.parametrize("mode", ["invoke", "ainvoke"])


def model(*turns: Any) -> ScriptedChatModel:
    return scripted(*[answer("", turn) for turn in turns])


def run(model: ScriptedChatModel, mode: str = "invoke", config: Any = None, **options: Any) -> Any:
    agent: Any = create_agent(model, [search], response_format=ToolStrategy(Bridges), **options)
    return asyncio.run(agent.ainvoke(HELLO, config)) if mode == "ainvoke" else agent.invoke(HELLO, config)


@MODES
def test_each_re_prompt_is_a_retry_and_the_answer_before_is_wasted(mode: str, new_governor: NewGovernor) -> None:
    callback = metered(new_governor(), max_cost="$1")
    state = run(model(WRONG, WRONG, RIGHT), mode, using(callback))
    report = report_of(callback)
    assert state["structured_response"] == Bridges(count=960)
    assert (report.model_calls, report.retries, report.by_layer["structured_output"].calls) == (3, 2, 2)
    assert (report.cost, report.wasted) == (3 * CALL, 2 * CALL)
    assert report.multiplication == 3


def test_several_answers_at_once_are_a_re_prompt_too(new_governor: NewGovernor) -> None:
    callback = metered(new_governor())
    run(model([*RIGHT, *RIGHT], RIGHT), config=using(callback))
    assert report_of(callback).by_layer["structured_output"].calls == 1


def test_a_turn_of_tools_is_no_re_prompt(new_governor: NewGovernor) -> None:
    callback = metered(new_governor())
    run(model([("search", {"query": "Error: Failed to"})], WRONG, RIGHT), config=using(callback))
    report = report_of(callback)
    assert (report.model_calls, report.retries, report.wasted) == (3, 1, CALL)


@pytest.mark.parametrize("limits", [{"max_retries": 1}, {"max_retries_per_call": 1}])
def test_a_retry_budget_ends_re_prompts(limits: dict[str, int], new_governor: NewGovernor) -> None:
    callback = metered(new_governor(), **limits)
    asked = model(WRONG)
    with pytest.raises(ab.BudgetExceeded, match=next(iter(limits))):
        run(asked, config=using(callback))
    assert len(asked.calls) == 2


def test_the_middleware_lands_it(new_governor: NewGovernor) -> None:
    middleware = ab.BudgetMiddleware(max_retries_per_call=2, governor=new_governor(), on_limit="end")
    asked = model(WRONG)
    run(asked, middleware=[middleware])
    assert middleware.report is not None
    assert (len(asked.calls), middleware.report.status) == (3, "stopped")


def test_law_15_re_prompts_are_replayed(new_governor: NewGovernor, tmp_path: Path) -> None:
    governor = new_governor(trace=tmp_path / "t.jsonl")
    callback = metered(governor, max_cost="$1")
    run(model(WRONG, RIGHT), config=using(callback))
    governor.close()
    trace = ab.Trace.load(tmp_path / "t.jsonl")
    assert trace.report.wasted == CALL
    assert trace.replay().diverged_at is None
