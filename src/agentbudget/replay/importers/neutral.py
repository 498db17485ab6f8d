"""Neutral rows: a `trajectory` row, followed by its `step` rows.

A trajectory has `traj_id, source, success`, and `cost, model, agent` where known; a step has `kind` (`model` or
`tool`), `name`, hashes of arguments and result, and `tokens_in, tokens_out, cached, cost` (or `cum_cost`) where
recorded. Steps have no times: each takes a second. What the trajectory cost beyond its steps is one call more,
called `unrecorded`, so that totals are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentbudget.domain.usage import Usage
from agentbudget.replay.importers import build
from agentbudget.replay.importers.build import Attempt
from agentbudget.replay.importers.protocol import Record, Tell
from agentbudget.trace.events import Event

_ROUNDING = 20_000
"""Nano-dollars a step by which recorded steps may differ from their recorded total: they were rounded to $0.00001."""

_UNREADABLE = "format_error"
"""What some agents record, as a tool, for a reply that nobody can read."""


class Neutral:
    """The importer."""

    name = "neutral"

    def recognizes(self, record: Mapping[str, Any]) -> bool:
        """Whether it is such a row."""
        return record.get("type") in {"trajectory", "step"} and "traj_id" in record

    def events(self, records: Iterator[Record], tell: Tell) -> Iterator[Event]:
        """The events of all trajectories, one after the other."""
        run: _Run | None = None
        for line, row in records:
            kind, task = row.get("type"), row.get("traj_id")
            if not isinstance(task, str) or kind not in {"trajectory", "step"}:
                tell(line, "neither a trajectory nor a step with a traj_id")
            elif kind == "trajectory":
                if run is not None:
                    yield from run.close()
                run = _Run(row, task)
                yield build.opened(task, run.name, 0.0, run.tags)
            elif run is None or run.task != task:
                tell(line, f"a step of {task!r}, whose trajectory row is not before it")
            else:
                try:
                    attempt = run.step(row)
                except (TypeError, ValueError) as problem:
                    tell(line, f"a step that cannot be right: {problem}")
                    continue
                yield from attempt.events()
        if run is not None:
            yield from run.close()


class _Run:
    """One trajectory while its steps arrive."""

    def __init__(self, row: Mapping[str, Any], task: str) -> None:
        self.task = task
        self.name = str(row.get("source") or "")
        tags = {key: str(row[key]) for key in ("model", "agent", "exit_status") if row.get(key)}
        ok = row.get("success")
        self.ok = ok if isinstance(ok, bool) else None
        self.tags = tags if self.ok is None else {**tags, "success": str(self.ok).lower()}
        self.total = build.nanos_of(row.get("cost"))
        self.cost = 0
        self.steps = 0

    def step(self, row: Mapping[str, Any]) -> Attempt:
        """The call that *row* is."""
        kind = str(row["kind"]) if row.get("kind") in {"model", "tool"} else ""
        if not kind:
            raise ValueError(f"kind={row.get('kind')!r}")
        into, read = build.count(row.get("tokens_in")), build.count(row.get("cached"))
        usage = Usage(input_tokens=into, output_tokens=build.count(row.get("tokens_out")), cache_read_tokens=read)
        cost = build.nanos_of(row.get("cost"))
        if cost is None and (summed := build.nanos_of(row.get("cum_cost"))) is not None:
            cost = max(0, summed - self.cost)
        self.steps += 1
        self.cost += cost or 0
        return Attempt(
            id=f"{self.task}#{self.steps}",
            task=self.task,
            kind=kind,
            name=str(row.get("name") or kind),
            at=float(self.steps),
            seconds=0.5,
            usage=usage,
            cost=cost,
            source="reported" if usage.total_tokens or cost is not None else "none",
            error="error" if row.get("error") else "",
            request=str(row.get("args_hash") or ""),
            unparsable=row.get("name") == _UNREADABLE,
            result=str(row.get("result_norm_hash") or row.get("result_hash") or ""),
            result_size=build.count(row.get("result_len")),
            step=self.steps,
        )

    def close(self) -> Iterator[Event]:
        """What the steps leave of the recorded cost, the outcome and the end."""
        missing = (self.total or 0) - self.cost
        if missing > _ROUNDING * self.steps:
            rest = Attempt(
                id=f"{self.task}#rest",
                task=self.task,
                kind="model",
                name="unrecorded",
                at=float(self.steps + 1),
                cost=missing,
                source="estimated",
            )
            self.cost += missing
            yield from rest.events()
        yield from build.closed(self.task, float(self.steps + 1), cost=self.cost, seconds=float(self.steps), ok=self.ok)
