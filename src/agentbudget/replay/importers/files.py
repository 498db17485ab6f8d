"""Lines of foreign files as records, one at a time; what cannot be read is told by file, line and reason."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import IO

import msgspec

from agentbudget.errors import TraceError
from agentbudget.replay.importers.protocol import Record, Tell

MAX_LINE = 64 << 20
"""A longer line is skipped without being kept."""
MAX_DOCUMENT = 512 << 20
"""A file that is one JSON document is read whole, up to this size."""
_GZIP = b"\x1f\x8b"


def records(path: Path, tell: Tell) -> Generator[Record, None, None]:
    """The JSON objects of *path*: one a line, or all of a file that is one object or one list of them.

    Raises:
        TraceError: the file cannot be read.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(len(_GZIP)) == _GZIP
            raw.seek(0)
            stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]  # it reads as one
            if _is_document(stream):
                yield from _document(stream, tell)
                return
            yield from _lines(stream, tell)
    except (EOFError, zlib.error, gzip.BadGzipFile) as damage:
        tell(0, f"damaged gzip, what lies behind is lost: {damage}")
    except OSError as refusal:
        raise TraceError(f"{path}: cannot be read ({refusal.strerror or refusal}).") from refusal


def _is_document(stream: IO[bytes]) -> bool:
    """Whether the file is a list, or an object over several lines."""
    first = b""
    while not first.strip() and (line := stream.readline(MAX_LINE)):
        first = line
    stream.seek(0)
    text = first.strip()
    return text.startswith(b"[") or text == b"{" or (text.startswith(b"{") and not text.endswith(b"}"))


def _document(stream: IO[bytes], tell: Tell) -> Iterator[Record]:
    data = stream.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        tell(0, f"one document of more than {MAX_DOCUMENT >> 20} MiB: export it as JSON Lines")
        return
    try:
        value = msgspec.json.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        stream.seek(0)
        yield from _lines(stream, tell)
        return
    for number, item in enumerate(value if isinstance(value, list) else [value], 1):
        if isinstance(item, Mapping):
            yield Record(number, item)
        else:
            tell(number, "not an object")


def _lines(stream: IO[bytes], tell: Tell) -> Iterator[Record]:
    number = 0
    while line := stream.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            tell(number, f"longer than {MAX_LINE >> 20} MiB")
            while (rest := stream.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            continue
        if not line.strip():
            continue
        try:
            value = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as damage:
            reason = str(damage)
            tell(number, f"not JSON: {reason if reason.isprintable() else ascii(reason)}")
            continue
        if isinstance(value, Mapping):
            yield Record(number, value)
        else:
            tell(number, "not an object")
