"""`agentbudget report --html`: the page beside the printed report."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbudget.cli import main
from agentbudget.reports import material, page, write_page
from agentbudget.trace.reader import Trace
from agentbudget.trace.writer import encode
from tests.reports.samples import HEADER, everything, long_trace, small


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A trace file."""
    file = tmp_path / "run.jsonl"
    file.write_bytes(encode(everything()))
    return file


def test_the_page_is_written_and_the_report_printed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run), "--html", str(tmp_path / "out.html")]) == 0
    assert (tmp_path / "out.html").read_text(encoding="utf-8") == page(run)
    assert "resolve-ticket (t): stopped" in capsys.readouterr().out


def test_a_folder_becomes_a_page_of_its_tasks(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_bytes(encode([HEADER, *small("other")]))
    html = page(tmp_path)
    assert "2 tasks of" in html
    assert 'id="tasks"' in html
    assert 'id="timeline"' not in html


def test_of_many_tasks_the_dearest_are_listed_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(material, "MAX_TASKS", 3)
    for number in range(5):
        (tmp_path / f"{number}.jsonl").write_bytes(encode([HEADER, *small(f"task-{number}", cost=10_000_000 * number)]))
    for source in (tmp_path, Trace.load(tmp_path)):
        html = page(source)
        assert [html.index(f"<td>task-{number}</td>") for number in (4, 3, 2)] == sorted(
            html.index(f"<td>task-{number}</td>") for number in (2, 3, 4)
        )
        assert "<td>task-1</td>" not in html
        assert "Tasks, the dearest first: 3; 2 more are in the totals only" in html
        assert "$0.10" in html


def test_problems_beyond_those_kept_are_counted(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "MAX_PROBLEMS", 25)
    (run.parent / "bad.jsonl").write_bytes(b"{}\n" * 40)
    (run.parent / "other.jsonl").write_bytes(encode([HEADER, *small("other")]))
    assert "and 23 more" in page(run.parent)  # 40 lines, their file, and two notes of the trace itself; 20 are listed


def test_what_could_not_be_read_is_on_the_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.write_bytes(run.read_bytes() + b'{"event": "call_se')
    assert main(["report", str(run), "--html", str(run.parent / "out.html")]) == 1
    assert "Skipped: " in (run.parent / "out.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("target", "message"),
    [("nowhere/out.html", "cannot be written (No such file"), ("run.jsonl", "would take the place of the trace")],
)
def test_a_place_where_no_page_can_be_is_a_clear_error_and_harms_nothing(
    run: Path, target: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run.read_bytes()
    assert main(["report", str(run), "--html", str(run.parent / target)]) == 2
    assert message in capsys.readouterr().err
    assert run.read_bytes() == before


def test_a_report_of_2000_calls_stays_below_2_megabytes(tmp_path: Path) -> None:
    assert write_page(long_trace(2000), tmp_path / "out.html").stat().st_size < 2_000_000


def test_what_cannot_be_shown_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="42: a Trace, a TaskReport"):
        page(42)  # type: ignore[arg-type]  # what a user may try
