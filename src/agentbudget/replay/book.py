"""The ledger's arithmetic for one thread, without ids, leases, journal and locks: a recording has settled those.

The rows are the memory ledger's own, and so is every sum; a test plays the same postings through both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agentbudget.domain.accounts import Account
from agentbudget.domain.ledger import Shortfall
from agentbudget.governor.plan import Amounts, Line
from agentbudget.ledgers.rows import Row


class Entry(NamedTuple):
    """One limit a call must pass, with the row that counts it."""

    row: Row
    place: int
    """Place of its meter in `Amounts`."""
    most: int | None


class Book:
    """The rows of all accounts of a replay."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._grants: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, account: Account) -> Row:
        """The row of *account*, made on first use."""
        row = self._rows.get(account.key)
        if row is None:
            row = self._rows[account.key] = Row(account)
        return row

    def entries(self, lines: Iterable[Line]) -> tuple[Entry, ...]:
        """The entries of *lines*, in their order."""
        return tuple([Entry(self.row(line.account), line.place, line.within) for line in lines])

    def top_up(self, grant: str, account: Account, amount: int) -> None:
        """Add *amount* to the limit of *account*, once per *grant*."""
        if grant in self._grants:
            return
        self._grants.add(grant)
        row = self.row(account)
        row.adjusted().granted += amount
        row.declare(row.declared)

    def forget(self, accounts: Iterable[Account]) -> None:
        """Let go of accounts that nothing will touch any more."""
        for account in accounts:
            self._rows.pop(account.key, None)


def take(entries: Sequence[Entry], amounts: Amounts) -> int | None:
    """Reserve *amounts* of every entry or of none; the place in *entries* of the first without room, if any."""
    for entry in entries:
        row, place, most = entry
        amount = amounts[place]
        if amount:
            if most is not row.declared:
                row.declare(most)
            if row.committed + amount > row.ceiling:
                short = entries.index(entry)
                for taken, at, _ in entries[:short]:
                    taken.committed -= amounts[at]
                return short
            row.committed += amount
    return None


def shortfall(entry: Entry, amounts: Amounts) -> Shortfall:
    """Why *entry* had no room for *amounts*."""
    row, place, most = entry
    return Shortfall(row.account, amounts[place], row.balance(most))


def settle(entries: Sequence[Entry], held: Amounts, actual: Amounts) -> None:
    """Replace what is *held* by what was *actual*ly taken; what is taken above it is an overrun."""
    for row, place, _ in entries:
        kept, spent = held[place], actual[place]
        row.committed += spent - kept
        row.settled += spent
        if spent > kept:
            row.overrun += spent - kept
