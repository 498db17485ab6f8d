"""Accounts out of the keys that a store keeps."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote

from agentbudget.domain.accounts import Account, Meter


def is_passing(key: str) -> bool:
    """Whether the account with this *key* is of passing interest: of one task, or of one minute or hour.

    Such accounts are collected some time after they were last used; users, teams, days and months are kept.
    """
    scope, _, window = key.split("|")
    return window[10:11] == "T" or any(pair.startswith("task:") for pair in scope.split("/"))


@lru_cache(maxsize=1024)
def account_of(key: str) -> Account:
    """The account whose `key` this is.

    Raises:
        ValueError: no account has this key.
    """
    scope, meter, window = key.split("|")
    pairs = tuple(tuple(map(unquote, pair.split(":"))) for pair in scope.split("/"))
    account = Account(pairs, Meter(meter), unquote(window))  # type: ignore[arg-type]  # checked by the comparison below
    if account.key != key:
        raise ValueError(f"{key!r} is no account's key.")
    return account
