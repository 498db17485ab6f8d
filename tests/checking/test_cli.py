"""`agentbudget check`: the exit code is for CI, the rendering for a person, the JSON for machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentbudget.cli import main

_AGENTS = """
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI


def made():
    return create_agent(ChatOpenAI(model="gpt-4o", api_key="none", max_tokens=500), [])


def unpriced():
    return ChatOpenAI(model="our-own-tune-7", api_key="none", max_tokens=500)


number = 7
"""


@pytest.fixture(autouse=True)
def _agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checked_agents.py").write_text(_AGENTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_clean_agent_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "checked_agents:made"]) == 0
    out = capsys.readouterr().out
    assert "BudgetExceeded left the agent" in out
    assert "ChatOpenAI(gpt-4o)" in out


def test_findings_are_1_and_say_how_to_fix_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "checked_agents:unpriced"]) == 1
    out = capsys.readouterr().out
    assert "error [unpriced-model]" in out
    assert "Fix: Governor(aliases=" in out


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "checked_agents:unpriced", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert [each["code"] for each in found["findings"]] == ["unpriced-model"]


def test_a_kind_that_is_ignored_is_left_out() -> None:
    assert main(["check", "checked_agents:unpriced", "--ignore", "unpriced-model"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["checked_agents"], "module:name"),
        (["no_such_module:agent"], "cannot be imported"),
        (["checked_agents:nothing"], "has no 'nothing'"),
        (["checked_agents:number"], "give it an agent"),
        (["checked_agents:made", "--ignore", "typo"], "the kinds are"),
    ],
)
def test_a_mistake_in_the_call_is_2_and_says_what_to_write(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_inputs_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "checked_agents:made", "--inputs", '{"messages": [["user", "hi"]]}', "--answer", "yes"]) == 0
    with pytest.raises(SystemExit) as stopped:
        main(["check", "checked_agents:made", "--inputs", "{"])
    assert stopped.value.code == 2
    assert "not JSON" in capsys.readouterr().err
