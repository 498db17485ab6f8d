"""A TCP proxy on loopback that can hold replies back, cut connections and change the server behind it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Proxy:
    """Forwards to port *target*; replies wait while `open` is clear. Set `cuts` to drop that many replies, each with
    its connection: the server has done what was asked, and the client cannot know."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.cuts = 0
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Semaphore(0)
        """Released once for each request that came while replies were held back."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()
        for thread in self._threads:
            thread.join()

    def cut_all(self) -> None:
        """Cut every connection, whoever is in the middle of what."""
        for one in self._sockets:
            _close(one)

    def _start(self, work: object, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]  # the methods below
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            self._start(self._requests, client, server)
            self._start(self._replies, client, server)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        while data := _receive(client):
            held = not self.open.is_set()
            try:
                server.sendall(data)
            except OSError:
                break
            if held:
                self.asked.release()
        _close(client, server)

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        while data := _receive(server):
            self.open.wait()
            if self.cuts > 0:
                self.cuts -= 1
                break
            try:
                client.sendall(data)
            except OSError:
                break
        _close(client, server)


def _receive(one: socket.socket) -> bytes:
    try:
        return one.recv(1 << 16)
    except OSError:
        return b""


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
