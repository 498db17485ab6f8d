"""When a context is made smaller: where going on is projected to break a limit and the saving exceeds its own cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.messages.utils import count_tokens_approximately

from agentbudget.domain.accounts import Meter
from agentbudget.domain.usage import Usage
from agentbudget.governor.hold import Hold
from agentbudget.governor.task import Task
from agentbudget.governor.values import Call
from agentbudget.langchain import abilities, ambient
from agentbudget.langchain.choice import Action, in_use, pattern_of, rates_of
from agentbudget.langchain.compact import Compact, Shorter
from agentbudget.langchain.options import Acting
from agentbudget.langchain.parts import to_json
from agentbudget.policies.compacting import Cut, Saving, saving
from agentbudget.policies.switching import LEAST_STEPS, Pattern
from agentbudget.pricing.rates import Rates

SUMMARY_TOKENS = 600
"""What a summary is taken to be long, where its model has no smaller cap."""
_MOST_MISSES = 2
"""Summaries of a task that failed, or made nothing smaller, after which no other is paid for."""
_PROMPT_TOKENS = 600
"""What a summariser is told beside the messages."""
_BYTES_PER_TOKEN = 4
_SCALE_MOST = 1.5
"""Tokens are counted by the length of the text, and the count is brought to what the provider reported, up to this."""
_TOKENS: Mapping[Meter, Callable[[Usage], int]] = {
    Meter.INPUT_TOKENS: lambda usage: usage.input_tokens,
    Meter.TOTAL_TOKENS: lambda usage: usage.input_tokens + usage.output_tokens,
    Meter.UNCACHED_TOKENS: lambda usage: usage.input_tokens + usage.output_tokens - usage.cache_read_tokens,
}


class Own(NamedTuple):
    """What making a context smaller takes itself."""

    cost: int = 0
    usage: Usage = Usage()

    def of(self, meter: Meter) -> int:
        """Of one limit."""
        return self.cost if meter is Meter.COST else _TOKENS[meter](self.usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A context that is worth making smaller."""

    action: Action
    """What goes on record."""
    shorter: Shorter


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """One model call that is about to be made, with what is known of the next ones."""

    tasks: tuple[Task, ...]
    draft: Hold
    pattern: Pattern
    room: Mapping[Meter, int]
    done: int
    scale: float

    def tokens(self, messages: Sequence[BaseMessage]) -> int:
        """How long *messages* are for the model, about."""
        return int(count_tokens_approximately(messages) * self.scale)


def edited(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    params: Mapping[str, Any],
    tasks: tuple[Task, ...],
    options: Acting,
) -> tuple[Sequence[BaseMessage], list[Action]]:
    """*messages* as they should be sent, and what there is to record of it."""
    compact = options.compact
    if compact is None or not tasks:
        return messages, []
    shorter = compact.of_task(tasks[0])
    sent = shorter.view(messages)
    if not compact.edits:
        return sent, []
    scene = _scene(model, sent, params, tasks, options, shorter)
    if scene is None:
        return sent, []
    after = compact.edit(sent)
    cut = Cut(removed=scene.tokens(sent) - scene.tokens(after))
    due = _due(scene, cut, Own(), shorter, how="old messages cleared")
    if due is None:
        return sent, []
    shorter.edited(sent, after)
    return shorter.view(messages), [due.action]


def summary_due(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    params: Mapping[str, Any],
    tasks: tuple[Task, ...],
    options: Acting,
) -> Due | None:
    """Whether the context of the call should be summarised before it is made."""
    compact = options.compact
    if compact is None or compact.summariser is None or not tasks or not all(each.id for each in messages[1:]):
        return None
    shorter = compact.of_task(tasks[0])
    if shorter.misses >= _MOST_MISSES:
        return None
    sent = shorter.view(messages)
    scene = _scene(model, sent, params, tasks, options, shorter)
    if scene is None:
        return None
    removed = scene.tokens(sent) - _kept(compact, scene, sent)
    cap = getattr(compact.summariser.model, "max_tokens", None)
    added = min(SUMMARY_TOKENS, cap) if isinstance(cap, int) else SUMMARY_TOKENS
    own = _own(compact, scene, sent, removed, added)
    if own is None or removed <= added:
        return None
    return _due(scene, Cut(removed=removed, added=added), own, shorter, how="older messages summarised")


def _scene(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    params: Mapping[str, Any],
    tasks: tuple[Task, ...],
    options: Acting,
    shorter: Shorter,
) -> _Scene | None:
    """What is known before the call; None where it is no time to make anything smaller: before the first answer, for
    a last answer, soon after the last look, or while going on as it is fits every limit."""
    done = options.of_task(tasks[0]).calls
    if ambient.LAST_ANSWER.get() or done < (shorter.looked + LEAST_STEPS if shorter.looked else 1):
        return None
    if any(task.governor.mode == "observe" for task in tasks):
        return None
    source = in_use(model, tasks, options)
    call = abilities.planned_call(source, messages, params)
    pattern = pattern_of(messages, call)
    governor = tasks[0].governor
    draft = governor.draft(tuple(task for task in tasks if task.governor is governor), call)
    if pattern is None or not isinstance(draft, Hold):
        return None
    room: dict[Meter, int] = {}
    for account, balance in governor.balances(draft).items():
        if account.meter is Meter.COST or account.meter in _TOKENS:
            room[account.meter] = min(balance.available or 0, room.get(account.meter, balance.available or 0))
    rates = draft.estimate.rates
    if not any(
        _saving(meter, rates, pattern, Cut(removed=0), Own(), done, left).stay > left
        for meter, left in room.items()
        if meter is not Meter.COST or rates is not None
    ):
        return None
    shorter.looked = done
    return _Scene(
        tasks=tasks, draft=draft, pattern=pattern, room=room, done=done, scale=_scale(messages, params, pattern)
    )


def _due(scene: _Scene, cut: Cut, own: Own, shorter: Shorter, *, how: str) -> Due | None:
    """Whether *cut* is worth it for a limit that would break, and breaks no other."""
    rates = scene.draft.estimate.rates
    best: tuple[Meter, Saving] | None = None
    for meter, left in scene.room.items():
        if meter is Meter.COST and rates is None:
            continue
        seen = _saving(meter, rates, scene.pattern, cut, own, scene.done, left)
        if seen.stay <= left < seen.compact:
            return None
        if seen.worthwhile and (best is None or meter is Meter.COST):
            best = meter, seen
    return None if best is None else Due(action=_action(*best, cut, scene.draft.call, how), shorter=shorter)


def _saving(meter: Meter, rates: Rates | None, pattern: Pattern, cut: Cut, own: Own, done: int, left: int) -> Saving:
    takes = cast("Rates", rates).cost if meter is Meter.COST else _TOKENS[meter]
    return saving(takes, pattern, cut, own=own.of(meter), done=done, left=left)


def _action(meter: Meter, seen: Saving, cut: Cut, call: Call, how: str) -> Action:
    show = meter.show
    unit = "" if meter is Meter.COST else f" {meter.value.replace('_', ' ')}"
    reason = (
        f"{how}: the next {seen.steps} calls of {call.name} are projected at {show(seen.stay)}{unit}, and at "
        f"{show(seen.compact)} with about {cut.smaller:,} tokens less, their own price and a cold prompt cache "
        f"included; {show(seen.left)} is left"
    )
    numbers: dict[str, str | float] = {"meter": meter.value, "steps": seen.steps, "left": seen.left, "own": seen.own}
    return Action("compact", reason, {**numbers, "stay": seen.stay, "compact": seen.compact, "tokens": cut.smaller})


def _kept(compact: Compact, scene: _Scene, messages: Sequence[BaseMessage]) -> int:
    """Tokens that a summary would leave as they are."""
    kind, amount = compact.summariser.keep
    if kind == "messages":
        return scene.tokens(messages[-int(amount) :])
    if kind == "tokens":
        return int(amount)
    window = (compact.summariser.model.profile or {}).get("max_input_tokens", 0)
    return int(amount * window)


def _own(compact: Compact, scene: _Scene, messages: Sequence[BaseMessage], removed: int, added: int) -> Own | None:
    """What a summary takes; None where it cannot be paid, or where nobody knows."""
    summariser = compact.summariser
    governor = scene.tasks[0].governor
    most = summariser.trim_tokens_to_summarize
    read = removed if most is None else min(removed, int(most))
    if not abilities.takes(summariser.model, read + _PROMPT_TOKENS):
        return None
    usage = Usage(input_tokens=read + _PROMPT_TOKENS, output_tokens=added)
    call = abilities.planned_call(summariser.model, messages, {})
    worst = governor.draft(scene.draft.tasks, call)
    if not isinstance(worst, Hold):
        return None
    room = {account: balance.available or 0 for account, balance in governor.balances(worst).items()}
    if not governor.fits(worst, worst.estimate.output_tokens, room):
        return None
    rates = rates_of(governor, call)
    return None if isinstance(rates, str) else Own(rates.cost(usage) if rates is not None else 0, usage)


def _scale(messages: Sequence[BaseMessage], params: Mapping[str, Any], pattern: Pattern) -> float:
    """What a token counted by length is in tokens of the provider: as the last answer reported, within reason."""
    schemas = len(to_json(abilities.schemas_of(params.get("tools") or ()))) // _BYTES_PER_TOKEN
    counted = count_tokens_approximately(messages) + schemas
    return min(_SCALE_MOST, max(1 / _SCALE_MOST, (pattern.prefix + pattern.fresh) / max(1, counted)))
