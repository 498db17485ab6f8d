"""The writer: whole lines, nothing lost silently, and no failure that reaches the agent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from agentbudget.errors import BudgetWarning, ConfigurationError
from agentbudget.trace.events import (
    SCHEMA,
    CallReserved,
    CallSettled,
    Discrepancy,
    Event,
    TaskOpened,
    TaskResumed,
    TraceOpened,
)
from agentbudget.trace.reader import Trace
from agentbudget.trace.writer import MAX_OPEN_FILES, TraceWriter, encode, stem

TaskEvents = Callable[..., list[Event]]

_WRITE_FOREVER = """
import sys
from agentbudget.trace.events import TaskResumed, TraceOpened
from agentbudget.trace.writer import TraceWriter
writer = TraceWriter(sys.argv[1], header=TraceOpened(at=1.0, schema=1, version="0"))
sys.stdin.readline()
number = 0
while number < int(sys.argv[2]):
    writer.write("f", [TaskResumed(at=float(number), task=sys.argv[3] + "x" * 400)])
    number += 1
    if number == 100:
        print("ready", flush=True)
"""


def lines(path: Path) -> list[dict[str, object]]:
    text = path.read_bytes()
    assert text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def start_writing(target: Path, count: int, task: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITE_FOREVER, str(target), str(count), task],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def wait_for_header(target: Path, count: int) -> None:
    while not target.exists() or target.read_bytes().count(b"trace_opened") < count:
        threading.Event().wait(0.01)


# -- where it writes ----------------------------------------------------------------------------------------------


def test_a_target_ending_in_jsonl_is_one_file_that_starts_with_the_header(
    tmp_path: Path, header: TraceOpened, task_events: TaskEvents
) -> None:
    target = tmp_path / "new" / "run.jsonl"
    writer = TraceWriter(target, header=header)
    writer.write("ignored", task_events("a"))
    writer.release("ignored")
    writer.write("too", task_events("b"))
    assert writer.path("ignored") == target
    assert [line["event"] for line in lines(target)].count("trace_opened") == 1
    assert lines(target)[0]["event"] == "trace_opened"
    assert Trace.load(target).tasks == ["a", "b"]


def test_any_other_target_is_a_folder_with_a_file_for_each_root_task(
    tmp_path: Path, header: TraceOpened, task_events: TaskEvents
) -> None:
    writer = TraceWriter(tmp_path / "traces", header=header)
    names = [stem("a", "first", 0.0), stem("b", "second", 0.0)]
    for name in names:
        writer.write(name, task_events(name))
    assert set((tmp_path / "traces").iterdir()) == {writer.path(name) for name in names}
    assert all(lines(writer.path(name))[0]["event"] == "trace_opened" for name in names)


@pytest.mark.parametrize("target", ["", 3, None])
def test_a_target_that_is_no_path_is_refused_at_construction(target: object, header: TraceOpened) -> None:
    with pytest.raises(ConfigurationError, match=r"a folder, or a file ending in \.jsonl"):
        TraceWriter(target, header=header)  # type: ignore[arg-type]  # what a user may try


def test_an_unwritable_target_is_refused_at_construction_by_what_where_and_what_to_do(
    tmp_path: Path, header: TraceOpened
) -> None:
    (tmp_path / "file").write_text("no folder")
    for target in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "file" / "run.jsonl"):
        with pytest.raises(ConfigurationError, match=r"cannot write there .*Name a folder") as refusal:
            TraceWriter(target, header=header)
        assert str(target) in str(refusal.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_found_at_construction_by_a_real_write(tmp_path: Path, header: TraceOpened) -> None:
    (tmp_path / "run.jsonl").symlink_to("/dev/full")
    with pytest.raises(ConfigurationError, match="No space left"):
        TraceWriter(tmp_path / "run.jsonl", header=header)


def test_the_probe_leaves_nothing_in_the_folder(tmp_path: Path, header: TraceOpened) -> None:
    TraceWriter(tmp_path, header=header)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_trace_with_full_content_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "run.jsonl", header=TraceOpened(at=0.0, schema=SCHEMA, version="0", content="full"))
    assert writer.path("").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "\x00", "é\u202e", "", "x" * 500, "C:\\con"])
@pytest.mark.parametrize("task_id", ["plain", "../up", "a/b", "\x00", "i" * 300, "\ud800"])
def test_a_stem_is_a_plain_file_name_whatever_the_task_is_called(
    tmp_path: Path, header: TraceOpened, task_id: str, name: str
) -> None:
    file = TraceWriter(tmp_path, header=header).path(stem(task_id, name, 1e300))
    assert file.parent == tmp_path
    file.touch()


def test_stems_of_different_ids_differ_even_where_they_look_alike_made_safe() -> None:
    ids = ["a/b", "a.b", "a b", "a-b", "a" * 200, "a" * 201]
    assert len({stem(task_id, "n", 0.0) for task_id in ids}) == len(ids)


def test_a_file_name_that_leaves_the_folder_is_refused(tmp_path: Path, header: TraceOpened) -> None:
    with pytest.raises(ValueError, match=r"use stem\(\)"):
        TraceWriter(tmp_path / "traces", header=header).path("../elsewhere")


# -- whole lines --------------------------------------------------------------------------------------------------


def test_all_events_of_a_write_are_one_system_call(
    tmp_path: Path, header: TraceOpened, task_events: TaskEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = TraceWriter(tmp_path, header=header)
    sizes: list[int] = []
    real = os.write

    def counted(descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", counted)
    writer.write("f", task_events())
    writer.write("f", task_events())
    assert len(sizes) == 2
    assert sum(sizes) == writer.path("f").stat().st_size


def test_threads_write_only_whole_lines_and_lose_none(tmp_path: Path, header: TraceOpened) -> None:
    writer = TraceWriter(tmp_path / "run.jsonl", header=header)

    def work(name: str) -> None:
        for number in range(300):
            writer.write("f", [TaskResumed(at=float(number), task=name * (number % 50 + 1))] * (number % 3 + 1))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(tmp_path / "run.jsonl")) == 1 + 6 * 600


def test_threads_over_more_files_than_may_be_open_write_each_line_to_its_file(
    tmp_path: Path, header: TraceOpened, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = TraceWriter(tmp_path, header=header)
    real = os.write

    def slow(descriptor: int, data: bytes) -> int:
        time.sleep(0)  # others may close the file or open it twice just now
        return real(descriptor, data)

    def work(offset: int) -> None:
        for number in range(600):
            file = f"f{(number + offset) % 8}"
            writer.write(file, [TaskResumed(at=0.0, task=file)])

    monkeypatch.setattr("agentbudget.trace.writer.MAX_OPEN_FILES", 2)
    monkeypatch.setattr(os, "write", slow)
    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = [line.get("task", path.stem) for path in tmp_path.iterdir() for line in lines(path)]
    places = [path.stem for path in tmp_path.iterdir() for _ in lines(path)]
    assert written == places
    assert (writer.failures, len(places)) == (0, 8 + 6 * 600)


def test_two_processes_append_to_one_file_without_mixing_lines(tmp_path: Path) -> None:
    target = tmp_path / "run.jsonl"
    with start_writing(target, 5000, "a") as first, start_writing(target, 5000, "b") as second:
        wait_for_header(target, 2)  # both are ready: from here on they write at the same time
        go(first)
        go(second)
        assert [first.wait(60), second.wait(60)] == [0, 0]
    written = [str(line.get("task"))[0] for line in lines(target) if line["event"] == "task_resumed"]
    assert (written.count("a"), written.count("b")) == (5000, 5000)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_process_loses_at_most_the_last_line(tmp_path: Path) -> None:
    target = tmp_path / "run.jsonl"
    with start_writing(target, 10**9, "a") as process:
        assert process.stdout is not None
        go(process)
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    trace = Trace.load(target)
    resumed = [event.at for event in trace.events if isinstance(event, TaskResumed)]
    assert len(resumed) >= 100
    assert resumed == [float(number) for number in range(len(resumed))]
    assert len(trace.problems) <= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_on_even_where_the_lock_was_held(
    tmp_path: Path, header: TraceOpened, task_events: TaskEvents
) -> None:
    writer = TraceWriter(tmp_path, header=header)
    writer.write("f", task_events("parent"))
    with warnings.catch_warnings(), writer._lock:
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            writer.write("f", task_events("child"))
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    writer.write("f", task_events("after"))
    assert Trace.load(tmp_path).tasks == ["parent", "child", "after"]


def test_a_torn_last_line_stays_one_bad_line_when_the_file_is_continued(
    tmp_path: Path, header: TraceOpened, task_events: TaskEvents
) -> None:
    target = tmp_path / "run.jsonl"
    TraceWriter(target, header=header).write("", task_events("a"))
    whole = target.read_bytes()
    target.write_bytes(whole[:-20])
    TraceWriter(target, header=header).write("", task_events("b"))
    trace = Trace.load(target)
    assert trace.tasks == ["a", "b"]
    assert sum(isinstance(event, TraceOpened) for event in trace.events) == 2
    assert [problem.line for problem in trace.problems] == [whole.count(b"\n")]
    assert trace.reports[1].cost * 10**9 == 3000


# -- many files ---------------------------------------------------------------------------------------------------


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_at_most_64_files_are_open_and_each_has_one_header_however_often_it_is_reopened(
    tmp_path: Path, header: TraceOpened
) -> None:
    writer = TraceWriter(tmp_path, header=header)
    before = open_descriptors()
    for turn in range(3):
        for number in range(2 * MAX_OPEN_FILES):
            writer.write(f"f{number}", [TaskResumed(at=float(turn), task="t")])
    assert open_descriptors() - before == MAX_OPEN_FILES
    for number in range(2 * MAX_OPEN_FILES):
        events = [line["event"] for line in lines(writer.path(f"f{number}"))]
        assert events == ["trace_opened"] + ["task_resumed"] * 3
    writer.close()
    assert open_descriptors() == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_a_released_file_is_closed_and_forgotten_but_can_be_written_again(
    tmp_path: Path, header: TraceOpened, task_events: TaskEvents
) -> None:
    writer = TraceWriter(tmp_path, header=header)
    before = open_descriptors()
    writer.write("f", task_events("a"))
    writer.release("f")
    writer.release("never opened")
    assert open_descriptors() == before
    assert not writer._begun
    writer.write("f", task_events("late"))
    writer.close()
    writer.close()
    writer.write("f", task_events("later"))
    assert Trace.load(tmp_path).tasks == ["a", "late", "later"]


# -- failures -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_is_counted_warned_of_once_and_noted_in_the_file_afterwards(
    tmp_path: Path, header: TraceOpened, task_events: TaskEvents, caplog: pytest.LogCaptureFixture
) -> None:
    writer = TraceWriter(tmp_path, header=header)
    (tmp_path / "f.jsonl").symlink_to("/dev/full")
    events = task_events("t")
    with pytest.warns(BudgetWarning, match="No space left.*The agent goes on"):
        writer.write("f", events[:2])
    writer.write("f", events[2:4])  # a second warning would be an error here
    assert (len(caplog.records), writer.failures) == (1, 4)
    (tmp_path / "f.jsonl").unlink()
    writer.close()
    writer.write("f", events[4:])
    trace = Trace.load(tmp_path)
    assert isinstance(trace.events[0], TraceOpened)
    notes = [event for event in trace.events if isinstance(event, Discrepancy)]
    assert [(note.kind, note.tasks, note.detail[:8]) for note in notes] == [("trace_lost", ("t",), "4 events")]
    assert [entry["kind"] for entry in trace.report.discrepancies] == ["trace_lost", "incomplete"]


@pytest.mark.parametrize("size", [1, 50, 300, 699, 700, 701])
def test_a_write_that_is_cut_short_leaves_at_most_one_bad_line_and_counts_only_what_is_missing(
    tmp_path: Path, header: TraceOpened, task_events: TaskEvents, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    writer = TraceWriter(tmp_path / "run.jsonl", header=header)
    events, real, room = task_events(), os.write, [size]

    def full_soon(fd: int, data: bytes) -> int:
        taken = real(fd, data[: room[0]])
        room[0] -= taken
        if not taken:
            raise OSError(28, "No space left on device")
        return taken

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full_soon)
        with pytest.warns(BudgetWarning, match="No space left"):
            writer.write("", events)
    left = (tmp_path / "run.jsonl").read_bytes()
    whole = sum(encode([event])[:-1] in left for event in events)
    assert writer.failures == len(events) - whole > 0
    writer.write("", [TaskOpened(at=0.0, task="next")])
    trace = Trace.load(tmp_path / "run.jsonl")
    assert len(trace) == 1 + whole + 2
    assert len(trace.problems) == left.count(b"\n") + (not left.endswith(b"\n")) - 1 - whole
    assert trace.tasks == ["t1", "next"]
    assert sum(isinstance(event, Discrepancy) for event in trace.events) == 1


def test_a_short_write_is_continued(
    tmp_path: Path, header: TraceOpened, task_events: TaskEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = TraceWriter(tmp_path / "run.jsonl", header=header)
    real = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
        writer.write("", task_events())
    assert writer.failures == 0
    assert len(lines(tmp_path / "run.jsonl")) == 1 + len(task_events())


def test_a_failure_never_raises_even_where_warnings_are_errors(
    tmp_path: Path, header: TraceOpened, task_events: TaskEvents
) -> None:
    writer = TraceWriter(tmp_path / "traces", header=header)
    (tmp_path / "traces").rmdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writer.write("f", task_events())
        writer.write("../no name for a file", task_events())
    assert writer.failures == 2 * len(task_events())


class Hostile:
    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    "content",
    [object(), Hostile(), "\ud800", {("a", 1): 2}, float("nan"), 10**5000],
    ids=["object", "hostile", "surrogate", "key", "nan", "huge"],
)
def test_content_that_is_not_json_is_written_as_best_it_can(
    tmp_path: Path, header: TraceOpened, content: object
) -> None:
    writer = TraceWriter(tmp_path / "run.jsonl", header=header)
    call = CallReserved(at=1.0, call="c", tasks=("t",), kind="tool", name="search", content=content)
    writer.write("", [call, TaskResumed(at=2.0, task="t")])
    trace = Trace.load(tmp_path / "run.jsonl")
    assert not trace.problems
    assert [type(event).__name__ for event in trace.events] == ["TraceOpened", "CallReserved", "TaskResumed"]


def test_names_cannot_break_a_line_or_steer_a_terminal(tmp_path: Path, header: TraceOpened) -> None:
    name = 'a\nb\r\x1b[31m\x9b2J\u202e\u2028\u200b"\\ é 検 \U0001f600'
    writer = TraceWriter(tmp_path / "run.jsonl", header=header)
    settled = CallSettled(at=0.0, call="c", tasks=("t",), kind="tool", name=name, outcome="ok")
    writer.write("", [settled])
    text = (tmp_path / "run.jsonl").read_text(encoding="utf-8")
    assert all(line.isprintable() for line in text.split("\n"))
    assert "é 検 \U0001f600" in text
    assert Trace.load(tmp_path / "run.jsonl").events[1] == settled


def test_an_empty_write_writes_nothing(tmp_path: Path, header: TraceOpened) -> None:
    TraceWriter(tmp_path, header=header).write("f", [])
    assert not list(tmp_path.iterdir())


# -- the event loop -----------------------------------------------------------------------------------------------


async def test_writing_on_an_event_loop_is_not_blocking_io(
    tmp_path: Path, header: TraceOpened, task_events: TaskEvents
) -> None:
    writer = TraceWriter(tmp_path, header=header)
    with blockbuster_ctx():
        for number in range(3):
            writer.write(f"f{number}", task_events())
            await asyncio.sleep(0)
            writer.release(f"f{number}")
        with pytest.raises(Exception, match="Blocking call"):
            time.sleep(0.001)  # noqa: ASYNC251 - the guard is awake
    assert writer.failures == 0
    assert Trace.load(tmp_path).tasks == ["t1"]
