"""LangSmith run exports: one run an object, `llm` and `tool` runs counted, the root run naming the task.

Usage comes from the run's token columns, else from the usage metadata of its answer; cost from `total_cost`, else from
the price data of the run's day. Success comes from a boolean `success` in the root's metadata, where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentbudget.domain.usage import Usage
from agentbudget.replay.importers import build
from agentbudget.replay.importers.build import Attempt, Prices
from agentbudget.replay.importers.grouping import Span, Whole, gathered, mapping, text
from agentbudget.replay.importers.protocol import Record, Tell
from agentbudget.trace.events import Event


class LangSmith:
    """The importer."""

    name = "langsmith"

    def recognizes(self, record: Mapping[str, Any]) -> bool:
        """Whether it is a run."""
        return "run_type" in record and "id" in record

    def events(self, records: Iterator[Record], tell: Tell) -> Iterator[Event]:
        """A task for each trace."""
        return gathered(records, tell, parts=lambda row: (row,), read=_read, called="run")


def _read(row: Mapping[str, Any], prices: Prices) -> Span:
    run_id, parent = str(row["id"]), row.get("parent_run_id")
    trace = str(row.get("trace_id") or run_id)
    start = build.seconds_of(row.get("start_time"))
    if start is None:
        raise ValueError("start_time is no ISO 8601 time")
    end = build.seconds_of(row.get("end_time")) or start
    failed = bool(row.get("error"))
    metadata = mapping(mapping(row.get("extra")).get("metadata"))
    whole = None
    if not parent:
        ok = metadata.get("success")
        tags = {str(key): value for key, value in metadata.items() if isinstance(value, str) and value}
        whole = Whole(text(row.get("name")), start, end, failed, ok if isinstance(ok, bool) else None, tags)
    return Span(trace, run_id, _attempt(row, run_id, start, max(0.0, end - start), metadata, prices), whole)


def _attempt(
    row: Mapping[str, Any], run_id: str, start: float, seconds: float, metadata: Mapping[str, Any], prices: Prices
) -> Attempt | None:
    kind, name = row.get("run_type"), text(row.get("name"))
    error = str(row.get("error") or "").partition("(")[0].strip()[:80]
    node = text(metadata.get("langgraph_node"))
    parent = str(row.get("parent_run_id") or "")
    if kind == "tool":
        return Attempt(
            id=run_id, task="", kind="tool", name=name or "tool", at=start, seconds=seconds, error=error, node=node,
            parent=parent,
        )  # fmt: skip
    if kind != "llm":
        return None
    params = mapping(mapping(row.get("extra")).get("invocation_params"))
    model = text(metadata.get("ls_model_name")) or text(params.get("model")) or text(params.get("model_name")) or name
    provider = text(metadata.get("ls_provider"))
    usage = _usage(row, metadata)
    price: dict[str, Any] | None = None
    cost = build.nanos_of(row.get("total_cost"))
    if cost is None and usage is not None:
        cost, price = prices.cost(model, provider, usage, start)
    return Attempt(
        id=run_id,
        task="",
        kind="model",
        name=model or "unknown",
        at=start,
        seconds=seconds,
        provider=provider,
        usage=usage or Usage(),
        cost=cost,
        price=price,
        source="reported" if usage is not None else "none",
        error=error,
        node=node,
        parent=parent,
    )


def _usage(row: Mapping[str, Any], metadata: Mapping[str, Any]) -> Usage | None:
    """The usage of an `llm` run; None where none was recorded."""
    found = _answered_usage(mapping(row.get("outputs"))) or mapping(metadata.get("usage_metadata"))
    if found:
        into = mapping(found.get("input_token_details"))
        out = mapping(found.get("output_token_details"))
        totals = (found.get("input_tokens"), found.get("output_tokens"))
    elif row.get("prompt_tokens") is not None or row.get("completion_tokens") is not None:
        into = mapping(row.get("prompt_token_details"))
        out = mapping(row.get("completion_token_details"))
        totals = (row.get("prompt_tokens"), row.get("completion_tokens"))
    else:
        return None
    hour = build.count(into.get("ephemeral_1h_input_tokens"))
    written = build.count(into.get("ephemeral_5m_input_tokens")) or build.count(into.get("cache_creation"))
    return Usage(
        input_tokens=build.count(totals[0]),
        output_tokens=build.count(totals[1]),
        cache_read_tokens=build.count(into.get("cache_read")),
        cache_write_5m_tokens=written,
        cache_write_1h_tokens=hour,
        reasoning_tokens=build.count(out.get("reasoning")),
    )


def _answered_usage(outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The usage metadata of the first answer: of several, each repeats the usage of all."""
    if isinstance(outputs.get("usage_metadata"), Mapping):
        return mapping(outputs["usage_metadata"])
    first: Any = outputs.get("generations")
    while isinstance(first, list):
        first = first[0] if first else None
    message = mapping(mapping(first).get("message"))
    return mapping(mapping(message.get("kwargs")).get("usage_metadata") or message.get("usage_metadata"))
