"""The page of spend in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agentbudget.finops.history import History
from agentbudget.reports.spend import spend_material, spend_page
from tests.finops.traces import opened, write
from tests.reports.conftest import Show
from tests.reports.samples import HOSTILE
from tests.reports.spend_samples import NOW, full_view, open_hostile, open_plenty
from tests.reports.test_in_the_browser import CONTRAST, FLAWS, LEGIBLE, OUTLINE

SECTIONS = {
    *("alarms", "notes", "over-time", "forecast", "budgets", "changed", "advice", "waste", "totals", "spending"),
    *("units", "context", "hosted"),
}


TOTALS = "[...document.querySelectorAll('data[data-total]')].map((e) => [e.dataset.total, e.value])"


def part(numbers: Any, key: str) -> Any:
    """The value at a dotted *key*, whose numbers are places of a list."""
    for name in key.split("."):
        numbers = numbers[int(name)] if name.isdigit() else numbers[name]
    return numbers


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    with open_plenty(tmp_path_factory.mktemp("plenty")) as history:
        return spend_page(history, full_view(), now=NOW)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    with open_hostile(tmp_path_factory.mktemp("hostile")) as history:
        return spend_page(history, full_view(HOSTILE, team=HOSTILE), now=NOW)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    file = write(tmp_path_factory.mktemp("empty") / "t.jsonl", opened("t"))
    with History.open(file) as history:
        yield history


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_of_spend_asks_for_nothing_and_says_nothing(show: Show, html: str, dark: bool) -> None:
    shown = show(html, dark=dark)
    assert [url.rpartition("/")[2] for url in shown.asked] == ["page-0.html"]
    assert shown.said == []
    found: Any = shown.value("[...document.querySelectorAll('section')].map((e) => e.id)")
    assert set(found) == SECTIONS


def test_the_totals_are_those_of_the_json_and_every_table_adds_up(show: Show, html: str, tmp_path: Path) -> None:
    shown = show(html)
    numbers: Any = shown.value("JSON.parse(document.getElementById('agentbudget-spend').textContent)")
    found: Any = shown.value(TOTALS)
    assert len(found) == 12
    for key, value in found:
        assert Decimal(value) == Decimal(str(part(numbers, key))), key
    cost = Decimal(numbers["total"]["cost"])
    for table in numbers["spend"]:
        assert sum(Decimal(row["cost"]) for row in table["rows"]) + Decimal(table["more_cost"]) == cost
    series = numbers["over_time"]["series"].values()
    assert sum(Decimal(amount) for amounts in series for amount in amounts) == cost
    with open_plenty(tmp_path) as history:
        told = spend_material(history, full_view(), now=NOW).to_dict()
    told = json.loads(json.dumps(told))
    assert {**numbers, "path": ""} == {**told, "path": ""}


def test_waste_is_apart_from_what_was_not_spent(show: Show, html: str) -> None:
    text = show(html).page.locator("#waste").inner_text()
    assert "Wasted: $5.8" in text
    assert "Avoided: $0.87 that calls would have cost" in text
    assert "Refused: $2.03 that 29 denied calls would have reserved. No charge." in text


def test_the_page_says_what_fires_and_what_is_behind_it(show: Show, html: str) -> None:
    page = show(html).page
    fired = page.locator("#alarms").inner_text()
    assert "times faster than the" in fired
    assert "Most from" in fired
    assert page.locator(".status").inner_text() == "3 alarms"
    changed = page.locator("#anomalies tbody tr").first.inner_text()
    assert "feature=triage" in changed
    assert "held" in page.locator("#forecast").inner_text()
    assert "alarm line at" in page.locator("#budgets").inner_text()


def test_names_that_are_markup_are_shown_on_the_page_of_spend_and_run_nothing(show: Show, hostile: str) -> None:
    shown = show(hostile)
    assert shown.said == []
    assert shown.page.title() != "run"
    assert shown.value("document.querySelectorAll('img, body script:not([type]):not(:last-of-type)').length") == 0
    visible = HOSTILE.replace("\u202e", "\\u202e").replace("\x07", "\\x07")
    for place in ("#over-time", "#spending", "#units", "#context", "#advice", "#budgets", "#hosted"):
        assert visible in shown.page.locator(place).evaluate("(e) => e.textContent"), place


@pytest.mark.parametrize(
    "injected",
    [
        "<script>document.title='run'</script>",
        "<img src=x onerror=\"document.title='run'\">",
        "<style>*{color:red}</style>",
    ],
)
def test_the_policy_stops_foreign_code_on_the_page_of_spend(show: Show, html: str, injected: str) -> None:
    shown = show(html.replace("<main>", f"<main>{injected}"))
    shown.page.wait_for_timeout(50)
    assert shown.page.title().startswith("Spend of")
    assert any("Content Security Policy" in said for said in shown.said), shown.said


@pytest.mark.parametrize("width", [320, 400, 1100])
@pytest.mark.parametrize("which", ["html", "hostile"])
def test_the_page_of_spend_never_scrolls_sideways(
    show: Show, width: int, which: str, request: pytest.FixtureRequest
) -> None:
    shown = show(request.getfixturevalue(which), width=width)
    assert shown.value("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [400, 1100])
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_of_the_page_of_spend_stands_out(show: Show, html: str, dark: bool, width: int) -> None:
    found: Any = show(html, dark=dark, width=width).value(CONTRAST)
    assert len(found) > 100
    assert [each for each in found if each["ratio"] < LEGIBLE] == []


def test_those_who_listen_find_their_way_on_the_page_of_spend(show: Show, html: str) -> None:
    shown = show(html)
    outline: Any = shown.value(OUTLINE)
    assert outline.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(outline))
    assert shown.value(FLAWS) == []


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_sorts_the_tables_of_spend(show: Show, html: str, key: str) -> None:
    shown = show(html)
    heading = shown.page.locator("#spend-feature").get_by_role("button", name="Cost", exact=True)
    heading.focus()
    shown.page.keyboard.press(key)
    assert shown.value("document.querySelector('#spend-feature th[aria-sort]').textContent") == "Cost"
    assert shown.page.locator("#spend-feature [role=status]").text_content() == "Sorted by Cost, descending."


def test_the_page_of_spend_is_whole_without_its_script(show: Show, html: str) -> None:
    shown = show(html, scripts=False)
    assert shown.page.locator("#spend-feature tbody tr").count() == 4
    assert shown.page.locator("#advice li").first.is_visible()


def test_the_page_of_nothing_says_that_nothing_was_recorded(show: Show, empty: History) -> None:
    shown = show(spend_page(empty, now=NOW), width=400)
    assert shown.said == []
    assert "Nothing was recorded" in shown.page.locator("#notes").inner_text()
    assert "$0.00" in shown.page.locator("header").inner_text()
