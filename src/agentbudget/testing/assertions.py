"""Assertions about what a task cost, for pytest and anything else: on a live task, a report or a recorded trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from agentbudget.domain.budget import Budget
from agentbudget.testing.repetition import IN_A_ROW, TIMES, loop_in, repetition
from agentbudget.testing.steps import Step, dearest, steps_of, violations
from agentbudget.trace.reader import Trace
from agentbudget.trace.report import TaskReport

_SHOWN: Final = 3


def assert_within(spent: Trace | TaskReport, budget: Budget | None = None, **limits: Any) -> None:
    """Assert that what was *spent* is within *budget*, or within the limits given as keywords.

    Of a trace the message also tells the steps that cost most and the one that passed each limit.

    Raises:
        AssertionError: a limit was passed; every one that was is named. TypeError: an unknown limit, nothing to
            compare with, or a value that is neither trace nor report.
    """
    __tracebackhide__ = True
    limit = _limits(budget, limits)
    if not limit.to_dict():
        msg = "assert_within got no limit: say what is allowed, e.g. max_cost='$0.05'."
        raise TypeError(msg)
    report, steps = _parts(spent)
    found = violations(report, limit, steps)
    if found:
        raise AssertionError(explained([str(violation) for violation in found], steps, path=report.trace_path))


def assert_no_loops(trace: Trace, *, in_a_row: int | None = None, times: int | None = None) -> None:
    """Assert that the loop rules found nothing in the recorded tasks that would be enough to halt one.

    The rules and thresholds are those of each task's budget, by default those of `Loops()`. With *in_a_row* or *times*,
    only exact repetition counts: a tool called with the same arguments and the same result so often in a row (4), or
    so often within 20 tool calls (8).

    Raises:
        AssertionError: one was; or the trace has no hashes to tell. TypeError: not a trace (a report keeps no steps).
    """
    __tracebackhide__ = True
    if not isinstance(trace, Trace):
        msg = f"assert_no_loops needs a Trace: a {type(trace).__name__} does not tell one call from another."
        raise TypeError(msg)
    steps = steps_of(trace.events)
    if any(step.kind == "tool" and not step.request for step in steps):
        msg = f"{trace.path} has no hashes of what its tools were asked, so loops cannot be seen in it."
        raise AssertionError(msg)
    if in_a_row is None and times is None:
        found = loop_in(trace)
    else:
        repeated = repetition(steps, in_a_row=in_a_row or IN_A_ROW, times=times or TIMES)
        found = "" if repeated is None else str(repeated)
    if found:
        raise AssertionError(explained([found], steps, path=trace.report.trace_path))


def assert_priced(spent: Trace | TaskReport) -> None:
    """Assert that every model call had a price, so that the cost is the whole cost.

    Raises:
        AssertionError: one had none; the models are named.
    """
    __tracebackhide__ = True
    report, steps = _parts(spent)
    if report.unpriced_calls:
        raise AssertionError(explained([unpriced(report, steps)], steps, path=report.trace_path))


def unpriced(report: TaskReport, steps: Sequence[Step]) -> str:
    """What has no price, and what to do about it."""
    names = sorted({step.name for step in steps if not step.priced and step.kind == "model"})
    which = f" ({', '.join(names)})" if names else ""
    count = report.unpriced_calls
    return (
        f"{count} of {report.model_calls} model calls had no price{which}: their cost is missing from the total. "
        "Declare it with Governor(prices=...) or --budget-prices=FILE."
    )


def explained(problems: Sequence[str], steps: Sequence[Step], *, path: str | None = "") -> str:
    """*problems* as a failure message: what was passed, the dearest steps, how to look further."""
    lines = list(problems)
    top = dearest(steps, _SHOWN)
    if top:
        lines.append("dearest steps:" if len(top) > 1 else "dearest step:")
        lines += [f"  {step}" for step in top]
    if path:
        lines.append(f"to see every step: agentbudget report {path}")
    return "\n".join(lines)


def _limits(budget: object, limits: dict[str, Any]) -> Budget:
    if budget is None:
        return Budget(**limits)
    if limits or not isinstance(budget, Budget):
        msg = f"assert_within takes one Budget, or limits as keywords such as max_cost='$0.05'; got {budget!r}."
        raise TypeError(msg)
    return budget


def _parts(spent: object) -> tuple[TaskReport, list[Step]]:
    if isinstance(spent, Trace):
        return spent.report, steps_of(spent.events)
    if isinstance(spent, TaskReport):
        return spent, []
    msg = f"a Trace or a TaskReport is needed, not {type(spent).__name__}; e.g. agentbudget.Trace.load(path)."
    raise TypeError(msg)
