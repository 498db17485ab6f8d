"""Money that bought nothing new: repeated calls, attempts whose results were thrown away, loops."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agentbudget.domain.money import format_dollars
from agentbudget.finops.advisor.asked import Asked, named
from agentbudget.finops.advisor.record import RAN
from agentbudget.finops.advisor.values import Lever, Saving
from agentbudget.replay.bounds import upper_bound
from agentbudget.replay.importers import read_any
from agentbudget.replay.runs import Run, runs
from agentbudget.trace.events import TraceOpened
from agentbudget.trace.files import Problem, read_batches, trace_files

_TOP = 3


def repeated_calls(asked: Asked) -> None:
    """Calls that were asked before, with the same answer to be expected: same hash, model, kind of task, ok."""
    found = asked.record.history.rows("""
        WITH asked AS (
            SELECT kind, coalesce(nullif(model, ''), name) AS thing, task_name, cost,
                   row_number() OVER same AS nth, ended - lag(ended) OVER same AS since
            FROM calls
            WHERE request <> '' AND outcome = 'ok' AND cost > 0 AND (kind = 'tool' OR messages > 0)
            WINDOW same AS (
                PARTITION BY kind, coalesce(nullif(model, ''), name), task_name, request,
                             CASE kind WHEN 'model' THEN messages END, CASE kind WHEN 'model' THEN input_tokens END
                ORDER BY ended, call
            )
        )
        SELECT kind, thing, task_name, count(*) AS calls, sum(cost)::BIGINT AS cost,
               coalesce(sum(cost) FILTER (since <= INTERVAL 1 HOUR), 0)::BIGINT AS soon
        FROM asked WHERE nth > 1 GROUP BY ALL ORDER BY cost DESC, thing, task_name
    """)
    keys = _keys(asked.record.traces)
    if keys is None:
        asked.note(
            "repeated calls: requests hashed under different keys cannot be compared; an archive does not say "
            "how many keys there are, so this may be too little"
        )
    elif keys > 1:
        asked.note(
            f"repeated calls: the traces are hashed under {keys} keys; a repetition under another key than the "
            "first is not seen"
        )
    asked.levers.extend(_repeats(asked, row) for row in found)


def _keys(traces: str | None) -> int | None:
    """How many keys hash the contents; None where only an archive is there."""
    if traces is None:
        return None
    found = set()
    for file in trace_files(traces):
        first = next(iter(read_batches(file, _ignore)), [])
        found |= {event.key_id for event in first[:1] if isinstance(event, TraceOpened)}
    return len(found - {""})


def _ignore(problem: Problem) -> None:
    """The history told it."""


def _repeats(asked: Asked, row: dict[str, Any]) -> Lever:
    saving = Saving.between(row["soon"], row["cost"], row["soon"])
    tool = row["kind"] == "tool"
    same = "tool and arguments" if tool else "model, last message, number of messages and input tokens"
    return Lever(
        kind="repeats",
        title=f"{named(row['task_name'])}: {row['calls']:,} calls of {row['thing']} that had been answered before",
        saving=saving,
        month=asked.record.month(saving),
        confidence="estimate",
        reason="the lower end counts repetitions within an hour, the upper one all; "
        + (
            "a tool may answer otherwise later"
            if tool
            else "hashes cover the last message, so equal counts stand for an equal beginning"
        ),
        computed=f"calls behind the first with the same keyed hash of what was asked ({same}), all ok",
        change="@ab.idempotent on the tool, or ab.Budget(loops=ab.Loops(repeats='answer')) within a task"
        if tool
        else "langchain_core.globals.set_llm_cache(...); for retries and resumes ab.governed(model, dedupe=True)",
        verify="agentbudget report TRACES --by name,model on new traces: what the cache answered is 'avoided'",
        risk="a stale answer; and where several different answers were wanted (sampling), there is now one",
    )


def retry_waste(asked: Asked) -> None:
    """Attempts that were paid and whose results were thrown away."""
    found = asked.record.history.rows("""
        SELECT coalesce(nullif(layer, ''), outcome) AS what, coalesce(nullif(model, ''), name) AS thing,
               count(*) AS calls, sum(cost)::BIGINT AS cost
        FROM calls WHERE wasted AND cost > 0 GROUP BY ALL ORDER BY cost DESC, thing, what
    """)
    if not found:
        return
    saving = Saving.up_to(sum(row["cost"] for row in found))
    top = ", ".join(f"{row['thing']} ({row['what']}) {format_dollars(row['cost'])}" for row in found[:_TOP])
    asked.levers.append(
        Lever(
            kind="retries",
            title=f"{sum(row['calls'] for row in found):,} paid attempts whose results were thrown away",
            saving=saving,
            month=asked.record.month(saving),
            confidence="upper bound",
            reason="the spend is exact, but not every failure can be avoided",
            computed=f"settled attempts marked as wasted; the most: {top}",
            change="ab.Budget(max_retries_per_call=1), ab.Governor(limits=[ab.RetryRatio(0.1, scope='team')]), and "
            "max_retries=0 on the client where a layer above retries as well",
            verify=f"agentbudget report {asked.record.path} --by layer,model",
            risk="fewer retries leave more tasks unfinished when a provider has a bad hour",
        )
    )


@dataclass(slots=True)
class _Looped:
    """Runs in which the default loop rules would have said halt. Nano-dollars."""

    runs: int = 0
    signed: int = 0
    ok_runs: int = 0
    """Successful runs of which the rules could see the calls."""
    ok_halted: int = 0
    failed: int = 0
    """Spent after the halt by runs that failed."""
    unknown: int = 0
    """Spent after the halt by runs of unknown success."""
    lost: int = 0
    """Spent by the successful runs that would have been halted, all of it."""
    names: dict[str, int] = field(default_factory=dict)

    def add(self, run: Run) -> None:
        """One more run."""
        self.runs += 1
        self.signed += run.signed
        self.ok_runs += bool(run.ok) and run.signed
        if run.looped is None:
            return
        after = run.cost - run.looped[0]
        if run.ok:
            self.ok_halted += 1
            self.lost += run.cost
            return
        if run.ok is None:
            self.unknown += after
        else:
            self.failed += after
        self.names[run.name] = self.names.get(run.name, 0) + after


def loops(asked: Asked) -> None:
    """What recorded runs spent after the default loop rules would have halted them."""
    if asked.record.traces is None:
        asked.note("loops and ceilings: they need the traces themselves, an archive has no events")
        return
    found = _Looped()
    for run in runs(read_any(asked.record.traces, on_problem=_ignore), asked.options.success):
        found.add(run)
    if not found.signed:
        asked.note("loops: no tool call carries what the loop rules compare, so none could be looked for")
        return
    if found.failed + found.unknown:
        asked.levers.append(_loops(asked, found))


def _loops(asked: Asked, found: _Looped) -> Lever:
    known = found.failed > 0
    after = found.failed + found.unknown
    saving = Saving.between(found.failed if known else after, found.failed - found.lost, after)
    most = upper_bound(found.ok_halted, found.ok_runs)
    dearest = sorted(found.names, key=lambda name: (-found.names[name], name))[:_TOP]
    return Lever(
        kind="loops",
        title="halt tasks that go in circles",
        saving=saving,
        month=asked.record.month(saving),
        confidence="estimate",
        reason=f"of {found.ok_runs:,} successful runs {found.ok_halted:,} would have been halted too (at most "
        f"{most:.1%} with 95 % confidence); the lower end takes all they spent as lost, the upper one adds runs of "
        "unknown success",
        computed=f"the default rules of ab.Loops over {found.signed:,} of {found.runs:,} recorded runs: spend behind "
        f"the halt, mostly of {', '.join(map(named, dearest))}",
        change="ab.Budget(loops=ab.Loops())",
        verify=f"agentbudget replay {asked.record.path} --loops",
        risk="a halted task has no answer: land it with BudgetMiddleware(on_limit='finish')",
    )


def outcomes(asked: Asked) -> None:
    """Say how much spend nobody judged."""
    (row,) = asked.record.history.rows(f"""
        SELECT coalesce(sum(cost) FILTER (good IS NULL), 0)::BIGINT AS unjudged
        FROM calls LEFT JOIN (SELECT task AS id, {asked.options.ok} AS good FROM tasks) ON id = root WHERE {RAN}
    """)  # noqa: S608 - constants, and a condition made of known dimensions
    if row["unjudged"]:
        asked.note(
            f"{asked.record.part(row['unjudged'])} is in tasks without an outcome (task.outcome(..., ok=...)): "
            "models and ceilings are judged by the others alone"
        )
