"""Ledgers, and the one door to them: `open_ledger(url)`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from agentbudget.domain.clock import Clock
from agentbudget.domain.ledger import Ledger
from agentbudget.errors import ConfigurationError

__all__ = ["open_ledger"]


def open_ledger(url: str, *, clock: Clock | None = None) -> Ledger:
    """The ledger that *url* names. Only the backend that it names is imported; its scheme may be in any case.

    `memory:` lives and dies with this process. `sqlite:///spend.db` is a file that the processes of one machine share
    (`synchronous`, `on_expire`, `timeout`, `retain_days`, `retain_tasks_days`). `redis://`, `rediss://` and `unix://`
    are a Redis or Valkey server that many machines share (`prefix`, `on_expire`, `timeout`, `retain_days`,
    `retain_tasks_days`). Options follow a `?`: `memory:?on_expire=release`. With `slice=100` a process leases what
    about 100 calls take at once, and admits calls from that without asking the ledger (`agentbudget.ledgers.slices`).
    A *clock* replaces the ledger's own, for tests.

    Raises:
        ConfigurationError: an unknown scheme or option. Of the URL only its scheme is repeated, since the rest may
            hold a password.
    """
    scheme, colon, rest = url.partition(":") if isinstance(url, str) else ("", "", "")
    opener = _OPENERS.get(scheme.lower()) if colon else None
    if opener is None:
        named = f"scheme {scheme!r}" if colon else "no scheme"
        raise ConfigurationError(
            f"ledger: {named} in the URL; known: {', '.join(f'{s}:' for s in _OPENERS)}. {_hint(scheme, colon)}"
        )
    scheme = scheme.lower()
    url = f"{scheme}:{rest}"
    if "slice" not in url.partition("?")[2] or scheme == "memory":
        return opener(url, clock)
    return _sliced(url, opener, clock)


def _hint(scheme: str, colon: str) -> str:
    """What somebody may have meant by a *scheme* that nobody knows."""
    meant = _MEANT.get(scheme.lower()) or next(iter(get_close_matches(scheme.lower(), _OPENERS, n=1)), None)
    if colon and meant:
        return f"Did you mean '{meant}:'?"
    return "A file in this folder is sqlite:///spend.db."


def _sliced(url: str, opener: Callable[[str, Clock | None], Ledger], clock: Clock | None) -> Ledger:
    from agentbudget.ledgers.slices.ledger import SlicedLedger  # noqa: PLC0415 - few ledgers have slices
    from agentbudget.ledgers.slices.options import split_url  # noqa: PLC0415 - few ledgers have slices

    plain, options = split_url(url)
    authority = opener(plain, clock)
    return authority if options is None else SlicedLedger(authority, options, clock=clock)


def _memory(url: str, clock: Clock | None) -> Ledger:
    from agentbudget.ledgers.memory import MemoryLedger  # noqa: PLC0415 - a backend is imported when it is opened

    parts = urlsplit(url)
    if parts.netloc or parts.path:
        raise ConfigurationError("ledger: 'memory:' has no host and no path; did you mean a file or a server?")
    options = _options(parts.query, known=("on_expire",))
    return MemoryLedger(clock, on_expire=options.get("on_expire", "charge"))


def _sqlite(url: str, clock: Clock | None) -> Ledger:
    from agentbudget.ledgers.sqlite import open_sqlite  # noqa: PLC0415 - a backend is imported when it is opened

    parts = urlsplit(url)
    if parts.netloc or parts.fragment:
        raise ConfigurationError(
            "ledger: write sqlite:///spend.db for a file in this folder, sqlite:////var/lib/spend.db for a full path; "
            "a '#' or '?' in a name is written %23 or %3F."
        )
    known = ("synchronous", "on_expire", "timeout", "retain_days", "retain_tasks_days")
    path = unquote(parts.path).removeprefix("/")
    if parts.path.startswith("/") and not url.startswith("sqlite:///"):
        raise ConfigurationError(
            f"ledger: {parts.path!r} after 'sqlite:' may be meant from here or in full: write sqlite:///spend.db for a "
            "file in this folder, sqlite:////var/lib/spend.db for a full path."
        )
    if path and os.path.isdir(path):  # noqa: PTH112 - a Path raises for a name that is too long
        raise ConfigurationError(f"ledger {str(Path(path).absolute())!r} is a folder; name a file in it.")
    return open_sqlite(path, _options(parts.query, known=known), clock)


def _redis(url: str, clock: Clock | None) -> Ledger:
    try:
        from agentbudget.ledgers.redis import RedisLedger  # noqa: PLC0415 - a backend is imported when it is opened
    except ModuleNotFoundError as error:
        if error.name not in {"redis", "hiredis"}:
            raise
        raise ConfigurationError(
            f"ledger: '{url.partition(':')[0]}:' needs the package {error.name!r}: "
            "pip install 'langchain-agentbudget[redis]'."
        ) from error
    return RedisLedger(url, clock=clock)


def _options(query: str, *, known: tuple[str, ...]) -> Mapping[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in known:
            raise ConfigurationError(f"ledger: unknown option {name!r} in the URL; known: {', '.join(known)}.")
    return options


_OPENERS: dict[str, Callable[[str, Clock | None], Ledger]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
}
"""One opener a scheme; a durable ledger adds its own, importing its client only inside."""
_MEANT = {"": "memory", "valkey": "redis", "valkeys": "rediss", "redis+socket": "unix", "file": "sqlite"}
"""What other programs call what is known here."""
