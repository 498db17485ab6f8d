"""Export: a million recorded calls to FOCUS Parquet, a row for each meter of each call; its time and its memory.

    python benchmarks/focus.py [CALLS]

Half of the calls are model calls that cost something; the others cost nothing and have no row. Wall seconds. Memory is
the peak of a process of its own, at a quarter of the calls and at all of them.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from agentbudget.finops.exports.focus import FocusOptions, export_focus
from agentbudget.finops.history import History

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.attribution import archive

MOST_SECONDS = 60.0
MOST_GROWTH = 1.5
"""Most that four times as many calls may add to the peak memory."""


def export(folder: str) -> None:
    """One export; prints its rows, seconds and the peak memory of this process."""
    start = perf_counter()
    with History.open(Path(folder, "spend")) as history:
        rows = export_focus(history, Path(folder, "focus.parquet"), FocusOptions(account="org", level="call"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rows": rows, "seconds": perf_counter() - start, "memory": memory}))


def main(calls: int) -> int:
    """Print the table; 1 if a bar is missed."""
    found = []
    for count in (calls // 4, calls):
        with tempfile.TemporaryDirectory() as folder:
            archive(Path(folder), count)
            command = [sys.executable, __file__, "--export", folder]
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        memory = told["memory"] / 2**20
        print(
            f"{count:>10,} calls: {told['rows']:>10,} rows in {told['seconds']:5.1f} s, peak memory {memory:,.0f} MiB"
        )
        found.append(told)
    growth = found[1]["memory"] / found[0]["memory"]
    print(f"bars: {MOST_SECONDS:.0f} s, memory grows {growth:.2f}x (at most {MOST_GROWTH})")
    return int(found[1]["seconds"] > MOST_SECONDS or growth > MOST_GROWTH)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--export"]:
        export(sys.argv[2])
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
