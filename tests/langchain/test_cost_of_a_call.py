"""What a call leaves behind, and what of it is remembered for the next one."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

import agentbudget as ab
from agentbudget.testing import ProviderServer, ScriptedChatModel, scripted_reply
from agentbudget.trace.events import CallReserved
from tests.langchain.support import metered, openai, using

HELD_MOST = 1_500
"""More than the tasks that a governor remembers: from then on as much is forgotten as is made."""


@pytest.mark.filterwarnings("ignore:a second bare call")
def test_a_call_leaves_nothing_to_the_garbage_collector(tmp_path: Path) -> None:
    model = ScriptedChatModel(script=[scripted_reply("fine")], repeat_last=True)
    config = using(metered(ab.Governor(trace=tmp_path / "trace.jsonl"), max_cost="$9000"))
    for _ in range(HELD_MOST):
        model.invoke("hi", config=config)
    gc.collect()
    gc.disable()
    try:
        for _ in range(200):
            model.invoke("hi", config=config)
        assert gc.collect() < 200, "less than one object a call is part of a cycle"
    finally:
        gc.enable()


def test_models_of_one_name_that_take_turns_keep_their_own_set_up(tmp_path: Path) -> None:
    seen: list[CallReserved] = []
    governor = ab.Governor(
        on_unpriced="allow", sinks=[lambda event: seen.append(event) if isinstance(event, CallReserved) else None]
    )
    with ProviderServer() as server, ab.task("t", max_cost="$5", governor=governor):
        short, long = openai(server, max_tokens=20), openai(server, max_tokens=300)
        for model in (
            short,
            long,
            short,
            long.bind(max_tokens=7),
            long.bind(max_tokens=500),
            long,
            short.bind(service_tier="flex"),
        ):
            model.invoke("hi")
    assert [request.body["max_completion_tokens"] for request in server.requests] == [20, 300, 20, 7, 500, 300, 20]
    assert [(each.estimate_output, each.tier) for each in seen] == [
        (20, ""),
        (300, ""),
        (20, ""),
        (7, ""),
        (500, ""),
        (300, ""),
        (20, "flex"),
    ]
