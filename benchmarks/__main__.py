"""All benchmarks, one after the other: `python -m benchmarks`, or some of them by name: `python -m benchmarks pricing`.

Each prints its figures as ratios to a floor that is measured in the same run. Exit code 1 if one of them says that a
bar it holds itself to is missed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    """Run the benchmarks called *names*, or all."""
    scripts = sorted(path for path in HERE.glob("[!_]*.py") if not names or path.stem in names)
    missed = []
    for script in scripts:
        print(f"\n== {script.stem}", flush=True)
        if subprocess.run([sys.executable, "-W", "ignore", str(script)], check=False).returncode:
            missed.append(script.stem)
    print(f"\n{len(scripts)} benchmarks" + (f"; missed a bar: {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
