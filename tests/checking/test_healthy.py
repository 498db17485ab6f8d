"""Agents that are right are clean; a check pays nothing, runs no tool, and leaves everything as it was."""

from __future__ import annotations

import asyncio
import copy
import importlib
import importlib.util
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

import agentbudget as ab
from agentbudget.testing import ProviderServer
from tests.checking.wirings import RAN, RIGHT, chat, graph_of, search

HTTP: list[Any] = [importlib.import_module(name) for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]
"""The HTTP clients that providers' SDKs are built on."""


@pytest.fixture(autouse=True)
def _a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")


@pytest.mark.parametrize("name", RIGHT)
def test_an_agent_that_is_right_is_clean(name: str) -> None:
    report = ab.check(RIGHT[name]())
    assert report.ok, report
    assert report.exit_code == 0
    assert any("BudgetExceeded left" in each for each in report.proved), report


def test_no_request_leaves_and_no_tool_is_run() -> None:
    RAN.clear()
    with ProviderServer() as server:
        ab.check(create_agent(chat(base_url=server.base_url, stream_usage=True), [search]))
    assert server.requests == []
    assert RAN == []


def test_a_tool_is_run_when_it_is_asked_for() -> None:
    RAN.clear()
    ab.check(create_agent(chat(), [search]), run_tools=["search"])
    assert RAN


def test_the_process_is_as_it_was() -> None:
    watched: list[tuple[Any, str]] = [
        *((BaseChatModel, name) for name in ("generate", "agenerate", "stream", "astream")),
        *((BaseTool, name) for name in ("run", "arun")),
        *((kind, "_transport_for_url") for package in HTTP for kind in (package.Client, package.AsyncClient)),
        *((socket.socket, name) for name in ("connect", "connect_ex")),
        (time, "sleep"),
        (asyncio, "sleep"),
    ]
    before = [getattr(owner, name) for owner, name in watched]
    ab.check(create_agent(chat(), [search]))
    assert [getattr(owner, name) for owner, name in watched] == before


def test_the_agents_own_books_checkpoints_and_store_are_untouched(tmp_path: Path) -> None:
    governor = ab.Governor(ledger=f"sqlite:///{tmp_path}/spend.db", trace=tmp_path / "traces")
    saver, store = InMemorySaver(), InMemoryStore()
    middleware = ab.BudgetMiddleware(max_cost="$1", governor=governor)
    agent = create_agent(chat(), [search], middleware=[middleware], checkpointer=saver, store=store)
    guarded = ab.guard(agent, max_cost="$2", governor=governor, per="callback")
    state, files = copy.copy(vars(governor)), sorted(tmp_path.rglob("*"))
    assert ab.check(guarded).ok
    assert vars(governor) == state
    assert sorted(tmp_path.rglob("*")) == files
    assert list(governor.ledger.accounts()) == []
    assert list(middleware.reports) == list(governor.reports) == []
    assert list(saver.list(None)) == []
    governor.close()


def test_a_model_is_left_as_it_was() -> None:
    model = chat()
    before = copy.copy(vars(model))
    ab.check(model)
    assert vars(model) == before


async def test_a_check_can_be_made_on_an_event_loop_and_within_a_task() -> None:
    async with ab.task("t", max_model_calls=1, governor=ab.Governor()) as task:
        assert ab.check(graph_of(_nothing, _asking)).ok
    assert task.report.model_calls == 0


MODEL = chat()


def _nothing(state: Any) -> dict[str, Any]:
    return {}


def _asking(state: Any) -> dict[str, Any]:
    return {"messages": [MODEL.invoke(state["messages"])]}


def test_a_tool_that_runs_in_a_way_of_its_own_is_not_run() -> None:
    ran: list[str] = []

    class Own(BaseTool):
        name: str = "own"
        description: str = "Runs in its own way."

        def _run(self, query: str = "") -> str:
            ran.append("_run")
            return "found"

        def invoke(self, *args: Any, **kwargs: Any) -> Any:
            ran.append("invoke")
            return super().invoke(*args, **kwargs)

        def run(self, *args: Any, **kwargs: Any) -> Any:
            ran.append("run")
            return super().run(*args, **kwargs)

    agent = create_agent(chat(), [Own()])
    assert any("1 tool call" in each for each in ab.check(agent).proved)
    assert ran == []
    ab.check(agent, run_tools=["own"])
    assert set(ran) == {"invoke", "run", "_run"}
