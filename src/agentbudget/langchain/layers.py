"""Which layer of the host repeats an operation, read off where its attempts are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from agentbudget.governor.values import Call
from agentbudget.langchain.runs import Run

_RETRIED: Final = "retry:attempt:"
_NODE: Final = "graph:step:"
_AGENT_NODES: Final = frozenset({"model", "tools"})
"""The nodes of `create_agent` in which middleware calls the model and the tools."""


def is_retried(tags: Iterable[str]) -> bool:
    """Whether LangChain's `with_retry` says that the run with these *tags* is not its first."""
    for tag in tags:  # noqa: SIM110 - asked for every run, where a generator would cost
        if tag.startswith(_RETRIED):
            return True
    return False


def is_node(tags: Iterable[str]) -> bool:
    """Whether LangGraph says that the run with these *tags* is a node of a graph."""
    for tag in tags:  # noqa: SIM110 - as above
        if tag.startswith(_NODE):
            return True
    return False


def layered(call: Call, run: Run) -> Call:
    """*call* of *run* with the layer that repeats it; as it is, where its operation did not fail before.

    `with_retry` (LangChain's, around the call or around a chain with it), `fallback` (another model), `middleware`
    (Model/ToolRetryMiddleware), `node` (a node's RetryPolicy); `caller` for what LangChain cannot see: tenacity, or a
    loop of the user's own. `transport.watch` adds `sdk`.
    """
    for task in run.tasks:
        if task.failed and (failed := task.failed.get(call.fingerprint)) is not None:
            return replace(call, layer=call.layer or _layer(call, run, failed.call))
    return call


def _layer(call: Call, run: Run, before: Call) -> str:
    if call.name != before.name:
        return "fallback"
    if call.parent and call.parent == before.parent:
        by_middleware = call.node in _AGENT_NODES and run.parent is not None and run.parent.node
        return "middleware" if by_middleware else "caller"
    if _within_retry(run):
        return "with_retry"
    return "node" if call.place and _step(call) == _step(before) else "caller"


def _step(call: Call) -> str:
    """The step of the outermost graph: of a graph within it, LangGraph counts the namespace up with each attempt."""
    return call.place.partition("|")[0]


def _within_retry(run: Run) -> bool:
    around = run.parent
    while around is not None and not around.retried:
        around = around.parent
    return around is not None
