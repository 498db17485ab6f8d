"""The structured log carries the same facts as the trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog
from langchain_core.messages import HumanMessage
from structlog.testing import capture_logs

import agentbudget as ab
from agentbudget.telemetry.log import LogSink
from agentbudget.testing import ScriptedChatModel, scripted_reply


def _run(governor: ab.Governor) -> None:
    model = ScriptedChatModel(script=[scripted_reply("fine", input_tokens=10, output_tokens=5)] * 3)
    with ab.task("logged", max_model_calls=1, governor=governor):
        model.invoke([HumanMessage("one")])
        with pytest.raises(ab.BudgetExceeded):
            model.invoke([HumanMessage("two")])


def test_the_log_has_every_event_of_the_trace_with_the_same_fields(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    with capture_logs() as lines:
        _run(ab.Governor(trace=file, sinks=[LogSink(structlog.get_logger())]))
    logged = json.loads(json.dumps([{key: line[key] for key in line if key != "log_level"} for line in lines]))
    traced = [json.loads(line) for line in file.read_text().splitlines()]
    assert logged == traced[1:]


def test_refusals_are_warnings_and_the_rest_is_debug() -> None:
    with capture_logs() as lines:
        _run(ab.Governor(sinks=[LogSink(structlog.get_logger())]))
    levels = {line["event"]: line["log_level"] for line in lines}
    assert levels["call_denied"] == "warning"
    assert {level for event, level in levels.items() if event != "call_denied"} == {"debug"}


def test_a_sink_that_fails_is_reported_once_and_never_reaches_the_agent() -> None:
    def broken(event: object) -> None:
        msg = "the log is full"
        raise OSError(msg)

    governor = ab.Governor(sinks=[broken])
    model = ScriptedChatModel(script=[scripted_reply("fine")])
    with pytest.warns(ab.BudgetWarning, match="the log is full") as caught, ab.task("t", governor=governor) as task:
        model.invoke([HumanMessage("one")])
    assert len(caught) == 1
    assert task.report.model_calls == 1
