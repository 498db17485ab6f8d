"""One connection for all tasks of an event loop.

The verbs that tasks ask for in one turn of the loop go to the server as one script, a *batch*; each gets its own reply.
Replies come back in the order of the requests. A task that is cancelled leaves its place in that order behind, so that
no reply goes to another.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from hiredis import ProtocolError, Reader, pack_command
from redis.connection import SSLConnection
from redis.exceptions import ConnectionError as NoConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as NoReplyError

from agentbudget.ledgers.redis.options import Options
from agentbudget.ledgers.redis.talk import Command, Exchange, Verb, is_usable_after

BATCH = 32
"""Verbs that are sent without waiting for the turn to end: the server works on them meanwhile. The script of a batch
takes it some 0.3 ms."""
BATCH_SIZE = 256
"""Accounts of all verbs in a batch, but for a batch of one."""
_MORE = object()

Receive = Callable[[Any], None]
Group = Callable[[Sequence[Verb]], Exchange]


class Pipeline:
    """A connection that opens itself when it is used, and again after it was lost."""

    def __init__(self, options: Options, exchange: Group) -> None:
        self._options = options
        self._exchange = exchange
        self._link: Link | None = None
        self._opening = asyncio.Lock()

    def send(self, request: Verb | Command) -> Awaitable[Any]:
        """The reply to come, or the error where there is none."""
        link = self._link
        return self._open_and_send(request) if link is None or link.lost else link.send(request)

    async def close(self) -> None:
        """Let go of the connection; what waits for a reply gets an error."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _open_and_send(self, request: Verb | Command) -> Any:
        try:
            link = await self._open()
        except (RedisError, OSError) as error:
            return error
        return await link.send(request)

    async def _open(self) -> Link:
        async with self._opening:
            if self._link is None or self._link.lost:
                try:
                    async with asyncio.timeout(self._options.timeout):
                        self._link = await dial(self._options, self._exchange)
                except TimeoutError:
                    raise NoReplyError(f"no connection within {self._options.timeout:g} seconds") from None
            return self._link


class Link(asyncio.Protocol):
    """One connection, until it is lost."""

    def __init__(self, timeout: float, exchange: Group) -> None:
        self._timeout = timeout
        self._exchange = exchange
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = Reader(replyError=ResponseError, notEnoughData=_MORE)
        self._waiting: deque[tuple[Receive, float]] = deque()
        self._verbs: list[Verb] = []
        self._answers: list[asyncio.Future[Any]] = []
        self._size = 0
        self._watch: asyncio.TimerHandle | None = None
        self._gone = self._loop.create_future()
        self.lost = False

    def send(self, request: Verb | Command) -> asyncio.Future[Any]:
        """The reply to come, or the error where there is none."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if isinstance(request, tuple):
            self._write(request, partial(_answer, answer))
            return answer
        if self._verbs and self._size + request.size > BATCH_SIZE:
            self._send_batch()
        self._verbs.append(request)
        self._answers.append(answer)
        self._size += request.size
        if len(self._verbs) == BATCH:
            self._send_batch()
        elif len(self._verbs) == 1:
            self._loop.call_soon(self._send_batch)
        return answer

    def lose(self, error: Exception) -> None:
        """Answer everyone with *error*: whether what they sent was done is not known."""
        if self.lost:
            return
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
        while self._waiting:
            self._waiting.popleft()[0](error)
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Lose the connection on purpose, and wait until it is gone."""
        self.lose(NoConnectionError("the ledger was closed"))
        await self._gone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: answer the oldest requests."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _MORE:
                self._waiting.popleft()[0](reply)
                if isinstance(reply, Exception) and not is_usable_after(reply):
                    self.lose(reply)
        except ProtocolError as error:
            self.lose(NoConnectionError(f"not the protocol of Redis: {error}"))
        except IndexError:
            self.lose(NoConnectionError("a reply that nobody asked for"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.lose(NoConnectionError(str(exc) if exc else "the server closed the connection"))
        if not self._gone.done():
            self._gone.set_result(None)

    def _send_batch(self) -> None:
        """Send the verbs that came since the last batch, if any; on a lost connection they get an error."""
        if not self._verbs:
            return
        exchange = self._exchange(self._verbs)
        self._write(next(exchange), partial(self._go_on, exchange, self._answers))
        self._verbs, self._answers, self._size = [], [], 0

    def _go_on(self, exchange: Exchange, answers: Sequence[asyncio.Future[Any]], reply: Any) -> None:
        """Take the *reply* to what *exchange* asked for last."""
        try:
            command = exchange.send(reply)
        except StopIteration as done:
            for answer, own in zip(answers, done.value, strict=True):
                _answer(answer, own)
        else:
            self._write(command, partial(self._go_on, exchange, answers))

    def _write(self, command: Command, receive: Receive) -> None:
        if self.lost or self._transport is None:
            receive(NoConnectionError("the connection was lost"))
            return
        self._waiting.append((receive, self._loop.time()))
        self._transport.write(pack_command(command))  # type: ignore[arg-type]  # its stub means a tuple of one
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout, self._check)

    def _check(self) -> None:
        """Lose a connection whose oldest request has waited too long."""
        self._watch = None
        if not self._waiting:
            return
        left = self._waiting[0][1] + self._timeout - self._loop.time()
        if left <= 0:
            self.lose(NoReplyError(f"no reply within {self._timeout:g} seconds"))
        else:
            self._watch = self._loop.call_later(left, self._check)


async def dial(options: Options, exchange: Group) -> Link:
    """An open connection, logged in."""
    loop, server = asyncio.get_running_loop(), options.connection
    link = Link(options.timeout, exchange)
    if "path" in server:
        await loop.create_unix_connection(lambda: link, server["path"])
    else:
        host, port = server.get("host", "localhost"), server.get("port", 6379)
        await loop.create_connection(lambda: link, host, port, ssl=_tls(server))
    try:
        replies = [await link.send(command) for command in _greeting(server)]
    except BaseException:
        link.lose(NoConnectionError("the connection was given up"))
        raise
    for reply in replies:
        if isinstance(reply, Exception):
            link.lose(reply)
            raise reply
    return link


def _greeting(server: Mapping[str, Any]) -> list[Command]:
    commands: list[Command] = []
    if server.get("password"):
        commands.append(("AUTH", server.get("username", "default"), server["password"]))
    if server.get("db"):
        commands.append(("SELECT", str(server["db"])))
    return commands


def _tls(server: Mapping[str, Any]) -> ssl.SSLContext | None:
    if server.get("connection_class") is not SSLConnection:
        return None
    context = ssl.create_default_context(cafile=server.get("ssl_ca_certs"))
    context.check_hostname = server.get("ssl_check_hostname", True)
    if server.get("ssl_certfile"):
        context.load_cert_chain(server["ssl_certfile"], server.get("ssl_keyfile"))
    return context


def _answer(future: asyncio.Future[Any], reply: Any) -> None:
    if not future.done():
        future.set_result(reply)
