"""`agentbudget advise`: what it prints, its JSON and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentbudget.cli import main
from tests.finops.advised import conversation, folder
from tests.finops.traces import START, called, opened, write

Captured = pytest.CaptureFixture[str]


def test_levers_are_printed_with_what_to_change_and_how_to_check(tmp_path: Path, capsys: Captured) -> None:
    where = folder(tmp_path, conversation("gpt-4o", 10_000, 12_000))
    assert main(["advise", str(where), "--ladder", "openai:gpt-4o-mini"]) == 0
    out = capsys.readouterr().out
    first, second = out.index("1. every task: gpt-4o-mini instead of gpt-4o"), out.index("2. 'job': prompt caching")
    assert first < second
    for label in ("saves", "sure", "computed", "change", "verify", "risk"):
        assert out.count(f"\n   {label} ") == 2


def test_levers_behind_the_first_ones_are_one_line_each(tmp_path: Path, capsys: Captured) -> None:
    where = folder(tmp_path, conversation("gpt-4o", 10_000, 12_000))
    assert main(["advise", str(where), "--ladder", "openai:gpt-4o-mini", "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n   saves ") == 1
    assert "\n2. 'job': prompt caching on gpt-4o: up to $0.0125 (upper bound)\n" in out


def test_the_json_has_the_same_levers_in_exact_dollars(tmp_path: Path, capsys: Captured) -> None:
    where = folder(tmp_path, conversation("gpt-4o", 10_000, 12_000))
    assert main(["advise", str(where), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    (lever,) = plain["levers"]
    assert lever["kind"] == "caching"
    assert lever["saving"] == {"low": "0.000000000", "expected": "0.012500000", "high": "0.012500000"}
    assert plain["recorded"] == "0.056000000"


def test_traces_that_cannot_be_read_to_the_end_are_told_by_the_exit_code(tmp_path: Path, capsys: Captured) -> None:
    file = write(tmp_path / "a.jsonl", [*opened("t"), *called("c", "t", at=START)])
    file.write_bytes(file.read_bytes() + b"{nonsense\n")
    assert main(["advise", str(file)]) == 1
    assert "could not be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("machines", "message"),
    [
        ("[[machine]]\nmodel = 'x'\n", "not a file of [[machine]] tables"),
        ("[[machine]]\nmodel = 'x'\ngpu_hour = '$3'\ntps = 1\n", "'tps' is none of"),
        ("nonsense", "not a file of [[machine]] tables"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(tmp_path: Path, capsys: Captured, machines: str, message: str) -> None:
    file = tmp_path / "machines.toml"
    file.write_text(machines)
    assert main(["advise", str(tmp_path), "--machines", str(file)]) == 2
    assert message in capsys.readouterr().err


def test_idle_machines_of_a_file_are_found(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "machines.toml"
    file.write_text('[[machine]]\nmodel = "gpt-4o"\ngpu_hour = "$3"\ngpus = 4\ntokens_per_second = 100000\n')
    where = folder(tmp_path, conversation("gpt-4o", 10_000, 12_000))
    assert main(["advise", str(where), "--machines", str(file)]) == 0
    assert "gpt-4o: 1 instead of 4 GPUs" in capsys.readouterr().out


def test_nothing_there_is_a_mistake_in_the_call(tmp_path: Path, capsys: Captured) -> None:
    assert main(["advise", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
