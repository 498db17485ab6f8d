"""What every ledger decides alike, as pure functions: valid terms, ceilings, fingerprints, replay of a journal.

The order of errors is total. A verb looks in this order and the first finding is its answer:

1. `ValueError`: the id; the lease; no line at all; then per line, in order, its amounts and its limit; an account
   named twice. Nothing was written.
2. `ReservationConflictError`: the id is known with other terms. Nothing was written.
3. The id is known with these terms: the answer that it got, or the state it is in now. Nothing was written.
4. `reserve` only: `Refused` with every account that has no room. Nothing was written.
5. The write.

`LedgerUnavailableError` may take the place of any of them, since only the store can know 2 to 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

from agentbudget.domain.accounts import Account, Charge, Posting
from agentbudget.domain.ledger import JournalEntry
from agentbudget.domain.money import MAX_NANOS

MAX_AMOUNT = MAX_NANOS
"""Largest amount and largest ceiling, of any meter: what every backend holds exactly. An account without a limit
has this one."""
MAX_ID_BYTES = 200
"""Longest id of a reservation or grant, in UTF-8 bytes."""
NO_LIMIT = -1
"""How a journal line writes "no limit"."""

Terms = tuple[tuple[str, int], ...]
"""A fingerprint: `(account key, amount)`, sorted, lines of 0 left out since they hold nothing."""


def check_id(value: object, *, what: str = "reservation_id") -> None:
    """Refuse an *id* that some backend could not keep.

    Raises:
        ValueError: not a string, empty, not valid Unicode or longer than `MAX_ID_BYTES`.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f"{what}={value!r}: an id is a string that is not empty.")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{what}={value!r}: an id is valid Unicode.") from error
    if size > MAX_ID_BYTES:
        raise ValueError(f"{what}={value[:40]!r}…: an id has at most {MAX_ID_BYTES} bytes.")


def check_lease(lease_seconds: float) -> None:
    """Refuse a lease that is not a finite number of seconds above 0.

    Raises:
        ValueError: it is not.
    """
    if not 0 < lease_seconds < math.inf:
        raise ValueError(f"lease_seconds={lease_seconds!r}: a lease is a finite number of seconds above 0.")


def check_amount(amount: object, *, what: str, of: Account | None = None) -> None:
    """Refuse what is not an `int` from 0 to `MAX_AMOUNT`; a bool is no int here.

    Raises:
        ValueError: it is not.
    """
    if type(amount) is not int or not 0 <= amount <= MAX_AMOUNT:
        whose = "" if of is None else f" of {of}"
        raise ValueError(f"{what}{whose}={amount!r}: an amount is an int from 0 to 2**53 - 1.")


def check_limit(limit: object, *, of: Account | None = None) -> None:
    """Refuse a limit that is neither None nor an amount.

    Raises:
        ValueError: it is not.
    """
    if limit is not None:
        check_amount(limit, what="limit", of=of)


def check_postings(postings: Sequence[Posting]) -> None:
    """Refuse postings that mean nothing.

    Raises:
        ValueError: none at all, an amount or limit out of range, an account twice.
    """
    if not postings:
        raise ValueError("a reservation has at least one posting.")
    for account, amount, limit in postings:
        check_amount(amount, what="amount", of=account)
        check_limit(limit, of=account)
    _check_once([account.key for account, _, _ in postings])


def check_charges(charges: Sequence[Charge]) -> None:
    """Refuse charges that mean nothing.

    Raises:
        ValueError: none at all, an amount out of range, an account twice.
    """
    if not charges:
        raise ValueError("a settlement has at least one charge.")
    for account, reserved, actual in charges:
        check_amount(reserved, what="reserved", of=account)
        check_amount(actual, what="actual", of=account)
    _check_once([account.key for account, _, _ in charges])


def terms(lines: Iterable[tuple[str, int]]) -> Terms:
    """The fingerprint of `(account key, amount)` lines."""
    return tuple(sorted(line for line in lines if line[1]))


def ceiling(limit: int | None, grants: int) -> int:
    """The most that may be committed under *limit* and *grants*."""
    return MAX_AMOUNT if limit is None else min(limit + grants, MAX_AMOUNT)


def overrun(held: int, actual: int) -> int:
    """What *actual* spent past what the ledger still *held* for it: 0 where the reservation was lost or given back."""
    return max(0, actual - held)


def cut(limit: int | None, *, grants: int, committed: int, overrun: int) -> int:
    """How far a new *limit* lies below what is committed, beyond what overruns explain."""
    return max(0, committed - overrun - ceiling(limit, grants))


@dataclass(slots=True)
class Columns:
    """What a journal says about one account."""

    settled: int = 0
    reserved: int = 0
    presumed: int = 0
    overrun: int = 0
    cut: int = 0
    grants: int = 0
    pin: int | None = None
    """The last `limit` entry; `NO_LIMIT` for none, None where there was no such entry."""


@dataclass(slots=True)
class Replay:
    """The columns of every account that a journal names, and how many entries it had."""

    columns: dict[str, Columns] = field(default_factory=dict)
    entries: int = 0


def replay(journal: Iterable[JournalEntry]) -> Replay:
    """Recompute every column from a *journal*, entry by entry.

    Verbs: `reserve` (lines: amounts held), `settle` (actual amounts), `release` (none), `expire` (amounts now
    presumed; none where expiry releases), `grant`, `limit` (`NO_LIMIT` for none), `cut` (the column from here on) and
    `checkpoint` (its id names the column, its lines are what entries no longer retained had added to it).
    """
    found = Replay()
    columns = found.columns
    held: dict[str, tuple[str, dict[str, int]]] = {}
    for entry in journal:
        found.entries += 1
        for key, _ in entry.lines:
            columns.setdefault(key, Columns())
        if entry.verb in {"grant", "limit", "cut", "checkpoint"}:
            _replay_account(columns, entry)
        else:
            _replay_reservation(columns, held, entry)
    return found


def differences(key: str, *, recorded: Columns, stored: Columns) -> list[str]:
    """Each stored column of account *key* that is not what its records say."""
    return [
        f"{key}: {column.name} is {found}, its records say {told}"
        for column in fields(Columns)
        if (found := getattr(stored, column.name)) != (told := getattr(recorded, column.name))
    ]


def _check_once(keys: list[str]) -> None:
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"account {twice!r} is named twice; add its amounts up.")


def _replay_account(columns: dict[str, Columns], entry: JournalEntry) -> None:
    for key, amount in entry.lines:
        row = columns[key]
        if entry.verb == "grant":
            row.grants += amount
        elif entry.verb == "limit":
            row.pin = amount
        elif entry.verb == "cut":
            row.cut = amount
        else:
            setattr(row, entry.id, getattr(row, entry.id) + amount)


def _replay_reservation(
    columns: dict[str, Columns], held: dict[str, tuple[str, dict[str, int]]], entry: JournalEntry
) -> None:
    column, before = held.pop(entry.id, ("reserved", {}))
    for key, amount in before.items():
        row = columns[key]
        setattr(row, column, getattr(row, column) - amount)
    lines = dict(entry.lines)
    if entry.verb == "settle":
        for key, actual in lines.items():
            columns[key].settled += actual
            columns[key].overrun += overrun(before.get(key, 0), actual)
        return
    column = "presumed" if entry.verb == "expire" else "reserved"
    for key, amount in lines.items():
        row = columns[key]
        setattr(row, column, getattr(row, column) + amount)
    if lines:
        held[entry.id] = (column, lines)
