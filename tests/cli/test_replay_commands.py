"""The commands on recorded runs: what they print, their JSON and their exit codes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import agentbudget as ab
from agentbudget.cli import main, rules
from agentbudget.cli.progress import Progress
from agentbudget.cli.runs import MOST_KINDS, OTHERS, Runs
from agentbudget.trace.events import (
    SCHEMA,
    CallReserved,
    CallSettled,
    Event,
    OutcomeRecorded,
    TaskClosed,
    TaskOpened,
    TraceOpened,
)
from agentbudget.trace.report import TaskReport
from agentbudget.trace.writer import encode

Captured = pytest.CaptureFixture[str]


def task(name: str, costs: list[int], *, kind: str = "ticket", ok: bool | None = None, **tags: str) -> list[Event]:
    """A run of one model call for each of *costs*, in thousandths of a dollar."""
    events: list[Event] = [TaskOpened(at=0.0, task=name, name=kind, tags=tags)]
    for number, cost in enumerate(costs):
        call, nanos = f"{name}{number}", cost * 10**6
        shared: dict[str, Any] = {"call": call, "tasks": (name,), "kind": "model", "name": "gpt-4o", "cost": nanos}
        events += [CallReserved(at=number + 0.1, **shared), CallSettled(at=number + 0.5, outcome="ok", **shared)]
    if ok is not None:
        events.append(OutcomeRecorded(at=90.0, task=name, outcome="judged", ok=ok))
    return [*events, TaskClosed(at=99.0, task=name, status="completed", cost=sum(costs) * 10**6)]


def write(file: Path, *tasks: list[Event]) -> Path:
    header = TraceOpened(at=0.0, schema=SCHEMA, version="0")
    file.write_bytes(encode([header, *(event for events in tasks for event in events)]))
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three runs of two kinds."""
    where = tmp_path / "traces"
    where.mkdir()
    write(where / "a.jsonl", task("a", [10, 20, 30], ok=True, team="cx"))
    write(where / "b.jsonl", task("b", [500], team="eng"))
    write(where / "c.jsonl", task("c", [5], kind="summary", team="cx"))
    return where


def test_a_folder_is_reported_by_kind_with_its_dearest_runs(folder: Path, capsys: Captured) -> None:
    assert main(["report", str(folder), "--worst", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    kinds = lines[next(n for n, line in enumerate(lines) if line.startswith("kind")) :]
    assert kinds[1].split() == [
        "ticket",
        "2",
        "$0.56",
        "99.1%",
        "$0.06",
        "$0.50",
        "$0.50",
        "$0.00",
        "0",
        "1",
        "of",
        "1",
    ]
    assert kinds[2].split()[:3] == ["summary", "1", "$0.0050"]
    assert [line.split()[:3] for line in lines[-1:]] == [["ticket", "b", "$0.50"]]


def test_a_folder_is_reported_by_a_tag_as_json(folder: Path, capsys: Captured) -> None:
    assert main(["report", str(folder), "--by", "team", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["cost"] == "0.565000000"
    assert [(kind["name"], kind["runs"], kind["cost"]) for kind in shown["kinds"]] == [
        ("eng", 1, "0.500000000"),
        ("cx", 2, "0.065000000"),
    ]
    assert [report["task_id"] for report in shown["worst"]] == ["b", "a", "c"]


def test_costs_without_a_price_are_not_shown_as_nothing(tmp_path: Path, capsys: Captured) -> None:
    unpriced = [
        CallSettled(at=1.0, call="c", tasks=("a",), kind="model", name="m", outcome="ok", priced=False),
        TaskClosed(at=2.0, task="a", status="completed"),
    ]
    write(tmp_path / "run.jsonl", [task("a", [])[0], *unpriced], task("b", [10], kind="other"))
    assert main(["report", str(tmp_path)]) == 0
    assert "unknown" in capsys.readouterr().out
    assert main(["replay", str(tmp_path), "--max-cost", "1"]) == 0
    assert "1 model calls have no price" in capsys.readouterr().out
    assert main(["diff", str(tmp_path), str(tmp_path)]) == 0
    assert "without 1 model calls before and 1 after that have no price" in capsys.readouterr().out


def test_more_kinds_than_fit_are_counted_together() -> None:
    runs = Runs()
    for number in range(MOST_KINDS + 5):
        runs.add(TaskReport(task_id=str(number), name=f"kind-{number}"))
    assert len(runs.kinds) == MOST_KINDS + 1
    assert len(runs.kinds[OTHERS].costs) == 5


def test_each_of_many_tasks_is_one_json_list(folder: Path, capsys: Captured) -> None:
    assert main(["report", str(folder), "--each", "--json"]) == 0
    assert [report["task_id"] for report in json.loads(capsys.readouterr().out)] == ["a", "b", "c"]


def test_replay_says_what_a_budget_would_have_saved_and_exits_1(folder: Path, capsys: Captured) -> None:
    assert main(["replay", str(folder), "--max-cost", "0.05"]) == 1
    out = capsys.readouterr().out
    assert "recorded    $0.5650" in out
    assert "saved       $0.53 (93.8% of it)" in out
    assert "refused     2 of 5 calls" in out
    assert "assumed     after a refusal" in out


def test_replay_of_a_budget_that_fits_exits_0(folder: Path, capsys: Captured) -> None:
    assert main(["replay", str(folder), "--max-cost", "5", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["label"], shown["saved"], shown["skipped"]) == ("exact", "0.000000000", 0)


def test_replay_takes_models_ladders_prices_and_rules(folder: Path, tmp_path: Path, capsys: Captured) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('["gpt-4o"]\ninput = "1"\noutput = "1"\n')
    call = [
        "replay",
        str(folder),
        "--prices",
        str(prices),
        "--model",
        "gpt-4o=gpt-4o-mini",
        "--downgrade",
        "gpt-4o-mini",
    ]
    assert main([*call, "--loops", "in-a-row=4", "--tool", "search=3", "--max-retries", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == "estimate"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--loops", "in_row=3"], "no such rule; known are in_a_row"),
        (["--loops", "in_a_row=1"], "from 2 to"),
        (["--tool", "search=x"], "tools['search']"),
        (["--max-cost", "much"], "max_cost"),
    ],
)
def test_replay_refuses_what_means_nothing(folder: Path, capsys: Captured, options: list[str], message: str) -> None:
    assert main(["replay", str(folder), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_pair_without_its_equals_sign_is_a_mistake_in_the_call(folder: Path, capsys: Captured) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["replay", str(folder), "--model", "gpt-4o"])
    assert "two names with = between them" in capsys.readouterr().err


def test_no_option_replays_the_recorded_rules(folder: Path) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    rules.add(parser)
    assert rules.budget(parser.parse_args([])) is None
    assert rules.budget(parser.parse_args(["--unlimited"])) == ab.Budget()
    assert rules.budget(parser.parse_args(["--loops"])) == ab.Budget(loops=ab.Loops())


def test_diff_names_what_costs_more_and_exits_1(tmp_path: Path, capsys: Captured) -> None:
    before = write(tmp_path / "before.jsonl", task("a", [10, 20]))
    after = write(tmp_path / "after.jsonl", task("b", [10, 50, 5]))
    assert main(["diff", str(before), str(after)]) == 1
    out = capsys.readouterr().out
    assert "$0.0350 more" in out
    assert "after 2 steps" in out
    assert "only in one" in out
    assert main(["diff", str(before), str(before), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cost"] == ["0.030000000", "0.030000000"]


def test_calibrate_refuses_to_promise_from_few_runs_and_exits_1(folder: Path, capsys: Captured) -> None:
    assert main(["calibrate", str(folder)]) == 1
    assert "too few to promise anything" in capsys.readouterr().out


def test_calibrate_suggests_limits_from_many(tmp_path: Path, capsys: Captured) -> None:
    good = [task(f"g{number}", [10] * (1 + number % 5), ok=True) for number in range(200)]
    bad = [task(f"b{number}", [10] * 30, ok=False) for number in range(20)]
    trace = write(tmp_path / "all.jsonl", *good, *bad)
    assert main(["calibrate", str(trace)]) == 0
    out = capsys.readouterr().out
    assert "suggested for ticket: max_cost=$0.05, max_model_calls=5" in out
    assert "Held out" in out
    assert main(["calibrate", str(trace), "--json", "--false-halts", "0.2"]) == 0
    assert json.loads(capsys.readouterr().out)["suggested"]["ticket"]["max_model_calls"] == "5"


def test_bad_lines_are_told_and_exit_1(folder: Path, capsys: Captured) -> None:
    file = folder / "a.jsonl"
    file.write_bytes(file.read_bytes() + b"{half\n" * 30)
    for command in (["report"], ["replay", "--max-cost", "50"]):
        assert main([command[0], str(folder), *command[1:]]) == 1
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 21
        assert "a.jsonl" in told[0]
        assert "10 more" in told[-1]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_to_people_only_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentbudget.cli.progress._AFTER_SECONDS", 0.0)
    for stream, shown in ((_Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress("files read") as progress:
            progress(5, 10)
        assert ("5 of 10 (50%) files read" in stream.getvalue()) is shown
        assert stream.getvalue().endswith("\r\x1b[K") is shown
