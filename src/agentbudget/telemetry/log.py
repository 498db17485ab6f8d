"""The events of a trace as structured log lines."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import structlog

from agentbudget.trace.events import CallDenied, Discrepancy, Event, TraceOpened

LOUD: Final = (CallDenied, Discrepancy)
"""Events that are warnings; everything else is debug."""


class LogSink:
    """Sends every event to structlog: `Governor(sinks=[LogSink()])`.

    The event's name is the message, its fields are the key-value pairs; money in nano-dollars, as in the trace.
    Refusals and discrepancies are warnings, the rest is debug, so that an ordinary level shows only what matters.

    Args:
        logger: a structlog logger; by default `structlog.get_logger("agentbudget")`, configured as the program did.
    """

    def __init__(self, logger: Any = None) -> None:
        self._logger = structlog.get_logger("agentbudget") if logger is None else logger

    def __call__(self, event: Event) -> None:
        """Log *event*. What a logger raises is reported once by the governor and never reaches the agent."""
        if isinstance(event, TraceOpened):
            return
        fields = msgspec.to_builtins(event)
        name = fields.pop("event")
        tell = self._logger.warning if isinstance(event, LOUD) else self._logger.debug
        tell(name, **fields)
