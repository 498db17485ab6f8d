"""The scripts as text and digest, read from the package once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """One verb, as the server runs it."""

    text: str
    digest: str
    """What EVALSHA calls it by."""


def script(name: str) -> Script:
    """The script of verb *name*."""
    return _scripts()[name]


@cache
def _scripts() -> Mapping[str, Script]:
    """Every script: flags, the head of all verbs, its body with the shared functions in place.

    All are read at once, so that a package which is replaced under a running process does not mix two versions.
    """
    folder = [file for file in (files(__package__) / "lua").iterdir() if file.name.endswith(".lua")]
    texts = {file.name.removesuffix(".lua"): file.read_text("utf-8") for file in folder}
    head, common = texts.pop("head"), texts.pop("common")
    found = {}
    for name, whole in texts.items():
        flags, body = whole.split("\n", 1)
        text = "\n".join([flags, head, body.replace("-- @common\n", common, 1)])
        found[name] = Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
    return found
