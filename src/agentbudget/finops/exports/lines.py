"""The lines of an export: the meters of calls that are alike in a period, and their way into a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from os import PathLike
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from agentbudget.errors import ConfigurationError
from agentbudget.finops.dimensions import quoted
from agentbudget.finops.exports.meters import REST, metered
from agentbudget.finops.history import History
from agentbudget.finops.schema import KNOWN_TAGS

Level = Literal["call", "hour", "day", "month"]
OnProgress = Callable[[int, int], None]
"""Calls done, and in all."""

METERS = {
    "input": "Input Tokens",
    "cache_read": "Cache Read Input Tokens",
    "cache_write_5m": "Cache Write Input Tokens",
    "cache_write_1h": "Cache Write 1h Input Tokens",
    "input_audio": "Audio Input Tokens",
    "cache_audio_read": "Cache Read Audio Input Tokens",
    "input_image": "Image Input Tokens",
    "output": "Output Tokens",
    "reasoning": "Reasoning Output Tokens",
    "output_audio": "Audio Output Tokens",
    "output_image": "Image Output Tokens",
    "web_search": "Web Searches",
    "request": "Requests",
    REST: "Charges without Metered Usage",
}
UNITS = {"web_search": "Searches", "request": "Requests", REST: "Requests"}
"""Meters that are not paid by tokens."""
DOLLARS = "billed * 0.000000001::DECIMAL(10, 9)"
"""What was charged for a line, in dollars."""
MONEY = pa.decimal128(38, 15)
TIME = pa.timestamp("s", tz="UTC")
TEXT = pa.string()

_BATCH = 50_000
"""Rows handed on at once."""
_CALLS = 100_000
"""Calls that are split at once: a day of more is split as a whole."""


def write_lines(
    history: History,
    target: str | PathLike[str],
    columns: Mapping[str, tuple[pa.DataType, str]],
    level: Level,
    *,
    on_progress: OnProgress = lambda _done, _all: None,
) -> int:
    """Write the lines of *history* to *target*, a `.csv` or `.parquet` file, and return how many they were.

    *columns*: name → type (`MONEY`, `TIME` or `TEXT`) and SQL over `lines`. The file appears when it is whole; memory
    is bounded, see `_CALLS`. In CSV times are text and no cell is a formula.

    Raises:
        ConfigurationError: the ending of *target* is neither.
    """
    file = Path(target)
    if file.suffix not in {".csv", ".parquet"}:
        msg = f"{file}: an export ends in .csv or .parquet."
        raise ConfigurationError(msg)
    csv = file.suffix == ".csv"
    schema = pa.schema([(name, TEXT if csv and kind == TIME else kind) for name, (kind, _) in columns.items()])
    made = ", ".join(f'{_cell(kind, value, csv=csv)} AS "{name}"' for name, (kind, value) in columns.items())
    partial = file.with_name(file.name + ".part")
    parts, rows, done = list(_parts(history, level)), 0, 0
    total = sum(calls for _, calls in parts)
    with pc.CSVWriter(partial, schema) if csv else pq.ParquetWriter(partial, schema) as writer:
        for where, calls in parts:
            query = f"SELECT {made} FROM ({lines(history, where, level)})"  # noqa: S608 - columns of our own
            for batch in history.con.sql(query).to_arrow_reader(_BATCH):
                writer.write_batch(batch.cast(schema))
                rows += batch.num_rows
            done += calls
            on_progress(done, total)
    partial.replace(file)
    return rows


def _cell(kind: pa.DataType, value: str, *, csv: bool) -> str:
    if kind == MONEY:
        return f"({value})::DECIMAL(38, 15)"
    if kind == TIME:
        return f"strftime({value}, '%Y-%m-%dT%H:%M:%SZ')" if csv else value
    return f"({_harmless(value) if csv else value})::VARCHAR"


def lines(history: History, where: str, level: Level) -> str:
    """SQL of the lines: meters of calls that are alike as one; at level `call` each stays alone.

    Columns: `period` (its start), `provider`, `thing` (model or tool), `tier`, `agent`, `task_name`, `team`, `tags`
    (JSON), `meter`, `units`, `sku`, `quantity`, `per` (1, or a millionth), `unit` (dollars a million tokens, or one),
    `list_cost` (dollars), `billed` (nano-dollars), `estimated`; at level `call` also `call` and `task`.
    """
    alone = ", call, task" if level == "call" else ""
    known = ", ".join(f"{{'key': '{tag}', 'value': {tag}}}" for tag in KNOWN_TAGS)
    meters = " ".join(f"WHEN '{bucket}' THEN '{meter}'" for bucket, meter in METERS.items())
    units = " ".join(f"WHEN '{bucket}' THEN '{unit}'" for bucket, unit in UNITS.items())
    single = ", ".join(quoted(bucket) for bucket in UNITS)
    return f"""
        SELECT date_trunc('{"hour" if level == "call" else level}', ended) AS period,
               coalesce(nullif(provider, ''), 'unknown') AS provider, coalesce(nullif(model, ''), name) AS thing,
               coalesce(nullif(tier, ''), 'standard') AS tier, nullif(agent, '') AS agent,
               nullif(task_name, '') AS task_name, team, estimated, unit{alone},
               to_json(map_from_entries(list_sort(list_concat(
                   list_filter([{known}], lambda tag: tag.value IS NOT NULL), map_entries(tags)
               ))))::VARCHAR AS tags,
               CASE bucket {meters} END AS meter,
               CASE bucket {units} ELSE 'Tokens' END AS units,
               coalesce(nullif(provider, ''), 'unknown') || '/' || coalesce(nullif(model, ''), name) || '/'
                   || replace(bucket, '_', '-') AS sku,
               CASE WHEN bucket IN ({single}) THEN 1 ELSE 0.000001 END::DECIMAL(7, 6) AS per,
               sum(quantity)::DECIMAL(18, 0) AS quantity, sum(list_cost)::DECIMAL(38, 15) AS list_cost,
               sum(billed)::DECIMAL(19, 0) AS billed
        FROM ({metered(history, where=where)}) GROUP BY ALL ORDER BY ALL
    """  # noqa: S608 - constants


def _parts(history: History, level: Level) -> Iterator[tuple[str, int]]:
    """Conditions that cut the history into parts of some `_CALLS` calls, and the calls of each. No two share a day,
    at level `month` a month, so that what is alike in a period is in one part."""
    start = "date_trunc('month', day)::DATE" if level == "month" else "day"
    query = f"SELECT {start} AS first, count(*) AS calls FROM calls GROUP BY ALL ORDER BY first"  # noqa: S608 - constant
    begun: date | None = None
    calls = 0
    rows = history.rows(query)
    for number, row in enumerate(rows):
        begun = begun or row["first"]
        calls += row["calls"]
        if calls >= _CALLS or number == len(rows) - 1:
            yield f"{start} BETWEEN DATE '{begun}' AND DATE '{row['first']}'", calls
            begun, calls = None, 0


def _harmless(text: str) -> str:
    """*text* so that no spreadsheet takes it for a formula: an apostrophe before `= + - @`, tab and return."""
    return f"CASE WHEN regexp_matches(({text}), '^[=+@\\t\\r-]') THEN '''' || ({text}) ELSE ({text}) END"
