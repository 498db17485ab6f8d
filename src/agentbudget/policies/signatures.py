"""Signatures: whether two calls, or two results, are the same, without keeping either.

A signature is a keyed hash of 8 bytes. Every value is looked at with bounded work, nothing is consumed or changed, and
nothing is raised: what cannot be read (a stream, a handle) counts by its type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from operator import itemgetter
from typing import Any

import msgspec

SIZE = 8
"""Bytes of a signature."""
MOST_VALUES = 1_000
"""Values looked at inside one value."""
MOST_DEPTH = 16
"""Levels followed; ends cycles too."""
EDGE = 1 << 16
"""Characters, or bytes, taken from either end of a text: what lies between counts by its length."""
CLEANED = 1 << 12
"""Characters at either end of a text in which times and ids are masked."""
SHORT = 64
"""Characters of a result that only acknowledges."""
_MOST_BITS = 1 << 10
# Each type is named once: a union made at every question costs more than the answer.
_SCALARS = (int, float, Decimal)
_BINARY = (bytes, bytearray, memoryview)
_SEQUENCES = (list, tuple)
_SORTABLE = (str, int, float)
_first = itemgetter(0)
_MOST_NAME = 200

VOLATILE = frozenset(
    {
        "callid", "clientrequestid", "correlationid", "idempotencykey", "messageid", "nonce", "now", "requestid",
        "runid", "salt", "spanid", "timestamp", "timestampms", "toolcallid", "traceid", "traceparent", "ts", "uuid",
        "cachebuster", "cachebust",
    }
)  # fmt: skip
"""Names of fields, in lower case without separators, that tell no call from another."""

_ISO = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"
_HEX = "[0-9a-fA-F]"
_SECONDS = r"\d+ ?(?:ms|s|secs?|seconds)\b"
_MASKS = tuple(
    (hint, re.compile(sign), re.compile(pattern))
    for hint, sign, pattern in (
        (":", r":(?<=\d\d:)\d\d", _ISO + r"|\b\d\d:\d\d:\d\d(?:[.,]\d+)?"),
        ("-", rf"-(?<={_HEX}{{8}}-){_HEX}{{4}}-", rf"\b{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}\b"),
        (".", rf"\.(?<=\d\.){_SECONDS}", rf"\b\d+\.{_SECONDS}"),
        ("0x", rf"0x{_HEX}", rf"\b0x{_HEX}+"),
        ("req", r"req[-_]\w", r"\breq[-_]\w+"),
    )
)
"""Times, UUIDs, durations, addresses and request ids; each pattern with what a text must contain to be searched, and a
sign of it that begins with one character: the search for that is ten times faster."""
_BEGINS_WITH_NOTHING = re.compile(r"(?i)\W*(?:$|(?:none|null|nil|false)\W*$|(?:no|0|zero)\s)")
_TELLS_OF_NOTHING = re.compile(r"(?i)\bnot found\b|\bnothing\b")
_PREFIX = bytes(129)


class Asked(msgspec.Struct, frozen=True, gc=False):
    """Signatures of a call."""

    call: bytes
    """Tool and arguments, volatile fields left out."""
    target: bytes
    """Tool and what the arguments name: numbers and words without white space, such as a path or an id."""


class Answered(msgspec.Struct, frozen=True, gc=False):
    """Signature of a result."""

    result: bytes
    brief: bool
    """Whether it may be a mere acknowledgement: short, and it does not say that nothing was found."""


class Signer:
    """Makes signatures that can be compared with each other; those of another *key* cannot."""

    __slots__ = ("_base",)

    def __init__(self, key: bytes) -> None:
        # What a block of zeros does to the state is worked out here, once, and not for each signature.
        self._base = blake2b(_PREFIX, key=key, digest_size=SIZE)

    def call(self, tool: str, arguments: Mapping[str, Any], volatile: frozenset[str] = frozenset()) -> Asked:
        """The signatures of a call of *tool*; arguments called as in *volatile* do not count."""
        walk = _Walk(volatile)
        walk.begin(arguments)
        call = self._sign("\x00".join([tool, *walk.parts]))
        return Asked(call, call if walk.all_named else self._sign("\x00".join([tool, *walk.named])))

    def result(self, value: Any, *, failed: bool = False) -> Answered:
        """The signature of what a tool returned, or of the error it raised; times and ids in it are masked."""
        if isinstance(value, str):
            text = _clean(value)
            return Answered(self._sign(text), not failed and _acknowledges(text))
        walk = _Walk(cleaning=True)
        walk.begin(value)
        short = not failed and sum(map(len, walk.parts)) <= SHORT
        return Answered(self._sign("\x00".join(walk.parts)), short and _acknowledges("".join(walk.parts)))

    def _sign(self, text: str) -> bytes:
        digest = self._base.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        return digest.digest()


class _Walk(msgspec.Struct, gc=False):
    """One look at one value: what it consists of, in an order that does not depend on that of dictionaries."""

    volatile: frozenset[str] = frozenset()
    cleaning: bool = False
    left: int = MOST_VALUES
    parts: list[str] = []
    named: list[str] = []
    all_named: bool = True
    """Whether every text in it is a name: then `named` tells it as well as `parts`."""

    def begin(self, value: Any) -> None:
        try:
            self.visit(value, 0)
        except Exception:  # noqa: BLE001 - a hostile object may raise anything; it still has a type
            self.parts, self.named = [type(value).__qualname__], []

    def visit(self, value: Any, depth: int) -> None:
        self.left -= 1
        if isinstance(value, str):
            text = _clean(value) if self.cleaning else _collapsed(value)
            self.parts.append(text)
            if len(text) <= _MOST_NAME and " " not in text:
                self.named.append(text)
            else:
                self.all_named = False
        elif value is None or isinstance(value, _SCALARS):
            wide = isinstance(value, int) and value.bit_length() > _MOST_BITS
            number = _ends_of(value) if wide else str(value)[:_MOST_NAME]
            self.parts.append(number)
            self.named.append(number)
        elif isinstance(value, _BINARY):
            self.parts.append(_binary(value))
        elif depth >= MOST_DEPTH or self.left <= 0:
            self.parts.append("…")
        elif type(value) is dict:
            self._fields(value, depth + 1)
        else:
            self._inside(value, depth + 1)

    def _inside(self, value: Any, depth: int) -> None:
        if isinstance(value, Mapping):
            self._fields(value, depth)
        elif isinstance(value, _SEQUENCES):
            self.parts.append(f"[{len(value)}")
            for item in islice(value, self.left):
                self.visit(item, depth)
        elif isinstance(value, AbstractSet):
            self._unordered(value)
        elif isinstance(value, BaseException):
            self.parts += (type(value).__qualname__, _clean(str(value)))
        elif hasattr(value, "tool_call_id") and hasattr(value, "content"):  # a tool's message: its ids say nothing
            self.visit(value.content, depth)
        else:
            self.parts.append(f"<{type(value).__qualname__}")
            stored = getattr(value, "__dict__", None)
            if isinstance(stored, dict) and not callable(value):
                public = {key: item for key, item in islice(stored.items(), self.left) if key[:1] != "_"}
                self._fields(public, depth)

    def _fields(self, fields: Mapping[Any, Any], depth: int) -> None:
        self.parts.append(f"{{{len(fields)}")
        known = []
        for key, item in islice(fields.items(), self.left):
            known.append((str(key)[:_MOST_NAME], item))
        if len(known) > 1:
            known.sort(key=_first)
        for key, item in known:
            if key not in self.volatile and not _is_volatile(key):
                self.parts.append(key)
                self.visit(item, depth)

    def _unordered(self, items: Iterable[Any]) -> None:
        known = [str(item)[:_MOST_NAME] for item in islice(items, self.left) if isinstance(item, _SORTABLE)]
        self.parts += ("{", *sorted(known))


@lru_cache(maxsize=1024)
def _is_volatile(name: str) -> bool:
    return name.lower().replace("_", "").replace("-", "") in VOLATILE


def _collapsed(text: str) -> str:
    """*text* with runs of white space as one space; of a long one only its ends and its length."""
    if len(text) > 2 * EDGE:
        return f"{text[:EDGE]}{len(text)}{text[-EDGE:]}"
    return _single_spaced(text) if len(text) <= CLEANED else str(text)


def _single_spaced(text: str) -> str:
    """*text* with each run of white space as one space, and without any at its ends."""
    if type(text) is str and text.isprintable() and "  " not in text and text.strip() == text:
        return text  # no white space but the space is printable
    return " ".join(text.split())


def _clean(text: str) -> str:
    """*text* with times, durations and ids masked; as it is where nothing else would be left."""
    if len(text) > 2 * CLEANED:
        if len(text) > 2 * EDGE:
            text = _collapsed(text)
        middle = text[CLEANED:-CLEANED]
        return f"{_masked(text[:CLEANED])}{middle}{_masked(text[-CLEANED:])}"
    plain = _single_spaced(text)
    masked = _masked(plain)
    return masked if masked is plain or any(map(str.isalnum, masked)) else plain


def _masked(text: str) -> str:
    for hint, sign, pattern in _MASKS:
        if hint in text and sign.search(text):
            text = pattern.sub("#", text)
    return text


def _acknowledges(text: str) -> bool:
    """Whether a result that reads *text* may be a mere acknowledgement: short, and it does not tell of nothing."""
    if len(text) > SHORT or _BEGINS_WITH_NOTHING.match(text):
        return False
    return "not" not in text.lower() or not _TELLS_OF_NOTHING.search(text)


def _ends_of(value: Any) -> str:
    """A huge int by its size and its last bits: its digits would take quadratic time."""
    return f"{value.bit_length()} bits {value & 0xFFFF_FFFF_FFFF_FFFF:x}"


def _binary(value: bytes | bytearray | memoryview) -> str:
    raw = memoryview(value).cast("B")
    digest = blake2b(raw[:EDGE], digest_size=SIZE)
    digest.update(raw[-EDGE:])
    return f"{len(raw)} bytes {digest.hexdigest()}"
