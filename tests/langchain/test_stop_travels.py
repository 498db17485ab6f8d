"""A stop that crosses a process says there what it said here."""

from __future__ import annotations

import pickle
from decimal import Decimal

import pytest

import agentbudget as ab
from tests.langchain.actors import CALL, scripted


def _stopped(governor: ab.Governor) -> ab.BudgetExceeded:
    with ab.task("t", max_model_calls=1, governor=governor):
        model = scripted()
        model.invoke("one")
        with pytest.raises(ab.BudgetExceeded) as stopped:
            model.invoke("two")
    return stopped.value


def test_a_pickled_stop_keeps_the_report_of_its_task(governor: ab.Governor) -> None:
    stop = _stopped(governor)
    copied = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(stop))))
    assert (str(copied), copied.stop, copied.report) == (str(stop), stop.stop, stop.report)
    assert isinstance(copied.report, ab.TaskReport)
    assert (copied.report.cost, copied.report.model_calls) == (CALL, 1)


def test_a_stop_without_a_task_reports_itself() -> None:
    stop = ab.BudgetExceeded(ab.StopReport(limit="max_cost", meter="cost", limit_amount=5, call="model m"))
    assert pickle.loads(pickle.dumps(stop)).report == stop.stop


def test_the_report_of_a_stop_is_the_task_as_of_now(governor: ab.Governor) -> None:
    stop = _stopped(governor)
    assert isinstance(stop.report, ab.TaskReport)
    assert (stop.report.status, stop.report.reserved) == ("stopped", Decimal(0))
