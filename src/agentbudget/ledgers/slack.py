"""Disk space kept back, so that what was paid can still be written down when the disk is full."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SLACK_BYTES = 4 * 1024 * 1024
"""As much as SQLite's write-ahead log takes before it is written back and used again."""


class Slack:
    """A file of `SLACK_BYTES` that means nothing. It is given up when the disk is full, and taken back when it is not.

    Who reserves takes it back first; so what was given up is there for settlements alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.gone = False
        self.take()

    def take(self) -> bool:
        """Take the space if it is not taken; whether it is now."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                _fill(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            self.give_up()
            return False
        self.gone = False
        return True

    def look(self) -> None:
        """See whether another process gave it up."""
        self.gone = not self._path.exists()

    def give_up(self) -> None:
        """Give the space back to the disk."""
        self.gone = True
        with suppress(OSError):
            self._path.unlink()


def _fill(descriptor: int) -> None:
    """Take real space: a file with a hole takes none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, SLACK_BYTES)
        return
    missing = SLACK_BYTES - os.lseek(descriptor, 0, os.SEEK_END)
    while missing > 0:
        missing -= os.write(descriptor, bytes(min(missing, 64 * 1024)))
