"""Importers: foreign records become events, bad ones are told by file, line and reason."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import agentbudget as ab
from agentbudget.errors import ConfigurationError, TraceError
from agentbudget.replay import importers
from agentbudget.replay.importers import convert, grouping, read_any
from agentbudget.replay.importers.build import Attempt, closed, opened
from agentbudget.replay.whatif import replay
from agentbudget.trace.events import CallReserved, CallSettled, Discrepancy, Event, OutcomeRecorded, TaskOpened
from agentbudget.trace.files import Problem


def lines(path: Path, *rows: object) -> Path:
    """*rows* as JSON Lines; strings are written as they are."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path: Path, **options: Any) -> tuple[list[Event], list[Problem]]:
    """All events, and what was skipped."""
    problems: list[Problem] = []
    return list(read_any(path, on_problem=problems.append, **options)), problems


def settled(events: list[Event]) -> list[CallSettled]:
    return [event for event in events if isinstance(event, CallSettled)]


TRAJECTORY = {"type": "trajectory", "traj_id": "r1", "source": "bench", "success": True, "cost": 0.03, "model": "m"}
MODEL = {"type": "step", "traj_id": "r1", "step": 0, "kind": "model", "name": "m", "tokens_in": 100, "tokens_out": 5}
TOOL = {"type": "step", "traj_id": "r1", "step": 1, "kind": "tool", "name": "bash", "args_hash": "a", "error": True}


def test_neutral_rows_keep_their_costs_and_the_rest_of_the_total(tmp_path: Path) -> None:
    events, problems = read(lines(tmp_path / "r.jsonl", TRAJECTORY, {**MODEL, "cost": 0.01}, TOOL))
    assert problems == []
    model, tool, rest = settled(events)
    assert (model.cost, model.usage) == (10_000_000, {"input_tokens": 100, "output_tokens": 5})
    assert (tool.name, tool.error, tool.cost) == ("bash", "error", 0)
    assert (rest.name, rest.cost, rest.source) == ("unrecorded", 20_000_000, "estimated")
    assert [event.ok for event in events if isinstance(event, OutcomeRecorded)] == [True]


def test_a_bad_record_is_told_by_file_line_and_reason_and_skipped(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "r.jsonl", TRAJECTORY, "{broken", {**MODEL, "tokens_in": -1}, {**MODEL, "traj_id": "r9"}, "7", MODEL
    )
    events, problems = read(path)
    assert len(settled(events)) == 2
    assert [(problem.path, problem.line) for problem in problems] == [(str(path), line) for line in (2, 3, 4, 5)]
    assert "not JSON" in problems[0].reason
    assert "-1" in problems[1].reason
    assert "r9" in problems[2].reason


def test_skipped_records_are_warned_about_where_nobody_listens(tmp_path: Path) -> None:
    with pytest.warns(ab.BudgetWarning, match="1 records"):
        list(read_any(lines(tmp_path / "r.jsonl", TRAJECTORY, "{broken", MODEL)))


def test_an_imported_trace_converts_loads_and_replays(tmp_path: Path) -> None:
    source = lines(tmp_path / "r.jsonl", TRAJECTORY, {**MODEL, "cost": 0.01}, {**MODEL, "cost": 0.02})
    assert convert(source, tmp_path / "own.jsonl") == 7
    trace = ab.Trace.load(tmp_path / "own.jsonl")
    assert trace.report.cost == Decimal("0.03")
    assert trace.report.ok is True
    assert trace.replay().cost == Decimal("0.03")
    assert replay(trace, budget=ab.Budget(max_cost="$0.02")).cost == Decimal("0.01")


def test_gzip_and_one_document_are_read_as_lines_are(tmp_path: Path) -> None:
    rows = [TRAJECTORY, MODEL, TOOL]
    packed, document = tmp_path / "r.jsonl.gz", tmp_path / "r.json"
    packed.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    document.write_text(json.dumps(rows, indent=1))
    assert read(packed) == read(document) == read(lines(tmp_path / "r.jsonl", *rows))


def test_damaged_gzip_keeps_what_lies_before_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl.gz"
    rows = [TRAJECTORY, *[{**MODEL, "noise": str(number) * 50} for number in range(5000)]]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode())[:-2000])
    events, problems = read(path)
    assert len(settled(events)) > 100
    assert "gzip" in problems[-1].reason


def test_what_is_no_trace_is_an_error_that_names_the_formats(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no known format"):
        read(lines(tmp_path / "r.jsonl", {"hello": 1}))
    with pytest.raises(TraceError, match="it is empty"):
        read(lines(tmp_path / "empty.jsonl"))
    with pytest.raises(ConfigurationError, match="neutral"):
        read(tmp_path / "r.jsonl", format="csv")


def span(number: int, operation: str, **attributes: Any) -> dict[str, Any]:
    """A span as OTLP JSON writes it: integers are strings."""
    written = [
        {
            "key": key.replace("__", "."),
            "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value},
        }
        for key, value in {"gen_ai__operation__name": operation, **attributes}.items()
    ]  # fmt: skip
    return {
        "traceId": "t1", "spanId": f"s{number}", "parentSpanId": "s0", "name": operation,
        "startTimeUnixNano": str(1_767_225_600_000_000_000 + number * 10**9),
        "endTimeUnixNano": str(1_767_225_601_000_000_000 + number * 10**9), "attributes": written,
    }  # fmt: skip


def export(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


USAGE: dict[str, Any] = {
    "gen_ai__request__model": "gpt-4o", "gen_ai__provider__name": "openai",
    "gen_ai__usage__input_tokens": 1000, "gen_ai__usage__output_tokens": 100,
    "gen_ai__usage__cache_read__input_tokens": 400,
}  # fmt: skip


def test_opentelemetry_counts_leaves_only_and_prices_their_usage(tmp_path: Path) -> None:
    agent: dict[str, Any] = {
        "gen_ai__usage__input_tokens": 9999,
        "gen_ai__agent__name": "writer",
        "gen_ai__request__model": "gpt-4o",
    }
    root = {**span(0, "invoke_agent", **agent), "parentSpanId": ""}
    path = lines(
        tmp_path / "spans.jsonl",
        export(span(3, "execute_tool", gen_ai__tool__name="search"), span(1, "chat", **USAGE)),
        export(root),
    )
    events, problems = read(path)
    assert problems == []
    model, tool = settled(events)
    assert (model.name, model.cost, model.priced) == ("gpt-4o", 3_000_000, True)
    assert (tool.kind, tool.name) == ("tool", "search")
    assert [event.name for event in events if isinstance(event, TaskOpened)] == ["writer"]


def test_opentelemetry_spans_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    broken = {**span(1, "chat", **USAGE), "startTimeUnixNano": "soon"}
    events, problems = read(lines(tmp_path / "spans.jsonl", export(span(2, "chat", **USAGE), broken)))
    assert len(settled(events)) == 1
    assert [problem.line for problem in problems] == [1]


def test_a_call_without_usage_is_unpriced_and_not_free(tmp_path: Path) -> None:
    events, _ = read(lines(tmp_path / "s.jsonl", export(span(1, "chat", gen_ai__request__model="gpt-4o"))))
    (call,) = settled(events)
    assert (call.priced, call.source) == (False, "none")


def smith(number: int, kind: str, **more: object) -> dict[str, Any]:
    return {
        "id": f"run{number}", "trace_id": "run0", "parent_run_id": "run0" if number else None, "run_type": kind,
        "name": f"step{number}", "start_time": f"2026-01-01T00:00:0{number}",
        "end_time": f"2026-01-01T00:00:0{number}.5", **more,
    }  # fmt: skip


def test_langsmith_runs_in_any_order_become_one_task_in_the_order_of_time(tmp_path: Path) -> None:
    metadata = {"metadata": {"ls_model_name": "gpt-4o", "ls_provider": "openai"}}
    message = {
        "kwargs": {
            "usage_metadata": {"input_tokens": 1000, "output_tokens": 100, "input_token_details": {"cache_read": 400}}
        }
    }
    rows = [
        smith(3, "llm", extra=metadata, prompt_tokens=1000, completion_tokens=100, total_cost=0.5),
        smith(2, "tool", name="search", error="ValueError('x')"),
        smith(1, "llm", extra=metadata, outputs={"generations": [[{"message": message}], []]}),
        smith(0, "chain", name="agent", extra={"metadata": {"success": True}}),
        smith(1, "llm", extra=metadata, outputs={"generations": [[{"message": message}]]}),
        {"id": "bad", "run_type": "llm"},
    ]
    events, problems = read(lines(tmp_path / "runs.jsonl", *rows))
    assert [problem.line for problem in problems] == [6]
    first, tool, last = settled(events)
    assert (first.cost, first.usage["cache_read_tokens"]) == (3_000_000, 400)
    assert (tool.name, tool.error) == ("search", "ValueError")
    assert last.cost == 500_000_000, "what was recorded wins over the price data"
    assert [event.name for event in events if isinstance(event, TaskOpened)] == ["agent"]
    assert [event.ok for event in events if isinstance(event, OutcomeRecorded)] == [True]


def test_spans_are_kept_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "MAX_SPANS", 2)
    rows = [{**smith(number, "tool"), "trace_id": f"t{number // 2}"} for number in (0, 1, 2, 3, 1)]
    events, problems = read(lines(tmp_path / "runs.jsonl", *rows))
    assert [event.task for event in events if isinstance(event, TaskOpened)] == ["t0", "t1", "t0#2"]
    assert "taken as complete" in problems[0].reason


def answer(message_id: str, output: int, *blocks: Mapping[str, object], parent: str | None = None) -> dict[str, Any]:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 1000,
        "cache_creation_input_tokens": 0,
        "output_tokens": output,
    }
    message = {"id": message_id, "model": "claude-sonnet-4-5", "usage": usage, "content": list(blocks)}
    return {"type": "assistant", "session_id": "s", "message": message, "parent_tool_use_id": parent}


RESULT = {
    "type": "result", "session_id": "s", "is_error": False, "duration_ms": 9000, "total_cost_usd": 0.05,
    "usage": {"input_tokens": 1, "output_tokens": 1},
    "modelUsage": {
        "claude-sonnet-4-5": {
            "inputTokens": 20, "outputTokens": 300, "cacheReadInputTokens": 2000, "cacheCreationInputTokens": 50,
            "costUSD": 0.04,
        },
        "claude-haiku-4-5": {"inputTokens": 500, "outputTokens": 40, "costUSD": 0.01},
    },
}  # fmt: skip


def test_claude_code_counts_a_message_once_and_ends_at_the_recorded_total(tmp_path: Path) -> None:
    tool = {"type": "tool_use", "id": "tu1", "name": "Bash"}
    ended = {"type": "user", "session_id": "s", "message": {"content": [{"type": "tool_result", "tool_use_id": "tu1"}]}}
    rows = [
        {"type": "system", "subtype": "init", "session_id": "s"},
        answer("m1", 100, {"type": "text"}), answer("m1", 3, tool), ended, answer("m2", 50), RESULT,
    ]  # fmt: skip
    events, problems = read(lines(tmp_path / "cc.jsonl", *rows))
    assert problems == []
    calls = settled(events)
    assert [(call.name, call.agent) for call in calls] == [
        ("claude-sonnet-4-5", "main"), ("Bash", ""), ("claude-sonnet-4-5", "main"),
        ("claude-sonnet-4-5", "unseen"), ("claude-haiku-4-5", "unseen"),
    ]  # fmt: skip
    assert calls[0].usage["output_tokens"] == 100, "some blocks know only the beginning"
    assert sum(call.cost for call in calls) == 50_000_000
    assert sum(call.usage.get("output_tokens", 0) for call in calls) == 340
    assert any(isinstance(event, Discrepancy) for event in events)


def test_claude_code_messages_dearer_than_the_result_are_fitted_to_it(tmp_path: Path) -> None:
    result = {**RESULT, "total_cost_usd": 0.0001, "modelUsage": {"claude-sonnet-4-5": {"costUSD": 0.0001}}}
    events, _ = read(lines(tmp_path / "cc.jsonl", answer("m1", 900), answer("m2", 900), result))
    assert sum(call.cost for call in settled(events)) == 100_000


def test_a_session_without_a_result_is_told(tmp_path: Path) -> None:
    events, problems = read(lines(tmp_path / "cc.jsonl", answer("m1", 10)))
    assert len(settled(events)) == 1
    assert "no result" in problems[0].reason


def test_another_importer_is_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine:
        name = "mine"

        def recognizes(self, record: Mapping[str, Any]) -> bool:
            return "mine" in record

        def events(self, records: Iterator[importers.Record], tell: importers.Tell) -> Iterator[Event]:
            for line, row in records:
                yield opened(f"t{line}", "mine", 0.0)
                yield from Attempt(
                    id=f"c{line}", task=f"t{line}", kind="model", name="m", at=0.0, cost=row["mine"]
                ).events()
                yield from closed(f"t{line}", 1.0, cost=row["mine"])

    monkeypatch.setattr(importers, "_IMPORTERS", dict(importers._IMPORTERS))
    importers.register(Mine())
    events, _ = read(lines(tmp_path / "m.jsonl", {"mine": 5}, {"mine": 7}))
    assert [call.cost for call in settled(events)] == [5, 7]
    assert importers.formats()[-1] == "mine"


def test_every_recorded_data_set_is_read_without_a_problem(trajectories: Path) -> None:
    for path in sorted(trajectories.glob("*.jsonl.gz")):
        problems: list[Problem] = []
        reserved = ended = 0
        for event in read_any(path, on_problem=problems.append):
            reserved += isinstance(event, CallReserved)
            ended += isinstance(event, CallSettled)
        assert problems == [], path.name
        assert reserved == ended > 300, path.name
