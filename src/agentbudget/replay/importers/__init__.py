"""Traces made elsewhere, as events of this project. `protocol` says how to write another importer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing
from os import PathLike, fspath
from pathlib import Path

from agentbudget.errors import BudgetWarning, ConfigurationError, TraceError, TraceFormatError
from agentbudget.replay.importers.claude_code import ClaudeCode
from agentbudget.replay.importers.files import records
from agentbudget.replay.importers.langsmith import LangSmith
from agentbudget.replay.importers.neutral import Neutral
from agentbudget.replay.importers.otel import OpenTelemetry
from agentbudget.replay.importers.protocol import Importer, Record, Tell
from agentbudget.trace.events import SCHEMA, Event, TraceOpened
from agentbudget.trace.files import OnProblem, Problem, read_batches, trace_files
from agentbudget.trace.reader import Trace
from agentbudget.trace.writer import encode
from agentbudget.version import VERSION

__all__ = ["Importer", "Record", "Source", "Tell", "convert", "events_of", "formats", "read_any", "register"]

Source = str | PathLike[str] | Trace | Iterable[str | PathLike[str]] | Iterable[Event]
"""What was recorded: a file, folder or glob of traces of any format, or several; a loaded trace; or events."""

OWN = "agentbudget"
_IMPORTERS: dict[str, Importer] = {
    importer.name: importer for importer in (Neutral(), ClaudeCode(), OpenTelemetry(), LangSmith())
}


def register(importer: Importer) -> None:
    """Make *importer* known under its name, in place of one that has it already."""
    _IMPORTERS[importer.name] = importer


def formats() -> tuple[str, ...]:
    """The names of all formats, this project's own first."""
    return (OWN, *_IMPORTERS)


def read_any(
    path: str | PathLike[str],
    *,
    format: str = "auto",  # noqa: A002 - the word users know from other readers
    on_problem: OnProblem | None = None,
) -> Iterator[Event]:
    """The events of a file, folder or glob of traces, whoever wrote them, in bounded memory.

    The format of each file is told by its first record, or given. What is skipped goes to *on_problem*; without it one
    `BudgetWarning` at the end counts it.

    Raises:
        ConfigurationError: an unknown format. TraceError: nothing there, or no file of it can be used.
    """
    if format != "auto" and format not in formats():
        raise ConfigurationError(f"format={format!r}: 'auto' or one of {', '.join(map(repr, formats()))}.")
    problems = _Count()
    tell = on_problem or problems.add
    failed: list[TraceError] = []
    files = trace_files(path)
    for file in files:
        try:
            yield from _events(file, format, tell)
        except TraceError as refusal:
            failed.append(refusal)
            tell(Problem(str(file), 0, str(refusal).removeprefix(f"{file}: ")))
    if failed and len(failed) == len(files):
        raise failed[0]
    if problems.first is not None:
        message = f"{problems.count} records of {fspath(path)!r} were skipped, the first: {problems.first}"
        warnings.warn(message, BudgetWarning, stacklevel=2)


def events_of(
    source: Source,
    *,
    format: str = "auto",  # noqa: A002 - as above
    on_problem: OnProblem | None = None,
) -> Iterable[Event]:
    """The events of *source*; the options are those of `read_any`, for files.

    Raises:
        As `read_any`, for files.
    """
    if isinstance(source, Trace):
        return source.events
    if isinstance(source, str | PathLike):
        return read_any(source, format=format, on_problem=on_problem)
    return _each(source, format, on_problem)


def _each(given: Iterable[str | PathLike[str] | Event], kind: str, on_problem: OnProblem | None) -> Iterator[Event]:
    for each in given:
        if isinstance(each, str | PathLike):
            yield from read_any(each, format=kind, on_problem=on_problem)
        else:
            yield each


def convert(
    source: str | PathLike[str],
    target: str | PathLike[str],
    *,
    format: str = "auto",  # noqa: A002 - as above
    on_problem: OnProblem | None = None,
) -> int:
    """Write *source* as one trace file of this project; returns how many events it has."""
    number = 0
    with Path(target).open("xb") as file:
        file.write(encode([TraceOpened(at=0.0, schema=SCHEMA, version=VERSION)]))
        for event in read_any(source, format=format, on_problem=on_problem):
            file.write(encode([event]))
            number += 1
    return number


def _events(file: Path, wanted: str, on_problem: OnProblem) -> Iterator[Event]:
    def tell(line: int, reason: str) -> None:
        on_problem(Problem(str(file), line, reason))

    first = None if wanted == OWN else _first(file)
    importer = None if first is None else _importer(file, wanted, first)
    if importer is None:  # also where there is not one record: the reader says what is there instead
        for batch in read_batches(file, on_problem):
            yield from batch
    else:
        yield from importer.events(records(file, tell), tell)


def _first(file: Path) -> Record | None:
    with closing(records(file, _tell_nobody)) as rows:
        return next(rows, None)


def _importer(file: Path, wanted: str, first: Record) -> Importer | None:
    """The importer of *file*; None for this project's own format."""
    if wanted != "auto":
        return _IMPORTERS[wanted]
    if "event" in first.value and "at" in first.value:
        return None
    for importer in _IMPORTERS.values():
        if importer.recognizes(first.value):
            return importer
    known = ", ".join(formats())
    raise TraceFormatError(f"{file}: line {first.line} is of no known format ({known}); say which with format=.")


def _tell_nobody(line: int, reason: str) -> None:
    """Whoever reads the file will tell."""


class _Count:
    """Counts problems and keeps the first."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Problem | None = None

    def add(self, problem: Problem) -> None:
        self.count += 1
        self.first = self.first or problem
