"""Output that nobody saw is paid all the same: hidden reasoning without usage, and streams whose connection broke."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

import agentbudget as ab
from agentbudget.estimating.families import may_hide_output
from agentbudget.testing import ProviderServer, Reply, Request
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import openai

LIMIT = 50_000_000
GPT_5 = {"input_nanos": 1_250, "output_nanos": 10_000}
GPT_4O = {"input_nanos": 2_500, "output_nanos": 10_000}


def _until_stopped(governor: ab.Governor, call: Any) -> None:
    with contextlib.suppress(ab.BudgetExceeded), ab.task("t", max_cost="$0.05", governor=governor):
        for _ in range(200):
            try:
                call()
            except ab.BudgetExceeded:
                raise
            except Exception:  # noqa: BLE001 - what breaks is tried again, as agents do
                continue


def test_law_9_reasoning_that_is_not_reported_is_charged_as_reserved(new_governor: NewGovernor) -> None:
    def reasons(_: Request) -> Reply:
        return Reply(text="short", usage=ab.Usage(input_tokens=50, output_tokens=900, reasoning_tokens=890))

    governor = new_governor()
    with ProviderServer(reasons) as server:  # a base URL of one's own: LangChain asks a stream for no usage
        model = openai(server, model="gpt-5", max_completion_tokens=1_000, stream_usage=False)
        _until_stopped(governor, lambda: list(model.stream("hi")))
        assert server.cost_nanos(**GPT_5) <= LIMIT
    report = governor.reports[-1]
    assert report.status == "stopped"
    assert report.cost == report.estimated > 0


def test_law_10_streams_that_break_never_let_the_provider_be_paid_more_than_the_limit(
    new_governor: NewGovernor,
) -> None:
    governor = new_governor()
    with ProviderServer(lambda _: Reply(text="word " * 160, cut_after_chunks=1)) as server:
        model = openai(server, max_completion_tokens=200)
        _until_stopped(governor, lambda: list(model.stream("hi")))
        assert server.cost_nanos(**GPT_4O) <= LIMIT
    assert governor.reports[-1].status == "stopped"


@pytest.mark.parametrize("name", ["gpt-5", "openai/gpt-5-mini", "o3", "us.openai.gpt-oss-120b", "gemini-2.5-pro"])
def test_families_that_reason_are_known(name: str) -> None:
    assert may_hide_output(name)


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-4.1-mini", "claude-sonnet-4-5", "gemini-2.0-flash", "llama-3-70b"])
def test_of_other_models_what_was_seen_is_all(name: str) -> None:
    assert not may_hide_output(name)
