"""Who claims a call, and whether they are gone."""

from __future__ import annotations

import os
import socket
import uuid
import weakref

_MINE: weakref.WeakValueDictionary[str, Owner] = weakref.WeakValueDictionary()
"""The owners of this process that are in use."""


class Owner:
    """One that claims calls: its machine, its process, and a name of its own."""

    __slots__ = ("__weakref__", "_id", "_pid")

    def __init__(self) -> None:
        self._pid = 0
        self._id = ""

    @property
    def id(self) -> str:
        """How claims call it; another one after a fork."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._id = f"{socket.gethostname()}/{self._pid}/{uuid.uuid4().hex}"
            _MINE[self._id] = self
        return self._id


def is_gone(owner: str) -> bool | None:
    """Whether the *owner* of a claim has ended; None where that is not certain: on another machine, or where the
    number of its process is in use, by itself or by another."""
    machine, _, rest = owner.partition("/")
    process, _, _ = rest.partition("/")
    if machine != socket.gethostname() or not process.isdecimal():
        return None
    if int(process) == os.getpid():
        return owner not in _MINE  # the number may be that of an earlier process: in a container it often is
    if os.name != "posix":
        return None
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return None
