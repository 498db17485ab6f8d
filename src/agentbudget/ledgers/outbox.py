"""The outbox: what could not be written to the ledger yet, in a file, until it was.

A folder has one file for each process, which that process keeps locked. Whoever opens the folder takes over the files
of processes that are gone, unless they are for another ledger. One line is one JSON object; a line that was not
written whole is skipped and counted.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentbudget.domain.accounts import Charge, Posting
from agentbudget.domain.alerts import AlertAt
from agentbudget.ledgers.keys import account_of

MOST = 100_000
"""Deliveries that may wait before nothing more is admitted without the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One write that the ledger has yet to see: a `settle`, or a `release` without charges."""

    id: str
    charges: tuple[Charge, ...] = ()
    alert_at: AlertAt = field(default_factory=dict)
    """Thresholds to watch, so that a settlement which comes late raises its alarms all the same."""

    @property
    def verb(self) -> str:
        """What it asks the ledger for."""
        return "settle" if self.charges else "release"


class Outbox:
    """Deliveries in the order in which they came. Thread-safe; usable on both sides of a fork.

    Args:
        folder: where the files are; made when first needed. None keeps everything in memory.
        most: from how many deliveries on it is `full`.
        ledger: names the ledger that the deliveries are for; empty: whoever opens the folder.
    """

    def __init__(self, folder: Path | None, *, most: int = MOST, ledger: str = "") -> None:
        self._folder = folder
        self._ledger = ledger
        self._most = most
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._descriptor = -1
        self._path: Path | None = None
        self._waiting: dict[str, Delivery] = {}
        self._admitted: dict[str, tuple[Charge, ...]] = {}
        self.delivering = threading.Lock()
        """Held by the thread that delivers."""
        self.damaged = 0
        """Lines of files taken over that could not be read."""
        self.others: set[str] = set()
        """Ledgers for which something waits in the folder that nobody delivers, since it is not for this one."""
        if folder is not None and folder.is_dir():
            self._take_over()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether so much waits that nothing may be added by admitting calls."""
        return len(self._waiting) + len(self._admitted) >= self._most

    @property
    def path(self) -> Path | None:
        """The file of this process; None while it has none."""
        return self._path

    def admit(self, reservation_id: str, postings: Sequence[Posting]) -> None:
        """Note that a call was admitted without the ledger. Whoever takes over charges it if nobody settled it.

        Raises:
            OSError: it could not be written; then nothing was noted.
        """
        charges = tuple(Charge(account, amount, amount) for account, amount, _ in postings)
        with self._mine():
            self._append({"admit": reservation_id, "lines": _lines(charges)})
            self._admitted[reservation_id] = charges

    def put(self, delivery: Delivery) -> bool:
        """Keep *delivery* until it is `delivered`; whether it is on the disk. The first settle of an id counts."""
        with self._mine():
            known = self._waiting.get(delivery.id)
            if known is not None and (known.charges or not delivery.charges):
                return True
            self._admitted.pop(delivery.id, None)
            self._waiting[delivery.id] = delivery
            try:
                self._append(_written(delivery))
            except OSError:
                return False
            return self._folder is not None

    def waiting(self) -> list[Delivery]:
        """Everything to deliver, oldest first."""
        with self._mine():
            return list(self._waiting.values())

    def delivered(self, delivery: Delivery) -> None:
        """The ledger has it. A crash before this is written means it is delivered twice, which changes nothing."""
        with self._mine():
            self._waiting.pop(delivery.id, None)
            with suppress(OSError):
                if self._waiting or self._admitted:
                    self._append({"done": delivery.id}, sync=False)
                elif self._descriptor >= 0:
                    os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Close the file; it is removed where nothing waits. Idempotent."""
        with self._mine():
            if self._descriptor < 0:
                return
            if self._path is not None and not self._waiting and not self._admitted:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    # -- the file ------------------------------------------------------------------------------------------------------

    def _mine(self) -> threading.RLock:
        """The lock; what a parent process had waiting stays the parent's."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock, self.delivering = threading.RLock(), threading.Lock()
            self._waiting, self._admitted = {}, {}
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor, self._path = -1, None
        return self._lock

    def _append(self, record: dict[str, object], *, sync: bool = True) -> None:
        if self._folder is None:
            return
        if self._descriptor < 0:
            self._open(self._folder)
        line = json.dumps(record).encode() + b"\n"
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        if not end and self._ledger:
            line = json.dumps({"ledger": self._ledger}).encode() + b"\n" + line
        if os.write(self._descriptor, line) < len(line):
            os.ftruncate(self._descriptor, end)
            raise OSError(f"{self._path}: the disk is full")
        if sync:
            os.fsync(self._descriptor)

    def _open(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while self._descriptor < 0:
            path = folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            # Whoever looks for files of the dead may have been quicker than the lock.
            if _locked(descriptor) and os.fstat(descriptor).st_nlink:
                self._descriptor, self._path = descriptor, path
            else:
                os.close(descriptor)

    def _take_over(self) -> None:
        for path in sorted(self._folder.glob("*.jsonl")) if self._folder else ():
            try:
                descriptor = os.open(path, os.O_RDWR)
            except OSError:
                continue
            try:
                if _locked(descriptor) and os.fstat(descriptor).st_nlink and self._is_ours(path):
                    self._read(path)
                    path.unlink()
            finally:
                os.close(descriptor)

    def _is_ours(self, path: Path) -> bool:
        """Whether what waits in the file at *path* is for this ledger, as far as either of them is named."""
        named = next((name for record in _records(path) if record is not None and (name := record.get("ledger"))), "")
        if not named or not self._ledger or named == self._ledger:
            return True
        self.others.add(named)
        return False

    def _read(self, path: Path) -> None:
        """Take what waits in the file at *path*; a call of which only the admission is known was perhaps paid."""
        waiting: dict[str, Delivery] = {}
        for record in _records(path):
            found = None if record is None else _entry(record)
            if found is None:
                self.damaged += 1
            elif found[0] == "done":
                waiting.pop(found[1].id, None)
            elif found[0] != "ledger":
                waiting[found[1].id] = found[1]
        for delivery in waiting.values():
            if not self.put(delivery):
                raise OSError(f"{delivery.id} cannot be written beside {path}")


def _written(delivery: Delivery) -> dict[str, object]:
    record: dict[str, object] = {delivery.verb: delivery.id, "lines": _lines(delivery.charges)}
    if delivery.alert_at:
        record["alert_at"] = [(account.key, list(thresholds)) for account, thresholds in delivery.alert_at.items()]
    return record


def _records(path: Path) -> Iterator[dict[str, Any] | None]:
    """The lines of the file at *path*; None for each that cannot be read."""
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        yield record if isinstance(record, dict) and record else None


def _entry(record: dict[str, Any]) -> tuple[str, Delivery] | None:
    """What a line says, and of what; None where it makes no sense."""
    try:
        (name, reservation_id), *_ = record.items()
        charges = [Charge(account_of(key), reserved, actual) for key, reserved, actual in record.get("lines", ())]
        alert_at = {account_of(key): tuple(thresholds) for key, thresholds in record.get("alert_at", ())}
    except (ValueError, AttributeError, TypeError):
        return None
    return name, Delivery(id=reservation_id, charges=tuple(charges), alert_at=alert_at)


def _lines(charges: Iterable[Charge]) -> list[tuple[str, int, int]]:
    return [(account.key, reserved, actual) for account, reserved, actual in charges]


def _locked(descriptor: int) -> bool:
    """Lock the file for this process; whether it is locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
