"""Trace files: finding them, and their lines as events in blocks of bounded memory."""

from __future__ import annotations

import glob
import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

import msgspec

from agentbudget.errors import TraceError, TraceFormatError, TraceVersionError
from agentbudget.trace.events import SCHEMA, AnyEvent, Event, TraceOpened

BLOCK = 1 << 20
"""Bytes read at once."""
MAX_LINE = 16 << 20
"""A longer line is no event; it is skipped without being kept in memory."""

_ENDINGS = (".jsonl", ".jsonl.gz")
_GZIP = b"\x1f\x8b"
_SHOWN = 3
_DAMAGE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding a line may raise."""
_DECODER: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


class _Header(msgspec.Struct):
    """What every version's header has."""

    event: str
    schema: int


_HEADER = msgspec.json.Decoder(_Header)


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that was skipped, with the reason; line 0 means the file itself."""

    path: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}" if self.line else f"{self.path}: {self.reason}"


OnProblem = Callable[[Problem], None]


def trace_files(path: str | PathLike[str]) -> list[Path]:
    """The files that *path* means: itself, those ending in .jsonl or .jsonl.gz below a folder, or those a glob matches.

    Raises:
        TraceError: there are none.
    """
    if not fspath(path):
        msg = "'': name a trace file, a folder or a pattern; '.' is the folder you are in."
        raise TraceError(msg)
    where = Path(path)
    if where.is_dir():
        found = sorted(file for file in where.rglob("*") if file.name.endswith(_ENDINGS) and file.is_file())
        if not found:
            msg = f"{where}: no trace in this folder (no file ending in .jsonl or .jsonl.gz)."
            raise TraceError(msg)
        return found
    if where.exists():
        return [where]
    if glob.has_magic(fspath(path)):
        names = glob.glob(fspath(path), recursive=True)  # noqa: PTH207 - Path.glob refuses absolute patterns
        found = sorted(file for name in names if (file := Path(name)).is_file())
        if found:
            return found
    msg = f"{where}: no such trace file, folder or pattern."
    raise TraceError(msg)


def read_batches(path: Path, on_problem: OnProblem) -> Iterator[list[Event]]:
    """The events of one file in order, in lists; gzip is recognised by content. Memory is bounded.

    Lines that are no event go to *on_problem*. A last line without its newline counts if it is whole.

    Raises:
        TraceError: the file cannot be read.
        TraceVersionError: a newer version wrote it.
        TraceFormatError: not one line of it is an event.
    """
    bad: list[Problem] = []

    def note(problem: Problem) -> None:
        if len(bad) < _SHOWN:
            bad.append(problem)
        on_problem(problem)

    usable = False
    for number, block in _blocks(path, note):
        batch = _decode(path, number, block, note)
        if batch:
            usable = True
            yield batch
    if not usable:
        said = [f"line {problem.line}: {problem.reason}" if problem.line else problem.reason for problem in bad]
        why = "; ".join(said) or "it is empty"
        msg = f"{path}: not a trace of agentbudget, no line of it is an event ({why})."
        raise TraceFormatError(msg)


def _blocks(path: Path, on_problem: OnProblem) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines, each with the number of its first line."""
    number, rest, skipping = 1, b"", False
    for chunk in _chunks(path, on_problem):
        data = rest + chunk
        cut = data.rfind(b"\n") + 1
        block, rest = data[:cut], data[cut:]
        if cut and skipping:
            skipping = False
            number += 1
            block = block[block.index(b"\n") + 1 :]
        if block:
            yield number, block
            number += block.count(b"\n")
        if len(rest) > MAX_LINE or skipping:
            if not skipping:
                on_problem(Problem(str(path), number, f"longer than {MAX_LINE >> 20} MiB"))
            skipping, rest = True, b""
    if rest:
        yield number, rest


def _chunks(path: Path, on_problem: OnProblem) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as raw:
            chunk = raw.read(BLOCK)
            if chunk.startswith(_GZIP):
                raw.seek(0)
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    while chunk := unpacked.read(BLOCK):
                        yield chunk
                return
            while chunk:
                yield chunk
                chunk = raw.read(BLOCK)
    except (EOFError, zlib.error, gzip.BadGzipFile) as damage:
        on_problem(Problem(str(path), 0, f"damaged gzip, what lies behind is lost: {damage}"))
    except OSError as refusal:
        msg = f"{path}: cannot be read ({refusal.strerror or refusal})."
        raise TraceError(msg) from refusal


def _decode(path: Path, number: int, block: bytes, on_problem: OnProblem) -> list[Event]:
    """The events of *block*: all lines at once, and one by one only where that fails."""
    events: list[Event]
    try:
        events = _DECODER.decode_lines(block)  # type: ignore[assignment]  # a list of each kind of event
    except _DAMAGE:
        events = list(_decode_singly(path, number, block, on_problem))
    if b'"trace_opened"' in block:
        for header in [event for event in events if type(event) is TraceOpened]:
            _check_version(path, header.schema)
    return events


def _decode_singly(path: Path, number: int, block: bytes, on_problem: OnProblem) -> Iterator[Event]:
    for line in block.split(b"\n"):
        if line.strip():
            try:
                yield _DECODER.decode(line)
            except _DAMAGE as damage:
                _check_header(path, line)
                on_problem(Problem(str(path), number, _reason(line, damage)))
        number += 1


def _check_header(path: Path, line: bytes) -> None:
    """A header this version cannot read may still say which version wrote it."""
    if b'"trace_opened"' not in line:
        return
    try:
        header = _HEADER.decode(line)
    except _DAMAGE:
        return
    if header.event == "trace_opened":
        _check_version(path, header.schema)


def _check_version(path: Path, schema: int) -> None:
    if schema < 1:
        msg = f"{path}: its header says schema {schema}, which no version ever wrote: it is damaged."
        raise TraceVersionError(msg)
    if schema > SCHEMA:
        msg = f"{path}: written with schema {schema}, this version reads up to {SCHEMA}: upgrade langchain-agentbudget."
        raise TraceVersionError(msg)


def _reason(line: bytes, damage: Exception) -> str:
    if isinstance(damage, RecursionError):
        return "nested too deeply"
    if line.startswith(b"{") and not line.rstrip().endswith(b"}"):
        return f"cut short after {len(line):,} bytes"
    if isinstance(damage, UnicodeDecodeError):
        return "not UTF-8"
    reason = str(damage)
    return reason if reason.isprintable() else ascii(reason)
