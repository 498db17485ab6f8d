"""The parts of LangChain messages: text to be measured, media to be counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from langchain_core.messages import AIMessage, BaseMessage

from agentbudget.estimating.sizes import RequestSize, measure

_SCHEMAS = ("tools", "functions", "response_format")
_MEDIA = {"image": "images", "audio": "audio_bytes", "video": "video_bytes", "file": "document_bytes"}
_DATA_KEYS = ("data", "base64", "file_data")


def request_size(messages: Sequence[BaseMessage], params: Mapping[str, Any], *, model: str) -> RequestSize:
    """What *messages* add to the last call whose usage was reported; everything on a first call.

    The walk goes back from the end and stops at the first answer that carries usage, so its cost does not grow with
    the conversation. What another model counted is taken half as much again: tokenizers differ.
    """
    texts: list[str] = []
    media: dict[str, int] = {}
    count = 0
    for message in reversed(messages):
        used = message.usage_metadata if isinstance(message, AIMessage) else None
        if used is not None:
            anchor = used["input_tokens"] + used["output_tokens"]
            named = message.response_metadata.get("model_name", "")
            if named and not named.startswith(model) and not model.endswith(named):
                anchor += anchor // 2
            return measure(texts, anchor_tokens=anchor, messages=count, **media)
        _collect(message, texts, media)
        count += 1
    if params.keys().isdisjoint(_SCHEMAS):
        return measure(texts, messages=count, **media)
    schemas = [params[key] for key in _SCHEMAS if params.get(key)]
    if schemas:
        texts.append(to_json(schemas))
    return measure(texts, messages=count, tools=len(params.get("tools") or ()), **media)


def texts_of(messages: Sequence[BaseMessage], params: Mapping[str, Any]) -> Iterable[str]:
    """All text of a request: contents, tool calls, schemas."""
    texts: list[str] = []
    for message in messages:
        _collect(message, texts, {})
    texts.extend(to_json(params[key]) for key in _SCHEMAS if params.get(key))
    return texts


def text_size(content: object) -> int:
    """UTF-8 bytes of all strings in *content*."""
    if isinstance(content, str):
        return len(content) if content.isascii() else len(content.encode("utf-8", "surrogatepass"))
    if isinstance(content, Mapping):
        return sum(text_size(part) for part in content.values())
    if isinstance(content, Sequence) and not isinstance(content, bytes):
        return sum(text_size(part) for part in content)
    return 0


def to_json(value: object) -> str:
    """*value* as JSON; what JSON does not know, by its `str`."""
    return msgspec.json.encode(value, enc_hook=str).decode()


def _collect(message: BaseMessage, texts: list[str], media: dict[str, int]) -> None:
    content = message.content
    if isinstance(content, str):
        texts.append(content)
    else:
        for part in content:
            _collect_part(part, texts, media)
    if isinstance(message, AIMessage):
        for call in message.tool_calls:
            texts.append(call["name"])
            texts.append(to_json(call["args"]))


def _collect_part(part: object, texts: list[str], media: dict[str, int]) -> None:
    if isinstance(part, str):
        texts.append(part)
        return
    if not isinstance(part, Mapping):
        return
    kind = str(part.get("type", ""))
    name = next((name for word, name in _MEDIA.items() if word in kind), None)
    if name is None and "document" not in kind:
        _strings(part, texts)
    elif name == "images":
        media["images"] = media.get("images", 0) + 1
    else:
        size = _data_size(part)
        name = (name or "document_bytes") if size else "remote_files"
        media[name] = media.get(name, 0) + (size or 1)


def _strings(part: object, texts: list[str]) -> None:
    if isinstance(part, str):
        texts.append(part)
    elif isinstance(part, Mapping):
        for value in part.values():
            _strings(value, texts)
    elif isinstance(part, Sequence) and not isinstance(part, bytes):
        for value in part:
            _strings(value, texts)


def _data_size(part: Mapping[str, Any]) -> int:
    """Decoded bytes of a base64 attachment, wherever its dialect keeps it; 0 if it is only referred to."""
    for key, value in part.items():
        if key in _DATA_KEYS and isinstance(value, str):
            return len(value) * 3 // 4
        if isinstance(value, Mapping) and (size := _data_size(value)):
            return size
    return 0
