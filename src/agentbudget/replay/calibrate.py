"""Limits from a team's own runs: what each would have saved, and how many successes it would have halted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from math import ceil
from typing import Any, Never

from agentbudget.domain.money import dollars, format_dollars
from agentbudget.domain.options import refuse_unknown
from agentbudget.errors import ConfigurationError, TraceError
from agentbudget.replay.bounds import upper_bound
from agentbudget.replay.importers import Source, events_of
from agentbudget.replay.runs import METERS, Run, Success, runs

LEVELS = (("p90", 0.90), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
"""The ceilings that are tried: percentiles of what successful runs needed."""
LEAST_RUNS = 30
"""Fewer successful runs than this promise nothing: with none of 29 halted, 1 in 10 may still be."""
FOLDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One limit on one kind of task, and what it would have done to the recorded runs.

    Held-out figures come from ten folds: the limit is chosen on nine tenths of the runs and tried on the rest.
    """

    name: str
    """The kind of task; empty for tasks without a name."""
    meter: str
    """`max_cost`, `max_model_calls`, `max_tool_calls`, or `loops` for the default loop rules."""
    level: str
    """The percentile of the successes' need that the limit is."""
    limit: Decimal
    """Dollars for `max_cost`, else a count; 0 for `loops`, whose thresholds are not chosen from these runs."""
    successes: int
    failures: int
    halted: int
    """Successful runs the limit would have halted, in sample: by construction about what the percentile says."""
    halted_held_out: int
    """Successful runs halted by a limit that was chosen without them."""
    halted_share: float
    """The held-out share."""
    halted_at_most: float
    """Its upper bound at 95 % confidence."""
    saved: Decimal | None
    """Dollars of the failed runs' spend that the limit would have saved, held out; None where none was recorded."""
    saved_share: float | None
    """The same as a share of what failed runs spent; of their calls, for call ceilings without recorded costs."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; money as decimal strings in dollars."""
        known = {name: getattr(self, name) for name in self.__slots__}
        return {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in known.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All options of one kind of task."""

    name: str
    successes: int
    failures: int
    unknown: int
    """Runs of which nobody said whether they succeeded: left out."""
    cut: int
    """Runs that a limit ended: left out, since what they needed is not known."""
    options: tuple[Option, ...]
    refusal: str = ""
    """Why nothing is promised; empty where something is."""

    def suggest(self, meter: str, *, false_halts: float) -> Option | None:
        """The tightest limit on *meter* of which at most *false_halts* of the successes are halted, surely enough."""
        fitting = [option for option in self.options if option.meter == meter and option.halted_at_most <= false_halts]
        return min(fitting, key=lambda option: option.limit, default=None)


class Calibration:
    """What the recorded runs say about limits, by kind of task."""

    def __init__(self, kinds: Sequence[Kind], *, false_halts: float) -> None:
        self.kinds = tuple(kinds)
        self.false_halts = false_halts
        """The share of successes a suggested limit may halt, by its upper bound."""

    @property
    def options(self) -> tuple[Option, ...]:
        """The options of all kinds."""
        return tuple(option for kind in self.kinds for option in kind.options)

    @property
    def suggested(self) -> dict[str, dict[str, Decimal]]:
        """Limits by kind of task, as options of `Budget`; kinds with too few runs are absent."""
        found: dict[str, dict[str, Decimal]] = {}
        for kind in self.kinds:
            limits = {meter: kind.suggest(meter, false_halts=self.false_halts) for meter in METERS}
            chosen = {meter: option.limit for meter, option in limits.items() if option is not None}
            if chosen:
                found[kind.name] = chosen
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "false_halts": self.false_halts,
            "suggested": {
                kind: {meter: f"{limit:f}" for meter, limit in limits.items()}
                for kind, limits in self.suggested.items()
            },
            "kinds": [
                {
                    "name": kind.name,
                    "successes": kind.successes,
                    "failures": kind.failures,
                    "unknown": kind.unknown,
                    "cut": kind.cut,
                    "refusal": kind.refusal,
                    "options": [option.to_dict() for option in kind.options],
                }
                for kind in self.kinds
            ],
        }

    def __str__(self) -> str:
        lines = [line for kind in self.kinds for line in _lines(kind)]
        for name, limits in self.suggested.items():
            shown = [f"{meter}={_limit(meter, limit)}" for meter, limit in limits.items()]
            lines.append(f"suggested for {name or 'tasks without a name'}: {', '.join(shown)}")
        lines.append(
            f"Suggested is the tightest limit that halts at most {self.false_halts:.0%} of the successes, by the 95 % "
            "upper bound ('at most').\nHeld out: each limit is chosen on nine tenths of the runs and tried on the rest."
        )
        return "\n".join(lines)


def calibrate(
    traces: Source,
    *,
    success: Success = None,
    false_halts: float = 0.05,
    format: str = "auto",  # noqa: A002 - the word users know from other readers
    progress: Callable[[int], None] | None = None,
    **unknown: Never,
) -> Calibration:
    """Suggest limits from recorded runs: a table of options for each kind of task (tasks of one name).

    Args:
        traces: a file, folder or glob of traces or of another format that an importer reads, or several of them; a
            Trace; or events.
        success: None takes the recorded outcomes (`task.outcome(..., ok=True)`); else the name of a tag, a mapping of
            task id to bool, or a function of a `Run`. Runs of unknown success are left out.
        false_halts: the share of successes that a suggested limit may halt, by its 95 % upper bound.
        format: of the files, where it cannot be told from them; see `importers`.
        progress: told how many runs have been read, after each.

    Raises:
        TypeError: an unknown option. ConfigurationError: *false_halts* outside (0, 1). TraceError: nothing usable.
    """
    refuse_unknown(unknown, ("success", "false_halts", "format", "progress"), where="calibrate")
    if isinstance(false_halts, bool) or not isinstance(false_halts, int | float) or not 0 < false_halts < 1:
        raise ConfigurationError(f"false_halts={false_halts!r}: a share between 0 and 1.")
    by_name: dict[str, list[Run]] = {}
    for number, run in enumerate(runs(events_of(traces, format=format), success), start=1):
        by_name.setdefault(run.name, []).append(run)
        if progress is not None:
            progress(number)
    if not by_name:
        raise TraceError(f"calibrate: there is no task in {traces!r}.")
    return Calibration([_kind(name, found) for name, found in sorted(by_name.items())], false_halts=false_halts)


def _kind(name: str, found: Sequence[Run]) -> Kind:
    known = [run for run in found if run.ok is not None and not run.stopped]
    ok, failed = [run for run in known if run.ok], [run for run in known if not run.ok]
    refusal = ""
    options: tuple[Option, ...] = ()
    if len(ok) < LEAST_RUNS:
        refusal = f"{len(ok)} successful runs are too few to promise anything: at least {LEAST_RUNS} are needed"
    else:
        meters = [meter for meter in METERS if any(run.curves[meter].most for run in ok)]
        options = tuple(_option(name, meter, level, share, ok, failed) for meter in meters for level, share in LEVELS)
        if any(run.signed for run in known):
            options = (*options, _loops(name, ok, failed))
    return Kind(
        name=name,
        successes=len(ok),
        failures=len(failed),
        unknown=sum(run.ok is None for run in found),
        cut=sum(run.stopped for run in found),
        options=options,
        refusal=refusal,
    )


def _option(name: str, meter: str, level: str, share: float, ok: Sequence[Run], failed: Sequence[Run]) -> Option:
    limit = _quantile([run.curves[meter].most for run in ok], share)
    halted_held_out, saved, spent, saved_calls, made_calls = 0, 0, 0, 0, 0
    for fold in range(FOLDS):
        chosen = _quantile([run.curves[meter].most for run in ok if _fold(run) != fold], share)
        halted_held_out += sum(run.curves[meter].most > chosen for run in ok if _fold(run) == fold)
        for run in failed:
            if _fold(run) == fold:
                at = run.curves[meter].halted_at(chosen)
                spent += run.cost
                saved += 0 if at is None else run.cost - at
                made_calls += run.curves[meter].most
                saved_calls += max(0, run.curves[meter].most - chosen)
    part = saved / spent if spent else saved_calls / made_calls if meter != "max_cost" and made_calls else None
    return Option(
        name=name,
        meter=meter,
        level=level,
        limit=dollars(limit) if meter == "max_cost" else Decimal(limit),
        successes=len(ok),
        failures=len(failed),
        halted=sum(run.curves[meter].most > limit for run in ok),
        halted_held_out=halted_held_out,
        halted_share=halted_held_out / len(ok),
        halted_at_most=upper_bound(halted_held_out, len(ok)),
        saved=dollars(saved) if spent else None,
        saved_share=part,
    )


def _loops(name: str, ok: Sequence[Run], failed: Sequence[Run]) -> Option:
    """The default loop rules: nothing is chosen, so every run counts as held out."""
    halted = sum(run.looped is not None for run in ok)
    spent, calls = sum(run.cost for run in failed), sum(run.calls for run in failed)
    after = [(run.cost - run.looped[0], run.calls - run.looped[1]) for run in failed if run.looped is not None]
    saved, saved_calls = sum(cost for cost, _ in after), sum(made for _, made in after)
    return Option(
        name=name,
        meter="loops",
        level="default rules",
        limit=Decimal(0),
        successes=len(ok),
        failures=len(failed),
        halted=halted,
        halted_held_out=halted,
        halted_share=halted / len(ok),
        halted_at_most=upper_bound(halted, len(ok)),
        saved=dollars(saved) if spent else None,
        saved_share=saved / spent if spent else saved_calls / calls if calls else None,
    )


def _quantile(values: Sequence[int], share: float) -> int:
    """The smallest value that at least *share* of *values* do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0


def _fold(run: Run) -> int:
    """The same for the same id, whatever the order of the files."""
    return blake2b(run.id.encode(), digest_size=2).digest()[0] % FOLDS


def _lines(kind: Kind) -> Iterator[str]:
    left = f", {kind.unknown} of unknown success and {kind.cut} cut by a limit left out"
    yield f"{kind.name or 'tasks without a name'}: {kind.successes} successes, {kind.failures} failures{left}"
    if kind.refusal:
        yield f"  {kind.refusal}"
        return
    yield f"  {'limit':28} {'halts successes (held out)':>28} {'at most':>8} {'saves of failed spend':>22}"
    for option in kind.options:
        limit = _limit(option.meter, option.limit)
        halted = f"{option.halted_held_out} of {option.successes} ({option.halted_share:.1%})"
        saved = "unknown" if option.saved_share is None else f"{option.saved_share:.1%}"
        shown = f"loops ({option.level})" if option.meter == "loops" else f"{option.meter} {limit} ({option.level})"
        yield f"  {shown:28} {halted:>28} {option.halted_at_most:>8.1%} {saved:>22}"
    if not kind.failures:
        yield "  no failed run among them: what a limit saves is not known"


def _limit(meter: str, limit: Decimal) -> str:
    return format_dollars(int(limit.scaleb(9))) if meter == "max_cost" else f"{limit:f}"
