"""`check`: the agent is walked, run on the stand-in, stopped, and made to fail; what that shows becomes a report."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from agentbudget.checking import rules, wiring
from agentbudget.checking.aside import ONE_AT_A_TIME, set_aside
from agentbudget.checking.findings import CheckReport, Finding, check_codes, report_of
from agentbudget.checking.reach import Found, Reach, reach
from agentbudget.checking.rules import Evidence, name_of
from agentbudget.checking.runs import Outcome, Runner, as_runnable, default_inputs
from agentbudget.checking.script import ANSWER
from agentbudget.checking.stage import Stage
from agentbudget.checking.usage import usage_arrives
from agentbudget.errors import ConfigurationError
from agentbudget.governor.default import default_governor
from agentbudget.governor.governor import Governor

CODES: Final = frozenset(
    {
        "ask-without-checkpointer",
        "broad-except",
        "call-after-stop",
        "callbacks-replaced",
        "connection",
        "embeddings",
        "handler-cannot-stop",
        "never-ends",
        "no-limit",
        "no-model-call",
        "not-run",
        "output-cap",
        "paused",
        "plain-thread",
        "retries-multiply",
        "sdk-call",
        "stop-swallowed",
        "unpriced-model",
        "unpriced-tool",
        "usage-missing",
    }
)
"""Every kind of finding."""
_MOST_STOPS: Final = 4
"""Model calls before which a stop is tried, the first ones."""


def check(  # noqa: PLR0913 - one keyword per choice is the public face
    agent: Any,
    *,
    inputs: Any = None,
    config: Mapping[str, Any] | None = None,
    context: Any = None,
    answer: str = ANSWER,
    run_tools: bool | Collection[str] = False,
    governor: Governor | None = None,
    ignore: Collection[str] = (),
    seconds: float = 60,
) -> CheckReport:
    """Whether a budget can hold on *agent*: it is run against a stand-in for its models, and nothing is paid.

    Proved are: a stop leaves the agent, and no call is made after it; every model call is heard of; usage arrives;
    models and provider-billed tools have prices; retries do not multiply; outputs are capped. Each run is a new one, in
    a thread of its own. The code of nodes and middleware runs for real; models, HTTP clients and (by default) tools do
    not, connections to other machines are refused, waits are cut short, and budgets, checkpointers and stores of the
    agent are set aside.

    All this holds for the whole process while the check runs: run it in CI or before serving, never beside live agents.

    Args:
        agent: a `create_agent` or deep agent, a LangGraph graph, a chain, a chat model, or a function that makes one.
        inputs: what to run it with; by default the smallest input that its schema allows.
        config: what else your code invokes it with: `configurable` values, a list of `callbacks`, metadata, tags.
        context: the run's context, for a graph with a context schema.
        answer: the text of the stand-in, where an agent reads it.
        run_tools: tools to run for real, by name; True for all. They may have effects: by default none is run.
        governor: whose prices count; by default the one of the agent's own budget, else that of the process.
        ignore: kinds of findings (`finding.code`) to leave out.
        seconds: longest time for one run.

    Raises:
        ConfigurationError: not something that LangChain can run, or an unknown kind to ignore.
    """
    runnable = as_runnable(agent)
    if runnable is None:
        msg = f"check got {agent!r}: give it an agent, a graph, a chain or a chat model of LangChain."
        raise ConfigurationError(msg)
    check_codes(ignore, CODES)
    runner = Runner(
        agent=runnable,
        inputs=default_inputs(runnable) if inputs is None else inputs,
        seconds=seconds,
        config=config or {},
        context=context,
    )
    found = reach([runnable, dict(runner.config)])
    stage = partial(Stage, answer=answer, run_tools=None if run_tools is True else frozenset(run_tools or ()))
    findings, proved = _examined(runner, found, stage, governor)
    return report_of(
        getattr(runnable, "name", None) or type(runnable).__name__,
        findings,
        proved=proved,
        models=[name_of(model.thing) for model in found.models],
        tools=[tool.thing.name for tool in found.tools],
        ignore=ignore,
    )


def _examined(
    runner: Runner, found: Reach, stage: Callable[..., Stage], governor: Governor | None
) -> tuple[list[Finding], list[str]]:
    """What is wrong, and what was proved. Models and tools that only the run showed are added to *found*."""
    with ONE_AT_A_TIME, set_aside([budget.thing for budget in found.budgets]), _quiet():
        evidence = _tried(runner, found, stage)
        _take_seen(evidence)
        prices = governor or wiring.governor_of(found) or default_governor()
        findings, proved = list(_findings(evidence, prices, runner.seconds)), list(_proved(evidence))
        in_loop = evidence.explored.in_loop
        del evidence
        if in_loop:
            gc.collect()  # coroutines that a stop has left are found here, where nothing is said of them
    return findings, proved


@contextmanager
def _quiet() -> Iterator[None]:
    """Of several inline handlers LangChain makes all coroutines before it awaits the first; a stop leaves the rest."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine 'ahandle_event' was never awaited", RuntimeWarning)
        yield


def _tried(runner: Runner, found: Reach, stage: Callable[..., Stage]) -> Evidence:
    explored = runner.run(stage())
    calls = min(len([seen for seen in explored.stage.seen if seen.heard]), _MOST_STOPS)
    stops = [(f"model call {number}", runner.run(stage(stop_before=number))) for number in range(1, calls + 1)]
    if explored.stage.tools:
        stops.append(("the first tool call", runner.run(stage(stop_tools=True))))
    failed = runner.run(stage(failing=True)) if explored.stage.seen else None
    return Evidence(reach=found, explored=explored, stops=stops, failed=failed)


def _take_seen(evidence: Evidence) -> None:
    """Models and provider's tools that were met only in the run belong to what can be reached."""
    found = evidence.reach
    known = {id(each.thing) for each in (*found.models, *found.provider_tools)}
    for seen in evidence.explored.stage.seen:
        if id(seen.model) not in known and name_of(seen.model) not in {name_of(each.thing) for each in found.models}:
            found.models.append(Found(thing=seen.model, where=seen.where))
        for tool in seen.params.get("tools") or ():
            if (
                isinstance(tool, dict)
                and isinstance(tool.get("type"), str)
                and tool not in [each.thing for each in found.provider_tools]
            ):
                found.provider_tools.append(Found(thing=tool, where=seen.where))


def _findings(evidence: Evidence, prices: Governor, seconds: float) -> Iterator[Finding]:
    for rule in rules.TRIED:
        yield from rule(evidence)
    tools = evidence.explored.stage.run_tools
    yield from wiring.wiring(evidence.reach, prices, lambda name: tools is None or name in tools)
    for model in evidence.reach.models:
        yield from usage_arrives(model, seconds)


def _proved(evidence: Evidence) -> Iterator[str]:
    stage = evidence.explored.stage
    yield f"ran with {len(stage.seen)} model and {len(stage.tools)} tool calls, nothing of it paid"
    for before, outcome in evidence.stops:
        if _held(outcome):
            yield f"stopped before {before}: BudgetExceeded left the agent, and no call came after it"


def _held(outcome: Outcome) -> bool:
    late = (*(seen.after_stop for seen in outcome.stage.seen), *(call.after_stop for call in outcome.stage.direct))
    return outcome.stop_left and not any(late)
