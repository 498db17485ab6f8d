"""The acting core: what is done before a model call so that it fits the budget: route, downgrade, wait, shrink.

Only the handler meters. This module plans and reserves *before* the handler hears of the call, and hands the
reservation over, so that the call is reserved once:

    prepared = prepare(model, messages, params, tasks, options)       # or: await aprepare(...)
    if isinstance(prepared, StopReport): ...                          # does not fit, whatever is done: land
    with hand_over(prepared):                                         # the handler adopts the reservation
        answer = prepared.model.bind_tools(...).invoke(messages, **prepared.settings)
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from agentbudget.domain.verdict import StopReport
from agentbudget.governor.fitting import Fit, fit
from agentbudget.governor.hold import Hold, Refusal
from agentbudget.governor.task import Task
from agentbudget.langchain import ambient, identity, shortening
from agentbudget.langchain.choice import Action, Choice, choose
from agentbudget.langchain.handover import Offered
from agentbudget.langchain.options import Acting
from agentbudget.langchain.runs import Run, by_governor

__all__ = ["Acting", "Prepared", "aprepare", "areserve", "current_tasks", "hand_over", "prepare", "reserve"]


class Prepared(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A call that fits, with its reservation. Use it within `hand_over`, once."""

    model: BaseChatModel
    """The model to call: the one asked for, or a cheaper one."""
    messages: Sequence[BaseMessage]
    """What to send: the messages asked for, or fewer where the context was made smaller."""
    settings: dict[str, Any]
    """Keyword arguments for the call, e.g. `{"max_tokens": 512}`, named as this client wants them; may be empty."""
    actions: tuple[str, ...] = ()
    """What was done: `"compact"`, `"route"`, `"downgrade"`, `"wait"`, `"shrink"`; empty: the call fitted as it was."""
    offered: Offered | None = None
    """The reservation; None where nobody pays, or where the governor only observes."""


def current_tasks(run: Run | None = None) -> tuple[Task, ...]:
    """The tasks that pay for what is called here, innermost first: within a node, a tool, a middleware, a block.

    *run* is the run this code executes in, where it is known better than LangChain's context tells.
    """
    run = run or identity.surrounding_run()
    paying = run.tasks if run is not None else ()
    return (*[task for task in ambient.TASKS.get() if task not in paying], *paying)


def prepare(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    params: Mapping[str, Any],
    tasks: tuple[Task, ...],
    options: Acting,
) -> Prepared | StopReport:
    """Make the call fit and reserve it, or say why it cannot fit. Sync; blocks for at most `options.wait_seconds`.

    A refusal latches nothing and puts nothing on record: the caller lands the task (or calls
    `Governor.stop_task`). On the thread of a running event loop it never waits. Within `ambient.LAST_ANSWER` the call
    is the last answer of a stopped task.

    Args:
        model: the model asked for.
        messages: exactly what is sent, the system message first.
        params: keyword arguments of the call: `tools` (as given to `bind_tools`), `tool_choice`, `response_format`,
            `stop`, settings.
        tasks: who pays, innermost first (`current_tasks()`); without tasks everything fits.
        options: what may be done.
    """
    answer = reserve(model, messages, params, tasks, options)
    return answer if isinstance(answer, Prepared) else answer.stop


async def aprepare(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    params: Mapping[str, Any],
    tasks: tuple[Task, ...],
    options: Acting,
) -> Prepared | StopReport:
    """`prepare` that awaits instead of blocking. Cancelling it leaves nothing behind."""
    answer = await areserve(model, messages, params, tasks, options)
    return answer if isinstance(answer, Prepared) else answer.stop


def reserve(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    params: Mapping[str, Any],
    tasks: tuple[Task, ...],
    options: Acting,
) -> Prepared | Refusal:
    """`prepare`, with the refusal as `Governor.refuse` takes it."""
    bell = threading.Event()
    on_loop = asyncio._get_running_loop() is not None  # noqa: SLF001 - the documented cheap check
    steps = _steps(model, messages, params, tasks, options, ring=bell.set, patient=not on_loop)
    with contextlib.closing(steps):
        try:
            seconds = next(steps)
            while True:
                bell.wait(seconds)
                bell.clear()
                seconds = next(steps)
        except StopIteration as end:
            return _answer(end.value)


async def areserve(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    params: Mapping[str, Any],
    tasks: tuple[Task, ...],
    options: Acting,
) -> Prepared | Refusal:
    """`aprepare`, with the refusal as `Governor.refuse` takes it."""
    loop, bell = asyncio.get_running_loop(), asyncio.Event()

    def ring() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(bell.set)

    steps = _steps(model, messages, params, tasks, options, ring=ring, patient=True)
    with contextlib.closing(steps):
        try:
            seconds = next(steps)
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(bell.wait(), seconds)
                bell.clear()
                seconds = next(steps)
        except StopIteration as end:
            return _answer(end.value)


def hand_over(prepared: Prepared) -> AbstractContextManager[None]:
    """Within it the handler adopts the reservation of *prepared* when the prepared call begins.

    Works in sync and async code. On leaving, a reservation nobody adopted (an error before the call) is given back,
    and an adopted call that was cut off without an end (cancelled) is charged as cancelled. Around a stream it is
    needed until the first chunk, and must not stay open while the stream is suspended.
    """
    return contextlib.nullcontext() if prepared.offered is None else prepared.offered


def _answer(value: Prepared | Refusal) -> Prepared | Refusal:
    return value


def _steps(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    params: Mapping[str, Any],
    tasks: tuple[Task, ...],
    options: Acting,
    *,
    ring: Any,
    patient: bool,
) -> Generator[float, None, Prepared | Refusal]:
    """The one plan behind the sync and the async face; it yields where they wait."""
    if not tasks or any(task.governor.mode == "observe" for task in tasks):
        return Prepared(model=model, messages=messages, settings={})
    sent, shortened = shortening.edited(model, messages, params, tasks, options)
    choice = choose(model, sent, params, tasks, options)
    payers, *others = by_governor(tasks)
    governor = payers[0].governor
    found = yield from fit(
        governor,
        payers,
        choice.candidates,
        shrink=choice.cappable,
        wait_seconds=options.wait_seconds if patient else 0.0,
        held=_around(governor),
        ring=ring,
    )
    if isinstance(found, Refusal):
        for taken in shortened:  # the smaller context stays, although it was not enough
            governor.acted(tasks, taken.name, taken.reason, call="", **taken.numbers)
        return found
    holds = [found.hold]
    for also in others:
        answer = also[0].governor.offer(also, found.hold.call)
        if isinstance(answer, Refusal):
            for hold in holds:
                hold.tasks[0].governor.release(hold)
            return answer
        holds.append(answer)
    return _prepared(choice, found, holds, sent, shortened)


def _prepared(
    choice: Choice, found: Fit, holds: list[Hold], sent: Sequence[BaseMessage], shortened: Sequence[Action]
) -> Prepared:
    actions = [*shortened, *choice.settle(found)]
    payers = [hold.tasks for hold in holds]

    def announce(_: Hold, call: str) -> None:
        while actions:
            taken = actions.pop(0)
            for tasks in payers:
                tasks[0].governor.acted(tasks, taken.name, taken.reason, call=call, **taken.numbers)

    names = tuple(taken.name for taken in actions)
    return Prepared(
        model=choice.models[found.rung],
        messages=sent,
        settings=choice.settings(found),
        actions=names,
        offered=Offered(holds, announce),
    )


def _around(governor: object) -> tuple[Hold, ...]:
    """Holds of the calls that this code runs within."""
    run = identity.surrounding_run()
    held: list[Hold] = []
    while run is not None:
        if run.attempt is not None:
            held += [hold for hold in run.attempt.holds if hold.tasks[0].governor is governor]
        run = run.parent
    return tuple(held)
