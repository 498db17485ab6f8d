"""OpenTelemetry GenAI spans as OTLP JSON, one export request a line (the collector's file exporter) or in all.

Names are those of the semantic conventions 1.41, and the ones they replaced. Only leaf work counts: inference and tool
spans; the totals that agent and workflow spans repeat would count it twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentbudget.domain.usage import Usage
from agentbudget.replay.importers import build
from agentbudget.replay.importers.build import Attempt, Prices
from agentbudget.replay.importers.grouping import Span, Whole, gathered, mapping, text
from agentbudget.replay.importers.protocol import Record, Tell
from agentbudget.trace.events import Event

_INFERENCE = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
_TOOL = "execute_tool"
_ERROR_CODES = frozenset({2, "2", "STATUS_CODE_ERROR"})


class OpenTelemetry:
    """The importer."""

    name = "otel"

    def recognizes(self, record: Mapping[str, Any]) -> bool:
        """Whether it is an OTLP trace export."""
        return "resourceSpans" in record or "resource_spans" in record

    def events(self, records: Iterator[Record], tell: Tell) -> Iterator[Event]:
        """A task for each trace id."""
        return gathered(records, tell, parts=_spans, read=_read, called="span")


def _spans(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for resource in _list(value, "resourceSpans", "resource_spans"):
        for scope in _list(mapping(resource), "scopeSpans", "scope_spans"):
            yield from (mapping(span) for span in _list(mapping(scope), "spans"))


def _list(value: Mapping[str, Any], *names: str) -> Sequence[Any]:
    return next((found for name in names if isinstance(found := value.get(name), list)), ())


def _read(span: Mapping[str, Any], prices: Prices) -> Span:
    trace, span_id = span["traceId"], span["spanId"]
    if not (isinstance(trace, str) and trace and isinstance(span_id, str) and span_id):
        raise ValueError("traceId and spanId must be strings")
    start, end = int(span["startTimeUnixNano"]) / 1e9, int(span.get("endTimeUnixNano") or 0) / 1e9
    attributes = {str(item.get("key")): _value(mapping(item.get("value"))) for item in span.get("attributes") or ()}
    failed = mapping(span.get("status")).get("code") in _ERROR_CODES
    attempt = _attempt(span_id, start, max(0.0, end - start), attributes, prices, failed=failed)
    whole = None
    if not span.get("parentSpanId"):
        named = attributes.get("gen_ai.agent.name") or attributes.get("gen_ai.workflow.name") or span.get("name")
        thread = attributes.get("gen_ai.conversation.id")
        tags = {"conversation": str(thread)} if thread else {}
        whole = Whole(text(named), start, max(start, end), failed, None, tags)
    return Span(trace, span_id, attempt, whole)


def _attempt(
    span_id: str, start: float, seconds: float, attributes: Mapping[str, Any], prices: Prices, *, failed: bool
) -> Attempt | None:
    operation = attributes.get("gen_ai.operation.name")
    error = text(attributes.get("error.type")) or ("error" if failed else "")
    agent = text(attributes.get("gen_ai.agent.name"))
    if operation == _TOOL:
        tool = text(attributes.get("gen_ai.tool.name")) or "tool"
        return Attempt(id=span_id, task="", kind="tool", name=tool, at=start, seconds=seconds, error=error, agent=agent)
    asked = text(attributes.get("gen_ai.request.model"))
    model = text(attributes.get("gen_ai.response.model")) or asked
    if operation not in _INFERENCE and not (operation is None and model and _has_usage(attributes)):
        return None
    usage = _usage(attributes)
    provider = text(attributes.get("gen_ai.provider.name")) or text(attributes.get("gen_ai.system"))
    cost, price = prices.cost(model, provider, usage, start) if _has_usage(attributes) else (None, None)
    return Attempt(
        id=span_id,
        task="",
        kind="model",
        name=model or "unknown",
        at=start,
        seconds=seconds,
        provider=provider,
        usage=usage,
        cost=cost,
        price=price,
        source="reported" if _has_usage(attributes) else "none",
        error=error,
        agent=agent,
    )


def _has_usage(attributes: Mapping[str, Any]) -> bool:
    return any(name.startswith("gen_ai.usage.") for name in attributes)


def _usage(attributes: Mapping[str, Any]) -> Usage:
    def count(*names: str) -> int:
        return next((build.count(attributes[name]) for name in names if attributes.get(name) is not None), 0)

    return Usage(
        input_tokens=count("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
        output_tokens=count("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        cache_read_tokens=count("gen_ai.usage.cache_read.input_tokens"),
        cache_write_5m_tokens=count("gen_ai.usage.cache_creation.input_tokens"),
        reasoning_tokens=count("gen_ai.usage.reasoning.output_tokens"),
    )


def _value(value: Mapping[str, Any]) -> Any:
    """An OTLP attribute; integers are written as decimal strings."""
    if "intValue" in value:
        return int(value["intValue"])
    return next((value[kind] for kind in ("stringValue", "doubleValue", "boolValue") if kind in value), None)
