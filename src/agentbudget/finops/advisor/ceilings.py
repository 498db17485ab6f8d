"""Tighter ceilings: what limits that were chosen from recorded successes would have saved on failed runs."""

from __future__ import annotations

from agentbudget.domain.money import NANOS_PER_DOLLAR, format_dollars
from agentbudget.finops.advisor.asked import Asked, named
from agentbudget.finops.advisor.values import Lever, Saving
from agentbudget.replay.calibrate import LEAST_RUNS, Kind, Option, calibrate
from agentbudget.replay.importers import read_any
from agentbudget.replay.runs import METERS
from agentbudget.trace.files import Problem


def ceilings(asked: Asked) -> None:
    """For each kind of task the suggested ceiling that saves most."""
    record, options = asked.record, asked.options
    if record.traces is None:
        return
    found = calibrate(
        read_any(record.traces, on_problem=_ignore), success=options.success, false_halts=options.false_halts
    )
    spent = _spent_by_successes(asked)
    few = [f"{named(kind.name)} {kind.successes:,}" for kind in found.kinds if kind.refusal]
    if few:
        asked.note(f"ceilings: at least {LEAST_RUNS} successful runs are needed, there are of {', '.join(few)}")
    for kind in found.kinds:
        chosen = [kind.suggest(meter, false_halts=options.false_halts) for meter in METERS]
        useful = [option for option in chosen if option is not None and option.saved]
        if useful:
            best = max(useful, key=lambda option: (option.saved or 0, option.meter))
            asked.levers.append(_lever(asked, kind, best, spent.get(kind.name, 0)))


def _ignore(problem: Problem) -> None:
    """The history told it."""


def _spent_by_successes(asked: Asked) -> dict[str, int]:
    """Nano-dollars of successful root tasks, by name."""
    found = asked.record.history.rows(f"""
        SELECT coalesce(told.name, '') AS name, sum(cost)::BIGINT AS cost
        FROM calls JOIN (SELECT task, name, {asked.options.ok} AS good FROM tasks) AS told ON told.task = root
        WHERE good GROUP BY ALL
    """)  # noqa: S608 - constants, and a condition made of known dimensions
    return {row["name"]: row["cost"] for row in found}


def _lever(asked: Asked, kind: Kind, option: Option, spent: int) -> Lever:
    saved = int((option.saved or 0) * NANOS_PER_DOLLAR)
    risked = round(option.halted_at_most * spent)
    saving = Saving(low=saved - risked, expected=saved, high=saved)
    money = option.meter == "max_cost"
    limit = format_dollars(int(option.limit * NANOS_PER_DOLLAR)) if money else f"{option.limit:f}"
    code = f'{option.meter}="{limit}"' if money else f"{option.meter}={limit}"
    return Lever(
        kind="ceiling",
        title=f"{named(kind.name)}: {option.meter} {limit}",
        saving=saving,
        month=asked.record.month(saving),
        confidence="estimate",
        reason=f"held out, it halts {option.halted_held_out:,} of {option.successes:,} successful runs, at most "
        f"{option.halted_at_most:.1%} with 95 % confidence; the lower end takes so much of their spend as lost",
        computed=f"spend of {option.failures:,} failed runs behind the ceiling ({option.level} of the successes), each "
        "tried with one that was chosen without it",
        change=f'ab.task("{kind.name}", {code}), or ab.Budget({code})',
        verify=f"agentbudget calibrate {asked.record.path}; in Python: agentbudget.replay.whatif.replay("
        f"{asked.record.path!r}, budget={{{kind.name!r}: ab.Budget({code})}})",
        risk="tasks get harder, and the ceiling halts successes that did not exist then: calibrate again each month",
    )
