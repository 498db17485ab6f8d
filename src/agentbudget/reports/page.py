"""The report of tasks as one HTML file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from agentbudget.reports import sections
from agentbudget.reports.document import document
from agentbudget.reports.markup import el
from agentbudget.reports.material import Source, gathered


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
    return document(
        f"{sections.heading(report)}: {report.status}",
        sections.header(material),
        el("main", parts),
        numbers=report.to_dict(),
        numbers_id="agentbudget-report",
    )


def write_page(source: Source, path: str | PathLike[str]) -> Path:
    """Write `page(source)` to the file *path*.

    Raises:
        TraceError: nothing usable at the path of *source*. OSError: *path* cannot be written.
    """
    target = Path(path)
    target.write_text(page(source), encoding="utf-8", newline="\n")
    return target
