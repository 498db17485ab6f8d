"""The server's replies as the values of the port."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from agentbudget.domain.accounts import Account, Balance, Posting
from agentbudget.domain.alerts import Crossing
from agentbudget.domain.ledger import (
    Granted,
    JournalEntry,
    Refused,
    ReservationState,
    Settled,
    Shortfall,
    Verification,
)
from agentbudget.errors import ReservationConflictError
from agentbudget.ledgers import plan
from agentbudget.ledgers.keys import account_of

_STATES = {
    b"L": ReservationState.LIVE,
    b"S": ReservationState.SETTLED,
    b"R": ReservationState.RELEASED,
    b"T": ReservationState.RELEASED,
    b"X": ReservationState.EXPIRED,
    b"Y": ReservationState.EXPIRED,
}
_GRANTED = {code: Granted(state) for code, state in _STATES.items()}
_SETTLED = {how.encode(): Settled(how) for how in ("settled", "late", "lost", "duplicate")}
_CONFLICT = b"C"
_SUMS = ("settled", "reserved", "presumed", "overrun")
_CARRY = 53
"""A sum that is larger than what a double holds is told as how often 2**53 is in it, and the rest."""
_BASES = ("settled", "presumed", "overrun")
_NO_PIN = -2
_ARRAY_OF_FIVE = b"\x95"
SECOND = 1_000_000
"""Scripts count time in whole microseconds."""
_unpacked = msgspec.msgpack.decode


@dataclass(frozen=True, slots=True)
class Stored:
    """One account as the server has it."""

    key: str
    columns: plan.Columns
    bases: tuple[tuple[str, int], ...]
    """What entries that are no longer retained had added, by column."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The accounts and all retained entries at one moment."""

    accounts: dict[int, Stored]
    """By the server's id of the account."""
    entries: list[Any]


def state(reply: bytes) -> ReservationState:
    """The state that a script returned."""
    return _STATES[reply]


def granted(reply: Any, reservation_id: str, postings: Sequence[Posting]) -> Granted | Refused:
    """The answer to a reserve."""
    known = _GRANTED.get(reply) if isinstance(reply, bytes) else None
    if known is not None:
        return known
    if reply == _CONFLICT:
        raise ReservationConflictError(f"reservation {reservation_id!r} holds other accounts or amounts.")
    return Refused(
        tuple(
            Shortfall(postings[place - 1].account, postings[place - 1].amount, balance(columns))
            for place, columns in reply
        )
    )


def settled(reply: Any, reservation_id: str) -> Settled:
    """The answer to a settle."""
    if isinstance(reply, list):
        how, told = reply
        at, lines = _unpacked(told)
        crossed = [_crossing(line, at / SECOND) for line in lines]
        return Settled(how.decode(), tuple(sorted(crossed, key=lambda one: (one.account.key, one.threshold))))
    if reply == _CONFLICT:
        raise ReservationConflictError(
            f"reservation {reservation_id!r} holds other accounts or amounts, or was settled with another amount."
        )
    return _SETTLED[reply]


def balance(reply: Sequence[Any]) -> Balance:
    """The balance that a script returned."""
    limit, spent, reserved, presumed, overrun, cut = map(_sum, reply)
    return Balance(
        limit=None if limit == plan.NO_LIMIT else limit,
        settled=spent,
        reserved=reserved,
        presumed=presumed,
        overrun=overrun,
        cut=cut,
    )


def topped_up(reply: Any, grant_id: str, account: Account) -> Balance:
    """The answer to a top-up."""
    if reply == _CONFLICT:
        raise ReservationConflictError(f"grant {grant_id!r} was made with another account or amount.")
    if reply == b"V":
        plan.check_amount(plan.MAX_AMOUNT + 1, what=f"sum of all top-ups of {account}")
    return balance(reply)


def stored(reply: Sequence[Any]) -> dict[int, Stored]:
    """The accounts of a reading, by the server's id."""
    found = {}
    for number, key, packed, (cut, *bases) in reply:
        _, _, grants, pin, *sums = map(int, struct.unpack(f"<{len(packed) // 8}d", packed))
        carries = sums[len(_SUMS) :] or [0] * len(_SUMS)
        columns = {name: _sum(pair) for name, *pair in zip(_SUMS, carries, sums, strict=False)}
        found[int(number)] = Stored(
            key=key.decode(),
            columns=plan.Columns(**columns, cut=int(cut or 0), grants=grants, pin=None if pin == _NO_PIN else pin),
            bases=tuple((name, int(amount)) for name, amount in zip(_BASES, bases, strict=True) if amount),
        )
    return found


def journal(found: Snapshot) -> Iterator[JournalEntry]:
    """The entries in order, checkpoints first; lines of collected accounts are left out."""
    for account in found.accounts.values():
        for column, amount in account.bases:
            yield JournalEntry(sequence=0, verb="checkpoint", id=column, lines=((account.key, amount),), at=0.0)
    for sequence, (_, packed) in found.entries:
        verb, at, entry_id, told, _ = _unpacked(_ARRAY_OF_FIVE + packed)
        rows = zip(told[::2], told[1::2], strict=True)
        lines = tuple((found.accounts[row].key, int(amount)) for row, amount in rows if row in found.accounts)
        if lines or not told:
            number = int(sequence.partition(b"-")[0])
            yield JournalEntry(sequence=number, verb=verb, id=entry_id, lines=lines, at=at / SECOND)


def verification(found: Snapshot) -> Verification:
    """Compare every stored column with what the entries say."""
    told = plan.replay(journal(found))
    columns = {account.key: account.columns for account in found.accounts.values()}
    differences: list[str] = []
    for key in sorted({*columns, *told.columns}):
        recorded = told.columns.get(key, plan.Columns())
        differences += plan.differences(key, recorded=recorded, stored=columns.get(key, plan.Columns()))
    return Verification(accounts=len(columns), entries=told.entries, differences=tuple(differences))


def _crossing(line: Sequence[Any], at: float) -> Crossing:
    key, threshold, limit, *spent = line
    return Crossing(account=account_of(key), threshold=threshold, limit=limit, settled=_sum(spent), at=at)


def _sum(told: Any) -> int:
    """A number, or a large sum in two parts."""
    return (told[0] << _CARRY) + told[1] if isinstance(told, list) else int(told)
