"""The page in a real browser: what a person sees, hears, presses and is protected from."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agentbudget.reports import page
from agentbudget.trace.report import TaskReport
from tests.reports.conftest import Show
from tests.reports.samples import HOSTILE, everything, hostile, long_trace, trace

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
LEGIBLE = 4.5
"""Least contrast of text to its ground (WCAG 2.2, level AA)."""
OUTLINE = """[...document.querySelectorAll("h1, h2, h3, h4")].map((heading) => Number(heading.tagName[1]))"""
FLAWS = """[
  ...[...document.querySelectorAll("[role=img], [role=region], progress")].filter((e) => !e.getAttribute("aria-label")),
  ...[...document.querySelectorAll("th")].filter((e) => !e.scope),
  ...[...document.querySelectorAll("button")].filter((e) => !e.textContent.trim()),
  ...[...document.querySelectorAll("img")].filter((e) => !e.alt),
  ...[...document.querySelectorAll("[aria-labelledby]")]
    .filter((e) => !document.getElementById(e.getAttribute("aria-labelledby"))),
  ...[...document.querySelectorAll("[role=region]")].filter((e) => e.tabIndex !== 0),
  ...[...document.querySelectorAll("[id]")].filter((e) => document.querySelectorAll(`[id="${e.id}"]`).length > 1),
].map((element) => element.outerHTML.slice(0, 200))"""
COLUMN = """(name) => {
  const heads = [...document.querySelectorAll("#calls th")];
  const column = heads.findIndex((head) => head.textContent === name);
  return [...document.querySelectorAll("#calls tbody tr")].map((row) => row.cells[column].textContent);
}"""
SORTED = """[...document.querySelectorAll("#calls th[aria-sort]")]
  .map((head) => [head.textContent, head.getAttribute("aria-sort")])"""


def at(numbers: Any, key: str) -> Any:
    """The value at a dotted *key*."""
    for part in key.split("."):
        numbers = numbers[part]
    return numbers


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_asks_for_nothing_and_says_nothing(show: Show, dark: bool) -> None:
    shown = show(page(trace(everything())), dark=dark)
    assert [url.rpartition("/")[2] for url in shown.asked] == ["page-0.html"]
    assert shown.said == []


def test_the_totals_on_the_page_are_those_of_the_report(show: Show) -> None:
    report = trace(everything()).report
    shown = show(page(trace(everything())))
    found: Any = shown.value(
        "[...document.querySelectorAll('data[data-total]')].map((e) => [e.dataset.total, e.value, e.textContent])"
    )
    numbers = report.to_dict()
    assert {key: Decimal(value) for key, value, _ in found} == {
        key: Decimal(str(at(numbers, key))) for key, *_ in found
    }
    words = {key: text for key, _, text in found}
    assert (words["cost"], words["usage.input_tokens"], words["seconds"]) == ("$0.0410", "8,000", "6.7 s")
    assert {"cost", "wasted", "estimated", "retries", "denied", "model_calls", "tool_calls"} <= words.keys()
    assert shown.value("JSON.parse(document.getElementById('agentbudget-report').textContent)") == numbers


def test_the_calls_on_the_page_add_up_to_the_cost_of_the_report(show: Show) -> None:
    report = trace(everything()).report
    shown = show(page(trace(everything())))
    column = "[...document.querySelectorAll('#calls th')].findIndex((e) => e.textContent === 'Cost')"
    costs: Any = shown.value(
        f"[...document.querySelectorAll('#calls tbody tr')].map((r) => r.cells[{column}].dataset.v)"
    )
    assert sum(map(int, costs)) == report.cost * 10**9
    assert len(costs) == report.attempts + report.denied


def test_names_that_are_markup_are_shown_and_run_nothing(show: Show) -> None:
    shown = show(page(trace(hostile())))
    assert shown.said == []
    assert shown.page.title() != "run"
    assert shown.value("document.querySelectorAll('img, body script:not([type]):not(:last-of-type)').length") == 0
    visible = HOSTILE.replace("\u202e", "\\u202e").replace("\x07", "\\x07")
    assert shown.page.locator("h1").inner_text() == visible
    for part in ("#stop", "#notes", "#calls", "#timeline", "#spending", "dl"):
        assert visible in shown.page.locator(part).first.evaluate("(e) => e.textContent"), part


@pytest.mark.parametrize(
    "injected",
    [
        "<script>document.title='run'</script>",
        "<img src=x onerror=\"document.title='run'\">",
        "<script src='https://example.org/x.js'></script>",
        "<iframe src='https://example.org'></iframe>",
        "<style>body{display:none}</style>",
        "<object data='https://example.org'></object>",
        "<link rel=stylesheet href='https://example.org/x.css'>",
    ],
)
def test_the_policy_stops_what_escaping_would_have_let_through(show: Show, injected: str) -> None:
    html = page(trace(everything()))
    shown = show(html.replace("<main>", f"<main>{injected}"))
    shown.page.wait_for_timeout(50)
    assert shown.page.title() == "resolve-ticket: stopped"
    assert any("Content Security Policy" in said for said in shown.said), shown.said
    assert shown.page.locator("h1").is_visible()


def test_the_page_is_whole_without_its_script(show: Show) -> None:
    shown = show(page(trace(everything())), scripts=False)
    assert shown.page.locator("#calls tbody tr").count() == 9
    assert shown.page.locator("h1").inner_text() == "resolve-ticket"


def test_a_press_on_a_heading_sorts_and_says_so(show: Show) -> None:
    shown = show(page(trace(everything())))
    heading = shown.page.get_by_role("button", name="Cost", exact=True)
    heading.click()
    assert shown.value(SORTED) == [["Cost", "descending"]]
    costs: Any = shown.page.evaluate(COLUMN, "Cost")
    assert costs[:4] == ["$0.0150", "$0.0125", "$0.0097", "$0.0038"]
    assert shown.page.locator("#calls [role=status]").text_content() == "Sorted by Cost, descending."
    heading.click()
    assert shown.value(SORTED) == [["Cost", "ascending"]]
    costs = shown.page.evaluate(COLUMN, "Cost")
    assert costs[-1] == "$0.0150"


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_reaches_and_sorts_every_column(show: Show, key: str) -> None:
    shown = show(page(trace(everything())))
    heads = shown.page.locator("#calls th").all_text_contents()
    pressed: list[object] = []
    while len(pressed) < len(heads):
        shown.page.keyboard.press("Tab")
        name: Any = shown.value("document.activeElement.closest('#calls th')?.textContent")
        if name is not None:
            shown.page.keyboard.press(key)
            assert shown.value("document.querySelector('#calls th[aria-sort]').textContent") == name
            pressed.append(name)
    assert pressed == heads
    names: Any = shown.page.evaluate(COLUMN, "Call")
    assert sorted(names) == sorted(["gpt-4o"] * 5 + ["search"] * 3 + ["research"])


def test_words_are_sorted_as_people_sort_them(show: Show) -> None:
    shown = show(page(trace(everything())))
    shown.page.get_by_role("button", name="Call", exact=True).click()
    assert shown.page.evaluate(COLUMN, "Call") == ["gpt-4o"] * 5 + ["research"] + ["search"] * 3


@pytest.mark.parametrize("width", [320, 400, 1100])
@pytest.mark.parametrize("events", [everything, hostile], ids=["everything", "hostile"])
def test_the_page_never_scrolls_sideways(show: Show, width: int, events: Any) -> None:
    shown = show(page(trace(events())), width=width)
    assert shown.value("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [400, 1100])
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out_from_its_ground(show: Show, dark: bool, width: int) -> None:
    shown = show(page(trace(everything())), dark=dark, width=width)
    found: Any = shown.value(CONTRAST)
    assert len(found) > 100
    assert [each for each in found if each["ratio"] < LEGIBLE] == []
    assert shown.value("getComputedStyle(document.body).backgroundColor") == (
        "rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)"
    )


def test_those_who_listen_find_their_way(show: Show) -> None:
    shown = show(page(trace(everything()).replay()))
    assert shown.value("document.documentElement.lang") == "en"
    assert shown.page.title() == "resolve-ticket: stopped"
    outline: Any = shown.value(OUTLINE)
    assert outline[0] == 1
    assert outline.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(outline))
    assert shown.value(FLAWS) == []


def test_what_a_colour_says_stands_there_in_words(show: Show) -> None:
    shown = show(page(trace(everything())))
    drawn = shown.page.locator("#timeline svg").first.evaluate("(e) => e.textContent")
    assert all(word in drawn for word in ("denied", "wasted", "estimated", "retry 1 by with_retry", "∥"))
    happened: Any = shown.page.evaluate(COLUMN, "What happened")
    assert happened[6:] == ["timeout, wasted, estimated", "retry 1 by with_retry", "denied"]


def test_a_page_of_two_thousand_calls_works(show: Show) -> None:
    shown = show(page(long_trace(2000)))
    shown.page.get_by_role("button", name="Cost", exact=True).click()
    costs: Any = shown.page.evaluate(COLUMN, "Cost")
    assert (len(costs), costs[0]) == (2000, "$0.0020")
    assert shown.said == []


@pytest.mark.parametrize(
    "source", [trace([]), TaskReport(task_id="t"), trace(everything()[:1])], ids=["no events", "no calls", "a header"]
)
def test_a_page_of_nothing_is_a_page(show: Show, source: Any) -> None:
    shown = show(page(source), width=400)
    assert shown.said == []
    assert "$0.00" in shown.page.locator("header").inner_text()
    assert shown.page.locator("#calls").count() == 0
