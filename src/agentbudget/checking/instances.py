"""The smallest value that a JSON schema allows: arguments of tools, structured answers, inputs of an agent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

TEXT: Final = "stand-in"
_DEPTH: Final = 12
_FORMATS: Final = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "a@example.com",
    "uri": "https://example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def instance_of(schema: object, *, whole: bool = False) -> Any:
    """The smallest value that *schema* allows; with *whole*, optional properties without a default are given, too."""
    return _instance(schema, schema if isinstance(schema, Mapping) else {}, whole=whole, depth=0)


def _instance(schema: object, root: Mapping[str, Any], *, whole: bool, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEPTH:
        return TEXT
    named = [schema[key] for key in ("const", "default") if key in schema] or schema.get("enum")
    if named:
        return named[0]
    others = [_resolved(str(schema["$ref"]), root)] if "$ref" in schema else []
    for key in ("anyOf", "oneOf", "allOf"):
        others.extend(schema.get(key) or ())
    if others:
        return _instance(others[0], root, whole=whole, depth=depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else None)
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return _object(schema, root, whole=whole, depth=depth)
    if kind == "array":
        count = schema.get("minItems", 0)
        return [_instance(schema.get("items"), root, whole=whole, depth=depth + 1) for _ in range(count)]
    return _scalar(kind, schema)


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], *, whole: bool, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    required = schema.get("required") or ()
    given = [name for name in properties if name in required or (whole and "default" not in properties[name])]
    return {name: _instance(properties[name], root, whole=whole, depth=depth + 1) for name in given}


def _scalar(kind: object, schema: Mapping[str, Any]) -> Any:
    if kind in {"integer", "number"}:
        return max(schema.get("minimum", 1), schema.get("exclusiveMinimum", 0) + 1)
    if kind == "boolean":
        return False
    if kind == "null":
        return None
    text = _FORMATS.get(str(schema.get("format")), TEXT)
    return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _resolved(reference: str, root: Mapping[str, Any]) -> object:
    found: object = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
