"""How the SQLite ledger writes the lines of an entry, and what tells the terms of one reservation from another's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TypeAlias

import msgspec

Terms: TypeAlias = tuple[bytes, tuple[int, ...]]
"""A fingerprint: of the keys of all lines that are not 0, in order, and their amounts."""

_DIGEST_BYTES = 16
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[tuple[int, int]]).decode


@lru_cache(maxsize=4096)
def digest(keys: tuple[str, ...]) -> bytes:
    """16 bytes that tell *keys* from others; no key holds a line break. The same accounts are used again and again."""
    return blake2b("\n".join(keys).encode(), digest_size=_DIGEST_BYTES).digest()


def terms_of(keys: tuple[str, ...], amounts: tuple[int, ...]) -> Terms:
    """The fingerprint of the accounts with these *keys*, in order, and their *amounts*."""
    if not all(amounts):
        keys = tuple([key for key, amount in zip(keys, amounts, strict=True) if amount])
        amounts = tuple([amount for amount in amounts if amount])
    return digest(keys), amounts


def written(terms: Terms) -> bytes:
    """*terms* as one blob."""
    return terms[0] + " ".join(map(str, terms[1])).encode()


def read(blob: bytes) -> Terms:
    """The terms that were `written`."""
    return blob[:_DIGEST_BYTES], tuple([int(amount) for amount in blob[_DIGEST_BYTES:].split()])


def packed(lines: Sequence[tuple[int, int]]) -> str:
    """`(account id, amount)` lines as JSON; nothing for none."""
    return _encode(lines).decode() if lines else ""


def unpacked(lines: str) -> list[tuple[int, int]]:
    """`(account id, amount)` of each line."""
    return _decode(lines) if lines else []
