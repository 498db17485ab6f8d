"""The far end of the process: HTTP clients answered by the stand-in, other connections refused, waits cut short."""

from __future__ import annotations

import asyncio
import errno
import importlib
import ipaddress
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, Final
from unittest.mock import patch

from agentbudget.checking.script import called_in, next_turn
from agentbudget.checking.stage import LINKED, SEEN, Direct, Stage, user_code
from agentbudget.errors import ConfigurationError
from agentbudget.testing.replies import Reply, Request, ToolCall, generate
from agentbudget.testing.wire import PATHS, body_of, error_of, events_of, refusal_of

_CLIENTS: Final = ("httpx", "httpx2")
_SHORT_SECONDS: Final = 0.001


@contextmanager
def answered_here(stage: Stage) -> Iterator[None]:
    """Within the block no request leaves the machine, from whatever thread.

    Raises:
        ConfigurationError: an HTTP client of a version whose requests cannot be answered below it.
    """
    with ExitStack() as patches:
        for package in filter(None, map(_loaded, _CLIENTS)):
            transport = package.MockTransport(_answering(stage, package))
            for kind in (package.Client, package.AsyncClient):
                if not hasattr(kind, "_transport_for_url"):
                    msg = f"check cannot answer in place of the network for {package.__name__} {package.__version__}."
                    raise ConfigurationError(msg)
                patches.enter_context(patch.object(kind, "_transport_for_url", _always(transport)))
        for name in ("connect", "connect_ex"):
            guarded = _refusing(getattr(socket.socket, name), stage)
            patches.enter_context(patch.object(socket.socket, name, guarded))
        patches.enter_context(patch.object(time, "sleep", _short(time.sleep, stage)))
        patches.enter_context(patch.object(asyncio, "sleep", _short_async(asyncio.sleep, stage)))
        yield


def _always(transport: Any) -> Callable[..., Any]:
    return lambda *_: transport


def _loaded(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# -- providers ---------------------------------------------------------------------------------------------------------


def _answering(stage: Stage, package: Any) -> Callable[[Any], Any]:
    def answer(request: Any) -> Any:
        url = str(request.url).partition("?")[0]
        path = next((path for path in PATHS if url.endswith(path)), None)
        if path is None or request.method != "POST":
            _note_refused(stage, str(request.url.host))
            msg = f"agentbudget.check lets nothing out to {url}"
            raise package.ConnectError(msg, request=request)
        body = json.loads(request.content)
        seen = SEEN.get()
        if seen is None and path != "/embeddings":
            found = Direct(url=url, model=str(body.get("model")), where=user_code(), after_stop=stage.stopped)
            stage.direct.append(found)
        stage.attempt(seen)
        asked = Request(number=len(stage.seen), path=path, body=body, headers=dict(request.headers))
        return _response(package, asked, _reply(stage, asked), streamed=bool(body.get("stream")))

    return answer


def _reply(stage: Stage, asked: Request) -> Reply:
    if stage.failing:
        return Reply(status=500, error="the stand-in fails on purpose, to see who repeats the call")
    if error := refusal_of(asked):
        return Reply(status=400, error=error)
    turn = next_turn(asked.body, called_in(asked.messages), stage.answer)
    return Reply(text=turn.text, tool_calls=tuple(ToolCall(name=name, args=args) for name, args in turn.calls))


def _response(package: Any, asked: Request, reply: Reply, *, streamed: bool) -> Any:
    if reply.status != 200:  # noqa: PLR2004 - the status of success
        return package.Response(reply.status, json=error_of(asked, reply))
    generation = generate(asked, reply)
    if not streamed:
        return package.Response(200, json=body_of(generation))
    events = "".join(events_of(generation)).encode()
    return package.Response(200, content=events, headers={"content-type": "text/event-stream"})


# -- everything else ---------------------------------------------------------------------------------------------------


def _refusing(connect: Callable[..., Any], stage: Stage) -> Callable[..., Any]:
    def refusing(self: socket.socket, address: Any) -> Any:
        if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_local(address):
            _note_refused(stage, f"{address[0]}:{address[1]}")
            raise OSError(errno.ECONNREFUSED, f"{os.strerror(errno.ECONNREFUSED)}: agentbudget.check lets nothing out")
        return connect(self, address)

    return refusing


def _note_refused(stage: Stage, host: str) -> None:
    if LINKED.get():
        stage.refused_hosts.append((host, user_code()))


def _is_local(address: Any) -> bool:
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return bool(address[0] == "localhost")


def _short(sleep: Callable[[float], None], stage: Stage) -> Callable[[float], None]:
    def short(seconds: float) -> None:
        if LINKED.get():
            stage.going_on()
        sleep(min(seconds, _SHORT_SECONDS))

    return short


def _short_async(sleep: Callable[..., Any], stage: Stage) -> Callable[..., Any]:
    async def short(delay: float, result: Any = None) -> Any:
        if LINKED.get():
            stage.going_on()
        return await sleep(min(delay, _SHORT_SECONDS), result)

    return short
