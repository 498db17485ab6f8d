"""What is known of a request before it runs, without tokenising it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import force_setattr

from agentbudget.estimating.density import density, quick_density

MAX_SIZE = 10**12
"""A size above this is nonsense, not a request."""

SHORT = 64
"""Bytes of text that are not looked at: at a token a byte they cost at most some 40 tokens too many, less than what
is added for the wrapping of every request."""


class RequestSize(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The size of one request: an anchor the provider counted, and what was appended since.

    Attributes:
        anchor_tokens: input plus output tokens of the latest call in this conversation whose usage was reported;
            `None` on a first call, where everything is "appended": system message and tool schemas included.
        appended_bytes: UTF-8 bytes of the text after the anchor (an upper bound will do).
        appended_messages: messages after the anchor.
        density: tokens per byte that the appended text costs at most, 0 to 1. `measure` finds it; 1.0 is always safe.
        plain: the text is ASCII and was read well enough to compare with other first calls of the model.
        tools: tool schemas in a first call.
        images: pictures after the anchor, in full detail, whatever their size.
        audio_bytes, video_bytes, document_bytes: decoded bytes of attached files (a document is a PDF or like it).
        remote_files: attached files known only by id or address.
        has_media: whether anything but text is attached, so that the count teaches nothing about text. It follows from
            the others, whatever is given.

    Raises:
        ValueError: a count is not an int, is negative or above `MAX_SIZE`; the density is not between 0 and 1.
    """

    anchor_tokens: int | None
    appended_bytes: int
    appended_messages: int
    density: float = 1.0
    plain: bool = False
    tools: int = 0
    images: int = 0
    audio_bytes: int = 0
    video_bytes: int = 0
    document_bytes: int = 0
    remote_files: int = 0
    has_media: bool = False

    def __post_init__(self) -> None:
        anchor = self.anchor_tokens
        if anchor is not None and (type(anchor) is not int or not 0 <= anchor <= MAX_SIZE):
            msg = f"anchor_tokens={anchor!r}: give None on a first call, else an int from 0 to {MAX_SIZE}."
            raise ValueError(msg)
        size, messages, tools = self.appended_bytes, self.appended_messages, self.tools
        if not (
            type(size) is type(messages) is type(tools) is int
            and 0 <= size | messages | tools <= MAX_SIZE  # no less than the largest, and below 0 where one of them is
            and _ZERO is self.images is self.audio_bytes is self.video_bytes is self.document_bytes is self.remote_files
            and self.has_media is False
        ):
            self._check_counts()
        density = self.density
        if (type(density) is not float and type(density) is not int) or not 0 <= density <= 1:
            msg = f"density={density!r}: tokens per byte are between 0 and 1."
            raise ValueError(msg)

    def _check_counts(self) -> None:
        for name in _COUNTS:
            count = getattr(self, name)
            if type(count) is not int or not 0 <= count <= MAX_SIZE:
                msg = f"{name}={count!r}: a size is an int from 0 to {MAX_SIZE}."
                raise ValueError(msg)
        media = self.images or self.audio_bytes or self.video_bytes or self.document_bytes or self.remote_files
        force_setattr(self, "has_media", media > 0)


_ZERO = 0
_COUNTS = (
    "appended_bytes",
    "appended_messages",
    "tools",
    "images",
    "audio_bytes",
    "video_bytes",
    "document_bytes",
    "remote_files",
)


def measure(  # noqa: PLR0913 - one keyword for each kind of part a request can have
    texts: Sequence[str],
    *,
    anchor_tokens: int | None = None,
    messages: int = 1,
    tools: int = 0,
    images: int = 0,
    audio_bytes: int = 0,
    video_bytes: int = 0,
    document_bytes: int = 0,
    remote_files: int = 0,
) -> RequestSize:
    """The size of a request from the *texts* after its anchor (all of them on a first call, tool schemas included).

    Lengths are exact; of the content only a bounded sample is read, so the cost does not grow with the text.
    """
    text = "".join(texts)
    plain, first = text.isascii(), anchor_tokens is None
    size = len(text) if plain else len(text.encode("utf-8", "surrogatepass"))
    rate = 1.0
    if size > SHORT:
        rate = density(text) if first else quick_density(text)
    return RequestSize(
        anchor_tokens=anchor_tokens,
        appended_bytes=size,
        appended_messages=messages,
        density=rate,
        plain=plain and first,
        tools=tools,
        images=images,
        audio_bytes=audio_bytes,
        video_bytes=video_bytes,
        document_bytes=document_bytes,
        remote_files=remote_files,
    )
