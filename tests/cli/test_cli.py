"""The command line: exact output, exit codes, errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from langchain_core.messages import HumanMessage

import agentbudget as ab
from agentbudget.cli import COMMANDS, main
from agentbudget.testing import ScriptedChatModel, scripted_reply


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    """A folder with the traces of two tasks, one of them stopped."""
    governor = ab.Governor(trace=tmp_path / "traces")
    model = ScriptedChatModel(script=[scripted_reply("fine", input_tokens=1000, output_tokens=100)] * 3)
    for name, most in (("first", 5), ("second", 1)):
        with ab.task(name, max_model_calls=most, governor=governor):
            model.invoke([HumanMessage("one")])
            if most == 1:
                with pytest.raises(ab.BudgetExceeded):
                    model.invoke([HumanMessage("two")])
    governor.close()
    return tmp_path / "traces"


def test_report_prints_what_the_report_of_the_trace_says(traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(traces)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{ab.Trace.load(traces).report}\n")
    assert main(["report", str(min(traces.iterdir()))]) == 0
    assert capsys.readouterr().out == f"{ab.Trace.load(min(traces.iterdir())).report}\n"


def test_report_each_prints_every_task(traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--each", "--json", str(traces)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [report["name"] for report in shown] == ["first", "second"]
    assert [report["status"] for report in shown] == ["completed", "stopped"]


def test_report_names_torn_lines_and_exits_1(traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = min(traces.iterdir())
    file.write_bytes(file.read_bytes()[:-10])
    assert main(["report", str(traces)]) == 1
    assert file.name in capsys.readouterr().err


def test_report_of_nothing_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_prices_of_a_model_with_its_source_and_day(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "azure/gpt-4o", "--on", "2026-11-22"]) == 0
    out = capsys.readouterr().out
    assert "prices of 2026-11-22" in out
    assert "azure gpt-4o" in out
    assert "input         $2.5 per million tokens" in out


def test_prices_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "gpt-4o", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["prices"]["output"] == "10"


def test_prices_of_an_unknown_model_say_how_to_price_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "no-such-model"]) == 2
    assert "prices={'no-such-model'" in capsys.readouterr().err


def test_overrides_are_read_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prices.toml").write_text('["my-model"]\ninput = "1"\noutput = "2"\n')
    assert main(["prices", "my-model", "--prices", str(tmp_path / "prices.toml")]) == 0
    assert "(override" in capsys.readouterr().out


def test_a_cache_without_a_place_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert main(["prices", "--warm-tokens"]) == 2
    assert "TIKTOKEN_CACHE_DIR" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__.rsplit(".", 1)[-1])
def test_every_command_has_help(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    name = command.__name__.rsplit(".", 1)[-1]
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert "usage: agentbudget" in capsys.readouterr().out
