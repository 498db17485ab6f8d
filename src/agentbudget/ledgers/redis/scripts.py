"""The script as text and digest, read from the package once."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_CAREFUL = ("book", "careful", "reserve", "alerts", "settle", "forget", "rare")
_CONSTANT = re.compile(r"^([A-Z]_[A-Z_]+) = (-?\d+)$", re.MULTILINE)
_NAME = re.compile(r"\b[A-Z]_[A-Z_]+\b")


class Script(NamedTuple):
    """The script, as the server runs it."""

    text: str
    digest: str
    """What EVALSHA calls it by."""


@cache
def script(*, at_maxmemory: bool) -> Script:
    """The script of all verbs; *at_maxmemory*: the server runs it even then."""
    text = f"#!lua flags=allow-oom\n{_body()}" if at_maxmemory else f"#!lua\n{_body()}"
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@cache
def _body() -> str:
    """The usual verbs, with the careful ones in their place and the writing in both.

    All parts are read at once, so that a package which is replaced under a running process does not mix two versions.
    Constants become numbers, which takes the server less time than names.
    """
    folder = [file for file in (files(__package__) / "lua").iterdir() if file.name.endswith(".lua")]
    parts = {file.name.removesuffix(".lua"): file.read_text("utf-8") for file in folder}
    careful = "\n".join([parts[name] for name in _CAREFUL])
    whole = f"{parts['head']}\n{parts['usual']}".replace("-- @careful\n", careful)
    whole = whole.replace("-- @write\n", parts["write"])
    constants = dict(_CONSTANT.findall(parts["constants"]))
    return _NAME.sub(lambda name: constants[name[0]], whole)
