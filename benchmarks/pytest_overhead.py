"""What the pytest plugin adds to 1,000 trivial tests that carry the marker, and to its own import.

Each round runs the same tests once with the plugin and once without (`-p no:agentbudget`), in an order that
alternates; compared is the CPU time of the pytest process, as the median of the rounds' ratios. The tests run no model,
so each also pays for the warning that its budget has nothing to govern. Run: `python benchmarks/pytest_overhead.py`.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = 1_000
ROUNDS = 9
BAR = 1.05
IMPORT_BAR_SECONDS = 0.010
_INI = "[pytest]\nmarkers = budget: known without the plugin too\n"
_TEST = """
@pytest.mark.budget(max_cost="$0.05", max_model_calls=6)
def test_{number}():
    assert {number} == {number}
"""


def cpu_of(folder: Path, *options: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert f"{TESTS} passed" in done.stdout, done.stdout[-2000:]
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def overhead(folder: Path) -> float:
    """The median of the rounds' ratios."""
    ratios = []
    for number in range(ROUNDS):
        if number % 2:
            with_plugin, without = cpu_of(folder), cpu_of(folder, "-p", "no:agentbudget")
        else:
            without, with_plugin = cpu_of(folder, "-p", "no:agentbudget"), cpu_of(folder)
        ratios.append(with_plugin / without)
    return statistics.median(ratios)


def import_seconds() -> float:
    """Seconds of importing the plugin where pytest is imported already: the best of several processes."""
    code = (
        "import pytest; from time import perf_counter as now\n"
        "began = now(); import agentbudget.pytest_plugin; print(now() - began)"
    )
    times = []
    for _ in range(ROUNDS):
        started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        times.append(float(started.stdout))
    return min(times)


def main() -> None:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text(_INI, encoding="utf-8")
        tests = "".join(_TEST.format(number=number) for number in range(TESTS))
        (folder / "test_trivial.py").write_text(f"import pytest\n{tests}", encoding="utf-8")
        ratio = overhead(folder)
    loading = import_seconds()
    print(f"1,000 trivial tests with a budget: {ratio:.3f} of the CPU without the plugin (bar {BAR})")
    print(f"import of the plugin: {loading * 1000:.1f} ms (bar {IMPORT_BAR_SECONDS * 1000:.0f} ms)")
    print(f"took {time.perf_counter() - began:.0f} s")
    assert ratio <= BAR
    assert loading <= IMPORT_BAR_SECONDS


if __name__ == "__main__":
    main()
