"""How to talk to a server that may be away, without any I/O: plans that both ledgers carry out.

A plan is a generator. It yields a verb or a command (send it, come back with the reply, or with the error where there
is none) or a number of seconds to wait. What it returns is the answer of the verb.

Verbs that are asked for at the same time go to the server together, as one `exchange`; one verb is such a group, too.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    NoPermissionError,
    ResponseError,
)
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import TimeoutError as NoReplyError

from agentbudget.errors import ConfigurationError, LedgerError, LedgerUnavailableError
from agentbudget.ledgers.redis.scripts import script


class Verb(msgspec.Struct, frozen=True, gc=False):
    """One verb, as the script reads it."""

    packed: bytes
    """Its name and its arguments, each packed."""
    size: int
    """How many accounts it is about: what the server has to do grows with it."""
    admits: bool
    """Whether it takes new memory for good; then it is refused at maxmemory, and everything else is not."""


Answer = TypeVar("Answer")
Command: TypeAlias = "tuple[str | bytes, ...]"
Plan: TypeAlias = Generator["Verb | Command | float", Any, Answer]
Exchange: TypeAlias = Generator[Command, Any, list[Any]]

ADMITTING = frozenset({"reserve", "set_limit", "top_up"})
_pack = msgspec.msgpack.Encoder().encode

PAUSES = (0.02, 0.2)
"""Seconds before the second and the third try. Every verb may be sent again: its id makes it count once."""
_ABSENT = (NoConnectionError, NoReplyError, OSError)
_MOMENTARY = ("LOADING", "BUSY", "TRYAGAIN", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF")
_CODES = {
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "BusyLoadingError": "LOADING",
    "ReadOnlyError": "READONLY",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "TryAgainError": "TRYAGAIN",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "AuthenticationError": "WRONGPASS",
    "AuthenticationWrongNumberOfArgsError": "WRONGPASS",
    "NoPermissionError": "NOPERM",
}
_MISTAKEN = ("DB index is out of range", "CERTIFICATE_VERIFY_FAILED")
"""What the server, or the client of it, says of a URL that can never work."""
_REFUSED = (AuthenticationError, AuthenticationWrongNumberOfArgsError, NoPermissionError)


def verb(name: str, *arguments: Any, size: int = 1) -> Verb:
    """The verb *name*; a packed array of at most 15 parts without its first byte is these parts, packed."""
    return Verb(_pack((name, *arguments))[1:], size, name in ADMITTING)


def exchange(verbs: Sequence[Verb], head: Command) -> Exchange:
    """Have *verbs* carried out by one script, in this order; the reply of each, or the error in its place.

    *head* is what the script is told first. At maxmemory the server refuses a script that admits as a whole; then the
    verbs that need not be refused are sent again by themselves.
    """
    others = [verb for verb in verbs if not verb.admits]
    chosen = script(at_maxmemory=len(others) == len(verbs))
    arguments = ("1", *head, *[verb.packed for verb in verbs])
    reply = yield ("EVALSHA", chosen.digest, *arguments)
    if isinstance(reply, Exception) and _code(reply) == "NOSCRIPT":
        reply = yield ("EVAL", chosen.text, *arguments)
    if isinstance(reply, list):
        return reply
    if others and len(others) < len(verbs) and isinstance(reply, Exception) and _code(reply) == "OOM":
        done = iter((yield from exchange(others, head)))
        return [reply if verb.admits else next(done) for verb in verbs]
    return [reply] * len(verbs)


def ask(request: Verb | Command, *, place: str) -> Plan[Any]:
    """Send *request* until it is answered; the reply.

    Raises:
        LedgerUnavailableError: no answer after all tries.
        LedgerError: the server ran the script and found the stored ledger unreadable.
    """
    for pause in (*PAUSES, None):
        reply = yield request
        if not isinstance(reply, Exception):
            return reply
        if not may_pass(reply) or pause is None:
            # Its frames are the client's, and hold the password: whoever shows locals would show it.
            reply.__traceback__ = reply.__context__ = reply.__cause__ = None
            raise failure(reply, place) from reply
        yield pause
    raise AssertionError  # the last try returned or raised


def is_refused(error: BaseException) -> bool:
    """Whether the server knows the user or password not, or does not let them in."""
    return isinstance(error, _REFUSED) or str(error).startswith(("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH"))


def is_usable_after(error: Exception) -> bool:
    """Whether the connection that brought *error* may be used again. One that leads to a server which is not the
    master, or not yet ready, is better made anew."""
    return isinstance(error, ResponseError) and not may_pass(error)


def may_pass(error: Exception) -> bool:
    """Whether the same may succeed in a moment. redis-py strips the code of some errors, so types count as well."""
    if is_refused(error) or _is_mistaken(error):
        return False
    return isinstance(error, _ABSENT) or _code(error) in _MOMENTARY


def failure(error: Exception, place: str) -> LedgerError | ConfigurationError:
    """What the caller of a verb is told about *error*."""
    if is_refused(error) or _is_mistaken(error):
        return _mistake(error, place)
    if _code(error) == "OOM":
        return LedgerUnavailableError(
            f"{place}: the server is at its maxmemory, so nothing new is reserved (what is reserved can still be "
            "settled); give it more memory, or retain for a shorter time with ?retain_days=."
        )
    if _code(error) in {"MOVED", "ASK"}:
        return LedgerUnavailableError(
            f"{place}: this node of a Cluster does not hold the ledger's slot; name the node that does "
            "(CLUSTER KEYSLOT tells the slot), or choose another ?prefix=."
        )
    if may_pass(error):
        return LedgerUnavailableError(f"{place}: no answer from the ledger after {len(PAUSES) + 1} tries: {error}")
    if isinstance(error, ResponseError):
        return LedgerError(f"{place}: the stored ledger cannot be used; nothing was written: {error}")
    return LedgerUnavailableError(f"{place}: {type(error).__name__}: {error}")


def _mistake(error: Exception, place: str) -> ConfigurationError:
    if _is_mistaken(error):
        return ConfigurationError(f"{place}: {error}; name another database, or with ?ssl_ca_certs= who is trusted.")
    return ConfigurationError(
        f"{place}: the server refused the user or password ({_code(error)}); give them in the URL as "
        "redis://user:password@host, and let that user run scripts and read INFO."
    )


def _is_mistaken(error: Exception) -> bool:
    text = str(error)
    return any(said in text for said in _MISTAKEN)


def _code(error: Exception) -> str:
    """The first word of a reply that is an error; redis-py turns it into a type for some."""
    return _CODES.get(type(error).__name__) or str(error).partition(" ")[0]
