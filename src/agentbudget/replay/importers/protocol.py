"""How a trace made elsewhere becomes events: the protocol of an importer and what importers share.

An importer is a class with a `name`, a `recognizes(record)` and an `events(records, tell)`: it is given the decoded
lines of one file, one at a time, and yields this project's events in order, so that replay, calibration, diff and
reports work on them. It keeps only what is still open in memory, and tells what it skips by line and reason:

    class Mine:
        name = "mine"

        def recognizes(self, record):
            return "my_format" in record

        def events(self, records, tell):
            for line, row in records:
                if "dollars" not in row:
                    tell(line, "no cost")
                    continue
                ...

docs/replay.md has a whole one. `register(Mine())` makes it known to `read_any`, `calibrate` and the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from agentbudget.trace.events import Event


class Record(NamedTuple):
    """One decoded line."""

    line: int
    value: Mapping[str, Any]


Tell = Callable[[int, str], None]
"""Takes the line and the reason of what was skipped."""


class Importer(Protocol):
    """Reads one format."""

    name: str
    """What users call the format."""

    def recognizes(self, record: Mapping[str, Any]) -> bool:
        """Whether the first record of a file is of this format."""

    def events(self, records: Iterator[Record], tell: Tell) -> Iterator[Event]:
        """The events of *records*, in order, in bounded memory."""
