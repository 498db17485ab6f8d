"""What the page of spend says, without a browser: bad records, budgets, columns, and the command that writes it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from agentbudget.cli import main
from agentbudget.errors import ConfigurationError
from agentbudget.finops.alarms.alert import Alert
from agentbudget.finops.alarms.state import AlarmState
from agentbudget.finops.compact import compact
from agentbudget.finops.dimensions import TagRules
from agentbudget.finops.history import History
from agentbudget.reports.spend import SpendView, spend_material, spend_page, write_spend_page
from tests.finops.traces import DAY, called, opened, write
from tests.reports.spend_samples import CENT, NOW, START, open_plenty, plenty, watched


def flaws_of(folder: Path, view: SpendView | None = None) -> str:
    with History.open(folder) as history:
        return "\n".join(spend_material(history, view, now=NOW).flaws)


def test_an_unpriced_call_is_said_with_what_it_would_cost(tmp_path: Path) -> None:
    usage = {"input_tokens": 900, "output_tokens": 100}
    events = [*opened("t", feature="a"), *called("c", "t", cost=CENT, usage=usage)]
    events += called("d", "t", cost=0, usage={"input_tokens": 500}, priced=False, price=None)
    events += called("e", "t", cost=9 * CENT, usage={})
    events += called("f", "t", cost=0, usage={}, priced=False, price=None)
    write(tmp_path / "t.jsonl", events)
    said = flaws_of(tmp_path)
    assert "2 model calls have no price" in said
    assert "500 tokens would be about $0.0050 (5.0% of the cost)" in said
    assert "Of 1 of them not even the tokens are known" in said


def test_where_nothing_has_a_price_the_share_is_said_to_be_unknown(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", [*opened("t"), *called("c", "t", cost=0, priced=False, price=None)])
    assert "110 tokens are cannot be known: no token is priced" in flaws_of(tmp_path)


def test_what_carried_results_cost_is_not_zero_where_no_price_is_recorded(tmp_path: Path) -> None:
    events = opened("t")
    for step in range(5):
        events += called(f"m{step}", "t", at=START + step * 10, usage={"input_tokens": 900}, price=None)
        tool: dict[str, object] = {"kind": "tool", "name": "search", "usage": {}, "price": None, "result_size": 4000}
        events += called(f"s{step}", "t", at=START + step * 10 + 5, cost=0, **tool)
    write(tmp_path / "t.jsonl", events)
    with History.open(tmp_path) as history:
        assert "no price recorded" in spend_page(history, now=NOW)


def test_estimates_missing_tags_and_contradictory_rules_are_said_with_their_share(tmp_path: Path) -> None:
    events = [*opened("t", feature="a"), *called("c", "t", cost=CENT, source="reserved")]
    events += [*opened("u")[1:], *called("d", "u", cost=3 * CENT)]
    write(tmp_path / "t.jsonl", events)
    rules = [{"tag": "feature", "value": value, "when": {"name": "job"}} for value in ("x", "y")]
    assert "$0.01 (25.0% of the cost) rest on estimated usage" in flaws_of(tmp_path)
    assert "$0.03 (75.0% of the cost) have no feature" in flaws_of(tmp_path)
    assert "No call has a user: tag tasks" in flaws_of(tmp_path, SpendView(by="user"))
    assert "contradict each other on $0.04 (100.0%" in flaws_of(tmp_path, SpendView(rules=TagRules.from_list(rules)))


def test_clocks_that_cannot_be_and_days_without_calls_are_said(tmp_path: Path) -> None:
    events = opened("t", feature="a")
    for number, at in enumerate((5.0, START, START + DAY, START + 9 * DAY, START + 900 * DAY)):
        events += called(f"c{number}", "t", at=at, cost=CENT)
    write(tmp_path / "t.jsonl", events)
    with History.open(tmp_path) as history:
        found = spend_material(history, now=NOW)
    said = "\n".join(found.flaws)
    assert "1 calls, $0.01 (20.0% of the cost), have no time" in said
    assert "1 calls, $0.01 (20.0% of the cost), are dated after" in said
    assert (
        "7 days between the first and the last call have no call, the longest stretch 2026-09-04 to 2026-09-10:" in said
    )
    assert found.total.cost == Decimal("0.05")
    assert sum(sum(costs) for _, costs in found.columns.series) == 3 * CENT
    assert (found.first, found.at) == (
        datetime.fromtimestamp(START + 1, UTC),
        datetime.fromtimestamp(START + 9 * DAY + 1, UTC),
    )


def test_columns_are_few_and_add_up_whatever_the_span(tmp_path: Path) -> None:
    for span, unit in ((1, "hour"), (30, "day"), (300, "7 days"), (3000, "364 days")):
        folder = tmp_path / str(span)
        events = opened("t", at=START - span * DAY, feature="a")
        for number in range(20):
            at = START - span * DAY + number * span * DAY / 20
            events += called(f"c{number}", "t", at=at, cost=CENT + number)
        write(folder / "t.jsonl", events)
        with History.open(folder) as history:
            found = spend_material(history, now=NOW).columns
        assert found.unit == unit
        assert len(found.starts) <= 62
        assert sum(found.series[0][1]) == 20 * CENT + 190


def test_what_came_after_the_moment_of_the_page_is_in_no_column(tmp_path: Path) -> None:
    events = opened("t", at=START, feature="a")
    for hour in range(24 * 5):
        events += called(f"c{hour}", "t", at=START + hour * 3600, cost=CENT)
    write(tmp_path / "t.jsonl", events)
    at = datetime.fromtimestamp(START + 4 * DAY + 7 * 3600, UTC)
    with History.open(tmp_path) as history:
        found = spend_material(history, SpendView(at=at), now=NOW)
    assert sum(found.columns.series[0][1]) == 103 * CENT
    assert "17 calls, $0.17 (14.2% of the cost), are dated after" in "".join(found.flaws)


def test_of_many_features_the_dearest_have_a_colour_and_the_rest_is_one(tmp_path: Path) -> None:
    for number in range(12):
        task = f"t{number}"
        events = [*opened(task, feature=f"f{number}"), *called(task, task, at=START, cost=CENT * number)]
        write(tmp_path / f"{number}.jsonl", events)
    with History.open(tmp_path) as history:
        series = dict(spend_material(history, now=NOW).columns.series)
    assert list(series) == ["f11", "f10", "f9", "f8", "f7", "f6", "f5", "4 others"]
    assert sum(series["4 others"]) == (4 + 3 + 2 + 1) * CENT


def test_a_budget_has_its_alarm_line_where_what_is_left_lasts_too_short(tmp_path: Path) -> None:
    events = opened("t", at=START + DAY, feature="a", team="cx")
    for hour in range(24):
        events += called(f"c{hour}", "t", at=START + DAY + hour * 3600 + 1, cost=CENT)
    write(tmp_path / "t.jsonl", events)
    view = SpendView(budgets=(watched("$1"),), at=datetime.fromtimestamp(START + 2 * DAY, UTC))
    with History.open(tmp_path) as history:
        (pot,) = spend_material(history, view, now=NOW).pots
    assert (pot.spent, pot.limit, pot.alarm_at) == (24 * CENT, 100 * CENT, 96 * CENT)
    assert pot.gone == pytest.approx(3 / 30)
    assert pot.expected is None


def test_alarms_are_judged_from_history_or_taken_from_the_watch(tmp_path: Path) -> None:
    known = Alert(key="k", kind="burn", severity="critical", scope="team=cx", summary="known", at=START)
    with open_plenty(tmp_path) as history:
        judged = spend_material(history, SpendView(budgets=(watched(),)), now=NOW)
        taken = spend_material(history, SpendView(budgets=(watched(),), firing=(known,)), now=NOW)
        fine = spend_material(history, SpendView(budgets=(watched("$100000"),)), now=NOW)
    assert {alert.kind for alert in judged.alarms} >= {"burn", "exhaustion"}
    assert all("because" in alert.details for alert in judged.alarms if alert.kind != "forecast")
    assert (taken.alarms, taken.judged) == ((known,), False)
    assert {alert.kind for alert in fine.alarms} <= {"spike"}


def test_an_alarm_of_the_first_days_is_against_what_is_recorded_of_them(tmp_path: Path) -> None:
    events = opened("t", at=START, feature="a", team="cx")
    for minute in range(48 * 60):
        cost = CENT * (1 if minute < 47 * 60 else 60)
        events += called(f"c{minute}", "t", at=START + minute * 60, cost=cost)
    write(tmp_path / "t.jsonl", events)
    view = SpendView(budgets=(watched("$432"),))
    with History.open(tmp_path) as history:
        found = spend_material(history, view, now=NOW)
    burn = next(alert for alert in found.alarms if alert.details.get("window_seconds") == 3600)
    assert Decimal(burn.details["expected"].removeprefix("$")) == pytest.approx(Decimal("0.60"), abs=Decimal("0.02"))


WATCH = """
traces = "traces"
state = "alarms.sqlite"
[[budget]]
amount = "$150"
scope = { team = "cx" }
window = "month"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    plenty(tmp_path / "traces")
    (tmp_path / "watch.toml").write_text(WATCH)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_writes_the_page_of_traces_and_of_their_archive(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compact("traces", "spend", on_problem=print)
    told = []
    for source in ("traces", "spend"):
        assert main(["finops", source, "--html", "page.html", "--budgets", "watch.toml", "--json"]) == 0
        told.append({**json.loads(capsys.readouterr().out), "path": "", "advice": None})
        assert "Spend of" in (folder / "page.html").read_text(encoding="utf-8")
    assert told[0] == told[1]
    assert told[0]["alarms"]


def test_the_summary_says_it_in_words_and_the_watch_is_believed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = Alert(key="k", kind="burn", severity="critical", scope="team=cx", summary="the watch saw it", at=START)
    with AlarmState("alarms.sqlite") as state:
        state.update([known], at=START)
    assert main(["finops", "traces", "--budgets", "watch.toml", "--no-advice"]) == 0
    said = capsys.readouterr().out
    for part in (
        "feature=triage",
        "critical: the watch saw it",
        "budget of team=cx",
        "this month: $",
        "have no feature",
    ):
        assert part in said


def test_what_could_not_be_read_is_on_the_page_and_in_the_exit_code(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "traces" / "bug.jsonl").open("ab") as file:
        file.write(b'{"event": "call_se')
    assert main(["finops", "traces", "--html", "page.html", "--no-advice"]) == 1
    assert "Skipped: " in (folder / "page.html").read_text(encoding="utf-8")
    assert "skipped: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--html", "traces/bug.jsonl"], "would take the place of the trace"),
        (["--html", "nowhere/page.html"], "cannot be written"),
        (["--by", "modle"], "did you mean 'model'"),
        (["--budgets", "none.toml"], "not a watch file"),
        (["--machines", "none.toml"], "not a file of [[machine]] tables"),
    ],
)
def test_a_mistake_in_the_command_is_named_and_harms_nothing(
    folder: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "traces" / "bug.jsonl").read_bytes()
    assert main(["finops", "traces", "--no-advice", *options]) == 2
    assert said in capsys.readouterr().err
    assert (folder / "traces" / "bug.jsonl").read_bytes() == before


def test_a_page_of_spend_stays_below_2_megabytes_with_many_users(tmp_path: Path) -> None:
    for number in range(3000):
        task, at = f"t{number}", START + timedelta(hours=number / 6).total_seconds()
        tags = {"feature": f"f{number % 40}", "user": f"somebody-{number}@example.com"}
        events = [*opened(task, at=at, **tags)[int(number > 0) :], *called(task, task, at=at)]
        write(tmp_path / "traces" / "all.jsonl", events, append=True)
    with History.open(tmp_path / "traces") as history:
        assert write_spend_page(history, tmp_path / "page.html", now=NOW).stat().st_size < 1_000_000
        found = spend_material(history, now=NOW)
    users = next(table for table in found.to_dict(most=200)["spend"] if table["dimensions"] == ["user"])
    assert (len(users["rows"]), users["more_rows"]) == (200, 2800)
    assert sum(Decimal(row["cost"]) for row in users["rows"]) + Decimal(users["more_cost"]) == found.total.cost


def test_a_page_of_a_dimension_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", opened("t"))
    with History.open(tmp_path) as history, pytest.raises(ConfigurationError, match="no such dimension"):
        spend_material(history, SpendView(by="feture"), now=NOW)
