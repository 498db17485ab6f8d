"""Many runs as they are read: every number as if all had been loaded, in memory they do not fill."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from agentbudget.trace.events import SCHEMA, CallReserved, CallSettled, Event, TaskClosed, TaskOpened, TraceOpened
from agentbudget.trace.files import Problem
from agentbudget.trace.reader import Trace
from agentbudget.trace.survey import Survey
from agentbudget.trace.writer import encode

HEADER = TraceOpened(at=0.0, schema=SCHEMA, version="0")


def call(name: str, tasks: tuple[str, ...], cost: int, at: float) -> list[Event]:
    return [
        CallReserved(at=at, call=name, tasks=tasks, kind="model", name="m", cost=cost),
        CallSettled(at=at + 1, call=name, tasks=tasks, kind="model", name="m", outcome="ok", cost=cost),
    ]


def task(name: str, *, calls: int = 2) -> list[Event]:
    made = [event for number in range(calls) for event in call(f"{name}-{number}", (name,), 10**7, 10.0 * number)]
    return [TaskOpened(at=0.0, task=name, name="kind"), *made, TaskClosed(at=99.0, task=name, status="completed")]


def write(folder: Path, name: str, *parts: list[Event]) -> Path:
    file = folder / f"{name}.jsonl"
    file.write_bytes(encode([HEADER, *(event for part in parts for event in part)]))
    return file


def surveyed(path: Path) -> tuple[list[dict[str, object]], dict[str, object]]:
    found: list[Problem] = []
    survey = Survey(path, on_problem=found.append)
    reports = [report.to_dict() for report in survey]
    assert not found
    return reports, survey.total.to_dict()


def test_reports_and_total_are_those_of_the_loaded_trace(tmp_path: Path) -> None:
    both = call("shared", ("b", "a"), 5 * 10**7, 50.0)  # two root tasks in a tree: a pays for b's call as well
    write(tmp_path, "a", [*task("a")[:-1], *both, task("a")[-1]])
    write(tmp_path, "b", task("b"))
    write(tmp_path, "many", *(task(f"t{number}") for number in range(5)))
    trace = Trace.load(tmp_path)
    assert surveyed(tmp_path) == ([report.to_dict() for report in trace.reports], trace.report.to_dict())


def test_a_call_of_two_root_tasks_is_in_both_reports_and_once_in_the_total(tmp_path: Path) -> None:
    both = call("shared", ("b", "a"), 5 * 10**7, 50.0)
    for name in ("a", "b"):
        write(tmp_path, name, [*task(name)[:-1], *both, task(name)[-1]])
    reports, total = surveyed(tmp_path)
    assert [report["cost"] for report in reports] == ["0.070000000", "0.070000000"]
    assert total["cost"] == "0.090000000"


def test_a_copied_file_counts_once(tmp_path: Path) -> None:
    write(tmp_path, "a", task("a"))
    write(tmp_path, "copy", task("a"))
    reports, total = surveyed(tmp_path)
    assert len(reports) == 1
    assert total["cost"] == "0.020000000"


def test_a_file_whose_beginning_is_lost_is_still_reported(tmp_path: Path) -> None:
    write(tmp_path, "a", task("a")[1:])
    reports, total = surveyed(tmp_path)
    assert [report["task_id"] for report in reports] == ["a"]
    assert total["cost"] == "0.020000000"


def test_an_outcome_recorded_after_the_closing_is_in_the_report(tmp_path: Path) -> None:
    from agentbudget.trace.events import OutcomeRecorded

    write(tmp_path, "a", [*task("a"), OutcomeRecorded(at=100.0, task="a", outcome="good", ok=True)])
    reports, _ = surveyed(tmp_path)
    assert (reports[0]["outcome"], reports[0]["ok"]) == ("good", True)


@pytest.mark.parametrize("one_file", [True, False])
def test_memory_does_not_grow_with_the_runs(tmp_path: Path, one_file: bool) -> None:
    def peak(folder: Path, tasks: int) -> int:
        folder.mkdir()
        parts = [task(f"t{number}", calls=10) for number in range(tasks)]
        if one_file:
            write(folder, "all", *parts)
        else:
            for number, part in enumerate(parts):
                write(folder, str(number), part)
        tracemalloc.start()
        for _ in Survey(folder, on_problem=lambda problem: None):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = peak(tmp_path / "few", 1_500), peak(tmp_path / "many", 4_500)
    assert many - few < 3_000 * 1_300, "about a thousand bytes a run: its file, its id and when it was opened"
