"""What the journals of the authority and of this process say together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from agentbudget.domain.ledger import JournalEntry
from agentbudget.ledgers.slices.pool import Pool


def in_order(entries: Iterable[JournalEntry]) -> Iterator[JournalEntry]:
    """*entries* by time, checkpoints first, numbered anew."""
    number = 0
    for entry in sorted(entries, key=lambda entry: (entry.sequence > 0, entry.at)):
        number += entry.sequence > 0
        yield replace(entry, sequence=number) if entry.sequence else entry


def held_there(entries: Iterable[JournalEntry], is_mine: Callable[[str], bool]) -> dict[str, int]:
    """What the slices whose ids are mine hold by the authority's *entries*, by account key."""
    mine: dict[str, tuple[tuple[str, int], ...]] = {}
    for entry in entries:
        if is_mine(entry.id):
            mine[entry.id] = entry.lines if entry.verb in {"reserve", "expire"} else ()
    held: dict[str, int] = {}
    for lines in mine.values():
        for key, amount in lines:
            held[key] = held.get(key, 0) + amount
    return held


def uncovered(pools: Iterable[Pool], held: dict[str, int]) -> list[str]:
    """What is said of *pools* that cover more here than their slices hold at the authority."""
    return [
        f"{pool.key}: slices hold {held.get(pool.key, 0)} there, {pool.leased} here"
        for pool in pools
        if held.get(pool.key, 0) < pool.leased
    ]
