"""Machines that are paid by the hour: how many of them the measured load needs."""

from __future__ import annotations

from math import ceil

from agentbudget.domain.money import format_dollars
from agentbudget.finops.advisor.asked import Asked, Machine
from agentbudget.finops.advisor.values import Lever, Saving
from agentbudget.finops.capacity import HOURS_A_MONTH, Load, machines_needed, measured_load
from agentbudget.finops.dimensions import quoted

WINDOW_SECONDS = 300
"""Demand is measured in windows of this length: a call counts where it ended."""
_BUSY = 0.95


def idle_machines(asked: Asked) -> None:
    """GPUs beyond what the 95th percentile of the demand needs."""
    for machine in asked.options.machines:
        hosted = machine.hosted
        (row,) = asked.record.history.rows(
            f"SELECT count(*) AS calls FROM calls WHERE kind = 'model' AND {quoted(hosted.model)} IN (model, name)"  # noqa: S608 - quoted
        )
        if not row["calls"] or not asked.record.timed:
            asked.note(f"machines: no call of {hosted.model} with a time is recorded: its load is not known")
            continue
        load = measured_load(asked.record.history, hosted.model)
        demand = _demand(asked, hosted.model, load.hours)
        needed = machines_needed(demand, capacity=machine.tokens_per_second, target=machine.target)
        used = _utilisation(machine, load)
        if needed < hosted.gpus:
            asked.levers.append(_lever(machine, load, demand, needed))
        else:
            asked.note(
                f"machines: {hosted.model} needs its {hosted.gpus:,} GPUs for peaks; {used:.0%} of what they "
                "can serve was used"
            )


def _demand(asked: Asked, model: str, hours: float) -> float:
    """Tokens a second that 95 % of the windows do not exceed, those without a call included."""
    found = asked.record.history.rows(f"""
        SELECT sum(input_tokens - cache_read_tokens + output_tokens)::BIGINT AS tokens
        FROM calls WHERE kind = 'model' AND outcome <> 'denied' AND {quoted(model)} IN (model, name)
        GROUP BY time_bucket(INTERVAL {WINDOW_SECONDS} SECONDS, ended) ORDER BY tokens
    """)  # noqa: S608 - the model is quoted
    windows = max(len(found), ceil(hours * 3600 / WINDOW_SECONDS))
    place = ceil(_BUSY * windows) - 1 - (windows - len(found))
    return found[place]["tokens"] / WINDOW_SECONDS if place >= 0 else 0.0


def _utilisation(machine: Machine, load: Load) -> float:
    """Served tokens over what all GPUs could have served."""
    could = machine.tokens_per_second * machine.hosted.gpus * load.hours * 3600
    return (load.usage.uncached_tokens) / could


def _lever(machine: Machine, load: Load, demand: float, needed: int) -> Lever:
    hosted = machine.hosted
    spare = hosted.gpus - needed
    bill = round(hosted.hour * load.hours)
    return Lever(
        kind="machines",
        title=f"{hosted.model}: {needed:,} instead of {hosted.gpus:,} GPUs",
        saving=Saving.exactly(round(spare * hosted.gpu_hour * load.hours)),
        month=Saving.exactly(spare * hosted.gpu_hour * HOURS_A_MONTH),
        confidence="estimate",
        reason=f"the load of {load.hours:,.1f} hours, at {machine.target:.0%} of {machine.tokens_per_second:g} tokens "
        f"a second for each GPU; {_utilisation(machine, load):.1%} of what all could serve was used",
        computed=f"bill {format_dollars(bill)} for {load.usage.uncached_tokens:,} tokens (cached ones left out); "
        f"demand {demand:,.1f} tokens a second in the 95th percentile of windows of 5 minutes, empty ones included",
        change=f"run {needed:,} GPUs for {hosted.model}, or scale with the load",
        verify="agentbudget advise TRACES --machines FILE after a week",
        risk="one window in twenty asks for more and waits; a model may not fit on fewer GPUs",
    )
