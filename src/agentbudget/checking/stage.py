"""The record of one run on the stand-in: who was called, who heard of it, where the stop came, what was refused."""

from __future__ import annotations

import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

from langchain_core.callbacks import BaseCallbackHandler

from agentbudget.domain.verdict import StopReport
from agentbudget.langchain.errors import BudgetExceeded

MOST_CALLS: Final = 60
"""Model calls after which an agent that does not end by itself is stopped."""
_MOST_ATTEMPTS: Final = 1_000
_MOST_REFUSALS: Final = 100
_LIBRARIES: Final = tuple(
    {*(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), str(Path(__file__).parents[1]), "<"}
)


class EndlessError(BaseException):
    """The run goes on for ever; not an `Exception`, so that what swallows those does not swallow it."""


@dataclass(kw_only=True, eq=False)
class Ticket:
    """One public call of a model or tool, which its handlers are told of as it begins."""

    target: Any
    starts: int = 0
    """Runs that the gate was told of."""
    calls: int = 0
    """Calls that were made."""
    node: str = ""
    task: str = ""
    """LangGraph's name for what it repeats as a whole."""


@dataclass(kw_only=True, eq=False)
class Seen:
    """One model call that reached the stand-in."""

    model: Any
    params: Mapping[str, Any]
    where: str
    task: str
    asked: int
    """Equal for equal messages."""
    heard: bool
    """The gate was told of it."""
    linked: bool
    """It was made in a context that comes from the run's."""
    after_stop: bool
    attempts: int = 0
    """Requests that its client made."""


@dataclass(kw_only=True, eq=False)
class Direct:
    """A request to a provider that no LangChain model made."""

    url: str
    model: str
    where: str
    after_stop: bool


TICKET: ContextVar[Ticket | None] = ContextVar("agentbudget_check_ticket", default=None)
SEEN: ContextVar[Seen | None] = ContextVar("agentbudget_check_seen", default=None)
LINKED: ContextVar[bool] = ContextVar("agentbudget_check_linked", default=False)


@dataclass(kw_only=True, eq=False)
class Stage:
    """What happens in one run. Thread-safe where it counts."""

    answer: str
    run_tools: frozenset[str] | None
    """Names of tools that are run for real; None for all."""
    stop_before: int | None = None
    """The model call, counted from 1, that is refused with everything after it."""
    stop_tools: bool = False
    """The first tool call is refused, with everything after it."""
    failing: bool = False
    """Every request fails with an error that is worth a retry."""
    seen: list[Seen] = field(default_factory=list)
    direct: list[Direct] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    refused_hosts: list[tuple[str, str]] = field(default_factory=list)
    """Where a connection was wanted to, and by whom."""
    raised: list[BudgetExceeded] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    abandoned: bool = False
    """The run took too long: whatever it touches next ends it."""

    def going_on(self) -> None:
        """Return while the run may go on.

        Raises:
            EndlessError: it was abandoned.
        """
        if self.abandoned:
            raise EndlessError

    @property
    def stopped(self) -> bool:
        """Whether the stop has come."""
        return bool(self.raised)

    def arrive(self, model: Any, messages: Any, params: Mapping[str, Any]) -> Seen:
        """A model call has reached the stand-in.

        Raises:
            EndlessError: the run was abandoned.
        """
        self.going_on()
        ticket = TICKET.get()
        with self.lock:
            heard = ticket is not None and ticket.starts > ticket.calls
            if ticket is not None:
                ticket.calls += 1
            seen = Seen(
                model=model,
                params=dict(params),
                where=(ticket.node if ticket is not None else "") or user_code(),
                task=ticket.task if ticket is not None else "",
                asked=hash(str([getattr(message, "content", message) for message in messages])),
                heard=heard,
                linked=LINKED.get(),
                after_stop=self.stopped and not heard,  # what was let through before the stop may arrive after it
            )
            self.seen.append(seen)
        return seen

    def attempt(self, seen: Seen | None) -> None:
        """A request is about to be answered.

        Raises:
            EndlessError: there were a thousand before it, or the run was abandoned.
        """
        self.going_on()
        with self.lock:
            if seen is not None:
                seen.attempts += 1
            if sum(each.attempts for each in self.seen) > _MOST_ATTEMPTS:
                raise EndlessError

    def runs(self, tool: Any) -> bool:
        """Whether *tool*, which is called now, is run for real."""
        self.tools.append(tool.name)
        return self.is_real(tool)

    def is_real(self, tool: Any) -> bool:
        """Whether *tool* is one of those that are run for real."""
        function = getattr(tool, "func", None) or getattr(tool, "coroutine", None)
        delegates = getattr(function, "__module__", "") == "deepagents.middleware.subagents"
        return delegates or self.run_tools is None or tool.name in self.run_tools

    def refuse(self, call: str) -> BudgetExceeded:
        """The stop, as a budget makes it.

        Raises:
            EndlessError: it was swallowed a hundred times before.
        """
        if len(self.raised) >= _MOST_REFUSALS:
            raise EndlessError
        stop = StopReport(limit="check", call=call, remedy="none: agentbudget.check tries a stop", task="check")
        self.raised.append(BudgetExceeded(stop))
        return self.raised[-1]


class Gate(BaseCallbackHandler):
    """Refuses as `BudgetCallback` does: synchronous, inline, raising; once it has refused it refuses everything."""

    raise_error = True
    run_inline = True

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._starts = 0

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, metadata: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        """A model is about to be called.

        Raises:
            BudgetExceeded: it is the one to refuse, or comes after it. EndlessError: the run was abandoned.
        """
        stage, ticket = self._stage, TICKET.get()
        stage.going_on()
        node = (metadata or {}).get("langgraph_node")
        if ticket is not None:
            ticket.node = f"node {node!r}" if node else ""
            ticket.task = str((metadata or {}).get("langgraph_checkpoint_ns", "")).partition("|")[0]
        with stage.lock:
            self._starts += 1
            refused = stage.stopped or (stage.stop_before is not None and self._starts >= stage.stop_before)
            refused = refused or self._starts > MOST_CALLS
        if refused:
            raise stage.refuse(f"model call {self._starts}")
        if ticket is not None:
            ticket.starts += 1

    def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
        """As for a chat model.

        Raises:
            BudgetExceeded: as there.
        """
        self.on_chat_model_start(serialized, prompts, **kwargs)

    def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
        """A tool is about to be run.

        Raises:
            BudgetExceeded: tools are to be refused, or the stop has come. EndlessError: the run was abandoned.
        """
        self._stage.going_on()
        if self._stage.stop_tools or self._stage.stopped:
            raise self._stage.refuse(f"tool {(serialized or {}).get('name')}")


@contextmanager
def set_to(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """*variable* is *value* within the block, if the block ends in the context in which it began."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def user_code() -> str:
    """The nearest calling line that is neither a library's nor ours, as `file:line in function`."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to the caller's frame
    while frame is not None and _is_library(frame):
        frame = frame.f_back
    return _place(frame, frame.f_lineno) if frame is not None else ""


def caught_at(trace: TracebackType | None) -> str:
    """Where an error that was raised along *trace* was caught: its outermost line of the user's own code."""
    while trace is not None:
        if not _is_library(trace.tb_frame):
            return _place(trace.tb_frame, trace.tb_lineno)
        trace = trace.tb_next
    return ""


def _place(frame: FrameType, line: int) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{line} in {frame.f_code.co_name}"


def _is_library(frame: FrameType) -> bool:
    return is_library_file(frame.f_code.co_filename)


def is_library_file(name: str) -> bool:
    """Whether code of the file called *name* is a library's, Python's or ours, and not the user's own."""
    return name.startswith(_LIBRARIES)
