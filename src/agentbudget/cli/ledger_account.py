"""The account that a command line means: one that calls really use, however its scopes are ordered."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from agentbudget.domain.accounts import Account, Meter, normal
from agentbudget.domain.ledger import Ledger
from agentbudget.domain.windows import Window, window_start
from agentbudget.errors import ConfigurationError

CALENDAR = tuple(window for window in Window if window is not Window.NEVER)


def account_named(pairs: Sequence[str], meter: str, window: str, timezone: str) -> Account:
    """The account of KIND=NAME *pairs* in the *window* with this key, or in the one of now that is named so.

    Raises:
        ConfigurationError: no account could be meant.
    """
    key = Window(window).key(time.time(), timezone) if window in CALENDAR else window
    if key and not _is_key(key):
        names = ", ".join(sorted(CALENDAR))
        raise ConfigurationError(f"--window {window!r}: a key such as 2026-11, or one of {names}.")
    return Account(tuple(pair(text) for text in pairs), Meter(meter), key)


def account_used(ledger: Ledger, account: Account) -> tuple[Account, str]:
    """*account* as calls know it, with its scopes in their order; and a note where calls count these scopes by other
    windows only, since a limit of an account that no call uses limits nothing."""
    scope = set(account.scope)
    same = [one for one in ledger.accounts() if set(one.scope) == scope and one.meter is account.meter]
    alike = [one for one in same if _shape(one.window) == _shape(account.window)]
    if alike:
        return Account(alike[-1].scope, account.meter, account.window), ""
    if not same:
        return account, ""
    meant = "Was another --window or --timezone meant?"
    note = f"note: no call has counted the {account} yet; calls count the {same[-1]}. {meant}"
    return account, note


def pair(text: str) -> tuple[str, str]:
    """KIND=NAME as the two.

    Raises:
        ConfigurationError: one of them is missing.
    """
    kind, equals, name = text.partition("=")
    if not equals or not kind or not name:
        raise ConfigurationError(f"--scope {text!r}: KIND=NAME, e.g. user=u42.")
    return normal(kind), normal(name)


def _is_key(key: str) -> bool:
    """Whether some window has this *key*."""
    try:
        start = window_start(key)
    except ValueError:
        return False
    timezone = key.partition(" ")[2] or "UTC"
    return start is not None and any(window.key(start, timezone) == key for window in CALENDAR)


def _shape(window: str) -> str:
    """What windows of one kind in one time zone have in common; the offset changes with the season."""
    text, _, timezone = window.partition(" ")
    return f"{re.sub('[0-9]', '0', re.sub('[+-][0-9]{4}$', 'z', text))} {timezone}"
