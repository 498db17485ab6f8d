"""The JSON Schema of a line of a trace, made from the events themselves: there is no second definition."""

from __future__ import annotations

from typing import Any

import msgspec

from agentbudget.trace.events import SCHEMA, AnyEvent


def schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) that every line of a trace of this version fulfils."""
    (line,), definitions = msgspec.json.schema_components([AnyEvent], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A line of an agentbudget trace, version {SCHEMA}",
        **line,
        "$defs": definitions,
    }
