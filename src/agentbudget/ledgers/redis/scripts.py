"""The scripts as text and digest, read from the package once."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """One verb, as the server runs it."""

    text: str
    digest: str
    """What EVALSHA calls it by."""


@cache
def script(name: str) -> Script:
    """The script of verb *name*: flags, the head of all verbs, its body with the shared functions in place."""
    folder = files(__package__) / "lua"
    flags, body = (folder / f"{name}.lua").read_text("utf-8").split("\n", 1)
    body = body.replace("-- @common\n", (folder / "common.lua").read_text("utf-8"), 1)
    text = "\n".join([flags, (folder / "head.lua").read_text("utf-8"), body])
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
