from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.errors import ConfigurationError
from agentbudget.finops.attribution import attribute, task_costs, unit_costs
from agentbudget.finops.bloat import carried, resent
from agentbudget.finops.dimensions import COLUMNS, TagRule, TagRules
from agentbudget.finops.history import History, Period
from agentbudget.trace.events import CallReserved, CallSettled, OutcomeRecorded
from agentbudget.trace.reader import Trace
from tests.finops.traces import DAY, START, called, opened, write


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    folder = tmp_path / "traces"
    one = [*opened("t1", name="triage", feature="support", team="cx", user="u1", lang="de")]
    write(folder / "1.jsonl", [*one, *called("a", "t1", cost=3_000), *called("b", "t1", cost=500, wasted=True)])
    two = [*opened("t2", name="invoice-scan", at=START + DAY, team="fin", user="o'neill")]
    write(folder / "2.jsonl", [*two, *called("c", "t2", at=START + DAY, cost=7_000, model="gpt-4o-2024-08-06")])
    untagged = [*opened("t3", name="x"), *called("d", "t3", cost=90, priced=False)]
    write(folder / "3.jsonl", untagged)
    return folder


def test_rows_add_up_to_the_total_and_the_untagged_share_is_shown(traces: Path) -> None:
    with History.open(traces) as history:
        table = attribute(history, ["feature", "model"])
    assert sum(row.cost for row in table.rows) == table.total.cost == Decimal("0.00001059")
    assert [row.key for row in table.rows] == [
        (None, "gpt-4o-2024-08-06"),
        ("support", "gpt-4o"),
        (None, "gpt-4o"),
    ]
    assert table.untagged == {"feature": Decimal("0.00000709"), "model": 0}
    assert table.share(table.untagged["feature"]) == pytest.approx(7090 / 10590)
    assert (table.total.wasted, table.total.unpriced_calls) == (Decimal("0.0000005"), 1)


@pytest.mark.parametrize("dimension", [*COLUMNS, "tag:lang"])
def test_every_dimension_splits_the_same_total(traces: Path, dimension: str) -> None:
    with History.open(traces) as history:
        table = attribute(history, [dimension])
    assert sum(row.cost for row in table.rows) == table.total.cost == Decimal("0.00001059")
    assert sum(row.calls for row in table.rows) == 4


def test_a_period_takes_only_its_calls(traces: Path) -> None:
    with History.open(traces, period=Period(since=datetime(2026, 11, 2, tzinfo=UTC))) as history:
        assert attribute(history, ["day"]).rows[0].key == ("2026-11-02",)
        assert attribute(history, ["day"]).total.calls == 1
    with pytest.raises(ConfigurationError, match="needs a zone"):
        Period(since=datetime(2026, 11, 2))  # noqa: DTZ001 - the mistake


def test_rules_tag_history_again_and_say_where_they_contradict_each_other(traces: Path) -> None:
    rules = TagRules(
        (
            TagRule(tag="feature", value="billing", when={"name": "invoice-*"}),
            TagRule(tag="feature", value="money", when={"team": "fin"}),
            TagRule(tag="feature", value="help", when={"name": "triage"}, overwrite=True),
            TagRule(tag="cost_center", value="cc-1", when={"user": "o'neill"}),
        )
    )
    with History.open(traces) as history:
        table = attribute(history, ["feature"], rules=rules)
        centers = attribute(history, ["cost_center"], rules=rules)
    assert {row.key[0]: row.cost for row in table.rows} == {
        "billing": Decimal("0.000007"),
        "help": Decimal("0.0000035"),
        None: Decimal("0.00000009"),
    }
    assert table.contradictions == {"feature": Decimal("0.000007")}
    assert {row.key[0] for row in centers.rows} == {"cc-1", None}


def test_rules_come_from_a_file_and_a_bad_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tags.toml"
    file.write_text('[[rule]]\ntag = "feature"\nvalue = "x"\nwhen = { model = "gpt-*" }\n')
    assert TagRules.load(file).rules[0].when == {"model": "gpt-*"}
    file.write_text('[[rule]]\ntag = "feature"\nvalue = "x"\nwhen = { modle = "gpt-*" }\n')
    with pytest.raises(ConfigurationError, match=r"rule 1: by='modle'.*did you mean 'model'"):
        TagRules.load(file)
    file.write_text('[[rule]]\ntag = "feature"\nvalu = "x"\n')
    with pytest.raises(ConfigurationError, match="rule 1:"):
        TagRules.load(file)
    file.write_text("[[rule")
    with pytest.raises(ConfigurationError, match="not a file of tag rules"):
        TagRules.load(file)


@given(st.text(min_size=1, max_size=12))
def test_a_pattern_means_itself_but_for_the_star(text: str) -> None:
    rule = TagRule(tag="t", value="v", when={"name": text.replace("*", "")[:12] or "x"})
    name = rule.when["name"]
    con = duckdb.connect()
    con.execute("CREATE TABLE calls AS SELECT ? AS task_name", [name])
    assert con.execute(f"SELECT {rule.condition} FROM calls").fetchone() == (True,)
    con.execute("UPDATE calls SET task_name = ?", ["_" + name])
    assert con.execute(f"SELECT {rule.condition} FROM calls").fetchone() == (False,)
    con.close()


@pytest.mark.parametrize("by", [[], ["feature", "feature"], ["featur"], ["tag:"]])
def test_dimensions_that_cannot_be_are_refused(traces: Path, by: list[str]) -> None:
    with History.open(traces) as history, pytest.raises(ConfigurationError, match="by="):
        attribute(history, by)


def test_exclusive_costs_add_up_and_a_parent_includes_its_children(tmp_path: Path) -> None:
    tasks = [*opened("a"), *opened("b", parent="a"), *opened("c", parent="b")]
    calls = [*called("1", "a", cost=1), *called("2", "b", "a", cost=20), *called("3", "c", "b", "a", cost=300)]
    file = write(tmp_path / "t.jsonl", [*tasks, *calls])
    with History.open(file) as history:
        costs = {row.task: (int(row.exclusive * 10**9), int(row.inclusive * 10**9)) for row in task_costs(history)}
    assert costs == {"a": (1, 321), "b": (20, 320), "c": (300, 300)}
    report = Trace.load(file).report
    assert report.cost * 10**9 == sum(exclusive for exclusive, _ in costs.values())


def test_an_outcome_costs_what_all_its_root_tasks_took(tmp_path: Path) -> None:
    for number, ok in enumerate((True, False, True)):
        task = f"t{number}"
        outcome = OutcomeRecorded(at=START + 9, task=task, outcome="resolved", ok=ok)
        write(tmp_path / f"{task}.jsonl", [*opened(task, user=f"u{number}"), *called("c" + task, task), outcome])
    write(tmp_path / "none.jsonl", [*opened("n"), *called("n1", "n", cost=10)])
    with History.open(tmp_path) as history:
        resolved, none = unit_costs(history)
        users = unit_costs(history, per="user")
    assert (resolved.unit, resolved.tasks, resolved.ok, resolved.each) == ("resolved", 3, 2, Decimal("0.001"))
    assert resolved.each_ok == Decimal("0.0015")
    assert (none.unit, none.each_ok) == (None, None)
    assert len(users) == 4


def test_resent_tokens_and_the_tool_whose_result_they_are(tmp_path: Path) -> None:
    events = [*opened("t", name="agent")]
    events += called("m1", "t", at=START, usage={"input_tokens": 100, "output_tokens": 10})
    at = START + 2
    events.append(CallReserved(at=at, call="s", tasks=("t",), kind="tool", name="search"))
    events.append(
        CallSettled(at=at, call="s", tasks=("t",), kind="tool", name="search", outcome="ok", result_size=4000)
    )
    for step, (size, appended) in enumerate(((1110, 4000), (1150, 120)), 1):
        call, at = f"n{step}", START + 2 + 2 * step
        events.append(CallReserved(at=at, call=call, tasks=("t",), kind="model", name="gpt-4o", size=appended))
        events.append(called(call, "t", at=at, usage={"input_tokens": size, "output_tokens": 10})[1])
    file = write(tmp_path / "t.jsonl", events)
    with History.open(file) as history:
        (row,) = resent(history)
        (tool_row,) = carried(history)
    assert (row.model_calls, row.input_tokens, row.resent_tokens) == (3, 2360, 110 + 1120)
    assert (tool_row.tool, tool_row.calls, tool_row.bytes) == ("search", 1, 4000)
    tokens = round(4000 * (1000 + 30) / (4000 + 120))  # read once by the second model call, carried by the third
    assert tool_row.carried_tokens == tokens
    assert tool_row.cost == Decimal(tokens * 2500) / 10**9
