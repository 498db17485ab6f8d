"""What an adviser looks at: recorded calls as SQL, the traces behind them where there are any, and what both lack."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from agentbudget.domain.money import format_dollars
from agentbudget.finops.advisor.values import Saving
from agentbudget.finops.compact import OnProgress, is_archive
from agentbudget.finops.history import History, Period
from agentbudget.replay.importers import convert
from agentbudget.trace.files import Problem, trace_files

DAYS_A_MONTH = 30.4375
FEW_DAYS = 14
_DAY_SECONDS = 86_400
RAN = "kind = 'model' AND outcome NOT IN ('denied', 'refused', 'cached')"
"""Model calls that were served, as SQL over `calls`."""

FIRST_DAY = date(2000, 1, 1)
"""No call is older: importers number the steps of runs without times from 1970 on, and clocks start there."""
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Recorded spend, open for questions."""

    history: History
    path: str
    traces: str | None
    """Where the events are, for replay; None: there is only an archive."""
    cost: int
    """Nano-dollars of all calls."""
    days: float | None
    timed: bool
    """Whether calls have times."""
    notes: tuple[str, ...]

    @property
    def replayable(self) -> str:
        """What replay commands read: the traces, wherever those of an archive are."""
        return self.path if self.traces is not None else "TRACES"

    def month(self, saving: Saving) -> Saving | None:
        """*saving* at the same rate over a month; None where less than a day was recorded."""
        if self.days is None or self.days < 1:
            return None
        return saving.times(DAYS_A_MONTH / self.days)

    def part(self, nanos: int) -> str:
        """`$0.12 (3.4% of all)`."""
        of_all = f" ({nanos / self.cost:.1%} of all)" if self.cost else ""
        return f"{format_dollars(nanos)}{of_all}"


@contextmanager
def open_record(
    path: str | PathLike[str],
    *,
    period: Period | None = None,
    today: date | None = None,
    on_progress: OnProgress = lambda _done, _all: None,
) -> Iterator[Record]:
    """The record at *path*: an archive, traces, or files of another format that an importer reads.

    Raises:
        TraceError: there is nothing to read.
    """
    with ExitStack() as stack:
        where = fspath(path)
        traces: str | None = None
        problems: list[Problem] = []
        if "://" not in where and not is_archive(where):
            traces = where
            if any(_foreign(file) for file in trace_files(where)):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="agentbudget-advice-"))
                traces = str(Path(folder, "converted.jsonl"))
                convert(where, traces, on_problem=problems.append)
        history = stack.enter_context(History.open(traces or where, period=period, on_progress=on_progress))
        history.problems = [*problems, *history.problems]
        yield _described(history, where, traces, today or datetime.now(UTC).date())


def _foreign(file: Path) -> bool:
    """Whether somebody else wrote it. What cannot be read is left to those who say why."""
    with file.open("rb") as raw:
        zipped = raw.read(len(_GZIP)) == _GZIP
    try:
        with gzip.open(file) if zipped else file.open("rb") as plain:
            first: Any = json.loads(plain.readline())
    except (ValueError, OSError, EOFError):
        return False
    return not (isinstance(first, dict) and "event" in first)


def is_day(day: date, today: date) -> bool:
    """Whether a call can have been made on *day*: not before `FIRST_DAY`, nor after tomorrow."""
    return FIRST_DAY <= day <= today + timedelta(days=1)


def _described(history: History, path: str, traces: str | None, today: date) -> Record:
    sane = f"ended::DATE BETWEEN DATE '{FIRST_DAY}' AND DATE '{today + timedelta(days=1)}'"
    (row,) = history.rows(f"""
        SELECT coalesce(sum(cost), 0)::BIGINT AS cost, min(ended) FILTER ({sane}) AS first,
               max(ended) FILTER ({sane}) AS last, count(DISTINCT ended::DATE) FILTER ({sane}) AS active,
               count(*) AS every, coalesce(sum(cost) FILTER (NOT {sane}), 0)::BIGINT AS wild,
               count(*) FILTER ({RAN}) AS calls,
               count(*) FILTER ({RAN} AND NOT priced) AS unpriced,
               coalesce(sum(input_tokens + output_tokens), 0)::BIGINT AS tokens,
               coalesce(sum(input_tokens + output_tokens) FILTER (NOT priced), 0)::BIGINT AS unpriced_tokens,
               coalesce(sum(cost) FILTER (estimated), 0)::BIGINT AS estimated,
               coalesce(sum(cost) FILTER ({RAN} AND input_tokens + output_tokens = 0), 0)::BIGINT AS blind
        FROM calls
    """)  # noqa: S608 - constants
    timed = row["first"] is not None
    days = (row["last"] - row["first"]).total_seconds() / _DAY_SECONDS if timed else None
    record = Record(
        history=history, path=path, traces=traces, cost=row["cost"], days=days, timed=timed, notes=tuple(_told(row))
    )
    return _noted(record, row)


def _told(row: dict[str, Any]) -> Iterator[str]:
    """What the calls lack, whatever they cost."""
    if row["unpriced"]:
        part = f", with {row['unpriced_tokens'] / row['tokens']:.1%} of all tokens" if row["tokens"] else ""
        yield (
            f"{row['unpriced']:,} of {row['calls']:,} model calls have no price{part}: what they cost is in no number "
            "here (declare prices: Governor(prices=...))"
        )
    if row["first"] is None:
        if row["every"]:
            yield "no times are recorded: nothing can be said of a month, and prices of today stand for prices then"
        return
    span = (row["last"].date() - row["first"].date()).days + 1
    seconds = (row["last"] - row["first"]).total_seconds()
    if seconds < _DAY_SECONDS:
        yield f"{seconds / 3600:.1f} hours are recorded: too little to say anything of a month"
    elif span < FEW_DAYS:
        yield f"{span} days are recorded: a month is that, scaled, and no forecast"
    if span - row["active"] > span // 3:
        yield (
            f"{span - row['active']} of {span} days have no call (nobody worked, or nothing was recorded); a month "
            "counts them as days without spend"
        )


def _noted(record: Record, row: dict[str, Any]) -> Record:
    """*record* with what is said in shares of its money."""
    notes = list(record.notes)
    if record.timed and row["wild"]:
        notes.append(
            f"{record.part(row['wild'])} has times that cannot be (before {FIRST_DAY.year}, or after tomorrow): "
            "it counts, but not for how long was recorded"
        )
    if row["estimated"]:
        notes.append(f"{record.part(row['estimated'])} rests on estimated usage")
    if row["blind"]:
        notes.append(f"{record.part(row['blind'])} has no token counts: no lever on tokens or prices sees it")
    if record.history.problems:
        notes.append(f"{len(record.history.problems):,} lines or files could not be read and are in no number here")
    return Record(
        history=record.history,
        path=record.path,
        traces=record.traces,
        cost=record.cost,
        days=record.days,
        timed=record.timed,
        notes=tuple(notes),
    )
