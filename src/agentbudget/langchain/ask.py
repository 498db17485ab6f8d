"""Asking a person: what is shown, and what an answer means. Pure. What is not understood never grants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from agentbudget.domain.accounts import Meter
from agentbudget.domain.money import dollars, nanos
from agentbudget.domain.verdict import StopReport
from agentbudget.errors import ConfigurationError

KIND = "agentbudget.limit"
"""`type` of the value a person is shown, to tell it from other interrupts."""
_WORDS = ("finish", "stop", "retry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person decided. `amount` is what a grant adds: dollars as given for cost, units of another meter."""

    what: Literal["grant", "model", "finish", "stop", "retry"]
    amount: Any = None
    approver: str = ""
    model: str = ""
    """The model to go on with, by name; empty: the one in use."""


def question(stop: StopReport, *, problem: str = "", models: Sequence[str] = ()) -> dict[str, Any]:
    """What a person is shown: plain values, which survive any checkpointer. Amounts are text in the meter's unit.

    *models* are the names of those that the agent may go on with instead.
    """
    shown: dict[str, Any] = {
        "type": KIND,
        "question": f"{stop.reason}. How should the task go on?",
        "task": stop.task_id,
        "name": stop.task,
        "limit": stop.limit,
        "call": stop.call,
        "last_calls": list(stop.last_calls),
        "options": options(stop, models),
    }
    if stop.meter and stop.limit_amount is not None:
        show = Meter(stop.meter).show
        shown |= {
            "meter": stop.meter,
            "spent": show(stop.settled + stop.presumed),
            "reserved": show(stop.reserved),
            "limit_amount": show(stop.limit_amount),
            "kept": show(stop.kept),
            "projected": show(stop.requested),
            "missing": show(missing(stop)),
        }
    if problem:
        shown["problem"] = problem
    return shown


def options(stop: StopReport, models: Sequence[str] = ()) -> dict[str, str]:
    """What may be answered with `Command(resume=...)`, and what it does."""
    grant = {}
    if can_grant(stop):
        least = max(1, missing(stop))
        given = f"'${dollars(least).normalize():f}'" if stop.meter == Meter.COST else str(least)
        grant = {f"{{'grant': {given}, 'approver': 'name'}}": f"add this or more to {stop.limit} and go on"}
    for model in models:
        grant[f"{{'model': '{model}'}}"] = "go on with this model, alone or together with a grant"
    return {
        **grant,
        "finish": "ask for one last answer and end",
        "stop": "end now",
        "retry": "try again, e.g. after a shared limit was raised elsewhere",
    }


def missing(stop: StopReport) -> int:
    """How much the limit would have to grow for the refused call."""
    used = stop.settled + stop.reserved + stop.presumed + stop.requested + stop.kept
    return max(0, used - (stop.limit_amount or 0))


def can_grant(stop: StopReport) -> bool:
    """Whether the limit is one of the task itself, kept in the ledger: time and shared limits cannot be granted."""
    return stop.limit == f"max_{stop.meter}" and stop.meter not in {"", Meter.SECONDS}


def understand(answer: object, stop: StopReport, models: Sequence[str] = ()) -> Decision | str:
    """The decision in *answer*, or why it is none."""
    if isinstance(answer, str):
        word = answer.strip().lower()
        if word in _WORDS:
            return Decision(what=word)  # type: ignore[arg-type]  # one of the words, as was looked
        return f"{answer!r} is not one of the options"
    if not isinstance(answer, Mapping):
        return f"{answer!r} is neither one of the words nor a mapping with 'grant'"
    problem = _odd(answer, models)
    if problem:
        return problem
    approver, model = answer.get("approver", ""), answer.get("model", "")
    if "grant" not in answer:
        return Decision(what="model", approver=approver, model=model)
    granted = _grant(answer["grant"], approver, stop)
    return granted if isinstance(granted, str) else replace(granted, model=model)


def _odd(answer: Mapping[Any, Any], models: Sequence[str]) -> str:
    """What is wrong with *answer*, its amount apart; empty for nothing."""
    unknown = [key for key in answer if key not in {"grant", "approver", "model"}]
    if unknown or not {"grant", "model"}.intersection(answer):
        return f"{dict(answer)!r}: a mapping has 'grant' or 'model' and, if you like, 'approver'"
    if not isinstance(answer.get("approver", ""), str):
        return f"approver={answer['approver']!r} is not a name"
    if "model" in answer and answer["model"] not in list(models):
        known = f"one of {', '.join(models)}" if models else "there is no other model to go on with"
        return f"model={answer['model']!r}: {known}"
    return ""


def _grant(amount: Any, approver: str, stop: StopReport) -> Decision | str:
    if not can_grant(stop):
        return f"{stop.limit or 'this stop'} cannot be raised by a grant"
    if stop.meter != Meter.COST:
        if isinstance(amount, bool) or not isinstance(amount, int) or amount < 1:
            return f"grant={amount!r}: a whole number of {stop.meter.replace('_', ' ')} from 1"
        return Decision(what="grant", amount=amount, approver=approver)
    try:
        worth = nanos(amount, what="grant")
    except ConfigurationError as error:
        return str(error)
    if worth == 0:
        return f"grant={amount!r}: more than nothing, please"
    return Decision(what="grant", amount=amount, approver=approver)
