"""Events to JSON Lines on disk. One system call per write, whole lines only; a failure never reaches the agent."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import tempfile
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from agentbudget.errors import BudgetWarning, ConfigurationError
from agentbudget.trace.events import Discrepancy, Event, TraceOpened
from agentbudget.trace.redaction import jsonable

MAX_OPEN_FILES = 64
"""Files kept open at once; the one unused for longest is closed first and opened again when needed."""

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
_NEWLINE = b"\n"
_MAX_LOST_TASKS = 100
_MAX_ID = 36
_MAX_SLUG = 40
_FILE_NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)
_UNSAFE = re.compile(r"[^\w-]+", re.ASCII)
# Characters that move the cursor, reorder text or hide: escaped, so that a trace can be shown in a terminal.
_UNPRINTABLE = re.compile(
    "[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)

_ENCODER = msgspec.json.Encoder()
_LOG = logging.getLogger("agentbudget.trace")


def stem(task_id: str, name: str, at: float) -> str:
    """The name of a root task's file in a folder, without ending: its start (UTC), name and id, made file-safe.

    Different ids never share a name: an id that had to be changed or cut is told apart by a hash.
    """
    try:
        start = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    except (ValueError, OverflowError, OSError):
        start = "00000000T000000Z"
    slug = _UNSAFE.sub("-", name)[:_MAX_SLUG].strip("-")
    safe = _UNSAFE.sub("-", task_id)[:_MAX_ID]
    if safe != task_id:
        safe += "-" + hashlib.blake2b(task_id.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return "-".join(part for part in (start, slug, safe) if part)


class TraceWriter:
    """Appends events to one file or to a folder with a file for each root task. Safe under threads and forks.

    Every `write` is one append of whole lines, so a killed process loses at most the line it was writing, and
    several processes may write to one file. Each file begins with *header*; a writer that continues a file of
    another one adds its own. Files hold prompts and results only with `content="full"`, and are then readable by
    their owner only.

    A failed write (disk full, folder gone) is counted in `failures`, logged and warned about once, and noted in
    the file as soon as it can be written again. It never raises.

    Args:
        target: a file, if it ends in `.jsonl`; otherwise a folder. Both are made if missing.
        header: the first line of every file.

    Raises:
        ConfigurationError: nothing can be written there; found out by writing.
    """

    def __init__(self, target: str | os.PathLike[str], *, header: TraceOpened) -> None:
        self.failures = 0
        """Events that could not be written."""
        self.target = _checked(target)
        self.single = self.target.suffix == ".jsonl"
        self._header = _ENCODER.encode_lines([header])
        self._mode = 0o600 if header.content == "full" else 0o666
        self._warned = False
        self._reset()
        self._probe()
        _WRITERS.add(self)

    def write(self, file: str, events: Sequence[Event]) -> None:
        """Append *events* to *file*: a `stem`, ignored where everything goes into one file. Never raises."""
        if not events:
            return
        data = encode(events)
        with self._lock:
            if self.single:
                file = ""
            elif file in self._descriptors:
                self._descriptors.move_to_end(file)
            descriptor = None if self._first or self._lost else self._descriptors.get(file)
            if descriptor is None:  # it is to be opened first, or a file is owed a line
                lines, problem = self._append(file, data)
            else:
                written, problem = _push(descriptor, data)
                lines = 0 if problem is None else self._torn(file, data, written)
            if problem is None:
                return
            self._lose(file, events, len(events) - lines)
        self._complain(file, problem)

    def path(self, file: str) -> Path:
        """Where the events of *file* go.

        Raises:
            ValueError: *file* cannot be the name of a file; `stem` makes one that can.
        """
        if self.single:
            return self.target
        if not _FILE_NAME.fullmatch(file):
            msg = f"{file!r} cannot name a trace file; use stem()."
            raise ValueError(msg)
        return self.target / f"{file}.jsonl"

    def release(self, file: str) -> None:
        """Close *file*: nothing more is expected. A later write opens it again."""
        if self.single:
            return
        with self._lock:
            descriptor = self._descriptors.pop(file, None)
            self._begun.discard(file)
            self._first.pop(file, None)
            self._lost.pop(file, None)
        if descriptor is not None:
            _close(descriptor)

    def close(self) -> None:
        """Close all files. Idempotent; a later write opens what it needs again."""
        with self._lock:
            descriptors = list(self._descriptors.values())
            self._descriptors.clear()
        for descriptor in descriptors:
            _close(descriptor)

    def _reset(self) -> None:
        """The state of a writer that has written nothing; in a forked child, whose lock may be held by nobody."""
        self._lock = threading.Lock()
        self._descriptors: OrderedDict[str, int] = OrderedDict()
        self._begun: set[str] = set()
        """Files that have this writer's header."""
        self._first: dict[str, bytes] = {}
        """What must precede the next line of a file."""
        self._lost: dict[str, tuple[int, set[str]]] = {}
        """Per file: events that could not be written, and their tasks."""

    def _after_fork(self) -> None:
        inherited = list(self._descriptors.values())
        self._reset()
        for descriptor in inherited:
            _close(descriptor)

    def _probe(self) -> None:
        problem: Exception | None = None
        try:
            (self.target.parent if self.single else self.target).mkdir(parents=True, exist_ok=True)
            if self.single:
                _, problem = self._append("", b"")
            else:
                with tempfile.NamedTemporaryFile(dir=self.target, prefix=".probe-") as file:
                    file.write(self._header)
        except OSError as refusal:
            problem = refusal
        if problem is not None:
            self.close()
            msg = (
                f"trace={str(self.target)!r}: cannot write there ({_reason(problem)}). "
                "Name a folder, or a file ending in .jsonl, that can be written."
            )
            raise ConfigurationError(msg) from problem

    def _append(self, file: str, data: bytes) -> tuple[int, Exception | None]:
        """Append the lines of *data*; what stopped it, if anything did, after how many whole lines."""
        descriptor = self._descriptors.get(file)
        if descriptor is None:
            try:
                descriptor = self._open(file)
            except (OSError, ValueError) as problem:
                return 0, problem
        start = self._first.pop(file, b"")
        first = start + self._note(file)
        written, refusal = _push(descriptor, first + data)
        if first and written >= len(first):
            self._lost.pop(file, None)
        return (0, None) if refusal is None else (self._torn(file, data, written, first, start), refusal)

    def _torn(self, file: str, data: bytes, written: int, first: bytes = b"", start: bytes = b"") -> int:
        """Only *written* bytes of *first* (which begins with *start*) and *data* were taken: how many whole lines of
        *data* that is."""
        torn = _NEWLINE if written and (first + data)[written - 1 : written] != _NEWLINE else b""
        self._first[file] = torn + (start if written < len(start) else b"")
        # A line that lacks only its newline is whole: the next write begins with one.
        return data[: max(0, written - len(first)) + 1].count(_NEWLINE)

    def _open(self, file: str) -> int:
        descriptor = os.open(self.path(file), _FLAGS, self._mode)
        # Writes to a file on disk wait for nothing; guards of event loops tell that by this flag.
        with suppress(OSError, AttributeError):
            os.set_blocking(descriptor, False)
        begin = self._first.get(file, b"")
        if file not in self._begun:
            begin += self._header
            self._begun.add(file)
        self._first[file] = _NEWLINE + begin if _is_torn(descriptor) else begin
        self._descriptors[file] = descriptor
        if len(self._descriptors) > MAX_OPEN_FILES:
            _close(self._descriptors.popitem(last=False)[1])
        return descriptor

    def _note(self, file: str) -> bytes:
        """A line that says what was lost of *file*, for the reader."""
        if file not in self._lost:
            return b""
        count, tasks = self._lost[file]
        detail = f"{count} events could not be written; the numbers of this trace may be too low."
        note = Discrepancy(at=time.time(), tasks=tuple(sorted(tasks)), kind="trace_lost", detail=detail)
        return encode([note])

    def _lose(self, file: str, events: Sequence[Event], count: int) -> None:
        self.failures += count
        before, tasks = self._lost.get(file, (0, set()))
        for event in events:
            if len(tasks) < _MAX_LOST_TASKS:
                chain = getattr(event, "tasks", ())
                tasks.add(chain[-1] if chain else getattr(event, "task", ""))
        self._lost[file] = (before + count, tasks - {""})

    def _complain(self, file: str, problem: Exception) -> None:
        """Once: later failures are counted only."""
        if self._warned:
            return
        self._warned = True
        where = str(self.target if self.single else self.target / file)
        msg = (
            f"Trace events are being lost: {where!r}: {_reason(problem)}. The agent goes on; see TraceWriter.failures."
        )
        _LOG.error(msg)
        with suppress(BudgetWarning):  # where warnings are errors, a trace still must not stop an agent
            warnings.warn(msg, BudgetWarning, stacklevel=3)


def encode(events: Sequence[Event]) -> bytes:
    """*events* as JSON Lines. Content that is not JSON is made so; control and invisible characters are escaped."""
    try:
        # Of anything but a list it never lets its iterator go.
        data = _ENCODER.encode_lines(events if type(events) is list else list(events))
    except Exception:  # noqa: BLE001 - content may be anything and raise anything
        data = _ENCODER.encode_lines([_plain(event) for event in events])
    return data if data.isascii() else _escape(data)


def _plain(event: Event) -> dict[str, object]:
    fields = {name: jsonable(getattr(event, name)) for name in event.__struct_fields__}
    return {"event": type(event).__struct_config__.tag, **fields}


def _escape(data: bytes) -> bytes:
    return _UNPRINTABLE.sub(lambda match: json.dumps(match[0])[1:-1], data.decode()).encode()


def _push(descriptor: int, data: bytes) -> tuple[int, OSError | None]:
    """Write *data*; how many bytes were taken, and what stopped the rest."""
    written = 0
    try:
        written = os.write(descriptor, data)
        if written == len(data):
            return written, None
        while written < len(data):
            step = os.write(descriptor, data[written:])
            if not step:
                return written, OSError(errno.EIO, "nothing was written")
            written += step
    except OSError as problem:
        return written, problem
    return written, None


def _is_torn(descriptor: int) -> bool:
    """Whether the file ends in the middle of a line."""
    try:
        if os.lseek(descriptor, 0, os.SEEK_END) == 0:
            return False
        os.lseek(descriptor, -1, os.SEEK_END)
        return os.read(descriptor, 1) != _NEWLINE
    except OSError:  # a pipe or device has no last line
        return False


def _checked(target: str | os.PathLike[str]) -> Path:
    if not isinstance(target, str | os.PathLike) or not os.fspath(target):
        msg = f"trace={target!r}: a folder, or a file ending in .jsonl."
        raise ConfigurationError(msg)
    return Path(target).expanduser()


def _reason(problem: Exception) -> str:
    return getattr(problem, "strerror", None) or str(problem)


def _close(descriptor: int) -> None:
    with suppress(OSError):
        os.close(descriptor)


_WRITERS: weakref.WeakSet[TraceWriter] = weakref.WeakSet()


def _reset_after_fork() -> None:
    """A child starts with files and a lock of its own; what the parent has open stays the parent's."""
    for writer in list(_WRITERS):
        writer._after_fork()  # noqa: SLF001 - same module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
