"""The published schema is the one the code writes and reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import msgspec

from agentbudget.trace.events import SCHEMA, AnyEvent
from agentbudget.trace.schema import schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "trace-schema.json"


def test_the_published_schema_is_the_one_of_the_events() -> None:
    current = json.dumps(schema(), indent=2) + "\n"
    assert PUBLISHED.read_text(encoding="utf-8") == current, (
        "The events have changed. If only optional fields were added, publish anew with python -c "
        "'import json; from agentbudget.trace.schema import schema; print(json.dumps(schema(), indent=2))' "
        "> docs/trace-schema.json; otherwise raise SCHEMA and keep the old version readable."
    )


def test_every_event_is_in_the_schema_under_its_tag() -> None:
    tags = schema()["discriminator"]["mapping"]
    events = get_args(AnyEvent)
    assert sorted(tags) == sorted(event.__struct_config__.tag for event in events)
    assert str(SCHEMA) in schema()["title"]


def test_only_what_version_1_always_had_is_required() -> None:
    """A field added later must be optional, or old traces could not be read."""
    required = {
        event.__name__: {field.name for field in msgspec.structs.fields(event) if field.required} - {"at"}
        for event in get_args(AnyEvent)
    }
    assert required == {
        "TraceOpened": {"schema", "version"},
        "TaskOpened": {"task"},
        "TaskResumed": {"task"},
        "CallReserved": {"call", "tasks", "kind", "name"},
        "CallExtended": {"call", "tasks", "estimate_output", "cost"},
        "CallReleased": {"call", "tasks"},
        "CallSettled": {"call", "tasks", "kind", "name", "outcome"},
        "CallDenied": {"call", "tasks", "kind", "name", "stop"},
        "ActionTaken": {"tasks", "action", "reason"},
        "Discrepancy": {"tasks", "kind", "detail"},
        "OutcomeRecorded": {"task", "outcome"},
        "LimitRaised": {"task", "meter", "amount", "grant"},
        "ThresholdReached": {"tasks", "call", "scope", "meter", "threshold", "limit", "settled"},
        "TaskClosed": {"task", "status"},
    }
