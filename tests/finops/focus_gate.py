"""The FOCUS files of this project under the validator of the FinOps Foundation: `make focus`.

    python tests/finops/focus_gate.py PYTHON_OF_THE_VALIDATOR [FILE]

Without a file the exports of an example are judged, with one only that: `make focus FILE=focus.csv`.

The validator needs Python 3.12, an environment of its own, and its own folder as working directory. Its exit code says
nothing, so its report is read. Pass 1: everything holds but one rule, which contradicts another (FOCUS_Spec issue
2394). Pass 2: rules of arithmetic only run where `ChargeClass` has a value, so a copy has one; a third file with a cost
that is wrong shows that they do run.
"""

# ruff: noqa: T201 - it prints
from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from agentbudget.finops.exports.focus import FocusOptions, export_focus
from agentbudget.finops.history import History
from tests.finops.traces import DAY, START, called, closed, opened, write

ALLOWED = {"InvoiceId-C-005-C"}
BY_THE_TRICK = {"ChargeClass-C-000-M", "ChargeClass-C-005-C"}
CRITERIA = (
    "ACCOUNT_NAMING_SUPPORTED,PUBLIC_PRICE_LIST_SUPPORTED,USAGE_MEASUREMENT_SUPPORTED,UNIT_PRICING_SUPPORTED,"
    "SUB_ACCOUNT_SUPPORTED,NEGOTIATED_PRICING_SUPPORTED,MULTIPLE_PRICING_CATEGORIES_SUPPORTED,TAGGING_SUPPORTED"
)
LEAST_PASSED = 240
"""Rules that must have passed, so that a run that checked nothing does not."""


def examples(folder: Path) -> Path:
    """Traces with what an export meets: tags, caches, a discount, a charge without usage, a tool."""
    for number in range(40):
        task, at = f"t{number}", START + number * DAY / 4
        usage = {"input_tokens": 1000 + number, "cache_read_tokens": 400, "output_tokens": 30, "reasoning_tokens": 10}
        events = [*opened(task, at=at, name="triage", feature="support", team="cx", lang="de")]
        cost = (600 + number) * 2500 + 400 * 1250 + 30 * 10_000
        events += called(f"a{number}", task, at=at, cost=cost, usage=usage)
        events += called(f"b{number}", task, at=at + 2, cost=cost // 2, usage=usage)
        events += called(f"c{number}", task, at=at + 4, cost=9_000_000, usage={}, source="reserved")
        events += called(f"d{number}", task, at=at + 6, cost=1_000_000, usage={}, price=None, kind="tool", name="maps")
        write(folder / f"{task}.jsonl", [*events, *closed(task, at=at + 9)])
    return folder


def failed_rules(python: Path, file: Path) -> set[str]:
    """The rules that *file* breaks, by the validator."""
    place = subprocess.run(
        [python, "-c", "import focus_validator, os; print(os.path.dirname(os.path.dirname(focus_validator.__file__)))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    command: list[str | Path] = [
        *(python.parent / "focus-validator", "--data-file", file, "--validate-version", "1.2.0.1"),
        *("--block-download", "--focus-dataset", "CostAndUsage", "--applicability-criteria", CRITERIA),
    ]
    said = subprocess.run(command, check=False, capture_output=True, text=True, cwd=place).stdout
    total = re.search(r"Total: \d+ \| Pass: (\d+)", said)
    if total is None or int(total[1]) < LEAST_PASSED:
        raise SystemExit(f"the validator did not do its work on {file.name}:\n{said[-2000:]}")
    return set(re.findall(r"❌ (\S+?):", said))


def changed(file: Path, name: str, **columns: str) -> Path:
    """A copy of a CSV with *columns* set in every row."""
    copy = file.with_name(name)
    with file.open(newline="") as source, copy.open("w", newline="") as target:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, reader.fieldnames or [])
        writer.writeheader()
        writer.writerows({**row, **columns} for row in reader)
    return copy


def judged(python: Path, file: Path) -> int:
    """One file of a user: both passes, the second one only of a CSV."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = {file: ALLOWED}
        if file.suffix == ".csv":
            copy = Path(shutil.copy(file, folder))
            wanted[changed(copy, "arithmetic.csv", ChargeClass="zz")] = ALLOWED | BY_THE_TRICK
        wrong = 0
        for each, allowed in wanted.items():
            broken = failed_rules(python, each) - allowed
            print(f"{each.name:16} {'WRONG: breaks ' + ', '.join(sorted(broken)) if broken else 'ok'}")
            wrong += bool(broken)
        return int(wrong > 0)


def main(python: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        traces, out = examples(Path(folder) / "traces"), Path(folder)
        with History.open(traces) as history:
            options = FocusOptions(account="org-acme", account_name="Acme")
            export_focus(history, out / "calls.csv", replace(options, level="call"))
            export_focus(history, out / "days.parquet", options)
        tampered = changed(out / "calls.csv", "tampered.csv", ChargeClass="zz", ListCost="7.0")
        wanted = {
            out / "calls.csv": ALLOWED,
            out / "days.parquet": ALLOWED,
            changed(out / "calls.csv", "arithmetic.csv", ChargeClass="zz"): ALLOWED | BY_THE_TRICK,
        }
        wrong = 0
        for file, allowed in wanted.items():
            broken = failed_rules(python, file)
            print(f"{file.name:16} {'ok' if broken == allowed else 'WRONG'}: breaks {', '.join(sorted(broken))}")
            wrong += broken != allowed
        seen = failed_rules(python, tampered) - ALLOWED - BY_THE_TRICK
        print(f"{tampered.name:16} {'ok, caught by' if seen else 'WRONG: not caught'} {', '.join(sorted(seen))}")
        return int(bool(wrong) or not seen)


if __name__ == "__main__":
    sys.exit(judged(Path(sys.argv[1]), Path(sys.argv[2]).resolve()) if sys.argv[2:] else main(Path(sys.argv[1])))
