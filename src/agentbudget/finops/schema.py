"""The two tables of a history: one row a call, one row a task. Any engine that reads Parquet can read them.

Money is in nano-dollars (1e-9 USD) as int64, times are UTC. Within version `VERSION` columns may be added; none is
renamed or changes its meaning. Files lie under `calls/day=YYYY-MM-DD/` (day of the settlement, UTC) and
`tasks/day=YYYY-MM-DD/` (day of the opening).
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

VERSION = "1"

KNOWN_TAGS = ("feature", "team", "user", "tenant", "decision", "env")
"""Tags with a column of their own; others are in `tags`."""

_WORD = pa.string()
_WHEN = pa.timestamp("us", tz="UTC")
_COUNT = pa.int64()
_TAGS = pa.map_(_WORD, _WORD)

_USAGE = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "cache_audio_read_tokens",
    "input_image_tokens",
    "output_image_tokens",
    "web_searches",
)
"""Counts of `domain.usage.Usage`, by the same names."""

_CALLS: dict[str, tuple[pa.DataType, str]] = {
    "ended": (_WHEN, "When it was settled or denied."),
    "call": (_WORD, "Id of the attempt."),
    "operation": (_WORD, "Id of the first attempt of the same operation; its own for a first attempt."),
    "attempt": (pa.int32(), "1 for a first attempt."),
    "task": (_WORD, "The innermost task that pays for it."),
    "root": (_WORD, "The outermost task that pays for it."),
    "task_name": (_WORD, "Name of `task`."),
    "thread": (_WORD, "Conversation of `task`."),
    "kind": (_WORD, "`model` or `tool`."),
    "name": (_WORD, "Model or tool as asked for."),
    "model": (_WORD, "Model as the provider named it, else `name`; empty for tools."),
    "provider": (_WORD, "Provider whose price was used, else the one asked."),
    "tier": (_WORD, "Service tier; empty is the standard one."),
    "agent": (_WORD, "Name of the agent that called, where known."),
    "node": (_WORD, "Node of the graph that called, where known."),
    "layer": (_WORD, "What repeated it, of an attempt beyond the first."),
    "outcome": (_WORD, "As `CallSettled.outcome`, or `denied`: refused before it ran."),
    "cost": (_COUNT, "Nano-dollars charged."),
    "avoided": (_COUNT, "Nano-dollars a cache hit would have cost. No charge."),
    "refused": (_COUNT, "Nano-dollars a denied call would have reserved. No charge."),
    "overrun": (_COUNT, "Nano-dollars above what was reserved; part of `cost`."),
    "seconds": (pa.float64(), "How long it took."),
    "priced": (pa.bool_(), "Whether a price was known; where not, `cost` is too low."),
    "estimated": (pa.bool_(), "Whether the usage is an estimate."),
    "retry": (pa.bool_(), "Whether it is an attempt beyond the first of its operation."),
    "wasted": (pa.bool_(), "Whether its result was thrown away."),
    "late": (pa.bool_(), "Whether its task had closed already."),
    **{name: (_COUNT, f"`Usage.{name}`.") for name in _USAGE},
    "messages": (pa.int32(), "Messages in the request."),
    "appended": (_COUNT, "Bytes added to the request since the last reported usage."),
    "request": (_WORD, "Keyed hash of what was asked."),
    "result": (_WORD, "Keyed hash of the answer."),
    "result_size": (_COUNT, "Bytes of the answer."),
    "price": (_WORD, "The `PriceRef` it was priced with, as JSON; empty where there was none."),
    **{name: (_WORD, f"Tag `{name}`, null where the task had none.") for name in KNOWN_TAGS},
    "tags": (_TAGS, "All other tags."),
    "shared": (pa.bool_(), "Whether several root tasks pay for it: it then stands in several traces, here once."),
    "batch": (_COUNT, "The compaction that wrote the row."),
}

_TASKS: dict[str, tuple[pa.DataType, str]] = {
    "task": (_WORD, "Id."),
    "parent": (_WORD, "The task it draws on; empty for a root."),
    "name": (_WORD, "What kind of task it is."),
    "thread": (_WORD, "Conversation."),
    "opened": (_WHEN, "When it opened."),
    "closed": (_WHEN, "When it closed; null while it is open."),
    "status": (_WORD, "As `TaskClosed.status`, or `open`."),
    "outcome": (_WORD, "What the user recorded; null where nothing was."),
    "ok": (pa.bool_(), "The user's verdict; null where there is none."),
    "cost": (_COUNT, "Nano-dollars of its closing, tasks within it included. A check: calls are what is summed."),
    "max_cost": (_COUNT, "Nano-dollars of its own budget; null without one."),
    "stopped_by": (_WORD, "The limit that stopped it; null where nothing did."),
    **{name: (_WORD, f"Tag `{name}`.") for name in KNOWN_TAGS},
    "tags": (_TAGS, "All other tags."),
    "batch": (_COUNT, "The compaction that wrote the row; the latest row of a task counts."),
}


def _schema(columns: dict[str, tuple[pa.DataType, str]]) -> pa.Schema:
    fields = [pa.field(name, kind, metadata={"comment": text}) for name, (kind, text) in columns.items()]
    return pa.schema(fields, metadata={"agentbudget.history": VERSION})


CALLS = _schema(_CALLS)
TASKS = _schema(_TASKS)
USAGE_COLUMNS = _USAGE


def described() -> Iterator[tuple[str, str, str, str]]:
    """Table, column, type and meaning of every column: what the documentation prints."""
    for table, columns in (("calls", _CALLS), ("tasks", _TASKS)):
        for name, (kind, text) in columns.items():
            yield table, name, str(kind), text
