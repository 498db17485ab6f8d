"""What of a call's content may enter a trace: a keyed hash of it by default, the content itself only on request.

Both look at a value with bounded work and never raise: whatever an agent passes around, tracing it cannot break or
stall the agent. Attributes that begin with an underscore and pydantic secrets are left out everywhere.
"""

from __future__ import annotations

import math
import os
import secrets
from base64 import b64encode
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from agentbudget.errors import ConfigurationError

MAX_NODES = 10_000
"""Values looked at inside one value; what lies beyond counts only by its number."""
MAX_TEXT = 1 << 18
"""Characters of text, and bytes, taken from one value."""
MAX_DEPTH = 50
"""Levels of nesting followed; ends cycles too."""

_MIN_KEY_BYTES = 16
_KEY_BYTES = 32
_INT64 = 2**63
_STARS = "**********"
_CANONICAL = msgspec.json.Encoder(order="deterministic")
_FEW, _SHORT = 32, 4_096

_TEXT_MARK = b"\0"
"""In front of a plain text, so that it never equals the JSON of another value."""


class Hasher:
    """Keyed hashes of content: equal content gives equal hashes, and nobody without the key can guess and check.

    BLAKE2b, 64 bits, as 16 hexadecimal characters. Lists and tuples hash alike, as do dicts in any order;
    `1`, `1.0`, `True` and `"1"` differ.

    Args:
        key: at least 16 bytes. None takes a random key for this process: its hashes can then be compared only
            with each other; use `from_file` to compare across processes.

    Raises:
        ConfigurationError: the key is not bytes or too short.
    """

    __slots__ = ("_base", "_text", "key_id")

    def __init__(self, key: bytes | None = None) -> None:
        if key is None:
            key = secrets.token_bytes(_KEY_BYTES)
        if not isinstance(key, bytes) or len(key) < _MIN_KEY_BYTES:
            msg = f"the key of the trace hashes must be at least {_MIN_KEY_BYTES} bytes."
            raise ConfigurationError(msg)
        derived = blake2b(key, digest_size=_KEY_BYTES, person=b"agentbudget key").digest()
        self._base = blake2b(key=derived, digest_size=8)
        self._text = blake2b(_TEXT_MARK, key=derived, digest_size=8)
        self.key_id = blake2b(key=derived, digest_size=4, person=b"key id").hexdigest()
        """Names the key without revealing it; hashes of equal ids can be compared."""

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Hasher:
        """The hasher of the key kept at *path*; the file is made, readable by its owner only, if it is missing.

        Raises:
            ConfigurationError: the file cannot be read or made, or holds no key.
        """
        where = Path(path)
        try:
            if not where.exists():
                _create_key(where)
            return cls(bytes.fromhex(where.read_text(encoding="ascii").strip()))
        except (OSError, ValueError) as problem:
            msg = f"trace key {str(where)!r}: no key of {_KEY_BYTES} bytes in hexadecimal can be read or made there."
            raise ConfigurationError(msg) from problem

    def hash(self, value: Any) -> str:
        """16 hexadecimal characters for *value*, which may be anything. Never raises.

        What counts is what `jsonable` gives: beyond its bounds only sizes do, so two huge values may share a hash.
        """
        if type(value) is str and len(value) <= MAX_TEXT:  # what is hashed at every call of a model takes the short way
            digest = self._text.copy()
            digest.update(value.encode("utf-8", "backslashreplace"))
        else:
            digest = self._base.copy()
            digest.update(_canonical(value))
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"Hasher(key_id={self.key_id!r})"


def _canonical(value: Any) -> bytes:
    """What counts of *value*: plain JSON with its keys in order."""
    if type(value) is dict and len(value) <= _FEW:
        try:
            if _is_plain(value):
                return _CANONICAL.encode(value)
        except Exception:  # noqa: BLE001, S110 - a lone surrogate, or a change by another thread: the long way takes both
            pass
    return _CANONICAL.encode(jsonable(value))


def _is_plain(fields: dict[Any, Any]) -> bool:
    """Whether `jsonable` would leave *fields* as they are: few short values by name, as a tool's arguments mostly."""
    for name, value in fields.items():
        if type(name) is not str or len(name) > _SHORT:
            return False
        kind = type(value)
        if kind is str:
            if len(value) > _SHORT:
                return False
        elif kind is int:
            if not -_INT64 < value < _INT64:
                return False
        elif value is not None and kind is not bool:
            return False
    return True


def jsonable(value: Any) -> Any:
    """*value* as plain JSON values, for a trace with full content. Never raises.

    At most `MAX_NODES` values, `MAX_TEXT` characters and `MAX_DEPTH` levels are kept; what is cut is marked by `…`.
    Objects become dicts of their public attributes, bytes base64, secrets stars.
    """
    try:
        return _plain(value, _Work(), 0)
    except Exception:  # noqa: BLE001 - a hostile object may raise anything; it still has a type
        return _unknown(value)


def _create_key(where: Path) -> None:
    where.parent.mkdir(parents=True, exist_ok=True)
    fresh = where.with_name(f".{where.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(_KEY_BYTES) + "\n")
    try:
        os.link(fresh, where)  # atomic, and refused where another process was first: then its key holds
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


@dataclass(slots=True)
class _Work:
    """What may still be spent on one value."""

    nodes: int = MAX_NODES
    text: int = MAX_TEXT

    def take(self, size: int) -> int:
        """How many of *size* characters or bytes may be kept."""
        taken = min(size, self.text)
        self.text -= taken
        return taken


def _plain(value: Any, work: _Work, depth: int) -> Any:
    work.nodes -= 1
    if isinstance(value, str):  # an enum of strings included
        return _text(value, work)
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float | Decimal):
        return _number(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(memoryview(value)[: work.take(len(value))])
        return _marked(b64encode(raw).decode(), len(value) - len(raw))
    if depth >= MAX_DEPTH or work.nodes <= 0:
        return "…"
    return _container(value, work, depth + 1)


def _text(text: str, work: _Work) -> str:
    size = len(text)
    taken = work.take(size)
    if taken < size:
        half = taken // 2  # both ends: logs differ at the end, messages at the start
        text = _marked(text[:half], size - 2 * half) + text[size - half :]
    # A str subclass may override anything; a lone surrogate is no JSON.
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _number(value: bool | int | float | Decimal | None) -> Any:  # noqa: FBT001, PYI041 - any plain scalar
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < _INT64 else hex(value)  # decimal digits of a huge int take quadratic time
    if isinstance(value, Decimal) or not math.isfinite(value):
        return str(value)
    return float(value)


def _container(value: Any, work: _Work, depth: int) -> Any:
    room = max(work.nodes, 0)
    if isinstance(value, Mapping):
        plain = {str(_plain(key, work, depth)): _plain(item, work, depth) for key, item in islice(value.items(), room)}
        return plain if len(plain) == len(value) else plain | {"…": len(value) - len(plain)}
    if isinstance(value, list | tuple | AbstractSet):
        items = [_plain(item, work, depth) for item in islice(value, room)]
        if isinstance(value, AbstractSet):
            items.sort(key=_CANONICAL.encode)
        return items if len(items) == len(value) else [*items, _marked("", len(value) - len(items))]
    if hasattr(value, "get_secret_value"):
        return _STARS
    attributes = _attributes(value)
    return _container(attributes, work, depth) if attributes else _unknown(value)


def _attributes(value: Any) -> dict[str, Any]:
    """The public attributes that *value* stores; nothing is computed."""
    if isinstance(value, type) or callable(value):
        return {}
    slots = getattr(value, "__struct_fields__", getattr(value, "__slots__", ()))
    known = {name: getattr(value, name, None) for name in ((slots,) if isinstance(slots, str) else slots)}
    known |= getattr(value, "__dict__", {})
    return {name: item for name, item in known.items() if isinstance(name, str) and not name.startswith("_")}


def _marked(text: str, missing: int) -> str:
    return f"{text}… ({missing} more)" if missing else text


def _unknown(value: Any) -> str:
    return f"<{type(value).__qualname__}>"
