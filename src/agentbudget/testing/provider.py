"""A stand-in for the providers on the loopback address, for the real SDK clients to talk to.

It plays a script, refuses the histories that the real ones refuse, and keeps the truth: what was asked, and what was
generated and is therefore paid for, whatever the client thinks happened.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from agentbudget.domain.usage import Usage
from agentbudget.testing.replies import Generation, Reply, Request, generate
from agentbudget.testing.wire import body_of, error_of, events_of, refusal_of

Script = Callable[[Request], Reply] | Sequence[Reply]
"""A function of the request (called by several threads at once), or replies in the order of the requests."""

_POLL_SECONDS = 0.02


class ProviderServer:
    """OpenAI's `/chat/completions`, `/responses`, `/embeddings` and Anthropic's `/messages`, with or without `/v1`.

    Every answer ends its connection, so no client needs closing. Each server of a process has an address of its own:
    LangChain shares one client among all models of an address, and what a test closed or cancelled stays in it.

    A context manager: it serves from construction on, and leaving the block ends every held answer and thread. Without
    a script each answer is `Reply()`. A request for which the script has no reply left gets a 400 that says so.

    Attributes:
        base_url: for `ChatOpenAI(base_url=...)` and `ChatAnthropic(base_url=...)` alike.
        requests: every request, in order of arrival; refused ones too.
        served: every generation begun, in order. They are paid for in full, whether or not the client stayed.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.requests: list[Request] = []
        self.served: list[Generation] = []
        self._script: Script = script if script is not None else lambda _: Reply()
        self._turns = 0
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._failure: BaseException | None = None
        self._http = _listening(self)
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(_POLL_SECONDS,), name="provider")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        if error is None and self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop serving; held answers are dropped. Safe to call twice."""
        self._closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def wait_for_requests(self, count: int, *, timeout_seconds: float = 20) -> None:
        """Return when *count* requests have arrived.

        Raises:
            TimeoutError: they did not, within *timeout_seconds*.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= count, timeout_seconds):
                msg = f"{len(self.requests)} of {count} requests arrived within {timeout_seconds} seconds."
                raise TimeoutError(msg)

    @property
    def usage(self) -> Usage:
        """The true usage of everything served."""
        return sum((generation.usage for generation in list(self.served)), start=Usage())

    def cost_nanos(self, *, input_nanos: int, output_nanos: int, cache_read_nanos: int | None = None) -> int:
        """What everything served truly costs, in nano-dollars, at these rates in nano-dollars per token.

        A reckoning of its own, independent of the price book under test. Cache reads cost as input unless told.
        """
        usage = self.usage
        cached = usage.cache_read_tokens
        cache_read_nanos = input_nanos if cache_read_nanos is None else cache_read_nanos
        return (
            (usage.input_tokens - cached) * input_nanos + cached * cache_read_nanos + usage.output_tokens * output_nanos
        )

    # --- called by the handler threads ------------------------------------------------------------------------------

    def receive(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[Request, Reply]:
        """Record the request and choose its reply."""
        with self._changed:
            request = Request(number=len(self.requests), path=path, body=body, headers=headers)
            self.requests.append(request)
            self._changed.notify_all()
        if error := refusal_of(request):
            return request, Reply(status=400, error=error)
        try:
            return request, self._next_reply(request)
        except BaseException as failure:  # noqa: BLE001 - a broken script must fail the test, not the handler's thread
            self._failure = self._failure or failure
            return request, Reply(status=400, error=f"the script failed: {failure!r}")

    def serve(self, request: Request, reply: Reply) -> Generation:
        """Generate, and put it on the bill."""
        generation = generate(request, reply)
        with self._changed:
            self.served.append(generation)
            self._changed.notify_all()
        return generation

    def hold(self, reply: Reply) -> bool:
        """Wait for the reply's event. False: the server closed first, nothing must be sent."""
        while reply.hold is not None and not reply.hold.wait(_POLL_SECONDS):
            if self._closing.is_set():
                return False
        return True

    def _next_reply(self, request: Request) -> Reply:
        if callable(self._script):
            return self._script(request)
        with self._changed:
            turn, self._turns = self._turns, self._turns + 1
        if turn < len(self._script):
            return self._script[turn]
        return Reply(status=400, error=f"the script has no reply left after {len(self._script)}.")


_PORTS: set[int] = set()
"""Those that servers of this process had."""
_TRIES = 100


def _listening(provider: ProviderServer) -> _Server:
    """A server on a port that none of this process had before."""
    passed: list[_Server] = []
    server = _Server(provider)
    while server.server_port in _PORTS and len(passed) < _TRIES:
        passed.append(server)  # kept open meanwhile, so that the next gets another
        server = _Server(provider)
    for one in passed:
        one.server_close()
    _PORTS.add(server.server_port)
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close() joins them
    request_queue_size = 128

    def __init__(self, provider: ProviderServer) -> None:
        self.provider = provider
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    server: _Server

    def do_POST(self) -> None:
        self.close_connection = True  # an answer that is cut or never sent ends with its connection
        provider = self.server.provider
        path = self.path.split("?")[0].removeprefix("/v1")
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        request, reply = provider.receive(path, body, {name.lower(): value for name, value in self.headers.items()})
        if reply.status != 200:
            if provider.hold(reply):
                self._send(reply.status, error_of(request, reply), reply)
            return
        generation = provider.serve(request, reply)
        if body.get("stream"):
            self._stream(generation)
        elif reply.cut_after_chunks is None and provider.hold(reply):
            self._send(200, body_of(generation), reply)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Stay quiet."""

    def _send(self, status: int, body: dict[str, Any], reply: Reply) -> None:
        data = json.dumps(body).encode()
        self._head(status, {"content-type": "application/json", "content-length": str(len(data)), **reply.headers})
        self.wfile.write(data)

    def _stream(self, generation: Generation) -> None:
        reply = generation.reply
        if reply.hold_after_chunks == 0 and not self.server.provider.hold(reply):
            return
        self._head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked", **reply.headers})
        for number, event in enumerate(events_of(generation)):
            if number == reply.cut_after_chunks:
                return
            if number and number == reply.hold_after_chunks and not self.server.provider.hold(reply):
                return
            data = event.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("connection", "close")  # no idle connection outlives its answer
        self.end_headers()
