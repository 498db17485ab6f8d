"""`agentbudget reconcile`: what it prints, its JSON and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentbudget.cli import main
from tests.finops.traces import START, called, opened, write

Captured = pytest.CaptureFixture[str]
BILL = "when,what,much\n2026-11-01,gpt-4o,0.00035\n"
COLUMNS = "day=when,model=what,cost=much"


@pytest.fixture
def traces(tmp_path: Path) -> str:
    events = [*opened("t"), *called("c", "t", at=START + 60, cost=350_000)]
    return str(write(tmp_path / "traces" / "a.jsonl", events).parent)


def bill(tmp_path: Path, text: str) -> str:
    file = tmp_path / "bill.csv"
    file.write_text(text)
    return str(file)


def test_a_bill_that_matches_ends_with_0_and_one_that_does_not_with_1(
    tmp_path: Path, traces: str, capsys: Captured
) -> None:
    assert main(["reconcile", traces, bill(tmp_path, BILL), "--columns", COLUMNS]) == 0
    assert "bill.csv matches: $0.00 differs" in capsys.readouterr().out
    dearer = bill(tmp_path, BILL.replace("0.00035", "0.0004"))
    assert main(["reconcile", traces, dearer, "--columns", COLUMNS]) == 1
    assert "does not match: $0.000050 differs (12.50% of the money; 0.50% is allowed)" in capsys.readouterr().out
    assert main(["reconcile", traces, dearer, "--columns", COLUMNS, "--tolerance", "13%"]) == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--columns", "day=when"],
        ["--columns", "nonsense"],
        ["--columns", COLUMNS, "--tolerance", "much"],
        ["--columns", COLUMNS, "--timezone", "Mars/Base"],
        ["--columns", COLUMNS, "--rate", "EUR"],
    ],
)
def test_a_mistake_in_the_call_ends_with_2(tmp_path: Path, traces: str, capsys: Captured, options: list[str]) -> None:
    assert main(["reconcile", traces, bill(tmp_path, BILL), *options]) == 2
    assert capsys.readouterr().err.startswith("agentbudget: ")


def test_what_export_wrote_reconciles(tmp_path: Path, traces: str, capsys: Captured) -> None:
    focus = str(tmp_path / "focus.csv")
    assert main(["export", traces, focus, "--account", "org"]) == 0
    capsys.readouterr()
    assert main(["reconcile", traces, focus, "--tolerance", "0", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert (plain["matches"], plain["differs"], plain["billed"]) == (True, "0", "0.00035")
    assert plain["lines"][0]["model"] == "openai/gpt-4o"


def test_deployments_and_prices_of_ones_own_are_known(tmp_path: Path, traces: str) -> None:
    text = BILL.replace("gpt-4o", "my-deployment")
    assert main(["reconcile", traces, bill(tmp_path, text), "--columns", COLUMNS]) == 1
    alias = ["--alias", "my-deployment=openai/gpt-4o"]
    assert main(["reconcile", traces, bill(tmp_path, text), "--columns", COLUMNS, *alias]) == 0
