"""The committed costs of tests: a JSON file with one line a number, sorted, so that a review shows what changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from agentbudget.domain.money import NANOS_PER_DOLLAR, dollars, format_dollars
from agentbudget.errors import AgentBudgetError
from agentbudget.pytest_plugin.costs import Numbers, TestCost

VERSION: Final = 1
_COUNTS: Final = ("input_tokens", "output_tokens", "model_calls", "tool_calls")


class BaselineError(AgentBudgetError, ValueError):
    """The file is no baseline that this version can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One number of a test against its baseline."""

    name: str
    before: int
    now: int

    def __str__(self) -> str:
        show = format_dollars if self.name == "cost" else "{:,}".format
        more = self.now - self.before
        share = f" ({more / self.before:+.1%})" if self.before else ""
        return f"{self.name} {show(self.before)} -> {show(self.now)}{share}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What writing the costs of a session changes."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: int = 0

    def __str__(self) -> str:
        return f"{len(self.added)} added, {len(self.changed)} changed, {len(self.removed)} removed, {self.kept} kept"


def read(path: Path) -> dict[str, Numbers]:
    """The numbers of each test in the file at *path*.

    Raises:
        BaselineError: it cannot be read, is damaged or was written by another version; the message names the place.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        msg = f"{path}: cannot be read ({problem.strerror})."
        raise BaselineError(msg) from problem
    except ValueError as problem:
        msg = f"{path}: no JSON ({problem}). A merge may have left both sides in it; make it anew with --budget-update."
        raise BaselineError(msg) from problem
    if not isinstance(content, dict) or "version" not in content:
        msg = f"{path}: no baseline of costs: its version is missing."
        raise BaselineError(msg)
    if content["version"] != VERSION:
        msg = f"{path}: version {content['version']!r}, but this version of agentbudget reads {VERSION}."
        raise BaselineError(msg)
    tests = content.get("tests")
    if not isinstance(tests, dict):
        msg = f"{path}: 'tests' is missing."
        raise BaselineError(msg)
    return {test: _numbers(path, test, entry) for test, entry in tests.items()}


def differences(before: Numbers, now: Numbers, tolerance: float, *, only_above: bool = False) -> list[Change]:
    """The numbers that differ by more than *tolerance* (a share of the baseline)."""
    found = []
    for name in ("cost", *_COUNTS):
        old, new = getattr(before, name), getattr(now, name)
        difference = new - old if only_above else abs(new - old)
        if difference > old * tolerance:
            found.append(Change(name=name, before=old, now=new))
    return found


def merged(
    before: Mapping[str, Numbers], costs: Iterable[TestCost], *, root: Path, tolerance: float, live_tolerance: float
) -> tuple[dict[str, Numbers], Update]:
    """*before* with the numbers of *costs*. A number within its tolerance stays as it is, so that the file only changes
    where the tests did; tests whose file is gone are dropped, others that did not run are kept."""
    after = {test: numbers for test, numbers in before.items() if (root / test.partition("::")[0]).exists()}
    removed = tuple(sorted(set(before) - set(after)))
    added, changed = [], []
    for cost in costs:
        if cost.new is None:
            continue
        old = after.get(cost.nodeid)
        if old is None:
            added.append(cost.nodeid)
        elif differences(old, cost.new, live_tolerance if cost.live else tolerance):
            changed.append(cost.nodeid)
        else:
            continue
        after[cost.nodeid] = cost.new
    kept = len(after) - len(added) - len(changed)
    return after, Update(added=tuple(sorted(added)), changed=tuple(sorted(changed)), removed=removed, kept=kept)


def write(path: Path, tests: Mapping[str, Numbers]) -> None:
    """Write *tests* to *path*, whole or not at all."""
    content = {"version": VERSION, "tests": {test: _entry(numbers) for test, numbers in tests.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    fresh.replace(path)


def _entry(numbers: Numbers) -> dict[str, Any]:
    return {"cost": f"{dollars(numbers.cost):f}", **{name: getattr(numbers, name) for name in _COUNTS}}


def _numbers(path: Path, test: str, entry: Any) -> Numbers:
    try:
        cost = Decimal(entry["cost"]) * NANOS_PER_DOLLAR
        counts = {name: entry[name] for name in _COUNTS}
        whole = cost == cost.to_integral_value() and cost >= 0
        if not whole or not all(type(count) is int and count >= 0 for count in counts.values()):
            raise ValueError  # noqa: TRY301 - one message for whatever is wrong with the entry
    except (TypeError, KeyError, ValueError, InvalidOperation):
        msg = f"{path}: the entry of {test!r} is damaged; make it anew with --budget-update."
        raise BaselineError(msg) from None
    return Numbers(cost=int(cost), **counts)
