"""Whether two requests are exactly the same: a hash of all they say, whatever the order of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

_SIZE = 16
"""Bytes of a hash: two requests that differ have the same one never, in practice."""


def digest(value: Any) -> str:
    """A hash of *value*, equal for equal values in other processes too. Nothing in it is left out.

    Loop rules use `agentbudget.policies.signatures`, which look past times and ids and at the ends of long texts only:
    good to tell a loop, too coarse to hand out a result.

    Raises:
        TypeError: there is something in it that cannot be compared (a stream, a handle, a cycle).
    """
    try:
        return blake2b(_ENCODER.encode(value), digest_size=_SIZE).hexdigest()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(f"cannot be compared: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, type):
        schema = getattr(value, "model_json_schema", None)
        return [value.__module__, value.__qualname__, schema() if callable(schema) else None]
    fields = getattr(type(value), "model_fields", None)
    if fields is not None:  # a dump leaves out what is excluded, and what a subclass adds
        named = {name: getattr(value, name, None) for name in fields}
        return [type(value).__module__, type(value).__qualname__, named, value.model_extra, value.__pydantic_private__]
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, int):  # beyond 64 bits
        return ["int", hex(value)]
    raise TypeError(f"a {type(value).__qualname__} is neither a plain value nor a pydantic model")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plain, order="deterministic")
