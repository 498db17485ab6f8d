"""The simulator finds nothing in the memory ledger, everything happens in it, and each known bug dies in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import pytest

from agentbudget.domain.accounts import Account, Balance, Charge, Posting
from agentbudget.domain.alerts import AlertAt
from agentbudget.domain.ledger import Granted, Refused, ReservationState, Settled, Shortfall
from agentbudget.errors import ReservationConflictError
from agentbudget.ledgers.journal import Held
from agentbudget.ledgers.memory import MemoryLedger
from agentbudget.testing.clock import FakeClock
from agentbudget.testing.simulation import LawBrokenError, World

SEEDS = range(50)
LIVE, SETTLED, RELEASED, EXPIRED = ReservationState

SOMETIMES = [
    *(f"{verb} on {state}" for verb in ("reserve", "settle", "release") for state in ("unknown", "settled")),
    *(f"{verb} on {state}" for verb in ("reserve", "release", "renew") for state in ("live", "expired")),
    *("reserve on released", "release on released", "settle on live", "settle on expired", "renew on settled"),
    *(f"reserve -> granted {state}" for state in ("live", "settled", "released", "expired")),
    *("reserve -> refused", "reserve -> ReservationConflictError", "renew -> ReservationNotFoundError"),
    *(f"settle -> {how}" for how in ("settled", "duplicate", "late", "lost", "ReservationConflictError")),
    *("killed before the call", "killed after the call", "message lost", "outage", "top_up -> balance"),
    *("exactly full", "overrun", "cut"),
]


class ReleasesOnExpiry(MemoryLedger):
    def __init__(self, clock: FakeClock, on_expire: str) -> None:
        super().__init__(clock, on_expire)
        self._charging = False


class SettlesTwice(MemoryLedger):
    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        record = self._records.get(reservation_id)
        if record is not None and record.state is SETTLED:
            del self._records[reservation_id]
        return super().settle(reservation_id, charges, alert_at=alert_at)


class DropsLateSettles(MemoryLedger):
    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        self._now()
        record = self._records.get(reservation_id)
        return (
            Settled("late")
            if record and record.state is EXPIRED
            else super().settle(reservation_id, charges, alert_at=alert_at)
        )


class DropsLostSettles(MemoryLedger):
    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        known = reservation_id in self._records
        return super().settle(reservation_id, charges, alert_at=alert_at) if known else Settled("lost")


class AddsLateSettlesToWhatWasPresumed(MemoryLedger):
    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        self._now()
        record = self._records.get(reservation_id)
        if record and record.state is EXPIRED:
            del self._records[reservation_id]
            super().settle(reservation_id, charges, alert_at=alert_at)
            return Settled("late")
        return super().settle(reservation_id, charges, alert_at=alert_at)


class ClampsToTheReservation(MemoryLedger):
    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        clamped = [charge._replace(actual=min(charge.actual, charge.reserved)) for charge in charges]
        return super().settle(reservation_id, clamped, alert_at=alert_at)


class IgnoresConflicts(MemoryLedger):
    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        try:
            return super().settle(reservation_id, charges, alert_at=alert_at)
        except ReservationConflictError:
            return Settled("duplicate")


class ForgetsOverruns(MemoryLedger):
    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        answer = super().settle(reservation_id, charges, alert_at=alert_at)
        for charge in charges:
            self._rows[charge.account.key].overrun = 0
        return answer


class ReservesInPart(MemoryLedger):
    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        answer = super().reserve(reservation_id, postings, lease_seconds=lease_seconds)
        if isinstance(answer, Refused):
            for account, amount, _ in postings[: postings.index(_posting(postings, answer.shortfalls[0].account))]:
                self._open(account).committed += amount
        return answer


class ReservesTwice(MemoryLedger):
    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        record = self._records.get(reservation_id)
        answer = super().reserve(reservation_id, postings, lease_seconds=lease_seconds)
        if record is not None and record.state is LIVE:
            for row, kept in record.held.items():
                row.committed += kept
        return answer


class RefusesAFullBudget(MemoryLedger):
    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        answer = super().reserve(reservation_id, postings, lease_seconds=lease_seconds)
        if answer == Granted():
            for account, amount, _ in postings:
                balance = self.balance(account)
                if balance.available == 0:
                    self.release(reservation_id)
                    return Refused((Shortfall(account, amount, balance),))
        return answer


class ShrinksToTheHeadroom(MemoryLedger):
    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        answer = super().reserve(reservation_id, postings, lease_seconds=lease_seconds)
        if isinstance(answer, Refused):
            room = min(short.balance.available or 0 for short in answer.shortfalls)
            smaller = [posting._replace(amount=min(posting.amount, room)) for posting in postings]
            return super().reserve(reservation_id, smaller, lease_seconds=lease_seconds)
        return answer


class ChecksThenActs(MemoryLedger):
    def reserve(self, reservation_id: str, postings: Sequence[Posting], *, lease_seconds: float) -> Granted | Refused:
        known = set(self._records)
        answer = super().reserve(reservation_id, postings, lease_seconds=lease_seconds)
        for row, amount in self.__dict__.pop("_written_later", ()):
            row.committed += amount
        if answer == Granted() and reservation_id not in known:
            later = list(self._records[reservation_id].held.items())
            for row, amount in later:
                row.committed -= amount
            self.__dict__["_written_later"] = later
        return answer


class SweepsWhatIsSettled(MemoryLedger):
    def settle(self, reservation_id: str, charges: Sequence[Charge], *, alert_at: AlertAt | None = None) -> Settled:
        record = self._records.get(reservation_id)
        deadline = record.leases.get(reservation_id) if isinstance(record, Held) else None
        answer = super().settle(reservation_id, charges, alert_at=alert_at)
        if isinstance(record, Held) and deadline is not None and answer.how == "settled":
            record.leases[reservation_id] = deadline
        return answer


class LeavesNoTombstone(MemoryLedger):
    def release(self, reservation_id: str) -> ReservationState:
        return super().release(reservation_id) if reservation_id in self._records else RELEASED


class KeepsWhatIsReleased(MemoryLedger):
    def release(self, reservation_id: str) -> ReservationState:
        record = self._records.get(reservation_id)
        state = super().release(reservation_id)
        if record is not None and record.state is LIVE and state is RELEASED:
            for row, kept in record.held.items():
                row.committed += kept
        return state


class IgnoresRenewals(MemoryLedger):
    def renew(self, reservation_id: str, *, lease_seconds: float) -> ReservationState:
        record = self._records.get(reservation_id)
        if record is not None and record.state is LIVE:
            self._now()
            return self._records[reservation_id].state
        return super().renew(reservation_id, lease_seconds=lease_seconds)


class TopsUpTwice(MemoryLedger):
    def top_up(self, grant_id: str, account: Account, amount: int) -> Balance:
        row = self._grants.pop(grant_id, None)
        if row is not None:
            row.adjusted().grants[grant_id + "'"] = row.adjusted().grants.pop(grant_id)
        return super().top_up(grant_id, account, amount)


class ForgetsCuts(MemoryLedger):
    def set_limit(self, account: Account, limit: int | None) -> Balance:
        super().set_limit(account, limit)
        extras = self._rows[account.key].adjusted()
        assert extras.pin is not None
        extras.pin = extras.pin._replace(cut=0)
        return self.balance(account)


MUTANTS = [
    ReleasesOnExpiry, SettlesTwice, DropsLateSettles, DropsLostSettles, AddsLateSettlesToWhatWasPresumed,
    ClampsToTheReservation, IgnoresConflicts, ForgetsOverruns, ReservesInPart, ReservesTwice, RefusesAFullBudget,
    ShrinksToTheHeadroom, ChecksThenActs, SweepsWhatIsSettled, LeavesNoTombstone, KeepsWhatIsReleased, IgnoresRenewals,
    TopsUpTwice, ForgetsCuts,
]  # fmt: skip


def test_no_law_breaks_in_fifty_worlds_and_everything_happens_in_them() -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        seen += World(seed, MemoryLedger).run()
    assert {what: seen[what] for what in SOMETIMES if not seen[what]} == {}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_known_bug_dies_within_fifty_seeds(mutant: type[MemoryLedger]) -> None:
    for seed in SEEDS:
        try:
            World(seed, mutant).run()
        except LawBrokenError:
            return
    pytest.fail(f"{mutant.__name__} survived {len(SEEDS)} seeds")


def test_a_failure_names_its_seed_and_step_and_the_seed_fails_there_again() -> None:
    def first_failure() -> str:
        for seed in SEEDS:
            try:
                World(seed, DropsLateSettles).run()
            except LawBrokenError as error:
                return str(error)
        return "none"

    assert re.match(r"seed=\d+ step=\d+ I", first_failure())
    assert first_failure() == first_failure()


def test_a_seed_is_a_world() -> None:
    logs: list[list[str]] = [[], [], []]
    for seed, log in zip((3, 3, 4), logs, strict=True):
        World(seed, MemoryLedger, log=log.append).run()
    assert logs[0] == logs[1] != logs[2]


def _posting(postings: Sequence[Posting], account: Account) -> Posting:
    return next(posting for posting in postings if posting.account == account)
