"""The governor of a process that configured none: in memory, without a trace."""

from __future__ import annotations

import threading

from agentbudget.governor.governor import Governor

_LOCK = threading.Lock()
_DEFAULT: list[Governor] = []


def default_governor() -> Governor:
    """The one governor of this process for every entry that was given none."""
    if not _DEFAULT:
        with _LOCK:
            if not _DEFAULT:
                _DEFAULT.append(Governor())
    return _DEFAULT[0]
