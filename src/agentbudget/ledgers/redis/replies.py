"""The server's replies as the values of the port."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
_COLUMNS = ("settled", "reserved", "presumed", "overrun", "cut", "grants")


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

    accounts: dict[str, Stored]
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
        crossed = [_crossing(line) for line in told.decode().split("\n")]
        return Settled(how.decode(), tuple(sorted(crossed, key=lambda one: (one.account.key, one.threshold))))
    if reply == _CONFLICT:
        raise ReservationConflictError(
            f"reservation {reservation_id!r} holds other accounts or amounts, or was settled with another amount."
        )
    return _SETTLED[reply]


def balance(reply: Sequence[bytes]) -> Balance:
    """The balance that a script returned."""
    limit, spent, reserved, presumed, overrun, cut = map(int, reply)
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


def stored(reply: Sequence[Any]) -> dict[str, Stored]:
    """The accounts of a reading, by the server's id."""
    found = {}
    for number, key, (*amounts, pin, settled0, presumed0, overrun0) in reply:
        columns = dict(zip(_COLUMNS, map(_int, amounts), strict=True))
        bases = {"settled": _int(settled0), "presumed": _int(presumed0), "overrun": _int(overrun0)}
        found[number.decode()] = Stored(
            key=key.decode(),
            columns=plan.Columns(**columns, pin=None if pin is None else int(pin)),
            bases=tuple((column, amount) for column, amount in bases.items() if amount),
        )
    return found


def journal(found: Snapshot) -> Iterator[JournalEntry]:
    """The entries in order, checkpoints first; lines of collected accounts are left out."""
    for account in found.accounts.values():
        for column, amount in account.bases:
            yield JournalEntry(sequence=0, verb="checkpoint", id=column, lines=((account.key, amount),), at=0.0)
    for sequence, (_, text) in found.entries:
        verb, at, packed, entry_id = text.decode().split(" ", 3)
        told = [line.split(":") for line in packed.split(",") if line != "-"]
        lines = tuple((found.accounts[row].key, int(amount)) for row, amount in told if row in found.accounts)
        if lines or not told:
            number = int(sequence.partition(b"-")[0])
            yield JournalEntry(sequence=number, verb=verb, id=entry_id, lines=lines, at=float(at))


def verification(found: Snapshot) -> Verification:
    """Compare every stored column with what the entries say."""
    told = plan.replay(journal(found))
    columns = {account.key: account.columns for account in found.accounts.values()}
    differences: list[str] = []
    for key in sorted({*columns, *told.columns}):
        recorded = told.columns.get(key, plan.Columns())
        differences += plan.differences(key, recorded=recorded, stored=columns.get(key, plan.Columns()))
    return Verification(accounts=len(columns), entries=told.entries, differences=tuple(differences))


def _crossing(line: str) -> Crossing:
    key, threshold, limit, spent, at = line.split(" ")
    return Crossing(
        account=account_of(key), threshold=int(threshold), limit=int(limit), settled=int(spent), at=float(at)
    )


def _int(text: bytes | None) -> int:
    return int(text or 0)
