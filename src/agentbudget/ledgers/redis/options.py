"""What a URL says about a Redis ledger. The URL itself, which may hold a password, is kept in no message."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.connection import parse_url

from agentbudget.domain.ledger import OnExpire
from agentbudget.errors import ConfigurationError

OWN = ("prefix", "on_expire", "retain_days", "retain_tasks_days", "timeout")
TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
MAX_PREFIX = 100
_ENCODED = "special characters of a password are percent-encoded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where the ledger is and how it behaves.

    Args:
        place: the server as people may see it, without user and password.
        connection: arguments of a connection, the password included.
        prefix: first part of every key, and the hash tag that keeps all keys in one Cluster slot.
        on_expire: what an expired reservation means; one for all who share the ledger.
        retain_days: how long resolved reservations keep their id and journal entries.
        retain_tasks_days: when accounts of tasks, minutes and hours that nobody used meanwhile are collected.
        timeout: seconds to wait for a connection or a reply.
    """

    place: str
    connection: Mapping[str, Any] = field(repr=False)
    prefix: str = "agentbudget"
    on_expire: OnExpire = OnExpire.CHARGE
    retain_days: float = 1.0
    retain_tasks_days: float = 30.0
    timeout: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < len(self.prefix) <= MAX_PREFIX or not self.prefix.isprintable() or set(self.prefix) & set("{} "):
            raise ConfigurationError(
                f"prefix={self.prefix!r}: 1 to {MAX_PREFIX} printable characters without braces and spaces."
            )
        if not 0 < self.timeout < math.inf:
            raise ConfigurationError(f"timeout={self.timeout!r}: a finite number of seconds above 0.")
        if not 0 <= self.retain_days < math.inf:
            raise ConfigurationError(f"retain_days={self.retain_days!r}: a finite number of days, 0 or more.")

        if not 1 <= self.retain_tasks_days < math.inf:
            raise ConfigurationError(
                f"retain_tasks_days={self.retain_tasks_days!r}: a finite number of days, 1 or more."
            )

    @property
    def meta(self) -> str:
        """The key that every script is given."""
        return f"{{{self.prefix}}}:meta"


def options_of(url: str) -> Options:
    """What *url* says.

    Raises:
        ConfigurationError: it cannot be read, or has an option that is not known.
    """
    place, connection = _server(url)
    options = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    for name in options:
        if "@" in name:
            raise _unreadable(_ENCODED)
        if name not in (*OWN, *TLS, "db"):
            raise ConfigurationError(f"ledger: unknown option {name!r} in the URL; known: {', '.join((*OWN, *TLS))}.")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if name in options and not Path(options[name]).is_file():
            raise ConfigurationError(f"ledger: {name}={options[name]!r}: there is no such file.")
    on_expire = options.get("on_expire", OnExpire.CHARGE)
    if on_expire not in set(OnExpire):
        raise ConfigurationError(f"on_expire={on_expire!r}: one of {', '.join(OnExpire)}.")
    return Options(
        place=place,
        connection=connection,
        prefix=options.get("prefix", "agentbudget"),
        on_expire=OnExpire(on_expire),
        retain_days=_number(options, "retain_days", 1.0),
        retain_tasks_days=_number(options, "retain_tasks_days", 30.0),
        timeout=_number(options, "timeout", 2.0),
    )


def _number(options: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(options.get(name, default))
    except ValueError:
        raise ConfigurationError(f"{name}={options[name]!r}: a number.") from None


def _server(url: str) -> tuple[str, dict[str, Any]]:
    """Where the server is, for people and for the client, which is not shown our own options."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name not in OWN])
        client: dict[str, Any] = parse_url(f"{parts.scheme}://{parts.netloc}{parts.path}?{query}")  # type: ignore[no-untyped-call]  # redis-py
    except ValueError:
        raise _unreadable(_ENCODED) from None
    if parts.fragment:
        raise _unreadable(_ENCODED)
    database = parts.path.strip("/")
    if parts.scheme == "unix" and not parts.path:
        raise _unreadable("a unix: URL names the path of a socket, as unix:///run/redis.sock")
    if parts.scheme != "unix" and database and not database.isdecimal():
        raise _unreadable("its path is the number of a database")
    host = parts.hostname or ""
    where = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path.rstrip('/')}"
    number = client.get("db", 0)
    named = int(database) if database and parts.scheme != "unix" else 0
    return where if number == named else f"{where}?db={number}", client


def _unreadable(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"ledger: the Redis URL cannot be read: {why}; write redis://user:password@host:6379/0?prefix=mine."
    )
