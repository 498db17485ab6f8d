"""The slice journal: what a restarted process needs to settle the slices of the one before it exactly.

A folder has one file for each process, which that process keeps locked. Whoever opens the same ledger with the folder
next takes over the files of processes that are gone. One line is one JSON list. Lines are not flushed to the disk one
by one: they survive the end of the process, not of the machine. A file of an earlier start of the machine may lack its
end, so it is not used: its slices run out and count as spent in full.
"""

from __future__ import annotations

import fcntl
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from agentbudget.domain.accounts import Account, Charge, Posting
from agentbudget.errors import BudgetWarning
from agentbudget.ledgers.keys import account_of
from agentbudget.ledgers.outbox import Delivery
from agentbudget.ledgers.slices.pool import Slice

COMPACT_BYTES = 4 * 1024 * 1024
"""From this size on a file is written anew with what still matters."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True, kw_only=True)
class Left:
    """What a file says of the process that wrote it."""

    slices: dict[str, dict[str, int]] = field(default_factory=dict)
    """Slices by id: amounts by account key."""
    owed: dict[str, list[tuple[str, int, int]]] = field(default_factory=dict)
    """Settlements of slices that may not have arrived: account key, reserved, actual."""
    unreported: dict[str, int] = field(default_factory=dict)
    """Spend by account key that no settlement of a slice has told; below 0 where calls in flight were told."""
    held: dict[str, tuple[dict[str, int], float]] = field(default_factory=dict)
    """Calls in flight: amounts by account key, and lease in seconds."""
    settled: set[str] = field(default_factory=set)
    """Ids of settled calls."""

    def add(self, key: str, amount: int) -> None:
        """Count *amount* as spent and not told."""
        self.unreported[key] = self.unreported.get(key, 0) + amount

    def read(self, records: Iterable[list[Any]], keys: dict[int, str]) -> None:
        """Follow *records*; *keys* are the accounts by number."""
        for verb, name, *rest in records:
            if verb == "account":
                keys[name] = rest[0]
            elif verb == "unreported":
                self.add(keys[name], rest[0])
            elif verb == "lease":
                self.slices[name] = _amounts(rest[0], keys)
            elif verb == "tell":
                self._told(name, _charges(rest[0], keys))
            elif verb == "done":
                self.slices.pop(name, None)
                self.owed.pop(name, None)
            elif verb == "reserve":
                self.held[name] = (_amounts(rest[0], keys), rest[1])
            elif verb == "release":
                self.held.pop(name, None)
            elif verb == "settle" and name not in self.settled:
                self._settled(name, _charges(rest[0], keys))

    def _told(self, name: str, charges: list[tuple[str, int, int]]) -> None:
        if name in self.owed:
            return  # told again
        self.slices.pop(name, None)
        self.owed[name] = charges
        for key, _, actual in charges:
            self.add(key, -actual)

    def _settled(self, name: str, charges: list[tuple[str, int, int]]) -> None:
        self.held.pop(name, None)
        self.settled.add(name)
        for key, _, actual in charges:
            self.add(key, actual)


class SliceJournal:
    """The file of this process in *folder*; None keeps none. Thread-safe. *ledger* names the authority, *name* gives
    a name that no file had before."""

    def __init__(self, folder: Path | None, ledger: str, name: Callable[[], str]) -> None:
        self._folder = folder
        self._name = name
        self._head = {"boot": _boot(), "ledger": ledger}
        self._lock = threading.Lock()
        self._descriptor = -1
        self._path: Path | None = None
        self._numbers: dict[str, int] = {}
        self._bytes = 0
        self.on = folder is not None
        """Whether there is a file to write to."""

    @property
    def path(self) -> Path | None:
        """The file of this process; None while it has none."""
        return self._path

    # -- facts, in order -----------------------------------------------------------------------------------------------

    def reserved(self, reservation_id: str, postings: Sequence[Posting], lease_seconds: float) -> None:
        """A call was admitted."""
        self._write("reserve", reservation_id, [(account, amount) for account, amount, _ in postings], lease_seconds)

    def spent(self, reservation_id: str, charges: Sequence[Charge]) -> None:
        """A call was settled."""
        self._write("settle", reservation_id, charges)

    def released(self, reservation_id: str) -> None:
        """A call was given back."""
        self._write("release", reservation_id)

    def leasing(self, one: Slice) -> None:
        """The authority is about to be asked for a slice."""
        self._write("lease", one.id, [(pool.account, amount) for pool, amount in one.lines.items()])

    def settling(self, delivery: Delivery) -> None:
        """The authority is about to be told what was spent of a slice."""
        self._write("tell", delivery.id, delivery.charges)

    def settled(self, slice_id: str) -> None:
        """The authority holds nothing under this id any more."""
        self._write("done", slice_id)

    # -- the file ------------------------------------------------------------------------------------------------------

    def take_over(self) -> list[Left]:
        """What processes that are gone left behind for this ledger. Their files stay until `drop`."""
        found = []
        for path in sorted(self._folder.glob("*.slices")) if self._folder and self._folder.is_dir() else ():
            left = self._read(path)
            if left is not None:
                found.append(left)
        return found

    def close(self, *, empty: bool) -> None:
        """Close the file; it is removed where the authority holds nothing for this process. Idempotent."""
        with self._lock:
            self.on = False
            if self._descriptor >= 0:
                if empty and self._path is not None:
                    self._path.unlink(missing_ok=True)
                os.close(self._descriptor)
                self._descriptor = -1

    def forked(self) -> None:
        """In a child process: the file is the parent's."""
        self._lock = threading.Lock()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._path, self._numbers, self._bytes = -1, None, {}, 0

    def _write(self, verb: str, name: str, lines: Iterable[tuple[Any, ...]] = (), *rest: Any) -> None:
        if not self.on:
            return
        try:
            with self._lock:
                if self._descriptor < 0:
                    self._open()
                numbered = [(self._number(account), *amounts) for account, *amounts in lines]
                self._append(_encode((verb, name, numbered, *rest)))
                if self._bytes > COMPACT_BYTES:
                    self._compact()
        except OSError as error:
            self._give_up(error)

    def _number(self, account: Account) -> int:
        number = self._numbers.get(account.key)
        if number is None:
            number = self._numbers[account.key] = len(self._numbers)
            self._append(_encode(("account", number, account.key)))
        return number

    def _append(self, line: bytes) -> None:
        line += b"\n"
        if os.write(self._descriptor, line) < len(line):
            raise OSError("the disk is full")
        self._bytes += len(line)

    def _open(self) -> None:
        assert self._folder is not None  # noqa: S101 - `on` says so
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while self._descriptor < 0:
            path = self._folder / f"{self._name()}.slices"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            # Whoever looks for files of the dead may have been quicker than the lock.
            if _locked(descriptor) and os.fstat(descriptor).st_nlink:
                self._descriptor, self._path = descriptor, path
            else:
                os.close(descriptor)
        self._append(_encode(("head", self._head)))

    def _compact(self) -> None:
        """Write a new file with what still matters, then remove the old one."""
        old, path = self._descriptor, self._path
        assert path is not None  # noqa: S101 - it is open
        left = Left()
        left.read(_records(path), {})
        self._descriptor, self._path, self._numbers, self._bytes = -1, None, {}, 0
        self._open()
        self.write_left(left)
        path.unlink(missing_ok=True)
        os.close(old)
        self._bytes = 0

    def write_left(self, left: Left) -> None:
        """Note what was taken over as this process's own. Called with the lock held, or before anything else."""
        number = self._number_of_key
        for name, lines in left.slices.items():
            self._append(_encode(("lease", name, [(number(key), amount) for key, amount in lines.items()])))
        for name, charges in left.owed.items():
            told = [(number(key), reserved, actual) for key, reserved, actual in charges]
            self._append(_encode(("tell", name, told)))
            for key, _, actual in charges:
                left.add(key, actual)
        for key, amount in left.unreported.items():
            self._append(_encode(("unreported", number(key), amount)))
        for name, (lines, lease) in left.held.items():
            self._append(_encode(("reserve", name, [(number(key), amount) for key, amount in lines.items()], lease)))

    def _number_of_key(self, key: str) -> int:
        return self._number(account_of(key))

    def _give_up(self, error: OSError) -> None:
        """Go on without: a file that lacks something must not be believed."""
        self.on = False
        with suppress(OSError):
            if self._path is not None:
                self._path.unlink(missing_ok=True)
        with suppress(Warning):  # where warnings are errors, a settlement is not lost for one
            warnings.warn(
                f"the slice journal in {self._folder} cannot be written ({error}): after a crash the slices of this "
                "process count as spent in full.",
                BudgetWarning,
                stacklevel=4,
            )

    def _read(self, path: Path) -> Left | None:
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            return None
        try:
            if not _locked(descriptor) or not os.fstat(descriptor).st_nlink:
                return None
            records = _records(path)
            head = next(records, None)
            if head is None or head[0] != "head" or not head[1]["boot"] or head[1]["boot"] != self._head["boot"]:
                path.unlink()
                return None
            if head[1] != self._head:
                return None  # of another ledger
            left = Left()
            left.read(records, {})
            return left if self._inherit(left, path) else None
        finally:
            os.close(descriptor)

    def _inherit(self, left: Left, path: Path) -> bool:
        """Write *left* to the file of this process, then remove the one at *path*."""
        with self._lock:
            if self._descriptor < 0:
                self._open()
            self.write_left(left)
            path.unlink()
        for charges in left.owed.values():
            for key, _, actual in charges:
                left.add(key, -actual)
        return True


def _records(path: Path) -> Iterator[list[Any]]:
    """The records of a file, up to the first that was not written whole."""
    with path.open("rb") as lines:
        for line in lines:
            try:
                record = msgspec.json.decode(line)
            except msgspec.DecodeError:
                return
            yield record


def _amounts(lines: Sequence[Sequence[int]], keys: dict[int, str]) -> dict[str, int]:
    return {keys[number]: amount for number, amount in lines}


def _charges(lines: Sequence[Sequence[int]], keys: dict[int, str]) -> list[tuple[str, int, int]]:
    return [(keys[number], reserved, actual) for number, reserved, actual in lines]


def _boot() -> str:
    """Names this start of the machine."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def _locked(descriptor: int) -> bool:
    """Lock the file for this process; whether it is locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
