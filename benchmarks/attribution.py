"""Attribution: a table of spend over ten million recorded calls, its time and its memory.

    python benchmarks/attribution.py [CALLS]

The archive is made by the query engine (seconds, not measured); queried in a process of its own, so that the peak
memory is that of the query alone. Wall seconds on the cores that are there.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import duckdb
import pyarrow as pa

from agentbudget.finops.attribution import attribute, unit_costs
from agentbudget.finops.compact import compact
from agentbudget.finops.history import History
from agentbudget.finops.schema import CALLS

MOST_SECONDS = 10.0
MOST_MEMORY = 2 << 30
DAYS = 30
_VALUES = {
    "ended": "TIMESTAMPTZ '2026-11-01 00:00:00+00' + INTERVAL 1 SECOND * (day_number * 86400 + i % 86400)",
    "call": "'0198c0de-0000-7000-8000-' || lpad(i::VARCHAR, 12, '0')",
    "operation": "'0198c0de-0000-7000-8000-' || lpad(i::VARCHAR, 12, '0')",
    "attempt": "1",
    "task": "'task-' || (i // 20)",
    "root": "'task-' || (i // 20)",
    "task_name": "'kind-' || (i // 20 % 7)",
    "kind": "CASE WHEN i % 2 = 0 THEN 'model' ELSE 'tool' END",
    "name": "CASE WHEN i % 2 = 0 THEN 'gpt-4o' ELSE 'search' END",
    "model": "CASE WHEN i % 2 = 0 THEN 'gpt-' || (i % 5) ELSE '' END",
    "provider": "'openai'",
    "outcome": "'ok'",
    "cost": "CASE WHEN i % 2 = 0 THEN hash(i) % 20000000 ELSE 0 END",
    "input_tokens": "CASE WHEN i % 2 = 0 THEN 1000 + i % 9000 ELSE 0 END",
    "output_tokens": "CASE WHEN i % 2 = 0 THEN 50 + i % 400 ELSE 0 END",
    "feature": "CASE WHEN i % 11 > 0 THEN 'feature-' || (i // 20 % 12) END",
    "team": "'team-' || (i // 20 % 5)",
    "user": "'user-' || (i // 20 % 50000)",
    "price": """'{"provider":"openai","model":"gpt-4o","prices":{"input":"2.5","output":"10"}}'""",
    "tags": "MAP {'lang': CASE WHEN i % 3 = 0 THEN 'de' ELSE 'en' END}",
}
"""What is not here is false, 0, empty or null."""


def archive(folder: Path, calls: int) -> None:
    """An archive of *calls* calls over `DAYS` days, by the engine's own generator."""
    trace = folder / "empty.jsonl"
    trace.write_bytes(b'{"event":"trace_opened","at":0,"schema":1,"version":"0"}\n')
    compact(trace, folder / "spend", on_problem=print)
    columns = ", ".join(f'{_value(field)} AS "{field.name}"' for field in CALLS)
    con = duckdb.connect()
    for day in range(DAYS):
        where = folder / "spend" / "calls" / f"day=2026-11-{day + 1:02}"
        where.mkdir(parents=True)
        first, last = day * calls // DAYS, (day + 1) * calls // DAYS
        con.execute(
            f"COPY (SELECT {columns} FROM (SELECT range AS i, {day} AS day_number FROM range({first}, {last}))) "  # noqa: S608 - constants
            f"TO '{where}/part-00000001-0001.parquet' (FORMAT parquet, COMPRESSION zstd)"
        )
    con.close()


def _value(field: pa.Field) -> str:
    kind = {pa.string(): "VARCHAR", pa.bool_(): "BOOLEAN", pa.int32(): "INTEGER", pa.float64(): "DOUBLE"}
    blank = {pa.string(): "''", pa.bool_(): "false"}
    if field.name == "priced":
        return "true"
    if field.name in _VALUES:
        return f"({_VALUES[field.name]})" if field.type != pa.int64() else f"({_VALUES[field.name]})::BIGINT"
    if field.name in {"tenant", "decision", "env"}:
        return "NULL::VARCHAR"
    return f"{blank.get(field.type, '0')}::{kind.get(field.type, 'BIGINT')}"


def query(spend: str) -> None:
    """What a report asks for; prints its times and the peak memory of this process."""
    begun = perf_counter()
    seconds, calls = {}, 0
    with History.open(spend) as history:
        for by in (["feature", "model"], ["team", "day"], ["user"], ["tag:lang", "agent"]):
            start = perf_counter()
            table = attribute(history, by)
            seconds["by " + ",".join(by)] = perf_counter() - start
            assert sum(row.cost for row in table.rows) == table.total.cost
            calls = table.total.calls
        start = perf_counter()
        unit_costs(history, per="feature")
        seconds["unit costs"] = perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "all": perf_counter() - begun, "memory": memory, "calls": calls}))


def main(calls: int) -> int:
    """Print the table; 1 if a bar is missed."""
    with tempfile.TemporaryDirectory() as folder:
        archive(Path(folder), calls)
        command = [sys.executable, __file__, "--query", f"{folder}/spend"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{found['calls']:,} calls in Parquet")
    for name, took in found["seconds"].items():
        print(f"  {name:24} {took:6.2f} s")
    slowest = max(found["seconds"].values())
    print(
        f"slowest table {slowest:.2f} s (bar {MOST_SECONDS:.0f}), peak memory {found['memory'] / 2**30:.2f} GiB (bar 2)"
    )
    return int(slowest > MOST_SECONDS or found["memory"] > MOST_MEMORY)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--query"]:
        query(sys.argv[2])
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000))
