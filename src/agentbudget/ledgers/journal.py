"""What the memory ledger keeps of a reservation, and the journal that is read out of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import msgspec

from agentbudget.domain.ledger import JournalEntry, ReservationState, Verification
from agentbudget.ledgers import plan
from agentbudget.ledgers.plan import NO_LIMIT, Columns, Terms, terms
from agentbudget.ledgers.rows import Row

# Records are made in every verb and thousands are kept, so they are no work for the garbage collector: there can be
# no cycle among them.


class Held(msgspec.Struct, frozen=True, gc=False):
    """A live reservation."""

    state: ClassVar[ReservationState] = ReservationState.LIVE
    held: dict[Row, int]
    """Amounts by account."""
    leases: dict[str, float]
    """The ledger's leases that are as long as its own: deadlines by id."""
    sequence: int
    at: float
    """Monotonic seconds of the entry."""


class Ended(msgspec.Struct, frozen=True, gc=False):
    """A reservation that is settled, released or expired."""

    state: ReservationState
    held: dict[Row, int]
    """Amounts by account."""
    sequence: int
    at: float
    """Monotonic seconds of the entry."""
    previous: Held | Ended | None
    """What it was before; None where the ledger knew nothing of it."""
    spent: dict[Row, int] | None = None
    """Actual amounts by account, once it is settled."""
    over: bool = False
    """Whether it spent more than was held for it."""


_VERBS = {
    ReservationState.LIVE: "reserve",
    ReservationState.SETTLED: "settle",
    ReservationState.RELEASED: "release",
    ReservationState.EXPIRED: "expire",
}


def is_tombstone(record: Held | Ended) -> bool:
    """Whether the id was released before it was reserved, so that its terms are not known."""
    return record.state is ReservationState.RELEASED and isinstance(record, Ended) and record.previous is None


def terms_of(record: Held | Ended) -> Terms:
    """The fingerprint of what was reserved."""
    return terms((row.key, kept) for row, kept in record.held.items())


def spent_by(record: Held | Ended) -> Terms:
    """The fingerprint of what was settled."""
    return terms((row.key, actual) for row, actual in spent_on(record).items())


def spent_on(record: Held | Ended) -> dict[Row, int]:
    """Actual amounts by account; none where it is not settled."""
    return (record.spent or {}) if isinstance(record, Ended) else {}


def still_held(record: Held | Ended | None, *, charging: bool) -> bool:
    """Whether the ledger holds the amounts of *record*, reserved or presumed, when a settle comes."""
    if record is None:
        return False
    return record.state is ReservationState.LIVE or (charging and record.state is ReservationState.EXPIRED)


def fold_overrun(record: Ended, *, charging: bool) -> None:
    """Add what *record* overran to the bases of its accounts, before it is forgotten."""
    held = record.held if still_held(record.previous, charging=charging) else {}
    for row, actual in spent_on(record).items():
        if over := plan.overrun(held.get(row, 0), actual):
            row.adjusted().base_overrun += over


def entries(
    rows: Mapping[str, Row], records: Mapping[str, Held | Ended], now: float, epoch: float, *, charging: bool
) -> list[JournalEntry]:
    """Every retained entry in order, checkpoints first."""
    found = [entry for row in rows.values() for entry in _entries_of_row(row, now, epoch)]
    for reservation_id, record in records.items():
        found += _entries_of_record(reservation_id, record, rows, epoch, charging=charging)
    return sorted(found, key=lambda entry: entry.sequence)


def verify(rows: Mapping[str, Row], journal: Iterable[JournalEntry]) -> Verification:
    """Compare the columns of *rows* with what *journal* says."""
    told = plan.replay(journal)
    found: list[str] = []
    for key in sorted({*rows, *told.columns}):
        stored = rows[key].columns() if key in rows else Columns()
        found += plan.differences(key, recorded=told.columns.get(key, Columns()), stored=stored)
    return Verification(accounts=len(rows), entries=told.entries, differences=tuple(found))


def _lines(record: Held | Ended, *, charging: bool) -> dict[Row, int]:
    """The amounts of the entry of *record*."""
    if isinstance(record, Ended):
        if record.spent is not None:
            return record.spent
        if record.state is ReservationState.RELEASED or not charging:
            return {}
    return record.held


def _entries_of_record(
    reservation_id: str, record: Held | Ended, rows: Mapping[str, Row], epoch: float, *, charging: bool
) -> Iterator[JournalEntry]:
    """The entries of one reservation, over the accounts that still exist."""
    if record.held and not any(rows.get(row.key) is row for row in record.held):
        return
    if isinstance(record, Ended) and record.previous is not None:
        yield from _entries_of_record(reservation_id, record.previous, rows, epoch, charging=charging)
    lines = _lines(record, charging=charging)
    yield JournalEntry(
        sequence=record.sequence,
        verb=_VERBS[record.state],
        id=reservation_id,
        lines=tuple((row.key, amount) for row, amount in lines.items() if rows.get(row.key) is row),
        at=epoch + record.at,
    )


def _entries_of_row(row: Row, now: float, epoch: float) -> Iterator[JournalEntry]:
    """The checkpoints, grants and limit of one account."""
    extras = row.extras
    bases = {"settled": row.base_settled}
    if extras is not None:
        bases |= {"presumed": extras.base_presumed, "overrun": extras.base_overrun, "grants": extras.base_grants}
    for column, amount in bases.items():
        if amount:
            yield _entry(0, "checkpoint", column, row, amount, epoch + now)
    if extras is None:
        return
    for grant_id, grant in extras.grants.items():
        yield _entry(grant.sequence, "grant", grant_id, row, grant.amount, epoch + grant.at)
    if extras.pin is not None:
        pin = extras.pin
        limit = NO_LIMIT if pin.limit is None else pin.limit
        yield _entry(pin.sequence, "limit", "", row, limit, epoch + pin.at)
        yield _entry(pin.sequence + 1, "cut", "", row, pin.cut, epoch + pin.at)


def _entry(sequence: int, verb: str, entry_id: str, row: Row, amount: int, at: float) -> JournalEntry:
    return JournalEntry(sequence=sequence, verb=verb, id=entry_id, lines=((row.key, amount),), at=at)
