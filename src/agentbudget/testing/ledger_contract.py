"""The laws of a ledger as an ordinary pytest class. There are no capability flags: a ledger obeys every law.

```python
class TestMyLedger(LedgerContract):
    @pytest.fixture
    def make_ledger(self, clock):
        return lambda on_expire="charge": MyLedger(clock=clock, on_expire=on_expire)
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentbudget.domain.accounts import Account, Balance, Charge, Meter, Posting
from agentbudget.domain.alerts import AlertAt, Crossing
from agentbudget.domain.ledger import Granted, Ledger, Refused, ReservationState, Settled
from agentbudget.errors import ReservationConflictError, ReservationNotFoundError
from agentbudget.testing.clock import FakeClock

MAX = 2**53 - 1
LEASE = 60.0
HOSTILE = [
    "a,b",
    "a|b",
    "a:b",
    "a/b",
    "%2C",
    "{x}",
    "*",
    "a b",
    "'; --",
    "🦊",
    "\u00e9",
    "e\u0301",
    "NULL",
    "0",
    "-1",
    "__proto__",
]
NOT_AMOUNTS: list[Any] = [-1, MAX + 1, True, 1.0, float("nan"), "1", None]
MakeLedger = Callable[..., Ledger]


def account(name: str = "t1", meter: Meter = Meter.COST, *, kind: str = "task", window: str = "") -> Account:
    """An account for tests."""
    return Account(((kind, name),), meter, window)


TASK, TEAM, CALLS = account(), account("cx", kind="team"), account(meter=Meter.MODEL_CALLS)


def take(ledger: Ledger, key: str, *postings: tuple[Account, int, int | None]) -> Granted | Refused:
    """Reserve for a minute."""
    return ledger.reserve(key, [Posting(*posting) for posting in postings], lease_seconds=LEASE)


def pay(ledger: Ledger, key: str, *charges: tuple[Account, int, int], alert_at: AlertAt | None = None) -> Settled:
    """Settle."""
    return ledger.settle(key, [Charge(*charge) for charge in charges], alert_at=alert_at)


def told(settled: Settled) -> list[tuple[int, int, int]]:
    """The threshold, limit and spend of each crossing."""
    return [(one.threshold, one.limit, one.settled) for one in settled.crossed]


class LedgerContract:
    """Subclass it and override the fixture `make_ledger`. Every test ends by proving the balances from the journal."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """The time of the ledger under test."""
        return FakeClock()

    @pytest.fixture
    def make_ledger(self, clock: FakeClock) -> MakeLedger:
        """Override: a function that opens an empty ledger on *clock*, given `on_expire="charge"` or `"release"`."""
        raise NotImplementedError(f"{type(self).__name__} overrides the fixture make_ledger")

    @pytest.fixture
    def ledger(self, make_ledger: MakeLedger) -> Iterator[Ledger]:
        """The ledger under test: empty, with `on_expire="charge"`."""
        yield from self._proved(make_ledger())

    @pytest.fixture
    def releasing(self, make_ledger: MakeLedger) -> Iterator[Ledger]:
        """The same with `on_expire="release"`."""
        yield from self._proved(make_ledger(on_expire="release"))

    def _proved(self, ledger: Ledger) -> Iterator[Ledger]:
        yield ledger
        assert ledger.verify().differences == ()
        for known in ledger.accounts():
            self.check_law(ledger.balance(known))
        ledger.close()
        ledger.close()

    def check_law(self, balance: Balance) -> None:
        """Law 1, and no column below zero."""
        assert min(balance.settled, balance.reserved, balance.presumed, balance.overrun, balance.cut) >= 0
        if balance.limit is not None:
            assert balance.committed <= balance.limit + balance.overrun + balance.cut

    # -- admission -----------------------------------------------------------------------------------------------------

    def test_an_amount_equal_to_what_is_left_is_granted_and_one_more_is_refused(self, ledger: Ledger) -> None:
        assert take(ledger, "a", (TASK, 7, 10)) == Granted()
        assert take(ledger, "b", (TASK, 3, 10)) == Granted()
        refused = take(ledger, "c", (TASK, 1, 10))
        assert isinstance(refused, Refused)
        (short,) = refused.shortfalls
        assert (short.account, short.requested, short.balance) == (TASK, 1, Balance(limit=10, reserved=10))

    def test_a_limit_of_zero_admits_nothing_but_zero(self, ledger: Ledger) -> None:
        assert isinstance(take(ledger, "a", (TASK, 1, 0)), Refused)
        assert take(ledger, "b", (TASK, 0, 0)) == Granted()

    def test_the_largest_amount_is_held_exactly(self, ledger: Ledger) -> None:
        assert take(ledger, "a", (TASK, MAX - 1, MAX)) == Granted()
        assert isinstance(take(ledger, "b", (TASK, 2, MAX)), Refused)
        assert take(ledger, "c", (TASK, 1, MAX)) == Granted()
        assert ledger.balance(TASK) == Balance(limit=MAX, reserved=MAX)

    def test_an_account_without_a_limit_holds_the_largest_amount(self, ledger: Ledger) -> None:
        assert take(ledger, "a", (TASK, MAX, None)) == Granted()
        assert isinstance(take(ledger, "b", (TASK, 1, None)), Refused)
        assert ledger.balance(TASK).limit is None

    def test_a_reservation_over_several_accounts_is_all_or_nothing(self, ledger: Ledger) -> None:
        take(ledger, "a", (TEAM, 9, 10))
        refused = take(ledger, "b", (TASK, 5, 10), (TEAM, 5, 10), (CALLS, 1, 0))
        assert isinstance(refused, Refused)
        assert [short.account for short in refused.shortfalls] == [TEAM, CALLS]
        assert ledger.balance(TASK) == ledger.balance(CALLS) == Balance(limit=None)
        assert ledger.balance(TEAM) == Balance(limit=10, reserved=9)
        assert set(ledger.accounts()) == {TEAM}

    def test_a_refused_id_is_judged_anew(self, ledger: Ledger) -> None:
        assert isinstance(take(ledger, "a", (TASK, 11, 10)), Refused)
        ledger.top_up("g", TASK, 1)
        assert take(ledger, "a", (TASK, 11, 10)) == Granted()
        assert isinstance(take(ledger, "b", (TASK, 5, 11)), Refused)
        assert take(ledger, "b", (TASK, 1, 11)) == Granted()

    @pytest.mark.parametrize("bad", NOT_AMOUNTS, ids=repr)
    def test_what_is_no_amount_is_refused_before_any_write(self, ledger: Ledger, bad: Any) -> None:
        take(ledger, "live", (TASK, 2, 10))
        before = list(ledger.journal())
        with pytest.raises(ValueError, match="amount"):
            take(ledger, "a", (TEAM, 1, 10), (TASK, bad, 10))
        if bad is not None:
            with pytest.raises(ValueError, match="limit"):
                take(ledger, "a", (TEAM, 1, 10), (TASK, 1, bad))
            with pytest.raises(ValueError, match="limit"):
                ledger.set_limit(TASK, bad)
        with pytest.raises(ValueError, match="amount"):
            pay(ledger, "live", (TASK, 2, bad))
        with pytest.raises(ValueError, match="amount"):
            pay(ledger, "lost", (TEAM, 1, 1), (TASK, bad, 1))
        with pytest.raises(ValueError, match="amount"):
            ledger.top_up("g", TASK, bad)
        assert list(ledger.journal()) == before
        assert set(ledger.accounts()) == {TASK}

    @pytest.mark.parametrize("key", ["", "x" * 201, "é" * 101, "\ud800", None, 7], ids=ascii)
    def test_an_id_that_no_backend_could_keep_is_refused(self, ledger: Ledger, key: Any) -> None:
        with pytest.raises(ValueError, match="id"):
            take(ledger, key, (TASK, 1, 10))
        with pytest.raises(ValueError, match="id"):
            pay(ledger, key, (TASK, 1, 1))
        for verb in (ledger.release, lambda key: ledger.renew(key, lease_seconds=1)):
            with pytest.raises(ValueError, match="id"):
                verb(key)
        with pytest.raises(ValueError, match="id"):
            ledger.top_up(key, TASK, 1)

    @pytest.mark.parametrize("lease", [0, -1.0, float("nan"), float("inf")])
    def test_a_lease_is_a_finite_time_above_zero(self, ledger: Ledger, lease: float) -> None:
        with pytest.raises(ValueError, match="lease"):
            ledger.reserve("a", [Posting(TASK, 1, 10)], lease_seconds=lease)
        take(ledger, "b", (TASK, 1, 10))
        with pytest.raises(ValueError, match="lease"):
            ledger.renew("b", lease_seconds=lease)

    def test_no_line_or_an_account_twice_is_refused(self, ledger: Ledger) -> None:
        take(ledger, "live", (TASK, 1, 10))
        for postings in ([], [(TASK, 1, 10), (TASK, 2, 10)], [(TEAM, 1, 10), (account("cx", kind="team"), 2, 10)]):
            with pytest.raises(ValueError, match="at least one|twice"):
                take(ledger, "a", *postings)
        for charges in ([], [(TASK, 1, 1), (TASK, 0, 1)]):
            with pytest.raises(ValueError, match="at least one|twice"):
                pay(ledger, "live", *charges)

    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_names_and_ids_collide_with_nothing(self, ledger: Ledger, name: str) -> None:
        others = [
            account(other, kind=kind) for other in [*HOSTILE, "a", "b"] for kind in ("task", "a") if other != name
        ]
        ledger.reserve("all", [Posting(other, 2, 5) for other in others], lease_seconds=LEASE)
        mine = account(name)
        assert take(ledger, name, (mine, 3, 3)) == Granted()
        assert pay(ledger, name, (mine, 3, 2)) == Settled()
        assert ledger.balance(mine) == Balance(limit=3, settled=2)
        assert {ledger.balance(other) for other in others if other != mine} == {Balance(limit=5, reserved=2)}

    def test_windows_and_meters_of_a_scope_are_accounts_of_their_own(self, ledger: Ledger) -> None:
        october, november = account(window="2026-10"), account(window="2026-11")
        take(ledger, "a", (october, 5, 5))
        assert take(ledger, "b", (november, 5, 5), (CALLS, 5, 5)) == Granted()
        pay(ledger, "a", (october, 5, 4))
        assert [ledger.balance(one).committed for one in (october, november, CALLS)] == [4, 5, 5]

    # -- idempotency ---------------------------------------------------------------------------------------------------

    def test_the_same_reserve_again_holds_once_in_any_order(self, ledger: Ledger) -> None:
        assert take(ledger, "a", (TASK, 4, 10), (TEAM, 3, 10)) == Granted()
        assert take(ledger, "a", (TEAM, 3, 99), (TASK, 4, 10)) == Granted()
        assert (ledger.balance(TASK).reserved, ledger.balance(TEAM)) == (4, Balance(limit=10, reserved=3))

    def test_the_same_id_with_other_terms_is_a_conflict_and_changes_nothing(self, ledger: Ledger) -> None:
        take(ledger, "a", (TASK, 4, 10))
        before = list(ledger.journal())
        for terms in ([(TASK, 5, 10)], [(TEAM, 4, 10)], [(TASK, 4, 10), (TEAM, 1, 10)]):
            with pytest.raises(ReservationConflictError):
                take(ledger, "a", *terms)
        for charges in ([(TASK, 5, 4)], [(TEAM, 4, 4)], [(TASK, 4, 4), (TEAM, 1, 1)], [(TEAM, 0, 4)]):
            with pytest.raises(ReservationConflictError):
                pay(ledger, "a", *charges)
        assert list(ledger.journal()) == before

    def test_a_retried_reserve_says_what_became_of_it(self, ledger: Ledger, clock: FakeClock) -> None:
        for key in ("settled", "released", "expired"):
            take(ledger, key, (TASK, 1, 10))
        pay(ledger, "settled", (TASK, 1, 1))
        ledger.release("released")
        clock.advance(LEASE)
        for state in (ReservationState.SETTLED, ReservationState.RELEASED, ReservationState.EXPIRED):
            assert take(ledger, state.value, (TASK, 1, 10)) == Granted(state)
            with pytest.raises(ReservationConflictError):
                take(ledger, state.value, (TASK, 2, 10))
        assert ledger.balance(TASK) == Balance(limit=10, settled=1, presumed=1)

    def test_the_first_settle_wins(self, ledger: Ledger) -> None:
        take(ledger, "a", (TASK, 5, 10), (TEAM, 5, 10))
        assert pay(ledger, "a", (TASK, 5, 2), (TEAM, 5, 3)) == Settled()
        assert pay(ledger, "a", (TEAM, 5, 3), (TASK, 5, 2)) == Settled("duplicate")
        with pytest.raises(ReservationConflictError):
            pay(ledger, "a", (TASK, 5, 3), (TEAM, 5, 3))
        assert ledger.release("a") is ReservationState.SETTLED
        assert ledger.balance(TASK) == Balance(limit=10, settled=2)

    def test_a_release_gives_back_once(self, ledger: Ledger) -> None:
        take(ledger, "a", (TASK, 5, 10))
        take(ledger, "b", (TASK, 5, 10))
        assert ledger.release("a") is ledger.release("a") is ReservationState.RELEASED
        assert ledger.balance(TASK) == Balance(limit=10, reserved=5)

    def test_a_tombstone_stops_a_delayed_reserve(self, ledger: Ledger) -> None:
        assert ledger.release("a") is ReservationState.RELEASED
        assert take(ledger, "a", (TASK, 5, 10)) == Granted(ReservationState.RELEASED)
        assert ledger.balance(TASK).committed == 0

    # -- settlement ----------------------------------------------------------------------------------------------------

    def test_an_overrun_is_recorded_not_refused(self, ledger: Ledger) -> None:
        take(ledger, "a", (TASK, 5, 10), (TEAM, 5, 100))
        assert pay(ledger, "a", (TASK, 5, 12), (TEAM, 5, 4)) == Settled()
        assert ledger.balance(TASK) == Balance(limit=10, settled=12, overrun=7)
        assert ledger.balance(TEAM) == Balance(limit=100, settled=4)
        assert isinstance(take(ledger, "b", (TASK, 0, 10)), Refused)

    def test_an_account_that_was_not_reserved_is_charged_as_an_overrun(self, ledger: Ledger) -> None:
        take(ledger, "a", (TASK, 5, 10), (CALLS, 0, 3))
        assert pay(ledger, "a", (TEAM, 0, 2), (TASK, 5, 5)) == Settled()
        assert ledger.balance(TEAM) == Balance(limit=None, settled=2, overrun=2)
        assert ledger.balance(CALLS) == Balance(limit=3)

    def test_a_settle_without_its_reservation_is_recorded_as_lost(self, ledger: Ledger) -> None:
        take(ledger, "other", (TASK, 10, 10))
        assert pay(ledger, "a", (TASK, 4, 3)) == Settled("lost")
        assert pay(ledger, "a", (TASK, 4, 3)) == Settled("duplicate")
        assert ledger.balance(TASK) == Balance(limit=10, reserved=10, settled=3, overrun=3)
        assert take(ledger, "a", (TASK, 4, 10)) == Granted(ReservationState.SETTLED)
        with pytest.raises(ReservationConflictError):
            take(ledger, "a", (TASK, 5, 10))

    def test_a_settle_after_a_release_is_recorded(self, ledger: Ledger) -> None:
        take(ledger, "a", (TASK, 4, 10))
        ledger.release("a")
        ledger.release("tombstone")
        take(ledger, "b", (TASK, 10, 10))
        assert pay(ledger, "a", (TASK, 4, 3)) == pay(ledger, "tombstone", (TASK, 9, 1)) == Settled("late")
        assert ledger.balance(TASK) == Balance(limit=10, reserved=10, settled=4, overrun=4)

    # -- leases --------------------------------------------------------------------------------------------------------

    def test_an_expired_reservation_is_presumed_spent(self, ledger: Ledger, clock: FakeClock) -> None:
        take(ledger, "a", (TASK, 4, 10), (TEAM, 0, 10))
        clock.advance(LEASE - 1)
        assert ledger.balance(TASK).reserved == 4
        clock.advance(1)
        assert ledger.balance(TASK) == Balance(limit=10, presumed=4)
        assert isinstance(take(ledger, "b", (TASK, 7, 10)), Refused)
        assert ledger.release("a") is ledger.renew("a", lease_seconds=LEASE) is ReservationState.EXPIRED

    def test_a_late_settle_replaces_what_was_presumed(self, ledger: Ledger, clock: FakeClock) -> None:
        for key, actual in (("less", 1), ("more", 6), ("nothing", 0)):
            take(ledger, key, (TASK, 4, 20))
            clock.advance(LEASE)
            assert pay(ledger, key, (TASK, 4, actual)) == Settled("late")
            assert pay(ledger, key, (TASK, 4, actual)) == Settled("duplicate")
        assert ledger.balance(TASK) == Balance(limit=20, settled=7, overrun=2)

    def test_expiry_that_releases_gives_back_and_counts_a_late_settle_as_overrun(
        self, releasing: Ledger, clock: FakeClock
    ) -> None:
        take(releasing, "a", (TASK, 4, 10))
        clock.advance(LEASE)
        assert take(releasing, "b", (TASK, 10, 10)) == Granted()
        assert take(releasing, "a", (TASK, 4, 10)) == Granted(ReservationState.EXPIRED)
        assert pay(releasing, "a", (TASK, 4, 3)) == Settled("late")
        assert releasing.balance(TASK) == Balance(limit=10, reserved=10, settled=3, overrun=3)

    def test_admission_sees_every_expiry_that_is_due(self, releasing: Ledger, clock: FakeClock) -> None:
        for n in range(200):
            releasing.reserve(f"r{n}", [Posting(TASK, 1, 200)], lease_seconds=1 + n % 7)
        clock.advance(7)
        assert take(releasing, "all", (TASK, 200, 200)) == Granted()

    def test_a_renewal_starts_the_lease_anew(self, ledger: Ledger, clock: FakeClock) -> None:
        take(ledger, "a", (TASK, 4, 10))
        clock.advance(LEASE - 1)
        assert ledger.renew("a", lease_seconds=LEASE) is ReservationState.LIVE
        clock.advance(LEASE - 1)
        assert ledger.balance(TASK).reserved == 4
        ledger.renew("a", lease_seconds=0.5)
        clock.advance(0.5)
        assert ledger.balance(TASK).presumed == 4

    def test_only_a_live_reservation_is_renewed(self, ledger: Ledger, clock: FakeClock) -> None:
        with pytest.raises(ReservationNotFoundError):
            ledger.renew("unknown", lease_seconds=LEASE)
        take(ledger, "a", (TASK, 4, 10))
        pay(ledger, "a", (TASK, 4, 4))
        assert ledger.renew("a", lease_seconds=LEASE) is ReservationState.SETTLED

    def test_leases_run_by_elapsed_time_not_by_the_wall_clock(self, ledger: Ledger, clock: FakeClock) -> None:
        take(ledger, "a", (TASK, 4, 10))
        clock.set_now(clock.now() - 86_400)
        clock.advance(LEASE)
        assert ledger.balance(TASK).presumed == 4

    # -- limits --------------------------------------------------------------------------------------------------------

    def test_a_top_up_counts_once_per_grant(self, ledger: Ledger) -> None:
        take(ledger, "a", (TASK, 10, 10))
        assert ledger.top_up("g", TASK, 5) == ledger.top_up("g", TASK, 5) == Balance(limit=15, reserved=10)
        for other in ((TASK, 6), (TEAM, 5)):
            with pytest.raises(ReservationConflictError):
                ledger.top_up("g", *other)
        assert take(ledger, "b", (TASK, 5, 10)) == Granted()
        with pytest.raises(ValueError, match="sum of all"):
            ledger.top_up("h", TASK, MAX)

    def test_a_pinned_limit_wins_over_what_postings_declare_and_grants_add_to_it(self, ledger: Ledger) -> None:
        assert ledger.set_limit(TASK, 5) == Balance(limit=5)
        assert isinstance(take(ledger, "a", (TASK, 6, 100)), Refused)
        ledger.top_up("g", TASK, 1)
        assert take(ledger, "a", (TASK, 6, 0)) == Granted()
        assert ledger.set_limit(TASK, None) == Balance(limit=None, reserved=6)
        assert take(ledger, "b", (TASK, 100, 0)) == Granted()

    def test_a_cut_below_what_is_committed_is_recorded(self, ledger: Ledger) -> None:
        take(ledger, "a", (TASK, 4, 10))
        take(ledger, "b", (TASK, 6, 10))
        pay(ledger, "a", (TASK, 4, 5))
        assert ledger.set_limit(TASK, 3) == Balance(limit=3, settled=5, reserved=6, overrun=1, cut=7)
        assert isinstance(take(ledger, "c", (TASK, 1, 10)), Refused)
        assert ledger.set_limit(TASK, 20) == Balance(limit=20, settled=5, reserved=6, overrun=1)

    # -- alert thresholds ----------------------------------------------------------------------------------------------

    def spend(self, ledger: Ledger, key: str, amount: int, *, limit: int | None = 100) -> Settled:
        """Reserve and settle *amount* of TASK, which is watched at 50, 80 and 100 %."""
        take(ledger, key, (TASK, amount, limit))
        return pay(ledger, key, (TASK, amount, amount), alert_at={TASK: (5_000, 8_000, 10_000)})

    def test_the_settle_that_reaches_a_threshold_tells_it_and_no_other_does(
        self, ledger: Ledger, clock: FakeClock
    ) -> None:
        assert self.spend(ledger, "a", 49) == Settled()
        (crossing,) = self.spend(ledger, "b", 1).crossed
        assert crossing == Crossing(account=TASK, threshold=5_000, limit=100, settled=50)
        assert crossing.at == pytest.approx(clock.now())
        assert self.spend(ledger, "c", 29).crossed == ()
        assert told(self.spend(ledger, "d", 21)) == [(8_000, 100, 100), (10_000, 100, 100)]

    def test_what_is_only_reserved_or_presumed_reaches_nothing_and_a_late_settle_does(
        self, ledger: Ledger, clock: FakeClock
    ) -> None:
        take(ledger, "late", (TASK, 60, 100))
        clock.advance(LEASE)
        assert self.spend(ledger, "a", 1).crossed == ()
        assert told(pay(ledger, "late", (TASK, 60, 85), alert_at={TASK: (5_000, 8_000)})) == [
            (5_000, 100, 86), (8_000, 100, 86),
        ]  # fmt: skip

    def test_an_overrun_and_a_lost_settle_reach_thresholds_above_the_limit(self, ledger: Ledger) -> None:
        take(ledger, "a", (TASK, 90, 100))
        assert told(pay(ledger, "a", (TASK, 90, 110), alert_at={TASK: (10_000, 12_000)})) == [(10_000, 100, 110)]
        assert told(pay(ledger, "lost", (TASK, 5, 10), alert_at={TASK: (10_000, 12_000)})) == [(12_000, 100, 120)]

    def test_a_retry_is_told_what_its_first_try_reached(self, ledger: Ledger) -> None:
        first = self.spend(ledger, "a", 60)
        again = pay(ledger, "a", (TASK, 60, 60), alert_at={TASK: (5_000, 8_000, 10_000)})
        assert again.how == "duplicate"
        assert again.crossed == first.crossed != ()
        assert pay(ledger, "a", (TASK, 60, 60)).crossed == first.crossed

    def test_a_raised_limit_arms_thresholds_anew_and_only_those_above_what_is_spent(self, ledger: Ledger) -> None:
        assert len(self.spend(ledger, "a", 80).crossed) == 2
        ledger.top_up("g", TASK, 40)  # 80 is 57 % of 140 now
        assert self.spend(ledger, "b", 1).crossed == ()
        assert told(self.spend(ledger, "c", 31)) == [(8_000, 140, 112)]
        ledger.top_up("h", TASK, 60)
        assert told(self.spend(ledger, "d", 88)) == [(8_000, 200, 200), (10_000, 200, 200)]

    def test_a_cut_limit_is_told_by_the_next_settle_once(self, ledger: Ledger) -> None:
        self.spend(ledger, "a", 60)
        ledger.set_limit(TASK, 70)
        assert told(self.spend(ledger, "b", 1)) == [(8_000, 70, 61)]
        assert self.spend(ledger, "c", 1).crossed == ()

    def test_what_others_settled_without_thresholds_is_told_by_the_next_that_has_them(self, ledger: Ledger) -> None:
        take(ledger, "a", (TASK, 60, 100))
        assert pay(ledger, "a", (TASK, 60, 60)).crossed == ()
        assert told(self.spend(ledger, "b", 1)) == [(5_000, 100, 61)]

    def test_other_thresholds_of_somebody_else_raise_nothing_twice(self, ledger: Ledger) -> None:
        self.spend(ledger, "a", 85)
        take(ledger, "b", (TASK, 1, 100))
        assert pay(ledger, "b", (TASK, 1, 1), alert_at={TASK: (5_000,)}).crossed == ()
        assert self.spend(ledger, "c", 1).crossed == ()

    def test_without_a_limit_nothing_is_reached(self, ledger: Ledger) -> None:
        assert self.spend(ledger, "a", 60, limit=None).crossed == ()
        ledger.set_limit(TASK, 0)
        take(ledger, "b", (TASK, 0, 0))
        assert pay(ledger, "b", (TASK, 0, 1), alert_at={TASK: (10_000,)}).crossed == ()

    def test_thresholds_are_judged_exactly_up_to_the_largest_amount(self, ledger: Ledger) -> None:
        take(ledger, "a", (TASK, MAX, MAX))
        half = (MAX + 1) // 2
        assert pay(ledger, "a", (TASK, MAX, half - 1), alert_at={TASK: (5_000,)}).crossed == ()
        take(ledger, "b", (TASK, 1, MAX))
        assert told(pay(ledger, "b", (TASK, 1, 1), alert_at={TASK: (5_000, 100_000)})) == [(5_000, MAX, half)]

    def test_each_account_of_a_settle_has_thresholds_and_a_state_of_its_own(self, ledger: Ledger) -> None:
        take(ledger, "a", (TASK, 9, 10), (TEAM, 9, 100), (CALLS, 1, 2))
        watched = {TASK: (5_000,), CALLS: (5_000,), TEAM: (1_000,)}
        reached = pay(ledger, "a", (TASK, 9, 9), (TEAM, 9, 9), (CALLS, 1, 1), alert_at=watched).crossed
        assert [one.account for one in reached] == sorted([TASK, CALLS], key=lambda one: one.key)
        assert ledger.collect([TASK]) == 1
        take(ledger, "b", (TASK, 9, 10), (TEAM, 1, 100))
        reached = pay(ledger, "b", (TASK, 9, 9), (TEAM, 1, 1), alert_at=watched).crossed
        assert {one.account for one in reached} == {TASK, TEAM}

    @pytest.mark.parametrize("bad", [(0,), (100_001,), (8_000, 5_000), (5_000, 5_000), (True,), (0.5,), ("50%",)])
    def test_thresholds_that_are_no_basis_points_are_refused_before_any_write(self, ledger: Ledger, bad: Any) -> None:
        take(ledger, "a", (TASK, 5, 10))
        with pytest.raises(ValueError, match="alert_at"):
            pay(ledger, "a", (TASK, 5, 5), alert_at={TASK: bad})
        assert ledger.balance(TASK) == Balance(limit=10, reserved=5)

    # -- the record ----------------------------------------------------------------------------------------------------

    def test_the_journal_is_in_order_and_proves_every_balance(self, ledger: Ledger, clock: FakeClock) -> None:
        take(ledger, "a", (TASK, 5, 10), (TEAM, 5, 50))
        clock.advance(1)
        pay(ledger, "a", (TASK, 5, 3), (TEAM, 5, 3))
        take(ledger, "b", (TASK, 2, 10))
        ledger.release("b")
        entries = list(ledger.journal())
        assert [(entry.verb, entry.id) for entry in entries] == [
            ("reserve", "a"), ("settle", "a"), ("reserve", "b"), ("release", "b"),
        ]  # fmt: skip
        assert [entry.sequence for entry in entries] == sorted({entry.sequence for entry in entries})
        assert dict(entries[1].lines) == {TASK.key: 3, TEAM.key: 3}
        assert entries[1].at - entries[0].at == pytest.approx(1)
        found = ledger.verify()
        assert (found.ok, found.accounts, found.entries) == (True, 2, 4)

    def test_collected_accounts_are_forgotten_and_the_others_keep_their_balance(
        self, ledger: Ledger, clock: FakeClock
    ) -> None:
        take(ledger, "a", (TASK, 5, 10), (TEAM, 5, 50))
        assert ledger.collect([TASK]) == 0
        pay(ledger, "a", (TASK, 5, 6), (TEAM, 5, 6))
        take(ledger, "b", (TASK, 2, 10), (TEAM, 2, 50))
        clock.advance(LEASE)
        ledger.top_up("g", TASK, 1)
        assert ledger.collect([TASK, CALLS]) == 1
        assert set(ledger.accounts()) == {TEAM}
        assert ledger.balance(TASK) == Balance(limit=None)
        assert ledger.balance(TEAM) == Balance(limit=50, settled=6, presumed=2, overrun=1)
        assert ledger.verify().ok
        assert pay(ledger, "b", (TASK, 2, 1), (TEAM, 2, 1)) == Settled("late")
        assert ledger.balance(TEAM) == Balance(limit=50, settled=7, overrun=1)
        assert ledger.balance(TASK) == Balance(limit=None)
        assert take(ledger, "c", (TASK, 10, 10)) == Granted()
