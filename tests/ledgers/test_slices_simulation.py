"""The simulated processes find nothing wrong with slices, everything happens to them, and each known bug dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentbudget.domain.accounts import Account, Balance, Posting
from agentbudget.ledgers.outbox import Delivery
from agentbudget.ledgers.slices import ledger as sliced
from agentbudget.ledgers.slices.book import Book
from agentbudget.ledgers.slices.journal import Left, SliceJournal
from agentbudget.ledgers.slices.leasing import Leasing
from agentbudget.ledgers.slices.pool import Pool, Slice
from agentbudget.testing.simulation import LawBrokenError
from agentbudget.testing.slice_world import SliceWorld

SEEDS = range(50)
SOMETIMES = [
    *("granted", "refused", "settled", "late", "out of reach", "killed with calls in flight", "started", "limit set"),
    *("exactly full", "overrun"),
]


class NeverGivesBack(Book):
    def close_unused(self, *args: Any, **kwargs: Any) -> None:
        self.report_excess()


class GivesBackWhatCallsNeed(Book):
    """A recall that races with a reservation."""

    def close_unused(self, *args: Any, **kwargs: Any) -> None:
        for one in list(self.slices):
            self._settle(one, {pool: min(amount, pool.unreported) for pool, amount in one.lines.items()})
        self.report_excess()


class CoversMoreThanWasLeased(Book):
    def opened(self, one: Slice, limits: dict[Pool, int | None], *, asked_at: float) -> None:
        super().opened(one, limits, asked_at=asked_at)
        for pool, amount in one.lines.items():
            pool.lease(amount, limits[pool], 0)


class ForgetsExpiredSlices(Book):
    def close_unused(self, *args: Any, **kwargs: Any) -> None:
        for one in [one for one in self.slices if one.expired]:
            self.slices.remove(one)
        super().close_unused(*args, **kwargs)


class ForgetsALostReply(Book):
    def owe(self, delivery: Delivery) -> None:
        spent, was_held = any(charge.actual for charge in delivery.charges), delivery.id in self.was_held
        if spent or was_held:
            super().owe(delivery)

    def opened(self, one: Slice, limits: dict[Pool, int | None], *, asked_at: float) -> None:
        self.was_held.add(one.id)
        super().opened(one, limits, asked_at=asked_at)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.was_held: set[str] = set()


class LeasesUnderNoLimit(Leasing):
    def _judge(self, wants: Any) -> dict[Account, Balance]:
        return {}

    def _take(self, one: Slice, limits: dict[Pool, int | None]) -> Any:
        return super()._take(one, dict.fromkeys(limits))


class SpendsASliceAgainAfterARestart(Left):
    def _settled(self, name: str, charges: list[tuple[str, int, int]]) -> None:
        self.held.pop(name, None)


class TellsTwiceAfterARetry(Left):
    def _told(self, name: str, charges: list[tuple[str, int, int]]) -> None:
        self.owed.pop(name, None)
        super()._told(name, charges)


class ForgetsCallsInFlight(Left):
    def read(self, records: Iterable[list[Any]], keys: dict[int, str]) -> None:
        super().read(records, keys)
        self.held.clear()


class ForgetsSlicesOnRestart(Left):
    def read(self, records: Iterable[list[Any]], keys: dict[int, str]) -> None:
        super().read(records, keys)
        self.slices.clear()


class WritesNoReservations(SliceJournal):
    def reserved(self, reservation_id: str, postings: Sequence[Posting], lease_seconds: float) -> None:
        return


BUGS: list[type[Any]] = [
    NeverGivesBack, GivesBackWhatCallsNeed, CoversMoreThanWasLeased, ForgetsExpiredSlices,
    ForgetsALostReply, LeasesUnderNoLimit, SpendsASliceAgainAfterARestart, TellsTwiceAfterARetry,
    ForgetsCallsInFlight, ForgetsSlicesOnRestart, WritesNoReservations,
]  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> Callable[[int], Path]:
    return lambda seed: tmp_path / str(seed)


def test_no_law_breaks_in_fifty_worlds_and_everything_happens_in_them(folders: Callable[[int], Path]) -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        seen += SliceWorld(seed, folders(seed)).run()
    assert {what: seen[what] for what in SOMETIMES if not seen[what]} == {}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_known_bug_dies_within_fifty_seeds(
    bug: type[Any], folders: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "agentbudget.ledgers.slices.journal" if issubclass(bug, Left) else sliced.__name__
    monkeypatch.setattr(f"{module}.{bug.__mro__[1].__name__}", bug)
    for seed in SEEDS:
        try:
            SliceWorld(seed, folders(seed)).run()
        except LawBrokenError:
            return
    pytest.fail(f"{bug.__name__} survived {len(SEEDS)} seeds")


def test_a_seed_is_a_world(folders: Callable[[int], Path]) -> None:
    worlds = [SliceWorld(seed, folders(number)) for number, seed in enumerate((3, 3, 4))]
    seen = [(world.run(), sorted(world.paid.items())) for world in worlds]
    assert seen[0] == seen[1] != seen[2]
