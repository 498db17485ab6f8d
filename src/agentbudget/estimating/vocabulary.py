"""Token counts by tiktoken, only where its vocabulary already lies on this disk. Nothing here waits or downloads
except `warm`, which is there to download."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread

from agentbudget.errors import AgentBudgetError

Encoder = Callable[[str], int]
"""Tokens of a text. Text that looks like a special token is counted as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where tiktoken gets a vocabulary; its cache names the file by the SHA-1 of the address."""

    url: str
    sha256: str


_BLOBS = "https://openaipublic.blob.core.windows.net/encodings/"
_SOURCES = {
    "o200k_base": _Source(
        url=f"{_BLOBS}o200k_base.tiktoken", sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
    ),
    "cl100k_base": _Source(
        url=f"{_BLOBS}cl100k_base.tiktoken", sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
    ),
}
ENCODINGS = tuple(_SOURCES)


class WarmError(AgentBudgetError):
    """A vocabulary could not be fetched. Nothing else depends on it: bounds are then made from character classes."""


def cached_file(encoding: str) -> Path | None:
    """The file of *encoding* in tiktoken's cache, if it is there; `None` too where caching is switched off."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = str(Path(tempfile.gettempdir(), "data-gym-cache"))
    source = _SOURCES.get(encoding)
    if not folder or source is None:
        return None
    path = Path(folder, hashlib.sha1(source.url.encode(), usedforsecurity=False).hexdigest())
    return path if path.is_file() else None


class Vocabulary:
    """The vocabularies that lie on disk when it is built. The first question about one starts to load it in the
    background (some 0.3 s); until it is there, and if it never comes, the answer is `None`. Thread-safe."""

    def __init__(self) -> None:
        self._files = {encoding: path for encoding in ENCODINGS if (path := cached_file(encoding)) is not None}
        self._encoders: dict[str, Encoder] = {}
        self._loading: dict[str, Event] = {}
        self._lock = Lock()

    def available(self, encoding: str) -> Encoder | None:
        """The counter for *encoding* if it is loaded now. Never waits for disk or network, never raises."""
        encoder = self._encoders.get(encoding)
        if encoder is None and encoding in self._files and encoding not in self._loading:
            self._start(encoding)
        return encoder

    def wait(self, encoding: str) -> Encoder | None:
        """As `available`, after loading has ended: for scripts and tests, never on an event loop."""
        self.available(encoding)
        if (loaded := self._loading.get(encoding)) is not None:
            loaded.wait()
        return self._encoders.get(encoding)

    def _start(self, encoding: str) -> None:
        with self._lock:
            if encoding in self._loading:
                return
            self._loading[encoding] = Event()
        Thread(target=self._load, args=(encoding,), name=f"load-{encoding}", daemon=True).start()

    def _load(self, encoding: str) -> None:
        # tiktoken deletes a damaged file and downloads it again, so it may see the file only if it is whole. Loading
        # is an optional help: whatever ails it (no tiktoken, no right to read), calls go on without.
        with suppress(Exception):
            if hashlib.sha256(self._files[encoding].read_bytes()).hexdigest() == _SOURCES[encoding].sha256:
                self._encoders[encoding] = _encoder(encoding)
        self._loading[encoding].set()


def warm(encodings: Iterable[str] = ENCODINGS) -> dict[str, Path]:
    """Download the vocabularies into tiktoken's cache, as far as they are not there. Returns where each lies.

    Set `TIKTOKEN_CACHE_DIR` to a lasting folder first: the default one is in the system's temporary folder.

    Raises:
        WarmError: no network, no right to write, or caching is switched off by an empty `TIKTOKEN_CACHE_DIR`.
    """
    if os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR", "unset")) == "":
        msg = "TIKTOKEN_CACHE_DIR is empty, which switches the cache off: set TIKTOKEN_CACHE_DIR to a lasting folder."
        raise WarmError(msg)
    found: dict[str, Path] = {}
    for encoding in encodings:
        try:
            _encoder(encoding)
        except Exception as error:
            msg = f"The vocabulary {encoding} could not be fetched: {error}"
            raise WarmError(msg) from error
        path = cached_file(encoding)
        if path is None:
            msg = f"The vocabulary {encoding} was fetched but not kept: set TIKTOKEN_CACHE_DIR to a writable folder."
            raise WarmError(msg)
        found[encoding] = path
    return found


def _encoder(encoding: str) -> Encoder:
    import tiktoken  # noqa: PLC0415 - slow to import, and of use only where a vocabulary is at hand

    encode = tiktoken.get_encoding(encoding).encode
    return lambda text: len(encode(text, disallowed_special=()))
