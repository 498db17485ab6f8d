"""The page of spend over a million recorded calls: its time, its memory and its size.

    python benchmarks/spend_page.py [CALLS]

The archive is made by the query engine and not measured. 50,000 users, 12 features, 30 days. CPU seconds of this
process, all threads together; peak memory includes the engine's.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time

sys.path.insert(0, str(Path(__file__).parents[1]))
from agentbudget.finops.history import History
from agentbudget.reports.spend import spend_page
from benchmarks.attribution import archive

MOST_SECONDS = 10.0
MOST_BYTES = 2_000_000


def main(calls: int) -> int:
    """Print the figures; 1 if a bar is missed."""
    with tempfile.TemporaryDirectory() as folder:
        archive(Path(folder), calls)
        begun, cpu = perf_counter(), process_time()
        with History.open(Path(folder, "spend")) as history:
            html = spend_page(history, now=datetime(2026, 12, 1, tzinfo=UTC))
        took, cpu = perf_counter() - begun, process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    size = len(html.encode())
    print(f"{calls:,} calls: {cpu:.1f} s of CPU (bar {MOST_SECONDS:.0f}), {took:.1f} s on the clock, {memory:,.0f} MiB")
    print(f"page: {size / 1e6:.2f} MB (bar {MOST_BYTES / 1e6:.0f})")
    return int(cpu > MOST_SECONDS or size > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
