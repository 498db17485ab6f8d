"""The reader: what is damaged is named and skipped, what is intact is used, and nothing counts twice."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentbudget.errors import BudgetWarning, TraceError, TraceFormatError, TraceVersionError
from agentbudget.trace.events import (
    SCHEMA,
    CallSettled,
    Event,
    TaskClosed,
    TaskOpened,
    TaskResumed,
    TraceOpened,
)
from agentbudget.trace.files import BLOCK, MAX_LINE, Problem
from agentbudget.trace.reader import MAX_PROBLEMS, Trace, iter_events
from agentbudget.trace.survey import Survey
from agentbudget.trace.writer import encode

TaskEvents = Callable[..., list[Event]]
WriteTrace = Callable[..., Path]

DOCUMENTED = (TraceError, TraceFormatError, TraceVersionError)


@pytest.fixture
def run(tmp_path: Path, write_trace: WriteTrace, task_events: TaskEvents) -> Path:
    """A small trace in one file."""
    return write_trace(tmp_path / "run.jsonl", task_events())


def exhaust(path: Path) -> Trace:
    """Load and look at everything."""
    trace = Trace.load(path)
    assert str(trace.report)
    assert trace.report._repr_html_()
    json.dumps(trace.report.to_dict())
    return trace


# -- damage -------------------------------------------------------------------------------------------------------


def test_cutting_a_file_at_any_byte_keeps_every_whole_line(tmp_path: Path, run: Path) -> None:
    whole = run.read_bytes()
    events = Trace.load(run).events
    cut = tmp_path / "cut.jsonl"
    for size in range(len(whole)):
        cut.write_bytes(whole[:size])
        intact = whole[: size + 1].count(b"\n")  # a last line without its newline is whole, too
        if intact:
            trace = exhaust(cut)
            assert trace.events == events[:intact]
            assert len(trace.problems) == (size > 0 and whole[size] != 10 and whole[size - 1] != 10)
        else:
            with pytest.raises(TraceFormatError, match=r"line 1: cut short after|it is empty"):
                Trace.load(cut)


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
def test_a_flipped_byte_never_costs_more_than_the_lines_it_touches(tmp_path: Path, run: Path, flip: int) -> None:
    whole = run.read_bytes()
    events = Trace.load(run).events
    damaged = tmp_path / "damaged.jsonl"
    line = 0
    for place, byte in enumerate(whole):
        damaged.write_bytes(whole[:place] + bytes([byte ^ flip]) + whole[place + 1 :])
        touched = {line, line + 1} if byte == 10 else {line}
        line += byte == 10
        try:
            trace = exhaust(damaged)
        except TraceVersionError:
            assert touched == {0}
            continue
        kept = {encode([event]) for event in trace.events}
        assert all(encode([event]) in kept for number, event in enumerate(events) if number not in touched)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(garbage=st.binary(max_size=300))
def test_arbitrary_bytes_raise_only_documented_errors(tmp_path: Path, garbage: bytes) -> None:
    file = tmp_path / "garbage.jsonl"
    for content in (garbage, b"\x1f\x8b" + garbage):
        file.write_bytes(content)
        with pytest.raises(DOCUMENTED):
            Trace.load(file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (b"not json\n", "line 1: JSON is malformed"),
        (b'{"a": 1}\n{"b": 2}\n', r"line 1: .*`event`; line 2: .*`event`"),
        (b"\x00\xff\x00" * 50, "line 1"),
        (b"[" * 100_000, "line 1"),
        (
            b'{"event":"action_taken","at":1,"tasks":[],"action":"","reason":"","numbers":{"":' + b"[" * 100_000,
            "too deep",
        ),
        (b'{"event":"task_resumed","at":1,"task":"\xff"}\n', "line 1: not UTF-8"),
        (b'{"event":"task_resumed","at":1e999,"task":"t"}\n', "line 1: Number out of range"),
        (b'{"event":"call_extended","at":1,"call":"c","tasks":[],"estimate_output":1,"cost":-1}\n', "line 1: Expected"),
    ],
)
def test_a_file_without_a_usable_line_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(TraceFormatError, match=reason) as refusal:
        Trace.load(tmp_path / "bad.jsonl")
    assert "bad.jsonl: not a trace" in str(refusal.value)


def test_bad_lines_are_named_by_number_and_reason_and_cost_nothing_else(tmp_path: Path, run: Path) -> None:
    lines = run.read_bytes().splitlines(keepends=True)
    lines[2:2] = [b"garbage\n", b"\n", b'{"event":"no \\u001b such event","at":1}\n']
    run.write_bytes(b"".join(lines))
    trace = exhaust(run)
    assert [problem.line for problem in trace.problems] == [3, 5]
    assert "malformed" in str(trace.problems[0])
    assert f"{run}:5: " in str(trace.problems[1])
    assert "Invalid value" in str(trace.problems[1])
    assert str(trace.problems[1]).isprintable()
    assert trace.report.cost == Decimal("0.000003")


def test_a_line_too_long_to_be_an_event_is_skipped_without_keeping_it(tmp_path: Path, run: Path) -> None:
    first, rest = run.read_bytes().split(b"\n", 1)
    run.write_bytes(first + b"\n" + b"x" * (2 * MAX_LINE) + b"\n" + rest)
    tracemalloc.start()
    trace = Trace.load(run)
    assert tracemalloc.get_traced_memory()[1] < 4 * MAX_LINE
    tracemalloc.stop()
    assert [str(problem) for problem in trace.problems] == [f"{run}:2: longer than {MAX_LINE >> 20} MiB"]
    assert len(trace.events) == 9
    run.write_bytes(b"x" * (MAX_LINE + 2))
    with pytest.raises(TraceFormatError, match="longer than"):
        Trace.load(run)


def test_line_numbers_hold_across_blocks(tmp_path: Path, run: Path) -> None:
    resumed = encode([TaskResumed(at=1.0, task="t" * 500)])
    with run.open("ab") as file:
        file.write(resumed * 5000 + b"bad\n" + resumed * 5000)
    trace = Trace.load(run)
    assert [problem.line for problem in trace.problems] == [9 + 5000 + 1]
    assert len(trace) == 9 + 10_000


def test_problems_are_counted_but_not_kept_without_bound(run: Path) -> None:
    with run.open("ab") as file:
        file.write(b"bad\n" * (MAX_PROBLEMS + 500))
    problems = Trace.load(run).problems
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1] == Problem(str(run), 0, "500 more lines were skipped")


def test_a_task_that_lost_calls_does_not_pass_for_complete(run: Path) -> None:
    lines = run.read_bytes().splitlines(keepends=True)
    run.write_bytes(b"".join(line for line in lines if b"t1-c1" not in line))
    report = Trace.load(run).report
    assert report.cost == Decimal("0.000002")
    assert [entry["kind"] for entry in report.discrepancies] == ["incomplete"]


# -- versions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [b"", b',"version":7,"new":{}'])
def test_a_newer_schema_is_refused_by_name_even_where_its_header_has_changed(run: Path, extra: bytes) -> None:
    rest = run.read_bytes().split(b"\n", 1)[1]
    version = b'"version":"9"' if not extra else extra[1:]
    run.write_bytes(b'{"event":"trace_opened","at":1,"schema":%d,' % (SCHEMA + 1) + version + b"}\n" + rest)
    with pytest.raises(TraceVersionError, match=f"schema {SCHEMA + 1}, this version reads up to {SCHEMA}: upgrade"):
        Trace.load(run)


def test_a_field_that_a_later_minor_version_added_is_passed_over(run: Path) -> None:
    run.write_bytes(run.read_bytes().replace(b'"at":', b'"later":[1],"at":'))
    trace = Trace.load(run)
    assert not trace.problems
    assert trace.report.cost == Decimal("0.000003")


# -- files --------------------------------------------------------------------------------------------------------


def test_gzip_is_read_whatever_the_file_is_called_and_a_cut_one_as_far_as_it_goes(tmp_path: Path, run: Path) -> None:
    packed = gzip.compress(run.read_bytes())
    (tmp_path / "packed.jsonl").write_bytes(packed)
    assert Trace.load(tmp_path / "packed.jsonl").events == Trace.load(run).events
    lines = [encode([TaskResumed(at=float(number), task="t")]) for number in range(50_000)]
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"".join(lines))[:-10])
    trace = Trace.load(tmp_path / "cut.jsonl.gz")
    assert len(trace) > 20_000
    assert any("damaged gzip" in problem.reason for problem in trace.problems)


def test_a_path_that_leads_nowhere_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path / "*.jsonl", tmp_path):
        with pytest.raises(TraceError, match=r"no (such )?trace") as refusal:
            Trace.load(path)
        assert str(path) in str(refusal.value)


def test_a_file_that_cannot_be_read_is_a_trace_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read anything, so the refusal has to be staged
    with pytest.raises(TraceError, match=r"run\.jsonl: cannot be read \(Permission denied\)"):
        Trace.load(run)


def test_folder_glob_and_string_paths_load_the_same_tasks(
    tmp_path: Path, write_trace: WriteTrace, task_events: TaskEvents
) -> None:
    folder = write_trace(tmp_path / "traces", task_events("a"), task_events("b"))
    (folder / "notes.txt").write_text("not a trace")
    for path in (folder, str(folder), folder / "*.jsonl", str(tmp_path / "**" / "*.jsonl")):
        trace = Trace.load(path)
        assert trace.tasks == ["a", "b"]
        assert trace.paths == [str(folder / "file-0.jsonl"), str(folder / "file-1.jsonl")]
        assert [report.trace_path for report in trace.reports] == trace.paths


def test_in_a_mixed_folder_what_can_be_used_is_used_and_the_rest_is_named(
    tmp_path: Path, write_trace: WriteTrace, task_events: TaskEvents
) -> None:
    folder = write_trace(tmp_path / "traces", task_events("a"))
    (folder / "0-empty.jsonl").touch()
    (folder / "1-future.jsonl").write_bytes(b'{"event":"trace_opened","at":1,"schema":99,"version":"9"}\n')
    (folder / "2-other.jsonl").write_text('{"messages": []}\n')
    trace = Trace.load(folder)
    assert trace.tasks == ["a"]
    reasons = [str(problem) for problem in trace.problems if problem.line == 0]
    assert [reason.split(": ")[1][:12] for reason in reasons] == ["not a trace ", "written with", "not a trace "]
    (folder / "file-0.jsonl").unlink()
    with pytest.raises(TraceFormatError, match="0-empty"):
        Trace.load(folder)


def test_events_stream_in_bounded_memory_and_unheard_problems_are_warned_of(tmp_path: Path, run: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(100):
        (folder / f"{number}.jsonl").write_bytes(run.read_bytes() * 50)
    tracemalloc.start()
    count = sum(1 for _ in iter_events(folder))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 100 * 50 * 9
    assert peak < 4 * BLOCK  # all events at once take six times as much
    (folder / "7.jsonl").write_text("bad\n")
    with pytest.warns(BudgetWarning, match=r"2 lines or files .* skipped, the first: .*7\.jsonl:1"):
        list(iter_events(folder))
    heard: list[Problem] = []
    list(iter_events(folder, on_problem=heard.append))
    assert [problem.line for problem in heard] == [1, 0]


# -- tasks --------------------------------------------------------------------------------------------------------


def nested_events() -> list[Event]:
    def settled(call: str, *tasks: str) -> CallSettled:
        return CallSettled(at=1.0, call=call, tasks=tasks, kind="tool", name="search", outcome="ok", cost=10)

    return [
        TaskOpened(at=0.0, task="outer", name="outer"),
        settled("c1", "outer"),
        TaskOpened(at=0.5, task="inner", parent="outer", name="inner", tags={"x": "y"}),
        settled("c2", "inner", "outer"),
        TaskClosed(at=1.5, task="inner", status="completed", cost=10),
        TaskClosed(at=2.0, task="outer", status="failed", cost=20),
    ]


def test_a_nested_task_is_part_of_its_root_and_can_be_looked_at_alone(tmp_path: Path, write_trace: WriteTrace) -> None:
    trace = Trace.load(write_trace(tmp_path / "run.jsonl", nested_events()))
    assert trace.tasks == ["outer"]
    assert (trace.report.cost, trace.report.status) == (Decimal("2E-8"), "failed")
    inner = trace.task("inner")
    assert (inner.tasks, inner.report.name, inner.report.tags) == (["inner"], "inner", {"x": "y"})
    assert (inner.report.cost, inner.report.status) == (Decimal("1E-8"), "completed")
    assert len(inner) == 4
    assert trace.task("outer").report == trace.report
    with pytest.raises(LookupError, match="no task 'nobody'"):
        trace.task("nobody")


def test_a_task_whose_parent_pays_for_nothing_here_is_a_root(tmp_path: Path, write_trace: WriteTrace) -> None:
    events: list[Event] = [
        TaskOpened(at=0.0, task="child", parent="elsewhere", name="child", budget={"max_model_calls": 3}),
        CallSettled(at=1.0, call="c", tasks=("child",), kind="model", name="m", outcome="ok", cost=5),
    ]
    report = Trace.load(write_trace(tmp_path / "run.jsonl", events)).report
    assert (report.task_id, report.name, report.limits) == ("child", "child", {"max_model_calls": 3})


def test_several_root_tasks_add_up_to_one_report(
    tmp_path: Path, write_trace: WriteTrace, task_events: TaskEvents
) -> None:
    stopped = [*task_events("b", calls=2)[:-1], TaskClosed(at=9.0, task="b", status="stopped", cost=2000, seconds=9.0)]
    folder = write_trace(tmp_path / "traces", task_events("a", calls=3), stopped)
    trace = Trace.load(folder)
    report = trace.report
    assert (report.task_id, report.name, report.tasks) == ("", "traces", 2)
    assert (report.status, report.seconds) == ("1 completed, 1 stopped", 12.0)
    assert (report.cost, report.model_calls, report.limits) == (Decimal("0.000005"), 5, {})
    assert report.usage.input_tokens == 500
    assert str(report).startswith("2 tasks of traces: 1 completed, 1 stopped\n")
    survey = Survey(folder, on_problem=lambda problem: None)
    assert (list(survey), survey.total) == (trace.reports, report)


def test_a_call_that_two_root_tasks_pay_for_counts_once_in_the_sum(tmp_path: Path, write_trace: WriteTrace) -> None:
    shared = CallSettled(at=1.0, call="c", tasks=("a", "b"), kind="model", name="m", outcome="ok", cost=7)
    files = [[TaskOpened(at=0.0, task=task), shared] for task in "ab"]
    for target in ("traces", "run.jsonl"):  # a folder holds it in the file of either task
        trace = Trace.load(write_trace(tmp_path / target, *files))
        assert [report.cost for report in trace.reports] == [Decimal("7E-9")] * 2
        assert trace.report.cost == Decimal("7E-9")
        assert trace.report.model_calls == 1


def test_a_copied_file_counts_once(tmp_path: Path, write_trace: WriteTrace, task_events: TaskEvents) -> None:
    folder = write_trace(tmp_path / "traces", task_events("a"))
    once = Trace.load(folder).report
    (folder / "copy.jsonl.gz").write_bytes(gzip.compress((folder / "file-0.jsonl").read_bytes()))
    twice = Trace.load(folder).report
    assert (twice.cost, twice.model_calls, twice.presumed) == (once.cost, once.model_calls, once.presumed)


def test_a_trace_without_any_task_is_empty_but_no_error(tmp_path: Path, header: TraceOpened) -> None:
    (tmp_path / "run.jsonl").write_bytes(encode([header]))
    trace = exhaust(tmp_path / "run.jsonl")
    assert not trace.tasks
    assert not trace.report.cost
    assert trace.report.coverage is None
    assert repr(trace).endswith("1 events, 0 tasks, 0 problems>")
    assert trace._repr_html_() == trace.report._repr_html_()
