from __future__ import annotations

import argparse
import csv
import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from agentbudget.cli import main
from agentbudget.cli.periods import moment
from agentbudget.trace.events import OutcomeRecorded
from tests.finops.traces import DAY, START, called, closed, opened, write


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    for number in range(20):
        task, at = f"t{number}", START + number * DAY
        tags = {"feature": "triage" if number % 2 else "summary"} if number % 5 else {}
        events = [*opened(task, at=at, name="job", team="cx", **tags), *called(f"c{number}", task, at=at, cost=10**9)]
        events.append(OutcomeRecorded(at=at + 3, task=task, outcome="resolved", ok=number % 4 > 0))
        write(tmp_path / "traces" / f"{task}.jsonl", [*events, *closed(task, at=at + 9)])
    return tmp_path / "traces"


def test_report_by_dimensions_adds_up_and_says_what_is_untagged(
    traces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(traces), "--by", "feature,model", "--units", "outcome"]) == 0
    out = capsys.readouterr().out
    assert "(untagged)  gpt-4o" in out
    assert "total $20.00 in 20 calls" in out
    assert "without feature: $4.00 (20.0%)" in out
    assert "resolved" in out
    assert main(["report", str(traces), "--by", "feature,model", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(Decimal(row["cost"]) for row in told["rows"]) == Decimal(told["total"]["cost"]) == 20


def test_report_of_a_period_and_with_rules(tmp_path: Path, traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "tags.toml"
    rules.write_text('[[rule]]\ntag = "feature"\nvalue = "rest"\nwhen = { name = "job" }\n')
    options = ["--by", "feature", "--since", "2026-11-11", "--tags", str(rules), "--json"]
    assert main(["report", str(traces), *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["key"][0]: Decimal(row["cost"]) for row in told["rows"]} == {"rest": 2, "summary": 4, "triage": 4}
    rules.write_text(rules.read_text() + '[[rule]]\ntag = "feature"\nvalue = "other"\nwhen = { team = "cx" }\n')
    assert main(["report", str(traces), "--by", "feature", "--tags", str(rules)]) == 1
    assert "rules of feature contradict each other on $20.00" in capsys.readouterr().out


def test_traces_become_an_archive_that_every_command_reads(
    tmp_path: Path, traces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = str(tmp_path / "spend")
    assert main(["compact", str(traces), archive, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"files": 20, "calls": 20, "problems": 0}
    assert main(["compact", str(traces), archive]) == 0
    assert "0 calls added" in capsys.readouterr().out
    assert main(["export", archive, str(tmp_path / "focus.csv"), "--account", "acme"]) == 0
    with (tmp_path / "focus.csv").open(newline="") as file:
        assert sum(Decimal(row["BilledCost"]) for row in csv.DictReader(file)) == 20
    assert main(["export", archive, str(tmp_path / "cbf.csv"), "--account", "acme", "--format", "cbf"]) == 0
    with (tmp_path / "cbf.csv").open(newline="") as file:
        assert sum(Decimal(row["cost/cost"]) for row in csv.DictReader(file)) == 20


def test_forecast_says_when_the_budget_breaks_and_its_exit_code_too(
    traces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["forecast", str(traces), "--today", "2026-11-21", "--scope", "team=cx"]
    assert main([*options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Decimal(told["spent"]) == 20
    assert Decimal(told["expected"]) == 30
    assert main([*options, "--budget", "$25"]) == 1
    assert "the budget is reached on 2026-11-25" in capsys.readouterr().out
    assert main([*options, "--planned", "2026-11-22=11", "--json"]) == 0
    assert Decimal(json.loads(capsys.readouterr().out)["expected"]) == 40
    assert main(["forecast", str(traces), "--today", "2026-11-05"]) == 1
    assert "no forecast: 4 days of history, 14 are needed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["forecast", "{}", "--scope", "team"], "write TAG=VALUE"),
        (["forecast", "{}", "--planned", "soon"], "write FROM..TO=FACTOR"),
        (["forecast", "{}", "--budget", "much"], "--budget"),
        (["report", "{}", "--by", "feature,modle"], "did you mean 'model'"),
        (["report", "{}", "--since", "30d", "--until", "2020-01-01"], "is not before"),
        (["export", "{}", "out.xlsx", "--account", "a"], "ends in .csv or .parquet"),
        (["compact", "{}/nothing", "spend"], "no such trace"),
    ],
)
def test_a_mistake_is_named_and_exits_2(
    traces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([option.format(traces) for option in options]) == 2
    assert said in capsys.readouterr().err


def test_without_the_extra_the_command_says_what_to_install(
    traces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("agentbudget.finops", "agentbudget.cli.spend"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("agentbudget.cli.spend", raising=False)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert main(["report", str(traces), "--by", "feature,model"]) == 2
    assert 'pip install "langchain-agentbudget[finops]"' in capsys.readouterr().err


def test_times_are_dates_or_so_long_ago() -> None:
    assert moment("2026-11-01") == datetime(2026, 11, 1, tzinfo=UTC)
    assert moment("2026-11-01T12:00+02:00").utcoffset() is not None
    assert 29 <= (datetime.now(UTC) - moment("30d")).days <= 30
    with pytest.raises(argparse.ArgumentTypeError, match="write 30d"):
        moment("soon")
