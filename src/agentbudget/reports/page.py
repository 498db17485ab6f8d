"""The report as one HTML file that needs nothing else: no network, no server, and scripts of nobody but its own."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from os import PathLike
from pathlib import Path
from xml.etree.ElementTree import Element

from agentbudget.reports import sections
from agentbudget.reports.markup import el, html, raw
from agentbudget.reports.material import Material, Source, gathered
from agentbudget.trace.report import TaskReport
from agentbudget.version import VERSION


def page(source: Source) -> str:
    """The report of *source* as a whole HTML page.

    It loads nothing, and its policy lets the browser run no script and apply no style but its own two, by their hashes;
    without the script everything is there, only unsorted. Everything that was recorded is shown as text. The numbers of
    `TaskReport.to_dict()` stand in it as JSON, in the element `agentbudget-report`.

    Args:
        source: a trace, a report, a replay, or the path of traces. Of several tasks the page shows the sum and a table
            of the tasks; of one task also its trajectory.

    Raises:
        TraceError: nothing usable at the path.
    """
    material = gathered(source)
    return f"<!DOCTYPE html>\n{html(el('html', _head(material), _body(material), lang='en'))}\n"


def write_page(source: Source, path: str | PathLike[str]) -> Path:
    """Write `page(source)` to the file *path*.

    Raises:
        TraceError: nothing usable at the path of *source*. OSError: *path* cannot be written.
    """
    target = Path(path)
    target.write_text(page(source), encoding="utf-8", newline="\n")
    return target


def _head(material: Material) -> Element:
    style, script = asset("chart.css") + asset("page.css"), asset("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", f"{sections.heading(material.report)}: {material.report.status}"),
        raw("style", style),
    )


def _body(material: Material) -> Element:
    report, story = material.report, material.story
    parts = [
        sections.replayed(material.replay),
        sections.stops(report),
        sections.notes(material),
        sections.totals(report),
        sections.trajectory(story),
        sections.course(story),
        sections.spending(report),
        sections.several(material),
        sections.calls(story),
    ]
    return el(
        "body",
        sections.header(material),
        el("main", parts),
        el("footer", el("p", f"Made by agentbudget {VERSION} from what was recorded. Amounts are in US dollars.")),
        raw("script", _json(report), type="application/json", id="agentbudget-report"),
        raw("script", asset("page.js")),
    )


@cache
def asset(name: str) -> str:
    """A file that ships with this package."""
    return files("agentbudget.reports").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(content: str) -> str:
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


def _json(report: TaskReport) -> str:
    """The report as JSON in which no name can end the element that holds it."""
    return json.dumps(report.to_dict()).replace("<", "\\u003c")
