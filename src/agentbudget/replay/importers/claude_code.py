"""Claude Code's stream-json: one session a file or several after another, each ended by its `result`.

Its traps: an answer of several content blocks is several `assistant` events with one message id and the usage
repeated, so events must not be added up; and the events leave out what sub-agents and side calls used, so neither must
messages. Only `modelUsage` of the result is complete: it adds up to `total_cost_usd`. Messages are therefore told apart
by id, priced, and what `modelUsage` has beyond them becomes one call a model, at agent `unseen`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentbudget.domain.usage import Usage
from agentbudget.replay.importers import build
from agentbudget.replay.importers.build import Attempt, Prices
from agentbudget.replay.importers.grouping import mapping, text
from agentbudget.replay.importers.protocol import Record, Tell
from agentbudget.trace.events import Discrepancy, Event

_TYPES = frozenset({"system", "assistant", "user", "result"})


class ClaudeCode:
    """The importer."""

    name = "claude-code"

    def recognizes(self, record: Mapping[str, Any]) -> bool:
        """Whether it is an event of such a stream."""
        return record.get("type") in _TYPES and ("session_id" in record or "message" in record)

    def events(self, records: Iterator[Record], tell: Tell) -> Iterator[Event]:
        """A task for each session; one without its result is closed where the file ends, at list prices."""
        prices = Prices()
        session: _Session | None = None
        number = 0
        for line, row in records:
            kind = row.get("type")
            if session is None:
                number += 1
                session = _Session(text(row.get("session_id")) or f"session-{number}", prices)
            try:
                session.take(row)
            except (TypeError, ValueError) as problem:
                tell(line, f"an event that cannot be right: {problem}")
            if kind == "result":
                yield from session.events(row)
                session = None
        if session is not None:
            tell(0, f"session {session.id} has no result: priced from its messages, sub-agents left out")
            yield from session.events({})


class _Session:
    """One session: its messages by id, its tools, and the order of both."""

    def __init__(self, session_id: str, prices: Prices) -> None:
        self.id = session_id
        self._prices = prices
        self._calls: dict[str, Attempt] = {}
        self._clock = 0.0
        self._name = "claude-code"

    def take(self, row: Mapping[str, Any]) -> None:
        """One event of the stream."""
        message = mapping(row.get("message"))
        content = message.get("content")
        blocks = [mapping(block) for block in content] if isinstance(content, list) else []
        self._clock += 1
        if row.get("type") == "assistant":
            self._answer(row, message)
            for block in blocks:
                if block.get("type") == "tool_use":
                    self._tool(block)
        elif row.get("type") == "user":
            for block in blocks:
                if block.get("type") == "tool_result":
                    self._tool_ended(block)

    def _answer(self, row: Mapping[str, Any], message: Mapping[str, Any]) -> None:
        message_id = text(message.get("id"))
        if not message_id:
            raise ValueError("an assistant message without an id")
        usage = _usage(mapping(message.get("usage")))
        known = self._calls.get(message_id)
        if known is not None:  # another block of the same answer: its usage repeats or completes what is known
            known.usage = max(known.usage, usage, key=_total)
            return
        self._calls[message_id] = Attempt(
            id=message_id,
            task=self.id,
            kind="model",
            name=text(message.get("model")) or "unknown",
            provider="anthropic",
            at=self._clock,
            seconds=0.5,
            usage=usage,
            agent="sub-agent" if row.get("parent_tool_use_id") else "main",
        )

    def _tool(self, block: Mapping[str, Any]) -> None:
        tool_id = text(block.get("id"))
        if tool_id and tool_id not in self._calls:
            name = text(block.get("name")) or "tool"
            self._calls[tool_id] = Attempt(id=tool_id, task=self.id, kind="tool", name=name, at=self._clock)

    def _tool_ended(self, block: Mapping[str, Any]) -> None:
        call = self._calls.get(text(block.get("tool_use_id")))
        if call is not None:
            call.seconds = max(0.0, self._clock - call.at)
            call.error = "error" if block.get("is_error") else ""

    def events(self, result: Mapping[str, Any]) -> Iterator[Event]:
        """Everything, with what only the *result* knows."""
        seen = list(self._calls.values())
        for call in seen:
            if call.kind == "model":
                call.cost, call.price = self._prices.cost(call.name, call.provider, call.usage, _TODAY)
        unseen, notes = self._unseen(seen, mapping(result.get("modelUsage")))
        timed = [event for call in (*seen, *unseen) for event in call.events()]
        yield build.opened(self.id, self._name, 0.0)
        yield from sorted(timed, key=lambda event: event.at)
        for note in notes:
            yield Discrepancy(at=self._clock + 1, tasks=(self.id,), kind="import", detail=note)
        cost = sum(call.cost or 0 for call in (*seen, *unseen))
        total = build.nanos_of(result.get("total_cost_usd"))
        if total is not None and abs(total - cost) > len(seen) + len(unseen):
            detail = f"the session says it cost {total} nano-dollars, its calls add up to {cost}"
            yield Discrepancy(at=self._clock + 1, tasks=(self.id,), kind="import", detail=detail)
        milliseconds = result.get("duration_ms")
        seconds = milliseconds / 1000 if isinstance(milliseconds, int | float) else 0.0
        failed = bool(result.get("is_error"))
        yield from build.closed(self.id, self._clock + 1, cost=cost, seconds=seconds, failed=failed)

    def _unseen(self, seen: list[Attempt], by_model: Mapping[str, Any]) -> tuple[list[Attempt], list[str]]:
        """What each model used beyond the messages, as a call, and what does not fit."""
        calls, notes = [], []
        for model, recorded in by_model.items():
            own = [call for call in seen if call.kind == "model" and call.name == model]
            fields = mapping(recorded)
            rest = [
                max(0, build.count(fields.get(name)) - sum(count(call.usage) for call in own))
                for name, count in _COUNTS.items()
            ]
            total = build.nanos_of(fields.get("costUSD")) or 0
            missing = total - _settle(own, total)
            if missing < 0:
                notes.append(f"{model}: its messages cost {-missing} nano-dollars more than the result says")
            if any(rest) or missing > 0:
                fresh, read, written, output = rest
                calls.append(
                    Attempt(
                        id=f"{self.id}-unseen-{model}",
                        task=self.id,
                        kind="model",
                        name=model,
                        provider="anthropic",
                        at=self._clock + 1,
                        usage=Usage(
                            input_tokens=fresh + read + written,
                            output_tokens=output,
                            cache_read_tokens=read,
                            cache_write_5m_tokens=written,
                        ),
                        cost=max(0, missing),
                        agent="unseen",
                    )
                )
                notes.append(f"{model}: sub-agents, side calls and late counts are one call of agent 'unseen'")
        return calls, notes


def _settle(own: list[Attempt], total: int) -> int:
    """The cost of the messages of one model. Above what the result says they are scaled down to it: the session's own
    price is the one that was charged."""
    cost = sum(call.cost or 0 for call in own)
    if cost > total > 0:
        for call in own:
            call.cost = (call.cost or 0) * total // cost
        own[0].cost = (own[0].cost or 0) + total - sum(call.cost or 0 for call in own)
        return total
    return cost


def _fresh(usage: Usage) -> int:
    written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    return usage.input_tokens - usage.cache_read_tokens - written


_COUNTS: dict[str, Callable[[Usage], int]] = {
    "inputTokens": _fresh,
    "cacheReadInputTokens": lambda usage: usage.cache_read_tokens,
    "cacheCreationInputTokens": lambda usage: usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
    "outputTokens": lambda usage: usage.output_tokens,
}
_TODAY = 1_767_225_600.0
"""Sessions are not dated; messages are priced at the list prices of the start of 2026, then fitted to the result."""


def _usage(usage: Mapping[str, Any]) -> Usage:
    """Anthropic counts fresh input apart from cached."""
    read = build.count(usage.get("cache_read_input_tokens"))
    written = build.count(usage.get("cache_creation_input_tokens"))
    hour = build.count(mapping(usage.get("cache_creation")).get("ephemeral_1h_input_tokens"))
    return Usage(
        input_tokens=build.count(usage.get("input_tokens")) + read + written,
        output_tokens=build.count(usage.get("output_tokens")),
        cache_read_tokens=read,
        cache_write_5m_tokens=max(0, written - hour),
        cache_write_1h_tokens=min(hour, written),
    )


def _total(usage: Usage) -> int:
    return usage.total_tokens
