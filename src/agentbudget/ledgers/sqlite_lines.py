"""How the SQLite ledger writes the lines of an entry, and what tells the terms of one reservation from another's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TypeAlias

Terms: TypeAlias = tuple[bytes, tuple[int, ...]]
"""A fingerprint: of the keys of all lines that are not 0, in order, and their amounts."""

_DIGEST_BYTES = 16


@lru_cache(maxsize=4096)
def digest(keys: tuple[str, ...]) -> bytes:
    """16 bytes that tell *keys* from others; no key holds a line break. The same accounts are used again and again."""
    return blake2b("\n".join(keys).encode(), digest_size=_DIGEST_BYTES).digest()


def terms_of(keys: Sequence[str], amounts: Sequence[int]) -> Terms:
    """The fingerprint of the accounts with these *keys*, in order, and their *amounts*."""
    if not all(amounts):
        keys = [key for key, amount in zip(keys, amounts, strict=True) if amount]
        amounts = [amount for amount in amounts if amount]
    return digest(tuple(keys)), tuple(amounts)


def written(terms: Terms) -> bytes:
    """*terms* as one blob."""
    return terms[0] + " ".join(map(str, terms[1])).encode()


def read(blob: bytes) -> Terms:
    """The terms that were `written`."""
    return blob[:_DIGEST_BYTES], tuple([int(amount) for amount in blob[_DIGEST_BYTES:].split()])


def packed(lines: Iterable[tuple[int, int]]) -> str:
    """`(account id, amount)` lines as one text."""
    return " ".join([f"{account}:{amount}" for account, amount in lines])


def unpacked(lines: str) -> list[tuple[int, int]]:
    """`(account id, amount)` of each line."""
    return [(int(account), int(amount)) for account, _, amount in (line.partition(":") for line in lines.split())]
