"""The HTML page of the report: written where it was asked for, never over a trace."""

from __future__ import annotations

from pathlib import Path

from agentbudget.errors import ConfigurationError
from agentbudget.trace.files import trace_files


def write_page(trace: str, target: str) -> None:
    """Write the report of *trace* as a page to the file *target*.

    Raises:
        ConfigurationError: it cannot be written there, or would take the place of a trace.
        TraceError: nothing usable at *trace*.
    """
    from agentbudget import reports

    refuse_a_trace(trace, target)
    try:
        reports.write_page(trace, target)
    except OSError as refusal:
        why = refusal.strerror or refusal
        raise ConfigurationError(f"--html {target}: cannot be written ({why}); name a file in a folder.") from refusal


def refuse_a_trace(trace: str, target: str) -> None:
    """Refuse to write a page over what it is made from.

    Raises:
        ConfigurationError: *target* is a file of *trace*. TraceError: nothing usable at *trace*.
    """
    if any(Path(target).resolve() == file.resolve() for file in trace_files(trace)):
        raise ConfigurationError(f"--html {target}: the page would take the place of the trace; name another file.")
