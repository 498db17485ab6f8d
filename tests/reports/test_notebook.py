"""What notebooks show: a picture and its numbers, safe and legible where scripts, styles and SVG are taken out."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import agentbudget as ab
from agentbudget.reports.notebook import MAX_CALLS, output
from agentbudget.trace import rendering
from agentbudget.trace.report import TaskReport
from tests.reports.conftest import Show
from tests.reports.samples import HOSTILE, everything, hostile, long_trace, trace

KEPT = {"table", "tbody", "tr", "td", "th", "div", "img", "details", "summary"}
"""Elements that GitHub keeps in the outputs of notebooks."""


GROUND = """(() => {
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.drawImage(document.images[0], 0, 0);
  return [...canvas.getImageData(10, 10, 1, 1).data];
})()"""
"""The colour of the picture a little inside its corner."""


class Tags(HTMLParser):
    """Gathers the names of elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)


def drawing(html: str) -> ET.Element:
    """The SVG in its image."""
    data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert data is not None
    return ET.fromstring(base64.b64decode(data[1]))


def words(html: str) -> str:
    """All that is written in the picture."""
    return " ".join(drawing(html).itertext())


@pytest.mark.parametrize(
    "source",
    [trace(everything()), trace(everything()).report, trace(everything()).replay(), trace(hostile())],
    ids=["trace", "report", "replay", "hostile"],
)
def test_an_output_is_made_of_what_every_notebook_viewer_keeps(source: Any) -> None:
    assert Tags(source._repr_html_()).found <= KEPT


def test_a_trace_shows_its_timeline_its_course_and_where_the_money_went() -> None:
    shown = words(trace(everything())._repr_html_())
    for part in (
        "Timeline",
        "Budget left",
        "Context",
        "By model",
        "By tool",
        "By agent",
        "By node",
        "retry 1 by with_retry",
    ):
        assert part in shown, part
    assert "cost $0.0410 of $0.05" in shown
    assert "Stopped: model gpt-4o needs up to $0.02" in shown


def test_a_replay_says_what_may_be_claimed_and_marks_where_it_parts() -> None:
    html = trace(everything()).replay(budget=ab.Budget(max_cost="$0.04"))._repr_html_()
    assert "denied, parts from the recording here" in words(html)
    assert "estimate" in html
    assert "cost $0.0260 of $0.04" in words(html)


def test_a_report_alone_shows_where_the_money_went() -> None:
    shown = words(trace(everything()).report._repr_html_())
    assert "By model" in shown
    assert "Timeline" not in shown


def test_a_long_trace_is_cut_and_says_so() -> None:
    html = trace(long_trace(400).events)._repr_html_()
    assert f"the first {MAX_CALLS} of 400 calls" in words(html)
    assert len(html) < 100_000


def test_names_that_are_markup_are_text_in_the_picture() -> None:
    picture = drawing(trace(hostile())._repr_html_())
    assert {element.tag.rpartition("}")[2] for element in picture.iter()} == {
        *("svg", "style", "rect", "text", "tspan", "g", "title", "line", "path"),
    }
    assert HOSTILE.replace("\u202e", "\\u202e").replace("\x07", "\\x07") in "".join(picture.itertext())


def test_the_picture_says_in_words_what_it_shows() -> None:
    html = trace(everything())._repr_html_()
    assert 'alt="resolve-ticket: stopped, cost $0.0410 of $0.05, model calls 4 of 10' in html


@pytest.mark.parametrize("source", [TaskReport(task_id="t"), trace([]), trace(everything()[:2])])
def test_nothing_is_shown_as_nothing(source: Any) -> None:
    assert "cost $0.00" in words(source._repr_html_())


@pytest.mark.parametrize("dark", [False, True])
def test_the_picture_stands_on_its_own_ground_in_light_and_dark(show: Show, dark: bool) -> None:
    shown = show(f"<!DOCTYPE html><body>{output(trace(everything()))}", dark=dark)
    assert shown.said == []
    assert shown.value("document.images[0].complete && document.images[0].naturalWidth") == 900
    assert shown.value(GROUND) == ([13, 17, 23, 255] if dark else [255, 255, 255, 255])


def test_without_the_package_of_pictures_there_is_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ModuleNotFoundError(name)

    report = trace(everything()).report
    monkeypatch.setattr(rendering, "import_module", absent)
    assert report._repr_html_() == rendering.html(report)
