from __future__ import annotations

import gzip
import shutil
import sqlite3
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from agentbudget.domain.money import dollars
from agentbudget.errors import ConfigurationError, TraceError
from agentbudget.finops import compact as compacting
from agentbudget.finops.compact import compact
from agentbudget.finops.history import History
from agentbudget.finops.schema import CALLS, TASKS, described
from agentbudget.trace.events import CallDenied, OutcomeRecorded, TaskResumed, TraceOpened
from agentbudget.trace.files import Problem
from agentbudget.trace.reader import Trace
from tests.finops.traces import DAY, START, called, closed, opened, write


def fail(problem: Problem) -> None:
    raise AssertionError(problem)


def total(archive: Path) -> tuple[int, int]:
    with History.open(archive) as history:
        (row,) = history.rows("SELECT count(*) AS calls, coalesce(sum(cost), 0) AS cost FROM calls")
        return row["calls"], row["cost"]


def test_the_archive_holds_what_the_report_of_the_traces_says(tmp_path: Path) -> None:
    for number in range(5):
        task = f"t{number}"
        events = [*opened(task, feature="triage"), *called(f"a{number}", task), *called(f"b{number}", task, cost=77)]
        write(tmp_path / "traces" / f"{task}.jsonl", [*events, *closed(task)])
    done = compact(tmp_path / "traces", tmp_path / "spend", on_problem=fail)
    report = Trace.load(tmp_path / "traces").report
    calls, cost = total(tmp_path / "spend")
    assert (done.files, done.calls, calls) == (5, 10, report.attempts)
    assert dollars(cost) == report.cost == Decimal("0.005000385")


def test_a_second_run_adds_nothing(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", [*opened("t"), *called("c", "t")])
    compact(tmp_path / "t.jsonl", tmp_path / "spend", on_problem=fail)
    again = compact(tmp_path / "t.jsonl", tmp_path / "spend", on_problem=fail)
    assert (again.files, again.calls) == (0, 0)
    assert total(tmp_path / "spend") == (1, 1_000_000)


def test_a_trace_that_grew_adds_only_its_new_calls_and_its_task_is_brought_up_to_date(tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", [*opened("t"), *called("a", "t")])
    compact(file, tmp_path / "spend", on_problem=fail)
    ends = [*called("b", "t", cost=5), OutcomeRecorded(at=START + 50, task="t", outcome="solved", ok=True)]
    write(file, [*ends, *closed("t", cost=1_000_005)], append=True)
    assert compact(file, tmp_path / "spend", on_problem=fail).calls == 1
    assert total(tmp_path / "spend") == (2, 1_000_005)
    with History.open(tmp_path / "spend") as history:
        (task,) = history.rows("SELECT status, outcome, ok, cost FROM tasks")
    assert task == {"status": "completed", "outcome": "solved", "ok": True, "cost": 1_000_005}


def test_a_run_that_died_before_its_end_leaves_nothing_and_the_next_takes_everything_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "t.jsonl", [*opened("t"), *called("a", "t"), *called("b", "t")])
    with monkeypatch.context() as broken:
        broken.setattr(compacting, "ROWS", 1)  # so that files lie there when it dies, more than the next run writes
        broken.setattr(compacting._Run, "finish", lambda _run: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            compact(file, tmp_path / "spend", on_problem=fail)
    assert list((tmp_path / "spend").rglob("*.parquet"))
    compact(file, tmp_path / "spend", on_problem=fail)
    assert total(tmp_path / "spend") == (2, 2_000_000)


def test_copies_of_a_trace_and_calls_of_two_root_tasks_count_once(tmp_path: Path) -> None:
    call = called("shared", "t1", "t2")
    first = write(tmp_path / "traces" / "t1.jsonl", [*opened("t1"), *call])
    write(tmp_path / "traces" / "t2.jsonl", [*opened("t2", at=START + 0.5), *call, *called("own", "t2")])
    shutil.copy(first, tmp_path / "traces" / "copy.jsonl")
    (tmp_path / "traces" / "packed.jsonl.gz").write_bytes(gzip.compress(first.read_bytes()))
    compact(tmp_path / "traces", tmp_path / "spend", on_problem=fail)
    assert total(tmp_path / "spend") == (2, 2_000_000)


def test_a_nested_task_is_found_with_its_parent_its_tags_and_its_root(tmp_path: Path) -> None:
    events = [*opened("outer", team="cx", lang="de"), *opened("inner", parent="outer", team="cx", step="plan")]
    file = write(tmp_path / "t.jsonl", [*events, *called("c", "inner", "outer")])
    compact(file, tmp_path / "spend", on_problem=fail)
    with History.open(tmp_path / "spend") as history:
        (row,) = history.rows("SELECT task, root, team, feature, tags['step'] AS step, shared FROM calls")
    assert row == {"task": "inner", "root": "outer", "team": "cx", "feature": None, "step": "plan", "shared": False}


def test_denied_calls_are_rows_without_a_charge(tmp_path: Path) -> None:
    stop = {"limit": "max_cost", "task_id": "t"}
    denied = CallDenied(at=START + 9, call="d", tasks=("t",), kind="model", name="gpt-4o", stop=stop, cost=400)
    file = write(tmp_path / "t.jsonl", [*opened("t"), *called("c", "t"), denied, *closed("t", status="stopped")])
    compact(file, tmp_path / "spend", on_problem=fail)
    with History.open(tmp_path / "spend") as history:
        (row,) = history.rows("SELECT cost, refused FROM calls WHERE outcome = 'denied'")
        (task,) = history.rows("SELECT status, stopped_by FROM tasks")
    assert row == {"cost": 0, "refused": 400}
    assert task == {"status": "stopped", "stopped_by": "max_cost"}


def test_a_resumed_task_is_open_again(tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", [*opened("t"), *closed("t", status="stopped"), TaskResumed(at=START, task="t")])
    with History.open(file) as history:
        assert history.rows("SELECT status, closed FROM tasks") == [{"status": "open", "closed": None}]
        assert history.rows("SELECT * FROM calls") == []


def test_calls_lie_in_the_partition_of_their_day_and_the_columns_say_what_they_mean(tmp_path: Path) -> None:
    days = [*opened("t"), *called("a", "t", at=START), *called("b", "t", at=START + DAY)]
    compact(write(tmp_path / "t.jsonl", days), tmp_path / "spend", on_problem=fail)
    files = sorted((tmp_path / "spend" / "calls").rglob("*.parquet"))
    assert [file.parent.name for file in files] == ["day=2026-11-01", "day=2026-11-02"]
    schema = pq.read_schema(files[0])
    assert schema.names == CALLS.names
    assert schema.field("cost").metadata[b"comment"] == b"Nano-dollars charged."
    assert [column for table, column, _, _ in described() if table == "tasks"] == TASKS.names


def test_bad_lines_are_reported_and_the_rest_is_used(tmp_path: Path) -> None:
    file = write(tmp_path / "traces" / "t.jsonl", [*opened("t"), *called("c", "t")])
    with file.open("ab") as out:
        out.write(b'{"event": "call_settled", "broken\n')
    (tmp_path / "traces" / "no.jsonl").write_bytes(b"\x00\x01")
    problems: list[Problem] = []
    done = compact(tmp_path / "traces", tmp_path / "spend", on_problem=problems.append)
    assert done.calls == 1
    assert {Path(problem.path).name for problem in problems} == {"t.jsonl", "no.jsonl"}
    assert done.problems == len(problems)


def test_an_archive_in_use_and_one_of_another_version_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", [*opened("t"), *called("c", "t")])
    compact(file, tmp_path / "spend", on_problem=fail)
    book = sqlite3.connect(tmp_path / "spend" / "archive.sqlite", isolation_level=None)
    book.execute("UPDATE archive SET version = '99'")
    with pytest.raises(ConfigurationError, match="compact into a new folder"):
        compact(file, tmp_path / "spend", on_problem=fail)
    book.execute("BEGIN IMMEDIATE")
    with pytest.raises(TraceError, match="another compaction"):
        compact(file, tmp_path / "spend", on_problem=fail)
    book.close()


def test_a_trace_that_grew_before_it_was_packed_or_moved_adds_its_new_calls(tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    file = write(traces / "t.jsonl", [*opened("t"), *(event for n in range(50) for event in called(f"a{n}", "t"))])
    compact(traces, tmp_path / "spend", on_problem=fail)
    write(file, [*called("b", "t")], append=True)
    (traces / "t.jsonl.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    assert compact(traces, tmp_path / "spend", on_problem=fail).calls == 1
    (traces / "t.jsonl.gz").rename(traces / "old.jsonl.gz")
    assert compact(traces, tmp_path / "spend", on_problem=fail).calls == 0
    assert total(tmp_path / "spend") == (51, 51_000_000)


def test_a_task_that_ended_before_its_trace_was_moved_is_brought_up_to_date(tmp_path: Path) -> None:
    file = write(tmp_path / "traces" / "t.jsonl", [*opened("t"), *called("a", "t")])
    copy = shutil.copy(file, tmp_path / "old.jsonl")
    compact(file.parent, tmp_path / "spend", on_problem=fail)
    write(file, closed("t", cost=1_000_000), append=True)
    file.rename(file.with_name("moved.jsonl"))
    compact(file.parent, tmp_path / "spend", on_problem=fail)
    compact(copy, tmp_path / "spend", on_problem=fail)  # says less
    with History.open(tmp_path / "spend") as history:
        assert history.rows("SELECT status FROM tasks") == [{"status": "completed"}]


def test_what_lies_before_a_place_that_cannot_be_read_counts_once_however_often_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbudget.trace.files.BLOCK", 64)
    file = write(tmp_path / "t.jsonl", [*opened("t"), *called("a", "t"), *called("b", "t")])
    write(file, [TraceOpened(at=START, schema=99, version="9"), *called("c", "t")], append=True)
    problems: list[Problem] = []
    for _ in range(3):
        compact(file, tmp_path / "spend", on_problem=problems.append)
    assert total(tmp_path / "spend") == (2, 2_000_000)
    assert len(problems) == 3
    assert "upgrade" in str(problems[0])


def test_a_packed_file_that_was_cut_off_holds_nobody_up(tmp_path: Path) -> None:
    good = write(tmp_path / "traces" / "b.jsonl", [*opened("t"), *called("a", "t")])
    (tmp_path / "traces" / "a.jsonl.gz").write_bytes(gzip.compress(good.read_bytes())[:60])
    problems: list[Problem] = []
    assert compact(tmp_path / "traces", tmp_path / "spend", on_problem=problems.append).calls == 1
    assert [Path(problem.path).name for problem in problems] == ["a.jsonl.gz"]


@pytest.mark.parametrize("at", [-1e12, 1e18, 1e300, 253_402_300_800.0])
def test_a_clock_gone_wild_loses_no_money(at: float, tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", [*opened("t"), *called("a", "t", at=at)])
    compact(tmp_path / "t.jsonl", tmp_path / "spend", on_problem=fail)
    assert total(tmp_path / "spend") == (1, 1_000_000)


@pytest.mark.parametrize("name", ["it's", "team[1]", "team*", "a?b", 'q"x', "line\nbreak", "per%cent"])
def test_an_archive_is_read_alone_whatever_its_name(name: str, tmp_path: Path) -> None:
    for cost, folder in enumerate((name, "team1", "team of others"), 1):
        write(tmp_path / "t.jsonl", [*opened("t"), *called(folder, "t", cost=cost)])
        compact(tmp_path / "t.jsonl", tmp_path / folder, on_problem=fail)
    assert total(tmp_path / name) == (1, 1)
