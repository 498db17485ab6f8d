from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate
import pytest

from agentbudget.domain.budget import Limit
from agentbudget.errors import ConfigurationError
from agentbudget.finops.exports.aws import to_aws_budget
from agentbudget.finops.exports.cloudzero import billing_drops, export_cbf
from agentbudget.finops.exports.lines import Level
from agentbudget.finops.history import History
from tests.finops.traces import DAY, START, called, opened, write


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    events = [*opened("t", name="triage", feature="support", team="cx")]
    for number, day in enumerate((0, 0, 1, 30)):
        events += called(f"c{number}", "t", at=START + day * DAY, cost=350_000 + number)
    return write(tmp_path / "t.jsonl", events)


def test_a_cbf_file_has_its_required_columns_and_adds_up(tmp_path: Path, trace: Path) -> None:
    with History.open(trace) as history:
        export_cbf(history, tmp_path / "cbf.csv", account="acme")
    with (tmp_path / "cbf.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(Decimal(row["cost/cost"]) for row in rows) == Decimal("0.001400006")
    assert {row["time/usage_start"] for row in rows} == {
        "2026-11-01T00:00:00Z",
        "2026-11-02T00:00:00Z",
        "2026-12-01T00:00:00Z",
    }
    assert all(row["resource/id"] and row["resource/tag:feature"] == "support" for row in rows)
    assert len({row["lineitem/id"] for row in rows}) == len(rows)


def test_a_drop_a_month_with_numbers_as_plain_decimal_text(trace: Path) -> None:
    with History.open(trace) as history:
        drops = list(billing_drops(history, account="acme"))
    assert [(drop["month"], drop["operation"]) for drop in drops] == [
        ("2026-11", "replace_drop"),
        ("2026-12", "replace_drop"),
    ]
    values = [value for drop in drops for row in drop["data"] for value in row.values()]
    assert all(isinstance(value, str) for value in values)
    costs = [Decimal(row["cost/cost"]) for drop in drops for row in drop["data"]]
    assert sum(costs) == Decimal("0.001400006")
    assert not any("E" in row["cost/cost"] for drop in drops for row in drop["data"])


def validated(parameters: dict[str, Any]) -> str:
    """What the model of AWS's API, as its own client ships it, has against *parameters*."""
    loader = botocore.loaders.Loader()
    model = botocore.model.ServiceModel(loader.load_service_model("budgets", "service-2"))
    shape = model.operation_model("CreateBudget").input_shape
    report: str = botocore.validate.ParamValidator().validate(parameters, shape).generate_report()
    return report


@pytest.mark.parametrize("emails", [(), ("a@example.com", "b@example.com")])
def test_the_model_of_the_api_takes_the_budget(emails: tuple[str, ...]) -> None:
    limit = Limit("cost", "$200.50", scope="team", window="month", alert_at=("50%", "90%"))
    told = to_aws_budget(limit, account="123456789012", name="cx", tag="team", value="cx", emails=emails)
    assert validated(told) == ""
    assert told["Budget"]["BudgetLimit"] == {"Amount": "200.5", "Unit": "USD"}
    shares = [entry["Notification"]["Threshold"] for entry in told.get("NotificationsWithSubscribers", [])]
    assert shares == ([50.0, 90.0, 100.0] if emails else [])


def test_the_model_would_see_a_mistake() -> None:
    told = to_aws_budget(
        Limit("cost", 1, scope="team", window="day"), account="123456789012", name="x", tag="team", value="cx"
    )
    del told["Budget"]["BudgetType"]
    assert "BudgetType" in validated(told)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (Limit("model_calls", 5, scope="team", window="month"), "of money"),
        (Limit("cost", 5, scope="team", window="hour"), "by day or month"),
    ],
)
def test_a_limit_that_aws_cannot_hold_is_refused(limit: Limit, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        to_aws_budget(limit, account="1", name="x", tag="team", value="cx")


@pytest.mark.parametrize("level", ["call", "day"])
def test_values_that_a_spreadsheet_would_run_are_told_as_text_and_no_line_takes_the_id_of_another(
    tmp_path: Path, level: Level
) -> None:
    events = opened("t", name="a", feature="=1+1", team="-x")
    events += [*called("a", "t", agent="b|c"), *called("b", "t", agent="b"), *called("c", "t"), *called("d", "t")]
    for number, (name, agent) in enumerate((("", "x"), ("x", ""), ("c|b", "b"), ("b", "c|b"))):
        events += [*opened(f"t{number}", name=name)[1:], *called(f"n{number}", f"t{number}", agent=agent)]
    with History.open(write(tmp_path / "t.jsonl", events)) as history:
        export_cbf(history, tmp_path / "cbf.csv", account="@acme", level=level)
    with (tmp_path / "cbf.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(Decimal(row["cost/cost"]) for row in rows) == Decimal("0.008")
    assert {row["resource/tag:feature"] for row in rows} == {"'=1+1", ""}
    assert {row["resource/account"] for row in rows} == {"'@acme"}
    assert len({row["lineitem/id"] for row in rows}) == len(rows)
