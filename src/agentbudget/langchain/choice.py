"""Which models a call may go to, what it wants of each, and what is to be told of the one that was taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage

from agentbudget.domain.accounts import Meter
from agentbudget.domain.usage import Usage
from agentbudget.errors import ConfigurationError
from agentbudget.estimating.outputs import MARGIN
from agentbudget.governor.fitting import Candidate, Fit
from agentbudget.governor.governor import Governor
from agentbudget.governor.hold import Hold
from agentbudget.governor.task import Task
from agentbudget.governor.values import Call
from agentbudget.langchain import abilities
from agentbudget.langchain.options import Acting, Progress
from agentbudget.policies.switching import Pattern, Projection, project
from agentbudget.pricing.rates import Rates

_ROOM = 4
"""An output nobody capped may grow to this many times what would be reserved for it, where there is room."""
_BYTES_PER_TOKEN = 4
_OUTPUT_METERS = frozenset({Meter.COST, Meter.OUTPUT_TOKENS, Meter.TOTAL_TOKENS, Meter.UNCACHED_TOKENS})


class Action(NamedTuple):
    """Something that was done to make a call fit, with the numbers it was decided by."""

    name: str
    reason: str
    numbers: dict[str, str | float]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The models a call may go to, the one in use first, and what happened on the way."""

    models: Sequence[BaseChatModel]
    candidates: Sequence[Candidate]
    rungs: Sequence[int]
    """The place of each on the ladder."""
    cappable: bool
    """Whether an output cap may be set: it is wanted, and a limit depends on the output."""
    params: Mapping[str, Any]
    progress: Progress
    before: Sequence[Action]

    def settings(self, found: Fit) -> dict[str, Any]:
        """Keyword arguments that make the call what was reserved."""
        asked = self.candidates[found.rung].call.cap
        if found.cap is None or found.cap == asked:
            return {}
        return abilities.cap_settings(self.models[found.rung], self.params, found.cap)

    def settle(self, found: Fit) -> list[Action]:
        """Take note of what was done for the call; the actions to put on record."""
        actions = list(self.before)
        chosen, first = self.candidates[found.rung], self.candidates[0]
        if found.waited is not None:
            reason = f"waited {found.waited:.1f} s for calls in flight to settle"
            actions.append(Action("wait", reason, {"seconds": found.waited}))
        if found.rung:
            reason = (
                f"{first.call.name} can write {max(0, found.affordable)} of {first.wanted} tokens with what is left"
            )
            numbers: dict[str, str | float] = {
                "from": first.call.name,
                "to": chosen.call.name,
                "affordable": found.affordable,
            }
            actions.append(Action("downgrade", reason, {**numbers, "wanted": first.wanted}))
        if found.cap is not None and found.cap < chosen.wanted:
            reason = f"output capped at {found.cap} instead of {chosen.wanted} tokens, which is what the budget affords"
            actions.append(Action("shrink", reason, {"cap": found.cap, "wanted": chosen.wanted}))
        self.progress.rung = max(self.progress.rung, self.rungs[found.rung])
        self.progress.calls += 1
        self.progress.routed = True
        return actions


def choose(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    params: Mapping[str, Any],
    tasks: tuple[Task, ...],
    options: Acting,
) -> Choice:
    """The rungs of the ladder that can take this call, beginning with the one the task stands on.

    Raises:
        ConfigurationError: the ladder cannot work for this model, at these prices or with these tools.
    """
    governor, progress = tasks[0].governor, options.of_task(tasks[0])
    source, before = _routed(model, tasks, options, progress)
    ladder = _ladder(source, options, progress)
    planned = abilities.planned_call(source, messages, params)
    if len(ladder) == 1:
        rungs = [_Rung(0, source, _candidate(governor, source, planned, params, options))]
    else:
        rungs = _rungs(ladder, planned, messages, params, tasks, options)
        rungs = _from_here(rungs, messages, tasks, progress, before)
    return Choice(
        models=[rung.model for rung in rungs],
        candidates=[rung.candidate for rung in rungs],
        rungs=[rung.number for rung in rungs],
        cappable=options.shrink and _limits_output(governor, tasks),
        params=params,
        progress=progress,
        before=before,
    )


class _Rung(NamedTuple):
    """One model of the ladder that can take the call; `number` is its place on the whole ladder."""

    number: int
    model: BaseChatModel
    candidate: Candidate


def _rungs(
    ladder: Sequence[BaseChatModel],
    planned: Call,
    messages: Sequence[BaseMessage],
    params: Mapping[str, Any],
    tasks: tuple[Task, ...],
    options: Acting,
) -> list[_Rung]:
    """The rungs that can do what the call asks for.

    Raises:
        ConfigurationError: the ladder cannot work.
    """
    governor, source = tasks[0].governor, ladder[0]
    if governor not in options.checked:
        check_ladder(governor, ladder, planned, tools=bool(params.get("tools")))
        options.checked.add(governor)
    found = [(0, source, planned)]
    for number, target in enumerate(ladder[1:], start=1):
        if planned.size is not None and abilities.can_replace(target, source, params, planned.size):
            found.append((number, target, abilities.planned_call(target, messages, params)))
    return [_Rung(number, each, _candidate(governor, each, call, params, options)) for number, each, call in found]


def _from_here(
    rungs: list[_Rung],
    messages: Sequence[BaseMessage],
    tasks: tuple[Task, ...],
    progress: Progress,
    before: list[Action],
) -> list[_Rung]:
    """*rungs* from the one that the task stands on, or changes to now; below it, those whose window is large enough."""
    governor = tasks[0].governor
    here = max(place for place, rung in enumerate(rungs) if rung.number <= progress.rung)
    left = rungs[here:]
    if len(left) > 1:
        switched = _projected(governor, tasks, [rung.candidate for rung in left], messages, done=progress.calls)
        if switched is not None:
            place, projection = switched
            before.append(_switch(left[0].candidate.call, left[place].candidate.call, projection))
            left = left[place:]
            progress.rung = max(progress.rung, left[0].number)
    return [
        rung
        for place, rung in enumerate(left)
        if not place or abilities.takes(rung.model, _input_bound(governor, rung.candidate.call))
    ]


def in_use(model: BaseChatModel, tasks: Sequence[Task], options: Acting) -> BaseChatModel:
    """The model that calls of a task go to for now: the one asked for or routed to, or the rung it came down to."""
    progress = options.of_task(tasks[0])
    source, _ = _routed(model, tasks, options, progress)
    return _ladder(source, options, progress)[progress.rung]


def _ladder(source: BaseChatModel, options: Acting, progress: Progress) -> tuple[BaseChatModel, ...]:
    """The models a call may go to: from where a person has chosen one, there is no further way down."""
    return (source,) if progress.model is not None else (source, *options.downgrade)


def check_ladder(governor: Governor, ladder: Sequence[BaseChatModel], planned: Call, *, tools: bool) -> None:
    """Refuse a ladder that cannot work.

    Raises:
        ConfigurationError: a target without a price, dearer than what stands above it, or without tools for a call
            that has some.
    """
    above = rates_of(governor, planned)
    for target in ladder[1:]:
        call = abilities.planned_call(target, [], {})
        if tools and not abilities.binds_tools(target):
            msg = f"downgrade: {call.name} cannot call tools, and this agent has some; leave it out of the ladder."
            raise ConfigurationError(msg)
        rates = rates_of(governor, call)
        if isinstance(rates, str):
            msg = f"downgrade: {call.name} has no price, so nobody can say that it is cheaper. {rates}"
            raise ConfigurationError(msg)
        if isinstance(above, Rates) and isinstance(rates, Rates):
            dearer, cheaper = _typical(rates), _typical(above)
            if dearer > cheaper:
                msg = (
                    f"downgrade: {call.name} is dearer than what stands above it "
                    f"({Meter.COST.show(dearer)} against {Meter.COST.show(cheaper)} for 750k tokens in and 250k out): "
                    "order the ladder from dear to cheap."
                )
                raise ConfigurationError(msg)
        above = rates


def _routed(
    model: BaseChatModel, tasks: Sequence[Task], options: Acting, progress: Progress
) -> tuple[BaseChatModel, list[Action]]:
    """The model to begin with: the one that a person chose, or by the tags of *tasks*."""
    if progress.model is not None:
        return progress.model, []
    routed = options.route(tasks)
    if routed is None:
        return model, []
    value, target = routed
    reason = f"model_for[{value!r}]"
    return target, [] if progress.routed else [Action("route", reason, {"tag": value})]


def _candidate(
    governor: Governor, model: BaseChatModel, call: Call, params: Mapping[str, Any], options: Acting
) -> Candidate:
    thinking = abilities.thinking_tokens(params, model)
    least = thinking + options.min_output_tokens
    if call.cap is not None:
        return Candidate(call=call, wanted=call.cap, most=call.cap, least=min(call.cap, least))
    bound = governor.appraiser.estimator.output_bound(call.name, None)
    most = abilities.most_output(model, max(bound, least))
    wanted = min(max(int(bound / MARGIN), least), most)
    return Candidate(call=call, wanted=wanted, most=min(_ROOM * max(bound, least), most), least=min(least, wanted))


def _projected(
    governor: Governor,
    tasks: tuple[Task, ...],
    candidates: Sequence[Candidate],
    messages: Sequence[BaseMessage],
    *,
    done: int,
) -> tuple[int, Projection] | None:
    """The first rung to change to now, because going on with the present one is projected to break a cost limit.

    Only once an answer was seen: before that nothing is known to project from.
    """
    pattern = pattern_of(messages, candidates[0].call)
    draft = governor.draft(tasks, candidates[0].call)
    if pattern is None or not isinstance(draft, Hold) or draft.estimate.rates is None:
        return None
    room = [b.available or 0 for account, b in governor.balances(draft).items() if account.meter is Meter.COST]
    best: tuple[int, Projection] | None = None
    for place, candidate in enumerate(candidates[1:], start=1):
        rates = rates_of(governor, candidate.call)
        if not room or not isinstance(rates, Rates):
            continue
        projection = project(draft.estimate.rates, rates, pattern, done=done, left=min(room))
        if projection.worthwhile and (best is None or projection.switch < best[1].switch):
            best = place, projection
        if best is not None and best[1].switch <= min(room):
            break
    return best


def _switch(source: Call, target: Call, seen: Projection) -> Action:
    show = Meter.COST.show
    reason = (
        f"the next {seen.steps} calls are projected at {show(seen.stay)} with {source.name} and {show(seen.switch)} "
        f"with {target.name}, its cold prompt cache included; {show(seen.left)} is left"
    )
    numbers: dict[str, str | float] = {"from": source.name, "to": target.name, "steps": seen.steps, "left": seen.left}
    return Action("downgrade", reason, {**numbers, "stay": seen.stay, "switch": seen.switch})


def pattern_of(messages: Sequence[BaseMessage], call: Call) -> Pattern | None:
    """What the last answer says of the next ones."""
    for message in reversed(messages):
        used = message.usage_metadata if isinstance(message, AIMessage) else None
        if used is not None:
            details = used.get("input_token_details") or {}
            return Pattern(
                prefix=used["input_tokens"] + used["output_tokens"],
                fresh=call.size.appended_bytes // _BYTES_PER_TOKEN if call.size is not None else 0,
                output=used["output_tokens"],
                cached=any(isinstance(count, int) and count > 0 for count in details.values()),
            )
    return None


def _limits_output(governor: Governor, tasks: Sequence[Task]) -> bool:
    """Whether any limit depends on how much is written."""
    if any(limit.meter in _OUTPUT_METERS for limit in governor.limits):
        return True
    return any(line.most is not None and line.account.meter in _OUTPUT_METERS for task in tasks for line in task.lines)


def _typical(rates: Rates) -> int:
    """What models are compared by: nano-dollars of a million tokens, three parts input to one part output."""
    return 10 * rates.cost(Usage(input_tokens=75_000, output_tokens=25_000))


def _input_bound(governor: Governor, call: Call) -> int:
    return governor.appraiser.estimator.input_bound(call.name, call.size) if call.size is not None else 0


def rates_of(governor: Governor, call: Call) -> Rates | str | None:
    """The prices of a model; None where it needs none, and why there are none where it does."""
    today = datetime.fromtimestamp(governor.clock.now(), UTC).date()
    appraised = governor.appraiser.estimate(call, on=today)
    return appraised.remedy or appraised.rates
