"""A report reads well and cannot be used to attack who reads it."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser

import pytest

from agentbudget.domain.usage import Usage
from agentbudget.domain.verdict import StopReport
from agentbudget.trace.report import Spend, TaskReport

STOP = StopReport(
    limit="max_cost",
    scope="task t1",
    meter="cost",
    requested=30_000_000,
    settled=450_000_000,
    limit_amount=470_000_000,
    call="model gpt-4o",
    last_calls=("tool search $0.00", "model gpt-4o $0.012"),
    remedy="raise max_cost to at least $0.48 ($0.01 more)",
)
REPORT = TaskReport(
    task_id="t1",
    name="resolve-ticket",
    status="stopped",
    cost=Decimal("0.45"),
    presumed=Decimal("0.01"),
    wasted=Decimal("0.09"),
    limits={"max_cost": Decimal("0.47"), "max_model_calls": 40, "max_seconds": 300.0},
    usage=Usage(input_tokens=60_000, cache_read_tokens=40_000, output_tokens=1500),
    model_calls=5,
    tool_calls=5,
    retries=1,
    denied=1,
    seconds=11.24,
    by_model={
        "gpt-4o-mini": Spend(cost=Decimal("0.05"), calls=1, input_tokens=1000, output_tokens=100),
        "gpt-4o": Spend(cost=Decimal("0.4"), calls=4, input_tokens=59_000, output_tokens=1400),
    },
    by_tool={"search": Spend(calls=5)},
    tags={"lang": "de"},
    outcome="resolved",
    ok=False,
    stopped_by=STOP,
    trace_path="traces/t1.jsonl",
)


def test_the_terminal_shows_cost_against_limit_what_it_went_on_and_why_it_stopped() -> None:
    assert (
        str(REPORT)
        == """\
resolve-ticket (t1): stopped
  cost      $0.45 of $0.47 (96%), $0.01 presumed spent
  calls     5 of 40 (12%) model calls, 5 tool calls, 1 retry, 1 refused
  retries   10 attempts of 9 calls (1.1x)
  tokens    60,000 in (40,000 from cache), 1,500 out
  time      11.2 s of 300.0 (4%)
  of this   $0.09 wasted on failed attempts
  tags      lang=de
  outcome   resolved (not ok)

  by model                                cost   calls    tokens in   tokens out
  gpt-4o                                 $0.40       4       59,000        1,400
  gpt-4o-mini                            $0.05       1        1,000          100

  by tool                                 cost   calls
  search                                 $0.00       5

Stopped: model gpt-4o needs up to $0.03, but max_cost of task t1 is $0.47: $0.45
    spent.
  last calls: tool search $0.00; model gpt-4o $0.012
  to go on: raise max_cost to at least $0.48 ($0.01 more)"""
    )


def test_a_task_of_nothing_still_shows_its_totals() -> None:
    assert (
        str(TaskReport(task_id="t"))
        == """\
task (t): open
  cost      $0.00
  calls     0 model calls, 0 tool calls, 0 retries
  tokens    0 in, 0 out
  time      0.0 s"""
    )


def test_unpriced_calls_are_shown_beside_the_total() -> None:
    report = replace(REPORT, unpriced_calls=2)
    assert "only 3 of 5 model calls have a price" in str(report)
    assert "only 3 of 5 model calls have a price" in report._repr_html_()
    assert report.coverage == 0.6


HOSTILE = '<script>alert(1)</script>"\n\x1b[2J\u202e\x9b' + "x" * 100


def hostile() -> TaskReport:
    spends = {HOSTILE: Spend(cost=Decimal(1), calls=1)}
    notes = [{"kind": HOSTILE, "detail": HOSTILE, "action": HOSTILE, "reason": HOSTILE}] * 9
    return TaskReport(
        task_id=HOSTILE,
        name=HOSTILE,
        status=HOSTILE,
        by_model=spends,
        by_tool=spends | {f"tool {number}": Spend(calls=1) for number in range(50)},
        by_agent=spends,
        by_node=spends,
        tags={HOSTILE: HOSTILE},
        outcome=HOSTILE,
        stopped_by=replace(STOP, call=HOSTILE, remedy=HOSTILE, last_calls=(HOSTILE,)),
        actions=notes,
        discrepancies=notes,
    )


def test_names_cannot_steer_the_terminal_or_break_its_80_columns() -> None:
    lines = str(hostile()).split("\n")
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) <= 80
    assert "\\x1b[2J\\u202e\\x9b" in str(hostile())
    assert "39 more" in str(hostile())
    assert "12 more actions and notes" in str(hostile())


def test_wide_characters_keep_the_columns_straight() -> None:
    report = TaskReport(
        task_id="t", by_tool={"検索モデル": Spend(calls=7), "e\u0301" * 9: Spend(calls=7), "x" * 40: Spend(calls=7)}
    )
    combined, cut, wide = (line for line in str(report).split("\n") if line.endswith(" 7"))
    assert len(wide) + 5 == len(combined) - 9 == len(cut)
    assert "x" * 31 + "…" in cut


class _Tags(HTMLParser):
    """Gathers the names of elements."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)


def test_markup_in_names_is_shown_in_the_notebook_not_executed() -> None:
    html = hostile()._repr_html_()
    parser = _Tags()
    parser.feed(html)
    assert parser.found >= {"img", "table"}
    assert parser.found.isdisjoint({"script", "style", "iframe", "svg"})
    assert "&lt;script&gt;" in html
    assert html.isprintable()


def test_the_notebook_shows_the_stop_and_its_remedy() -> None:
    html = REPORT._repr_html_()
    assert all(
        text in html for text in ("$0.45 of $0.47 (96%)", "max_cost of task t1", "raise max_cost", "gpt-4o $0.40 (4)")
    )


def test_a_report_is_plain_json_with_money_as_exact_decimal_strings() -> None:
    known = json.loads(json.dumps(REPORT.to_dict()))
    assert Decimal(known["cost"]) == REPORT.cost
    assert known["limits"] == {"max_cost": "0.47", "max_model_calls": 40, "max_seconds": 300.0}
    assert known["by_tool"] == {"search": {"cost": "0.000000000", "calls": 5, "input_tokens": 0, "output_tokens": 0}}
    assert known["stopped_by"]["reason"] == STOP.reason
    assert (known["attempts"], known["coverage"], known["would_stop"]) == (10, 1.0, None)


@pytest.mark.parametrize("amount", ["1E+3", "0E-9", "0.000000001"])
def test_money_is_never_written_in_exponents(amount: str) -> None:
    assert "E" not in str(TaskReport(task_id="t", cost=Decimal(amount)).to_dict()["cost"])
