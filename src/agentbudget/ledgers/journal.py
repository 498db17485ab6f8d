"""The journal of the memory ledger, read out of its records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from agentbudget.domain.ledger import JournalEntry, ReservationState
from agentbudget.ledgers.plan import NO_LIMIT, Terms, terms
from agentbudget.ledgers.rows import Row


class Record(msgspec.Struct, frozen=True, gc=False):
    """What is known of a reservation. One is made in every verb and thousands are kept, so they are no work for the
    garbage collector: there can be no cycle among them."""

    state: ReservationState
    held: dict[Row, int]
    """Amounts by account."""
    deadline: float
    """Of its lease, in monotonic seconds; 0 once it is resolved."""
    sequence: int
    at: float
    """Monotonic seconds of the entry."""
    spent: tuple[int, ...] | None = None
    """Actual amounts in the order of the accounts, once it is settled."""
    previous: Record | None = None


_VERBS = {
    ReservationState.LIVE: "reserve",
    ReservationState.SETTLED: "settle",
    ReservationState.RELEASED: "release",
    ReservationState.EXPIRED: "expire",
}


def is_tombstone(record: Record) -> bool:
    """Whether the id was released before it was reserved, so that its terms are not known."""
    return record.state is ReservationState.RELEASED and record.previous is None


def terms_of(record: Record) -> Terms:
    """The fingerprint of what was reserved."""
    return terms((row.key, kept) for row, kept in record.held.items())


def spent_by(record: Record) -> Terms:
    """The fingerprint of what was settled."""
    return terms((row.key, actual) for row, actual in zip(record.held, record.spent or (), strict=True))


def still_held(record: Record | None, *, charging: bool) -> bool:
    """Whether the ledger holds the amounts of *record*, reserved or presumed, when a settle comes."""
    if record is None:
        return False
    return record.state is ReservationState.LIVE or (charging and record.state is ReservationState.EXPIRED)


def entries_of_record(
    reservation_id: str, record: Record, rows: Mapping[str, Row], epoch: float, *, charging: bool
) -> Iterator[JournalEntry]:
    """The entries of one reservation, over the accounts that still exist."""
    state, held, spent, previous = record.state, record.held, record.spent, record.previous
    if held and not any(rows.get(row.key) is row for row in held):
        return
    if previous is not None:
        yield from entries_of_record(reservation_id, previous, rows, epoch, charging=charging)
    if state is ReservationState.RELEASED or (state is ReservationState.EXPIRED and not charging):
        amounts: Sequence[int] = ()
    else:
        amounts = list(held.values()) if spent is None else spent
    yield JournalEntry(
        sequence=record.sequence,
        verb=_VERBS[state],
        id=reservation_id,
        lines=tuple((row.key, amount) for row, amount in zip(held, amounts, strict=False) if rows.get(row.key) is row),
        at=epoch + record.at,
    )


def entries_of_row(row: Row, now: float, epoch: float) -> Iterator[JournalEntry]:
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
