"""Files that are not what they should be: each has its precise message, and what can be used is used."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from agentbudget.cli import main
from agentbudget.trace.events import (
    SCHEMA,
    CallReserved,
    CallSettled,
    Event,
    TaskClosed,
    TaskOpened,
    TraceOpened,
)
from agentbudget.trace.writer import encode

COMMANDS = (["report"], ["replay", "--max-cost", "1"], ["calibrate"])


def run(task: str = "t", *, priced: bool = True, used: bool = True) -> list[Event]:
    usage = {"input_tokens": 10, "output_tokens": 5} if used else {}
    source = "reported" if used else "estimated"
    cost = 1000 if priced else 0
    shared: dict[str, Any] = {"call": f"{task}-c", "tasks": (task,), "kind": "model", "name": "m"}
    return [
        TraceOpened(at=0.0, schema=SCHEMA, version="0"),
        TaskOpened(at=0.0, task=task, name="ticket"),
        CallReserved(at=1.0, cost=cost, **shared),
        CallSettled(at=2.0, outcome="ok", cost=cost, usage=usage, source=source, priced=priced, **shared),
        TaskClosed(at=3.0, task=task, status="completed", cost=cost),
    ]


GOOD = encode(run())
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty"),
    "only blank lines": (b"\n\n\n", "it is empty"),
    "binary": (bytes(range(256)) * 20, "no line of it is an event (line 1:"),
    "truncated at its first line": (GOOD[:40], "cut short after 40 bytes"),
    "cut gzip": (gzip.compress(GOOD)[:20], "damaged gzip, what lies behind is lost"),
    "future version": (GOOD.replace(b'"schema":1', b'"schema":7'), "written with schema 7, this version reads up to 1"),
    "no version": (GOOD.replace(b'"schema":1', b'"schema":0'), "says schema 0, which no version ever wrote"),
    "another format": (b'{"hello": 1}\n', "bad.jsonl: "),
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("what", BAD)
def test_a_file_that_cannot_be_used_is_refused_by_name_and_reason(
    what: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = BAD[what]
    (tmp_path / "bad.jsonl").write_bytes(content)
    assert main([command[0], str(tmp_path / "bad.jsonl"), *command[1:]]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "bad.jsonl" in told


@pytest.mark.parametrize("what", BAD)
def test_in_a_mixed_folder_the_good_is_used_and_the_bad_is_told(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jsonl").write_bytes(BAD[what][0])
    (tmp_path / "good.jsonl").write_bytes(GOOD)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(encode(run("packed"))))
    assert main(["report", str(tmp_path), "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["cost"] == "0.000002000"
    assert "bad.jsonl" in shown.err
    assert main(["replay", str(tmp_path), "--max-cost", "1", "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["recorded"] == "0.000002000"
    assert "bad.jsonl" in shown.err


def test_a_torn_last_line_loses_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "torn.jsonl").write_bytes(GOOD[:-15])
    assert main(["report", str(tmp_path / "torn.jsonl"), "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["cost"] == "0.000001000"
    assert "torn.jsonl:5: cut short" in shown.err


def test_no_price_and_no_usage_are_said_and_not_counted_as_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.jsonl").write_bytes(encode([*run("a", priced=False), *run("b", used=False)[1:]]))
    assert main(["report", str(tmp_path / "run.jsonl")]) == 0
    told = capsys.readouterr().out
    assert "only 1 of 2 model calls have a price" in told
    assert "rests on estimated usage" in told
    assert main(["replay", str(tmp_path / "run.jsonl"), "--max-cost", "1"]) == 0
    assert "without 1 model calls that have no price" in capsys.readouterr().out
