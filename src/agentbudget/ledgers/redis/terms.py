"""Fingerprints of terms: equal for equal lines in any order, lines of 0 left out, other for others."""

from __future__ import annotations

import hashlib
from functools import lru_cache

_PRIME = 2**127 - 1
_KEPT = 8_192
"""Accounts whose factor is kept; to make it again costs a microsecond."""


@lru_cache(maxsize=_KEPT)
def factor(key: str) -> int:
    """What amounts of account *key* are multiplied with: a number below 2**127 that is hashed from the key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest()) % _PRIME


def shown(total: int) -> str:
    """A sum of amounts, each times the `factor` of its account, as it is stored.

    Different terms have different fingerprints but for one case in 2**127. That guards against mistakes; who chooses
    amounts on purpose can make two sums equal.
    """
    return f"{total % _PRIME:x}"
