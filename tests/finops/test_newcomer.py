"""Somebody new: with the commands of the documentation alone, from traces to a saving; and a page that is true."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from agentbudget.cli import COMMANDS, main
from agentbudget.finops.alarms.config import load
from agentbudget.finops.alarms.rules import BURNS, SPIKE, SPIKE_CALLS
from agentbudget.finops.dimensions import TagRules
from agentbudget.finops.schema import described

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/finops.md").read_text(encoding="utf-8")
FENCE = "```"


def blocks(language: str, text: str = PAGE) -> list[str]:
    return re.findall(rf"^{FENCE}{language}\n(.*?)^{FENCE}", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The `agentbudget` commands of the newcomer's block, without their comments."""
    (block,) = re.findall(rf"<!-- example: newcomer -->\n{FENCE}sh\n(.*?)^{FENCE}", text, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    return [line[1:] for line in lines if line and line[0] == "agentbudget"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer") / "demo"
    command = [sys.executable, str(ROOT / "examples/finops.py"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder


def test_the_commands_of_the_documentation_lead_from_traces_to_savings(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo)
    said: dict[str, str] = {}
    codes: dict[str, int] = {}
    for command in commands(PAGE):
        codes[command[0]] = main(command)
        said[command[0]] = capsys.readouterr().out
    total = re.search(r"total (\$[\d.,]+) in [\d,]+ calls", said["report"])
    assert total is not None
    assert "without feature" in said["report"]
    assert "resolved" in said["report"]
    assert re.search(r"about \$\d+\.\d\d by \d{4}-\d\d-\d\d, between", said["forecast"])
    assert codes["watch"] == 1
    assert "calls in five minutes" in said["watch"]
    with Path("focus.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    billed = sum(Decimal(row["BilledCost"]) for row in rows)
    assert f"${billed:,.4f}" == total[1]
    savings = re.findall(r"^ +saves +(?:up to )?\$[\d.]+", said["advise"], re.MULTILINE)
    assert len(savings) >= 3
    html = Path("spend.html").read_text(encoding="utf-8")
    numbers = json.loads(re.findall(r'id="agentbudget-spend">(.*?)</script>', html, re.DOTALL)[0])
    assert Decimal(numbers["total"]["cost"]) == billed
    assert all(Decimal(pot["spent"]) < Decimal(pot["limit"]) for pot in numbers["budgets"])
    assert [alert["kind"] for alert in numbers["alarms"]].count("spike") == 1
    assert "feature=triage" in numbers["alarms"][0]["details"]["contributors"]


def test_the_readme_shows_the_same_commands() -> None:
    assert commands((ROOT / "README.md").read_text(encoding="utf-8")) == commands(PAGE)


def test_every_command_that_the_page_names_exists() -> None:
    known = {module.__name__.rpartition(".")[2] for module in COMMANDS}
    assert set(re.findall(r"`agentbudget (\w+)", PAGE)) <= known


def test_the_table_of_the_archive_is_the_schema() -> None:
    (table,) = re.findall(r"<!-- schema: begin .*? -->\n(.*?)\n<!-- schema: end -->", PAGE, re.DOTALL)
    wanted = ["| table | column | type | meaning |", "|---|---|---|---|"]
    wanted += [f"| {table} | `{column}` | {kind} | {meaning} |" for table, column, kind, meaning in described()]
    assert table.splitlines() == wanted


def test_the_rules_and_watches_of_the_page_are_what_the_code_takes(tmp_path: Path) -> None:
    rules, watch, _ = blocks("toml")
    (tmp_path / "tags.toml").write_text(rules, encoding="utf-8")
    assert TagRules.load(tmp_path / "tags.toml").tags == ["feature"]
    (tmp_path / "watch.toml").write_text(watch, encoding="utf-8")
    found = load(tmp_path / "watch.toml", environment={"SPEND_LEDGER": "memory:", "PAGERDUTY_KEY": "k"})
    assert [planned.name for planned in found.watched[0].planned] == ["launch"]
    for factor, part, severity in BURNS:
        assert re.search(rf"^\| burn {factor:g}x \|.*\| {severity} \|$", PAGE, re.MULTILINE), part
    assert f"{SPIKE:g} times the most calls" in PAGE
    assert f"at least {SPIKE_CALLS}, worth" in PAGE


def test_the_machines_of_the_page_are_what_the_command_takes(tmp_path: Path) -> None:
    from agentbudget.cli.advise import machines

    file = tmp_path / "machines.toml"
    file.write_text(blocks("toml")[2], encoding="utf-8")
    (machine,) = machines(str(file))
    assert (machine.hosted.model, machine.hosted.gpus) == ("llama-3-70b", 2)
