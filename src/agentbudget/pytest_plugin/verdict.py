"""Whether a test kept its terms, and how to say that it did not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path

from agentbudget.domain.accounts import Meter
from agentbudget.domain.money import NANOS_PER_DOLLAR, format_dollars
from agentbudget.domain.verdict import StopReport
from agentbudget.pytest_plugin.baseline import differences
from agentbudget.pytest_plugin.costs import Numbers, TestCost
from agentbudget.pytest_plugin.governed import GovernedTest
from agentbudget.pytest_plugin.options import Settings
from agentbudget.testing import assertions, repetition, steps
from agentbudget.trace.events import CallDenied, CallReserved, Event


def refusals(test: GovernedTest) -> list[str]:
    """What was refused, and why: the test's own limits and the session's ceiling."""
    found = []
    if test.stop is not None:
        found.append(_refusal(test.stop, test.trace.events))
    ceiling = test.ceiling
    if ceiling is not None and (stop := ceiling.stop) is not None:
        found.append(_ceiling_refusal(stop, ceiling.amount))
    return found


def limits_passed(test: GovernedTest) -> list[str]:
    """Everything that was refused, and every limit that the true numbers passed."""
    if not test.called:
        return []
    found = steps.violations(test.report, test.terms.budget, steps.steps_of(test.trace.events))
    return refusals(test) + [str(violation) for violation in found]


def promises_broken(test: GovernedTest) -> list[str]:
    """Loops, calls without a price and departures from a recording, as far as the test promises to have none."""
    problems = [problem for playback in test.playbacks if (problem := playback.problem)]
    taken = steps.steps_of(test.trace.events)
    if test.terms.no_loops and (loop := repetition.loop_in(test.trace)):
        problems.append(f"no_loops: {loop}")
    if test.terms.no_unpriced and test.report.unpriced_calls:
        problems.append(f"no_unpriced: {assertions.unpriced(test.report, taken)}")
    return problems


def is_live(test: GovernedTest) -> bool:
    """Whether its numbers vary from run to run."""
    return test.live if test.terms.live is None else test.terms.live


def against_baseline(test: GovernedTest, before: Numbers | None, settings: Settings) -> str:
    """How the numbers of *test* differ from the baseline; empty if they do not."""
    now = test.numbers or Numbers()
    if before is None:
        return f"{settings.baseline} has no entry for this test. Add it with --budget-update, and review it."
    live = is_live(test)
    found = differences(before, now, settings.live_tolerance if live else settings.tolerance, only_above=live)
    if not found:
        return ""
    lines = [f"differs from {settings.baseline}; if that is right, --budget-update:"]
    return "\n".join(lines + [f"  {change}" for change in found])


def numbers_of(test: GovernedTest) -> Numbers:
    """What *test* cost so far."""
    report = test.report
    return Numbers(
        cost=int(report.cost * NANOS_PER_DOLLAR),
        input_tokens=report.usage.input_tokens,
        output_tokens=report.usage.output_tokens,
        model_calls=report.model_calls,
        tool_calls=report.tool_calls,
    )


def cost_of(test: GovernedTest) -> TestCost:
    """What the session is told of *test* at its end."""
    report = test.report
    return TestCost(
        nodeid=test.nodeid,
        numbers=numbers_of(test),
        avoided=int(report.avoided * NANOS_PER_DOLLAR),
        unpriced=report.unpriced_calls,
        refused=report.denied + report.would_deny,
        live=is_live(test),
        new=test.numbers if not test.told else None,
    )


def message(test: GovernedTest, problems: Sequence[str], folder: Callable[[], Path]) -> str:
    """A failure as a person reads it: what, by how much, the dearest steps, where to look."""
    trace = _shown(test.written(folder())) if test.called else ""
    return assertions.explained(
        [f"budget: {problems[0]}", *problems[1:]], steps.steps_of(test.trace.events), path=trace
    )


def _shown(path: Path) -> str:
    """*path* as short as it can be typed where pytest was started."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _refusal(stop: StopReport, events: Sequence[Event]) -> str:
    step = 1 + sum(isinstance(event, CallReserved) for event in takewhile(_not_denied, events))
    if stop.limit_amount is None or not stop.meter:
        return f"step {step}, {stop.call}, was refused: {stop.limit}. {stop.remedy}".rstrip()
    show = Meter(stop.meter).show
    spent = stop.settled + stop.presumed
    over = spent + stop.reserved + stop.requested - stop.limit_amount
    held = f", {show(stop.reserved)} held by calls in flight" if stop.reserved else ""
    return (
        f"{stop.limit} is {show(stop.limit_amount)}: {show(spent)} spent{held}, and step {step}, {stop.call}, may "
        f"need {show(stop.requested)}: {show(over)} too much. It was refused."
    )


def _not_denied(event: Event) -> bool:
    return not isinstance(event, CallDenied)


def _ceiling_refusal(stop: StopReport, amount: int) -> str:
    if stop.limit_amount is None:
        return f"--budget-session-max: {stop.call} was refused: {stop.limit}. {stop.remedy}".rstrip()
    spent = format_dollars(stop.settled + stop.presumed + stop.reserved)
    return (
        f"--budget-session-max is {format_dollars(amount)} for all tests together: {spent} are spent or held, and "
        f"{stop.call} may need {format_dollars(stop.requested)}. The call was refused."
    )
