"""From what was found and tried to findings. Pure: each rule reads, and says what, where, why and how to fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentbudget.checking.findings import Finding, Severity
from agentbudget.checking.reach import Layer, Reach
from agentbudget.checking.runs import Outcome
from agentbudget.checking.stage import MOST_CALLS, Seen, caught_at
from agentbudget.langchain.errors import BudgetExceeded

_FEW_ATTEMPTS: Final = 3
"""As many as one layer makes by default; more come of layers that multiply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a check has seen."""

    reach: Reach
    explored: Outcome
    """The run that nothing stopped."""
    stops: Sequence[tuple[str, Outcome]]
    """The runs that were stopped, and before what."""
    failed: Outcome | None
    """The run in which every request failed."""


def stop_swallowed(evidence: Evidence) -> Iterator[Finding]:
    """A stop that does not leave the agent."""
    for before, outcome in evidence.stops:
        if outcome.stop_left or not outcome.stage.raised:
            continue
        where = next(filter(None, (caught_at(error.__traceback__) for error in outcome.stage.raised)), "")
        if outcome.endless:
            what = f"Stopped before {before}, the agent tries again for ever."
        elif outcome.error is not None:
            what = f"Stopped before {before}, {type(outcome.error).__name__} left the agent instead of BudgetExceeded."
        else:
            what = f"Stopped before {before}, the agent ended as if nothing had happened: something caught the stop."
        yield Finding(
            code="stop-swallowed",
            severity=Severity.ERROR,
            what=what,
            where=where,
            why="the caller takes a stopped task for a finished one, or tries again; what is caught can be repeated.",
            fix="catch the errors you expect instead of Exception, or put `except agentbudget.BudgetExceeded: raise` "
            "in front; return e.report where you mean to answer.",
        )


def call_after_stop(evidence: Evidence) -> Iterator[Finding]:
    """A provider call that is made all the same."""
    for before, outcome in evidence.stops:
        late = [seen.where for seen in outcome.stage.seen if seen.after_stop]
        late += [call.where for call in outcome.stage.direct if call.after_stop]
        if late:
            yield Finding(
                code="call-after-stop",
                severity=Severity.ERROR,
                what=f"Stopped before {before}, the agent made {len(late)} more model call(s).",
                where=next(filter(None, late), ""),
                why="these calls are paid although the budget is at its end, on every stop.",
                fix="let the call inherit its callbacks: no callbacks of its own in config, no plain thread, no SDK "
                "used directly; or open `with agentbudget.task(...)` around it.",
            )


def unheard(evidence: Evidence) -> Iterator[Finding]:
    """Model calls of which the handlers of the run are not told."""
    for seen in evidence.explored.stage.seen:
        if seen.heard:
            continue
        yield _thread(seen) if not seen.linked else _replaced(seen)


def _thread(seen: Seen) -> Finding:
    return Finding(
        code="plain-thread",
        severity=Severity.ERROR,
        what=f"{name_of(seen.model)} is called in a thread that knows nothing of the run: no callback hears of it.",
        where=seen.where,
        why="these calls are neither counted nor stopped.",
        fix="pool.submit(contextvars.copy_context().run, function, ...), asyncio.to_thread, or the runnable's own "
        "batch.",
    )


def _replaced(seen: Seen) -> Finding:
    return Finding(
        code="callbacks-replaced",
        severity=Severity.ERROR,
        what=f"{name_of(seen.model)} is called with callbacks in place of the inherited ones.",
        where=seen.where,
        why="a BudgetCallback on the run does not hear of these calls: neither counted nor stopped.",
        fix="pass the config of the node on as it is; add handlers with config['callbacks'].add_handler(...), never by "
        "replacing config['callbacks'].",
    )


def direct_calls(evidence: Evidence) -> Iterator[Finding]:
    """A provider's SDK used beside LangChain."""
    for call in evidence.explored.stage.direct:
        yield Finding(
            code="sdk-call",
            severity=Severity.ERROR,
            what=f"{call.model} is called by a provider's SDK directly ({call.url}).",
            where=call.where,
            why="LangChain tells nobody of it: neither counted nor stopped.",
            fix="use the LangChain model of the provider (ChatOpenAI, ChatAnthropic ...) or make it a tool with a "
            "declared price (@agentbudget.price_tool) and a limit.",
        )


def other_connections(evidence: Evidence) -> Iterator[Finding]:
    """Connections that were wanted beside models."""
    for host, where in dict.fromkeys(evidence.explored.stage.refused_hosts):
        yield Finding(
            code="connection",
            severity=Severity.INFO,
            what=f"A connection to {host} was refused: a check lets nothing out.",
            where=where,
            why="if it is billed, it is not counted; and what comes after it was not tried.",
            fix="nothing, if it is free; else make it a tool with a declared price (@agentbudget.price_tool).",
        )


def retries_multiply(evidence: Evidence) -> Iterator[Finding]:
    """Layers that repeat each other's failed calls."""
    if evidence.failed is None:
        return
    normal = _attempts(evidence.explored)
    layers = [layer for layer in evidence.reach.layers if layer.attempts > 1]
    for (where, model), tried in _attempts(evidence.failed).items():
        attempts = tried // max(1, normal.get((where, model), 1))
        if attempts <= max((_FEW_ATTEMPTS, *(layer.attempts for layer in layers))):
            continue
        yield Finding(
            code="retries-multiply",
            severity=Severity.WARNING,
            what=f"One call of {model} that fails is sent {attempts} times: {_product(layers)}.",
            where=where,
            why=f"a timeout is billed up to {attempts} times, and an outage is met with {attempts} times the load.",
            fix="keep one layer: max_retries=0 on the model and the retries where callbacks see them, or the other way "
            "round; agentbudget.Budget(max_retries=...) caps what is left.",
        )


def _attempts(outcome: Outcome) -> dict[tuple[str, str], int]:
    """The most requests for equal messages within one task of a graph, by place and model."""
    counted: Counter[tuple[str, str, str, int]] = Counter()
    for seen in outcome.stage.seen:
        counted[seen.where, name_of(seen.model), seen.task, seen.asked] += seen.attempts
    most: dict[tuple[str, str], int] = {}
    for (where, model, _, _), count in counted.items():
        most[where, model] = max(count, most.get((where, model), 0))
    return most


def _product(layers: Sequence[Layer]) -> str:
    factors = dict.fromkeys(f"{layer.name} makes {layer.attempts}" for layer in layers)
    return " x ".join(factors) if factors else "a loop in the code repeats it"


def not_proved(evidence: Evidence) -> Iterator[Finding]:
    """What kept the agent from being tried."""
    explored = evidence.explored
    fix = "pass inputs= as your code does, and answer= with a text that the agent can read."
    if explored.endless or (isinstance(explored.error, BudgetExceeded) and explored.stage.raised):
        yield Finding(
            code="never-ends",
            severity=Severity.WARNING,
            what=f"The agent did not end in time, or within {MOST_CALLS} model calls, on answers without tool calls.",
            where="",
            why="without a limit such a loop is paid until somebody sees it.",
            fix="give it a budget (max_model_calls, loops=agentbudget.Loops()) and a condition to end; or " + fix,
        )
    elif explored.error is not None:
        error = explored.error
        yield Finding(
            code="not-run",
            severity=Severity.WARNING,
            what=f"The agent failed on the stand-in's answers: {type(error).__name__}: {str(error)[:300]}",
            where=caught_at(_last(error)),
            why="what comes after this point was not tried: whether a stop leaves it is not known.",
            fix=fix,
        )
    elif not explored.stage.seen and not explored.stage.direct:
        yield Finding(
            code="no-model-call",
            severity=Severity.WARNING,
            what="The agent called no model with these inputs.",
            where="",
            why="nothing was proved about a stop.",
            fix=fix,
        )
    elif explored.paused:
        yield Finding(
            code="paused",
            severity=Severity.INFO,
            what=f"The agent paused for a person after {len(explored.stage.seen)} model call(s).",
            where="",
            why="what comes after the answer was not tried.",
            fix="check the part behind the pause by itself, if it calls models.",
        )


def _last(error: BaseException) -> Any:
    """The innermost part of the trace, where the error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and caught_at(trace.tb_next):
        trace = trace.tb_next
    return trace


def name_of(model: Any) -> str:
    """What *model* is called, as `Class(name)`."""
    name = getattr(model, "model_name", None) or getattr(model, "model", None)
    return f"{type(model).__name__}({name})" if isinstance(name, str) and name else type(model).__name__


TRIED: Final[Sequence[Callable[[Evidence], Iterator[Finding]]]] = (
    stop_swallowed,
    call_after_stop,
    unheard,
    direct_calls,
    other_connections,
    retries_multiply,
    not_proved,
)
"""The rules about what was tried."""
